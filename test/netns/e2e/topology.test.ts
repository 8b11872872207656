/**
 * Upstream's tests of trafficDistribution. What the field asks for is the endpoint slice controller's to answer, with
 * hints; here the test writes them as it does. A lab has two nodes, so each zone's clients ask in their turn: a
 * node moves to another zone by a new label on its Node object, nothing else.
 */
import { afterAll, beforeAll, describe, test } from 'vitest';
import { canMakeNamespaces, type Host, type Lab } from '../../support/netns-lab.ts';
import {
  atClusterIP,
  atNodePort,
  type EndpointAt,
  nodeObject,
  type TwoNodeServiceOptions,
  twoNodeService,
} from '../../support/two-nodes-objects.ts';
import { TwoNodes } from '../../support/two-nodes.ts';

/** Upstream wants ten answers in a row from where they should come. */
const TEN = { tries: 10 };

describe.skipIf(canMakeNamespaces() !== undefined)('[sig-network] Traffic Distribution', () => {
  let nodes: TwoNodes;
  let lab: Lab;
  let client: Host;
  let clientOn2: Host;

  beforeAll(async () => {
    nodes = await TwoNodes.start({ pods: 3 });
    ({ lab } = nodes);
    ({ client, clientOn2 } = nodes);
  });
  afterAll(async () => {
    await nodes?.[Symbol.asyncDispose]();
  });

  /** The objects with the two nodes in these zones; undefined: the Node has no such label. */
  const inZones = (
    [zone1, zone2]: readonly [zone1: string, zone2: string | undefined],
    service: TwoNodeServiceOptions,
  ): readonly object[] => [
    nodeObject(lab.node, { zone: zone1 }),
    nodeObject(lab.node2, zone2 === undefined ? {} : { zone: zone2 }),
    ...twoNodeService(service),
  ];

  const service = (
    name: string,
    number: number,
    trafficDistribution: string,
    endpoints: readonly EndpointAt[],
  ): TwoNodeServiceOptions => ({
    name,
    number,
    type: 'NodePort',
    endpoints,
    tweak: ({ spec }) => Object.assign(spec, { trafficDistribution }),
  });

  test.for([
    { distribution: 'PreferClose', number: 10 },
    { distribution: 'PreferSameZone', number: 11 },
  ])(
    'should route traffic to an endpoint in the same zone when using $distribution',
    async ({ distribution, number }) => {
      const web = service(`same-zone-${number}`, number, distribution, [
        { host: lab.pod(1), zoneHints: ['zone-a'] },
        { host: lab.podOn2(1), zoneHints: ['zone-b'] },
      ]);
      await nodes.apply(...inZones(['zone-a', 'zone-b'], web));
      await nodes.eventually(
        [
          [client, atClusterIP(number), 'pod1'],
          [lab.node, atClusterIP(number), 'pod1'],
          [lab.ext, atNodePort(number, lab.node), 'pod1'],
          [clientOn2, atClusterIP(number), 'node2-pod1'],
        ],
        TEN,
      );
      // The third zone has no endpoint of its own.
      await nodes.write(...inZones(['zone-c', 'zone-b'], web));
      await nodes.eventually([[client, atClusterIP(number), 'node2-pod1+pod1']], TEN);
      await nodes.expect([[clientOn2, atClusterIP(number), 'node2-pod1']], TEN);
    },
  );

  test.for([
    { distribution: 'PreferClose', number: 20 },
    { distribution: 'PreferSameZone', number: 21 },
  ])(
    'should route traffic correctly between pods on multiple nodes when using $distribution',
    async ({ distribution, number }) => {
      // Two endpoints in the first zone, one in the second, none in the third.
      const web = service(`multi-node-${number}`, number, distribution, [
        { host: lab.pod(1), zoneHints: ['zone-a'] },
        { host: lab.pod(2), zoneHints: ['zone-b'] },
        { host: lab.podOn2(1), zoneHints: ['zone-a'] },
      ]);
      await nodes.apply(...inZones(['zone-a', 'zone-a'], web));
      await nodes.eventually(
        [
          [client, atClusterIP(number), 'node2-pod1+pod1'],
          [clientOn2, atClusterIP(number), 'node2-pod1+pod1'],
        ],
        TEN,
      );
      await nodes.write(...inZones(['zone-c', 'zone-b'], web));
      await nodes.eventually(
        [
          [client, atClusterIP(number), 'node2-pod1+pod1+pod2'],
          [clientOn2, atClusterIP(number), 'pod2'],
        ],
        TEN,
      );
    },
  );

  test('PreferSameNode: the node’s own endpoint first, the zone’s where a node has none, then any', async () => {
    const web = service('same-node', 30, 'PreferSameNode', [
      { host: lab.pod(1), nodeHints: ['node1'], zoneHints: ['zone-a'] },
      { host: lab.pod(2), nodeHints: ['node3'], zoneHints: ['zone-b'] },
    ]);
    await nodes.apply(...inZones(['zone-b', 'zone-b'], web));
    await nodes.eventually(
      [
        [client, atClusterIP(30), 'pod1'],
        [clientOn2, atClusterIP(30), 'pod2'],
      ],
      TEN,
    );
    await nodes.write(...inZones(['zone-b', 'zone-c'], web));
    await nodes.eventually([[clientOn2, atClusterIP(30), 'pod1+pod2']], TEN);
    await nodes.expect([[client, atClusterIP(30), 'pod1']], TEN);
  });

  test('a node without a zone, or one endpoint without a hint, and hints count for nothing', async () => {
    const hinted = [{ host: lab.pod(1), zoneHints: ['zone-a'] }];
    const some = service('some-hints', 31, 'PreferClose', [...hinted, { host: lab.podOn2(1) }]);
    await nodes.apply(...inZones(['zone-a', 'zone-a'], some));
    await nodes.expect([[client, atClusterIP(31), 'node2-pod1+pod1']], TEN);
    const all = service('some-hints', 31, 'PreferClose', [
      ...hinted,
      { host: lab.podOn2(1), zoneHints: ['zone-b'] },
    ]);
    await nodes.apply(...inZones(['zone-a', undefined], all));
    await nodes.eventually([
      [client, atClusterIP(31), 'pod1'],
      [clientOn2, atClusterIP(31), 'node2-pod1+pod1'],
    ]);
  });

  test('hints are not for policy Local, and near endpoints that terminate make way for far ones that are ready', async () => {
    const local: TwoNodeServiceOptions = {
      name: 'local',
      number: 32,
      internal: 'Local',
      endpoints: [
        { host: lab.pod(1), zoneHints: ['zone-b'] },
        { host: lab.podOn2(1), zoneHints: ['zone-b'] },
      ],
    };
    await nodes.apply(...inZones(['zone-a', 'zone-b'], local));
    await nodes.expect([[client, atClusterIP(32), 'pod1']]);
    const leaving = service('leaving', 33, 'PreferClose', [
      { host: lab.pod(1), conditions: { ready: false, serving: true, terminating: true } },
      { host: lab.podOn2(1), zoneHints: ['zone-b'] },
    ]);
    await nodes.apply(...inZones(['zone-a', 'zone-b'], leaving));
    await nodes.expect([[client, atClusterIP(33), 'node2-pod1']]);
  });
});
