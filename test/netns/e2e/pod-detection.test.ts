/**
 * The short circuit of externalTrafficPolicy Local for each way to tell pods (`--detect-local-mode`): who counts as a
 * pod of the node is led to any endpoint, all others to those of the node only.
 */
import { afterAll, beforeAll, describe, test } from 'vitest';
import { podLinksUnderTest } from '../../support/capture-under-test.ts';
import { canMakeNamespaces, type Host, type Lab } from '../../support/netns-lab.ts';
import {
  atExternalIP,
  atLoadBalancerIP,
  atNodePort,
  nodeObject,
  twoNodeService,
} from '../../support/two-nodes-objects.ts';
import { type Row, TwoNodes } from '../../support/two-nodes.ts';

const NUMBER = 10;
const ANYBODY = 'node2-pod1+pod1';
const OWN = 'pod1';
/** By which interface the node gets what the client sends: bridged pods share theirs. */
const INTERFACE = { bridged: 'cni0', unnumbered: 'vp2' }[podLinksUnderTest()];

const MODES = [
  {
    way: 'ClusterCIDR',
    args: ['--cluster-cidr=10.244.0.0/16,fd00:244::/32'],
    // The range does not say whose pods they are.
    podElsewhere: ANYBODY,
  },
  { way: 'NodeCIDR', args: ['--detect-local-mode=NodeCIDR'], podElsewhere: OWN },
  {
    way: 'BridgeInterface',
    args: ['--detect-local-mode=BridgeInterface', `--pod-bridge-interface=${INTERFACE}`],
    podElsewhere: OWN,
  },
  {
    way: 'InterfaceNamePrefix',
    args: ['--detect-local-mode=InterfaceNamePrefix', `--pod-interface-name-prefix=${INTERFACE.slice(0, 2)}`],
    podElsewhere: OWN,
  },
];

describe.skipIf(canMakeNamespaces() !== undefined)('the short circuit of externalTrafficPolicy=Local', () => {
  let nodes: TwoNodes;
  let lab: Lab;

  beforeAll(async () => {
    nodes = await TwoNodes.start({
      objects: (made) => [
        nodeObject(made.node),
        nodeObject(made.node2),
        ...twoNodeService({
          name: 'web',
          number: NUMBER,
          type: 'LoadBalancer',
          external: 'Local',
          hasExternalIPs: true,
          endpoints: [made.pod(1), made.podOn2(1)],
        }),
      ],
    });
    ({ lab } = nodes);
  });
  afterAll(async () => {
    await nodes?.[Symbol.asyncDispose]();
  });

  const everyAddress = (from: Host, outcome: string): readonly Row[] => [
    [from, atNodePort(NUMBER, lab.node), outcome],
    [from, atLoadBalancerIP(NUMBER), outcome],
    [from, atExternalIP(NUMBER), outcome],
  ];

  test('without any way to tell pods is the node’s own alone', async () => {
    await nodes.expect([
      ...everyAddress(nodes.client, OWN),
      ...everyAddress(lab.node, ANYBODY),
      ...everyAddress(lab.ext, OWN),
    ]);
  });

  test.for(MODES)('is for pods told by $way', async ({ args, podElsewhere }) => {
    await nodes.restart('node1', args);
    await nodes.expect([
      ...everyAddress(nodes.client, ANYBODY),
      ...everyAddress(lab.node, ANYBODY),
      ...everyAddress(lab.ext, OWN),
      [nodes.clientOn2, atNodePort(NUMBER, lab.node), podElsewhere],
      [lab.node2, atNodePort(NUMBER, lab.node), OWN],
    ]);
  });
});
