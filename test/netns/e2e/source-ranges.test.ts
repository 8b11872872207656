/**
 * Upstream's test of loadBalancerSourceRanges, and where they hold: for each family by itself, at the load balancer's
 * address only, and with the exception for the node itself.
 */
import { afterAll, beforeAll, describe, onTestFinished, test } from 'vitest';
import { canMakeNamespaces, type Host, type Lab } from '../../support/netns-lab.ts';
import {
  atClusterIP,
  atExternalIP,
  atLoadBalancerIP,
  atNodePort,
  FAMILIES,
  loadBalancerIP,
  type TwoNodeServiceOptions,
  twoNodeService,
} from '../../support/two-nodes-objects.ts';
import { type Row, TwoNodes } from '../../support/two-nodes.ts';

/** Everybody, in halves, as upstream writes it. */
const ALL = ['0.0.0.0/1', '128.0.0.0/1', '::/1', '8000::/1'];
const NOBODY = ['255.0.0.0/32', 'ffff::/128'];

describe.skipIf(canMakeNamespaces() !== undefined)('[sig-network] LoadBalancers', () => {
  let nodes: TwoNodes;
  let lab: Lab;
  /** On different nodes, as upstream has them. */
  let acceptPod: Host;
  let dropPod: Host;

  beforeAll(async () => {
    nodes = await TwoNodes.start();
    ({ lab } = nodes);
    ({ client: acceptPod, clientOn2: dropPod } = nodes);
  });
  afterAll(async () => {
    await nodes?.[Symbol.asyncDispose]();
  });

  const apply = async (
    number: number,
    loadBalancerSourceRanges: readonly string[] | undefined,
    options: Partial<TwoNodeServiceOptions> = {},
  ): Promise<void> =>
    nodes.apply(
      ...twoNodeService({
        name: `lb-${number}`,
        number,
        type: 'LoadBalancer',
        hasExternalIPs: true,
        endpoints: [lab.pod(1)],
        tweak: ({ spec }) => Object.assign(spec, { loadBalancerSourceRanges }),
        ...options,
      }),
    );

  test('should only allow access from service loadbalancer source ranges', async () => {
    const fromAll = (outside: string, accepted: string, dropped: string): readonly Row[] => [
      [lab.ext, atLoadBalancerIP(10), outside],
      [acceptPod, atLoadBalancerIP(10), accepted],
      [dropPod, atLoadBalancerIP(10), dropped],
    ];
    await apply(10, undefined);
    await nodes.expect(fromAll('pod1', 'pod1', 'pod1'));
    await apply(10, [
      `${acceptPod.ipv4}/32`,
      `${lab.node.ipv4}/32`,
      `${acceptPod.ipv6}/128`,
      `${lab.node.ipv6}/128`,
    ]);
    await nodes.expect(fromAll('silence', 'pod1', 'silence'));
    await apply(10, ALL);
    await nodes.expect(fromAll('pod1', 'pod1', 'pod1'));
    await apply(10, NOBODY);
    await nodes.expect(fromAll('silence', 'silence', 'silence'));
    await apply(10, undefined);
    await nodes.expect(fromAll('pod1', 'pod1', 'pod1'));
  });

  test('source ranges are for the load balancer’s address only', async () => {
    await apply(11, NOBODY);
    await nodes.expect([
      [lab.ext, atLoadBalancerIP(11), 'silence'],
      [lab.ext, atNodePort(11, lab.node), 'pod1'],
      [lab.ext, atExternalIP(11), 'pod1'],
      [lab.ext, atClusterIP(11), 'pod1'],
      [dropPod, atClusterIP(11), 'pod1'],
      [lab.node, atClusterIP(11), 'pod1'],
    ]);
  });

  test('source ranges of one family leave the other alone', async () => {
    await apply(12, [`${acceptPod.ipv4}/32`]);
    await nodes.expect([
      [acceptPod, atLoadBalancerIP(12), 'pod1'],
      [dropPod, atLoadBalancerIP(12), { IPv4: 'silence', IPv6: 'pod1' }],
      [lab.ext, atLoadBalancerIP(12), { IPv4: 'silence', IPv6: 'pod1' }],
    ]);
    await apply(12, [` ${lab.ext.ipv6}/128 `]);
    await nodes.expect([
      [lab.ext, atLoadBalancerIP(12), 'pod1'],
      [acceptPod, atLoadBalancerIP(12), { IPv4: 'pod1', IPv6: 'silence' }],
    ]);
  });

  test('source ranges stand together with externalTrafficPolicy=Local', async () => {
    const options = { external: 'Local', endpoints: [lab.podOn2(1)] } as const;
    await apply(13, [`${lab.ext.ipv4}/32`, `${lab.ext.ipv6}/128`], options);
    // In the ranges, but no endpoint on the node it comes to; the other way round at the second node.
    await nodes.expect([[lab.ext, atLoadBalancerIP(13), 'silence']]);
    for (const family of FAMILIES) await nodes.routeOutside(loadBalancerIP(13, family), lab.node2);
    await nodes.expect([
      [lab.ext, atLoadBalancerIP(13), 'node2-pod1'],
      [dropPod, atLoadBalancerIP(13), 'silence'],
      [lab.node2, atLoadBalancerIP(13), 'silence'],
    ]);
  });

  test('source ranges hold for UDP', async () => {
    await apply(14, [`${acceptPod.ipv4}/32`, `${acceptPod.ipv6}/128`], { protocol: 'UDP' });
    const rows: readonly Row[] = [
      [acceptPod, atLoadBalancerIP(14), 'pod1'],
      [dropPod, atLoadBalancerIP(14), 'silence'],
      [dropPod, atNodePort(14, lab.node2), 'pod1'],
    ];
    await nodes.eventually(rows, { protocol: 'UDP' });
  });

  test('without endpoints everybody is refused, whatever the ranges', async () => {
    await apply(15, NOBODY, { endpoints: [] });
    await nodes.expect([
      [lab.ext, atLoadBalancerIP(15), 'refused'],
      [acceptPod, atLoadBalancerIP(15), 'refused'],
    ]);
  });

  test('a node in the ranges may come by a load balancer’s address that is its own', async () => {
    // As cloud agents do: the node then asks itself, and from that very address.
    for (const family of FAMILIES) {
      const cidr = `${loadBalancerIP(16, family)}/${family === 'IPv4' ? 32 : 128}`;
      await lab.node.addAddress(cidr, 'lo');
      onTestFinished(async () => lab.node.removeAddress(cidr, 'lo'));
    }
    await apply(16, [`${lab.node.ipv4}/32`, `${lab.node.ipv6}/128`]);
    await nodes.expect([
      [lab.node, atLoadBalancerIP(16), 'pod1'],
      [lab.ext, atLoadBalancerIP(16), 'silence'],
      [acceptPod, atLoadBalancerIP(16), 'silence'],
    ]);
    await apply(16, [`${lab.ext.ipv4}/32`, `${lab.ext.ipv6}/128`]);
    await nodes.expect([
      [lab.node, atLoadBalancerIP(16), 'silence'],
      [lab.ext, atLoadBalancerIP(16), 'pod1'],
    ]);
  });
});
