/**
 * Upstream's "Services" tests of internalTrafficPolicy, and what externalTrafficPolicy Local is for everybody: the
 * outside gets endpoints of the node it came to or silence, the node and its pods are led to any endpoint.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { canMakeNamespaces, type Host, type Lab } from '../../support/netns-lab.ts';
import {
  atClusterIP,
  atExternalIP,
  atLoadBalancerIP,
  atNodePort,
  FAMILIES,
  HOST_NETWORK_PORT,
  loadBalancerIP,
  nodeObject,
  type TwoNodeServiceOptions,
  twoNodeService,
} from '../../support/two-nodes-objects.ts';
import { type Row, TwoNodes } from '../../support/two-nodes.ts';

const METRIC = 'kubeproxy_sync_proxy_rules_no_local_endpoints_total';

describe.skipIf(canMakeNamespaces() !== undefined)('[sig-network] Services', () => {
  let nodes: TwoNodes;
  let lab: Lab;
  /** Pods that only ask, one on each node. */
  let pod: Host;
  let podOn2: Host;

  beforeAll(async () => {
    nodes = await TwoNodes.start({
      args: ['--detect-local-mode=NodeCIDR'],
      objects: ({ node, node2 }) => [nodeObject(node), nodeObject(node2)],
    });
    ({ lab } = nodes);
    pod = nodes.client;
    podOn2 = nodes.clientOn2;
  });
  afterAll(async () => {
    await nodes?.[Symbol.asyncDispose]();
  });

  const apply = async (...services: readonly TwoNodeServiceOptions[]): Promise<void> =>
    nodes.apply(nodeObject(lab.node), nodeObject(lab.node2), ...services.flatMap(twoNodeService));

  /** A Service with every kind of external address, which the outside reaches through the first node. */
  const applyExternal = async (
    number: number,
    options: Partial<TwoNodeServiceOptions> & Pick<TwoNodeServiceOptions, 'endpoints'>,
  ): Promise<void> =>
    apply({
      name: `etp-${number}`,
      number,
      type: 'LoadBalancer',
      external: 'Local',
      hasExternalIPs: true,
      ...options,
    });

  /** The same outcome at every external address of the Service on the first node. */
  const external = (from: Host, number: number, outcome: string): readonly Row[] => [
    [from, atNodePort(number, lab.node), outcome],
    [from, atLoadBalancerIP(number), outcome],
    [from, atExternalIP(number), outcome],
  ];

  test('should respect internalTrafficPolicy=Local Pod to Pod', async () => {
    await apply({
      name: 'itp-pod',
      number: 10,
      endpoints: [lab.pod(1)],
      internal: 'Local',
    });
    await nodes.expect([
      [pod, atClusterIP(10), 'pod1'],
      [podOn2, atClusterIP(10), 'silence'],
    ]);
  });

  test('should respect internalTrafficPolicy=Local Pod (hostNetwork: true) to Pod', async () => {
    await apply({
      name: 'itp-node',
      number: 11,
      endpoints: [lab.pod(1)],
      internal: 'Local',
    });
    await nodes.expect([
      [lab.node, atClusterIP(11), 'pod1'],
      [lab.node2, atClusterIP(11), 'silence'],
    ]);
  });

  test('should respect internalTrafficPolicy=Local Pod and Node, to Pod (hostNetwork: true)', async () => {
    await apply({
      name: 'itp-host-network',
      number: 12,
      endpoints: [lab.node],
      targetPort: HOST_NETWORK_PORT,
      internal: 'Local',
    });
    await nodes.expect([
      [pod, atClusterIP(12), 'node'],
      [lab.node, atClusterIP(12), 'node'],
      [podOn2, atClusterIP(12), 'silence'],
      [lab.node2, atClusterIP(12), 'silence'],
    ]);
  });

  test('internalTrafficPolicy=Local leaves external traffic alone, and follows endpoints from node to node', async () => {
    const itp = (endpoints: readonly Host[]): TwoNodeServiceOptions => ({
      name: 'itp-moves',
      number: 13,
      type: 'NodePort',
      endpoints,
      internal: 'Local',
    });
    await apply(itp([lab.podOn2(1)]));
    await nodes.expect([
      [pod, atClusterIP(13), 'silence'],
      [podOn2, atClusterIP(13), 'node2-pod1'],
      [lab.ext, atNodePort(13, lab.node), 'node2-pod1'],
    ]);
    await apply(itp([lab.pod(1), lab.podOn2(1)]));
    await nodes.expect([
      [pod, atClusterIP(13), 'pod1'],
      [podOn2, atClusterIP(13), 'node2-pod1'],
      [lab.ext, atNodePort(13, lab.node), 'node2-pod1+pod1'],
    ]);
  });

  test('externalTrafficPolicy=Local without endpoints on the node drops the outside, and nobody of the node', async () => {
    await applyExternal(14, { endpoints: [lab.podOn2(1)] });
    await nodes.expect([
      ...external(lab.ext, 14, 'silence'),
      // For the first node the pods of the second are outside.
      [podOn2, atNodePort(14, lab.node), 'silence'],
      ...external(pod, 14, 'node2-pod1'),
      ...external(lab.node, 14, 'node2-pod1'),
      [lab.ext, atNodePort(14, lab.node2), 'node2-pod1'],
      [lab.ext, atClusterIP(14), 'node2-pod1'],
    ]);
  });

  test('externalTrafficPolicy=Local leads the outside to endpoints of the node only, pods and the node to any', async () => {
    await applyExternal(15, { endpoints: [lab.pod(1), lab.podOn2(1)] });
    await nodes.expect([
      ...external(lab.ext, 15, 'pod1'),
      [podOn2, atNodePort(15, lab.node), 'pod1'],
      [lab.ext, atNodePort(15, lab.node2), 'node2-pod1'],
      ...external(pod, 15, 'node2-pod1+pod1'),
      ...external(lab.node, 15, 'node2-pod1+pod1'),
      ...external(podOn2, 15, 'node2-pod1+pod1').slice(1),
    ]);
  });

  test('externalTrafficPolicy=Local holds for the address that the outside reaches the second node by', async () => {
    await applyExternal(16, { endpoints: [lab.podOn2(1)] });
    const addresses = FAMILIES.map((family) => loadBalancerIP(16, family));
    await nodes.expect([[lab.ext, atLoadBalancerIP(16), 'silence']]);
    for (const address of addresses) await nodes.routeOutside(address, lab.node2);
    await nodes.expect([[lab.ext, atLoadBalancerIP(16), 'node2-pod1']]);
  });

  test('both policies hold for UDP', async () => {
    await apply({
      name: 'udp',
      number: 17,
      type: 'NodePort',
      protocol: 'UDP',
      endpoints: [lab.pod(1)],
      internal: 'Local',
      external: 'Local',
    });
    // For a moment after the rules, replies of a portal that is new are lost: its flows are being forgotten.
    await nodes.eventually(
      [
        [pod, atClusterIP(17), 'pod1'],
        [lab.node, atClusterIP(17), 'pod1'],
        [podOn2, atClusterIP(17), 'silence'],
        [lab.ext, atNodePort(17, lab.node), 'pod1'],
        [lab.ext, atNodePort(17, lab.node2), 'silence'],
        [podOn2, atNodePort(17, lab.node2), 'pod1'],
        [lab.node2, atNodePort(17, lab.node2), 'pod1'],
      ],
      { protocol: 'UDP' },
    );
  });

  test.for(['TCP', 'UDP'] as const)(
    'nobody anywhere means a refusal at once, nobody here means silence, over %s',
    async (protocol) => {
      const number = protocol === 'TCP' ? 18 : 20;
      const service = (name: string, at: number, endpoints: readonly Host[]): TwoNodeServiceOptions => ({
        name,
        number: at,
        type: 'NodePort',
        protocol,
        endpoints,
        internal: 'Local',
        external: 'Local',
      });
      const names = [`nobody-${number}`, `elsewhere-${number}`] as const;
      await apply(service(names[0], number, []), service(names[1], number + 1, [lab.podOn2(1)]));
      // Less than a SYN waits for its answer before it is sent again.
      await nodes.expect(
        [
          [pod, atClusterIP(number), 'refused'],
          [lab.ext, atNodePort(number, lab.node), 'refused'],
        ],
        // The kernel sends few ICMP errors in a row (icmp_ratelimit).
        { protocol, timeoutMs: 900, tries: protocol === 'TCP' ? 5 : 1 },
      );
      await nodes.expect(
        [
          [pod, atClusterIP(number + 1), 'silence'],
          [lab.ext, atNodePort(number + 1, lab.node), 'silence'],
        ],
        { protocol },
      );
    },
  );

  test('policies Local that have endpoints, but none here, are counted for each node', async () => {
    const expectCounts = async (
      node: 'node1' | 'node2',
      counts: readonly [internal: number, external: number],
    ): Promise<void> => {
      for (const family of FAMILIES) {
        const count = async (policy: string): Promise<number> =>
          nodes.proxy(node).metric(METRIC, { ip_family: family, traffic_policy: policy });
        expect([await count('internal'), await count('external')]).toEqual(counts);
      }
    };
    const options = { type: 'NodePort', internal: 'Local', external: 'Local' } as const;
    const here = { ...options, name: 'here', number: 22, endpoints: [lab.pod(1)] };
    const nowhere = { ...options, name: 'nowhere', number: 23, endpoints: [] };
    await apply(here, nowhere, {
      ...options,
      name: 'inner',
      number: 24,
      type: 'ClusterIP',
      endpoints: [lab.pod(1)],
    });
    await expectCounts('node1', [0, 0]);
    await expectCounts('node2', [2, 1]);
    await apply({ ...here, endpoints: [lab.pod(1), lab.podOn2(1)] }, nowhere);
    await expectCounts('node2', [0, 0]);
  });
});
