/**
 * Upstream's "EndpointSlice" tests: several slices make one Service, by hand here as there, and what they add up to when
 * they overlap.
 */
import { afterAll, beforeAll, describe, test } from 'vitest';
import { canMakeNamespaces, type Host, type Lab } from '../../support/netns-lab.ts';
import {
  atClusterIP,
  type EndpointAt,
  FAMILIES,
  sliceOf,
  TERMINATING,
  twoNodeService,
} from '../../support/two-nodes-objects.ts';
import { TwoNodes } from '../../support/two-nodes.ts';

const PORT_80 = { portName: 'port80', port: 80 };
const PORT_81 = { portName: 'port81', port: 81 };

describe.skipIf(canMakeNamespaces() !== undefined)('[sig-network] EndpointSlice', () => {
  let nodes: TwoNodes;
  let lab: Lab;
  let client: Host;

  beforeAll(async () => {
    nodes = await TwoNodes.start();
    ({ lab, client } = nodes);
    for (const host of [lab.pod(1), lab.podOn2(1)])
      for (const port of [8090, 9090])
        await (await host.agent()).serveTcp({ port, mode: 'identify', name: `${host.name}:${port}` });
  });
  afterAll(async () => {
    await nodes?.[Symbol.asyncDispose]();
  });

  /** A Service `name` without a selector: with those two ports and no slices. */
  const withTwoPorts = (name: string, number: number): readonly object[] =>
    twoNodeService({
      name,
      number,
      endpoints: [],
      tweak: ({ spec }) => {
        spec.ports = [PORT_80, PORT_81].map(({ portName, port }) => ({
          name: portName,
          port,
          protocol: 'TCP',
        }));
      },
    }).slice(0, 1);

  const slices = (
    name: string,
    suffix: string,
    options: {
      readonly portName: string;
      readonly port: number;
      readonly at: readonly (Host | EndpointAt)[];
    },
  ): readonly object[] =>
    FAMILIES.map((family) => sliceOf(name, family, { ...options, endpoints: options.at, suffix }));

  test('should support a Service with multiple endpoint IPs specified in multiple EndpointSlices', async () => {
    await nodes.apply(
      ...withTwoPorts('multi-ip', 10),
      ...slices('multi-ip', '-1', { portName: 'port80', port: 8090, at: [lab.pod(1)] }),
      ...slices('multi-ip', '-2', { portName: 'port81', port: 8090, at: [lab.podOn2(1)] }),
    );
    await nodes.expect([
      [client, atClusterIP(10, 80), 'pod1:8090'],
      [client, atClusterIP(10, 81), 'node2-pod1:8090'],
      [nodes.clientOn2, atClusterIP(10, 80), 'pod1:8090'],
      [nodes.clientOn2, atClusterIP(10, 81), 'node2-pod1:8090'],
    ]);
  });

  test('should support a Service with multiple ports specified in multiple EndpointSlices', async () => {
    await nodes.apply(
      ...withTwoPorts('multi-port', 11),
      ...slices('multi-port', '-1', { portName: 'port80', port: 8090, at: [lab.pod(1)] }),
      ...slices('multi-port', '-2', { portName: 'port81', port: 9090, at: [lab.pod(1)] }),
    );
    await nodes.expect([
      [client, atClusterIP(11, 80), 'pod1:8090'],
      [client, atClusterIP(11, 81), 'pod1:9090'],
    ]);
  });

  test('one port name is another number in another slice', async () => {
    await nodes.apply(
      ...withTwoPorts('named', 12),
      ...slices('named', '-1', { portName: 'port80', port: 8090, at: [lab.pod(1)] }),
      ...slices('named', '-2', { portName: 'port80', port: 9090, at: [lab.podOn2(1)] }),
    );
    await nodes.expect([
      [client, atClusterIP(12, 80), 'node2-pod1:9090+pod1:8090'],
      [client, atClusterIP(12, 81), 'refused'],
    ]);
  });

  test('an endpoint that moves from slice to slice is never missing', async () => {
    const objects = (first: readonly Host[], second: readonly Host[]): readonly object[] => [
      ...withTwoPorts('moving', 13),
      ...slices('moving', '-1', { portName: 'port80', port: 8090, at: first }),
      ...slices('moving', '-2', { portName: 'port80', port: 8090, at: second }),
    ];
    await nodes.apply(...objects([lab.pod(1)], []));
    await nodes.expect([[client, atClusterIP(13, 80), 'pod1:8090']]);
    await nodes.apply(...objects([lab.pod(1)], [lab.pod(1)]));
    await nodes.expect([[client, atClusterIP(13, 80), 'pod1:8090']]);
    await nodes.apply(...objects([], [lab.pod(1)]));
    await nodes.expect([[client, atClusterIP(13, 80), 'pod1:8090']]);
  });

  test('of an endpoint that stands twice the one that is not terminating counts', async () => {
    const terminating = { host: lab.pod(1), conditions: TERMINATING };
    for (const [first, second] of [
      [terminating, lab.pod(1)],
      [lab.pod(1), terminating],
    ] as const) {
      await nodes.apply(
        ...withTwoPorts('twice', 14),
        ...slices('twice', '-1', { portName: 'port80', port: 8090, at: [first] }),
        ...slices('twice', '-2', {
          portName: 'port80',
          port: 8090,
          at: [second, { host: lab.podOn2(1), conditions: TERMINATING }],
        }),
      );
      // Were it not ready, both would be a fallback.
      await nodes.expect([[client, atClusterIP(14, 80), 'pod1:8090']]);
    }
  });

  test('a slice without the label of its Service, or with names instead of addresses, is nobody’s', async () => {
    const [good] = slices('label', '-1', { portName: 'port80', port: 8090, at: [lab.pod(1)] });
    const [unlabelled] = slices('label', '-2', { portName: 'port80', port: 8090, at: [lab.podOn2(1)] });
    const [named] = slices('label', '-3', { portName: 'port80', port: 8090, at: [lab.podOn2(1)] });
    await nodes.apply(
      ...withTwoPorts('label', 15),
      good ?? {},
      { ...unlabelled, metadata: { namespace: 'default', name: 'label-2' } },
      { ...named, addressType: 'FQDN', endpoints: [{ addresses: ['pod.example.org'] }] },
    );
    await nodes.expect([[client, atClusterIP(15, 80), { IPv4: 'pod1:8090', IPv6: 'refused' }]]);
  });
});
