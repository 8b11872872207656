/**
 * Addresses that are nobody's: upstream's test of externalIPs, the load balancer's addresses with and without NodePorts,
 * and what is left alone: `ipMode: Proxy`, `--disable-external-ips`, `--external-clusterip=false`. What is not captured
 * goes where the routes say, which here is `ext`, and answers there.
 */
import { afterAll, beforeAll, describe, onTestFinished, test } from 'vitest';
import type { Family } from '../../support/dual-stack.ts';
import { canMakeNamespaces, type Lab } from '../../support/netns-lab.ts';
import {
  atClusterIP,
  atExternalIP,
  atLoadBalancerIP,
  atNodePort,
  externalIP,
  FAMILIES,
  loadBalancerIP,
  SERVICE_PORT,
  twoNodeService,
} from '../../support/two-nodes-objects.ts';
import { TwoNodes } from '../../support/two-nodes.ts';

const POD_CIDRS = '--cluster-cidr=10.244.0.0/16,fd00:244::/32';

describe.skipIf(canMakeNamespaces() !== undefined)('[sig-network] Services', () => {
  let nodes: TwoNodes;
  let lab: Lab;

  beforeAll(async () => {
    nodes = await TwoNodes.start();
    ({ lab } = nodes);
    await (await lab.ext.agent()).serveTcp({ port: SERVICE_PORT, mode: 'identify', name: 'ext' });
  });
  afterAll(async () => {
    await nodes?.[Symbol.asyncDispose]();
  });

  /** Makes the addresses ext's own, where its own server answers. */
  const giveToExt = async (addressOf: (family: Family) => string): Promise<void> => {
    for (const family of FAMILIES) {
      const cidr = `${addressOf(family)}/${family === 'IPv4' ? 32 : 128}`;
      await lab.ext.addAddress(cidr, 'lo');
      onTestFinished(async () => lab.ext.removeAddress(cidr, 'lo'));
    }
  };

  test('should be possible to connect to a service via ExternalIP when the external IP is not assigned to a node', async () => {
    await nodes.apply(
      ...twoNodeService({
        name: 'externalip-test',
        number: 10,
        hasExternalIPs: true,
        endpoints: [lab.pod(1), lab.podOn2(1)],
      }),
    );
    const both = 'node2-pod1+pod1';
    await nodes.expect([
      [nodes.client, atExternalIP(10), both],
      [nodes.clientOn2, atExternalIP(10), both],
      [lab.node, atExternalIP(10), both],
      [lab.ext, atExternalIP(10), both],
    ]);
  });

  test('externalIPs come and go with the Service', async () => {
    const service = (hasExternalIPs: boolean): readonly object[] =>
      twoNodeService({ name: 'coming', number: 11, hasExternalIPs, endpoints: [lab.pod(1)] });
    await giveToExt((family) => externalIP(11, family));
    await nodes.apply(...service(false));
    await nodes.expect([[nodes.client, atExternalIP(11), 'ext']]);
    await nodes.apply(...service(true));
    await nodes.expect([[nodes.client, atExternalIP(11), 'pod1']]);
    await nodes.apply(...service(false));
    await nodes.expect([[nodes.client, atExternalIP(11), 'ext']]);
  });

  test('--disable-external-ips leaves externalIPs to whoever has them, and nothing else', async () => {
    await giveToExt((family) => externalIP(12, family));
    await nodes.apply(
      ...twoNodeService({
        name: 'disabled',
        number: 12,
        type: 'LoadBalancer',
        hasExternalIPs: true,
        endpoints: [lab.pod(1)],
      }),
    );
    await nodes.restart('node1', ['--disable-external-ips']);
    onTestFinished(async () => nodes.restart('node1', []));
    await nodes.expect([
      [nodes.client, atExternalIP(12), 'ext'],
      [lab.node, atExternalIP(12), 'ext'],
      [nodes.clientOn2, atExternalIP(12), 'pod1'],
      [nodes.client, atClusterIP(12), 'pod1'],
      [lab.ext, atLoadBalancerIP(12), 'pod1'],
      [lab.ext, atNodePort(12, lab.node), 'pod1'],
    ]);
  });

  test('should be able to create LoadBalancer Service without NodePort and change it', async () => {
    const service = (nodePort: boolean): readonly object[] =>
      twoNodeService({
        name: 'reallocate-nodeport-test',
        number: 13,
        type: 'LoadBalancer',
        endpoints: [lab.pod(1)],
        tweak: ({ spec }) => {
          spec.allocateLoadBalancerNodePorts = nodePort;
          const [port] = spec.ports ?? [];
          if (port !== undefined && !nodePort) port.nodePort = 0;
        },
      });
    await nodes.apply(...service(false));
    await nodes.expect([
      [lab.ext, atLoadBalancerIP(13), 'pod1'],
      [lab.ext, atNodePort(13, lab.node), 'refused'],
    ]);
    await nodes.apply(...service(true));
    await nodes.expect([
      [lab.ext, atLoadBalancerIP(13), 'pod1'],
      [lab.ext, atNodePort(13, lab.node), 'pod1'],
    ]);
  });

  test('an address with ipMode Proxy is left to the load balancer, one with VIP is not', async () => {
    await giveToExt((family) => loadBalancerIP(14, family));
    const service = (ipMode: 'VIP' | 'Proxy'): readonly object[] =>
      twoNodeService({
        name: 'ip-mode',
        number: 14,
        type: 'LoadBalancer',
        endpoints: [lab.pod(1)],
        tweak: ({ status }) => {
          for (const ingress of status?.loadBalancer?.ingress ?? []) ingress.ipMode = ipMode;
        },
      });
    await nodes.apply(...service('Proxy'));
    await nodes.expect([
      [nodes.client, atLoadBalancerIP(14), 'ext'],
      [lab.node, atLoadBalancerIP(14), 'ext'],
      [lab.ext, atNodePort(14, lab.node), 'pod1'],
    ]);
    await nodes.apply(...service('VIP'));
    await nodes.expect([
      [nodes.client, atLoadBalancerIP(14), 'pod1'],
      [lab.node, atLoadBalancerIP(14), 'pod1'],
    ]);
  });

  test('--external-clusterip=false keeps the outside from clusterIPs, and nobody else from anything', async () => {
    await nodes.apply(
      ...twoNodeService({
        name: 'inner',
        number: 15,
        type: 'LoadBalancer',
        endpoints: [lab.pod(1), lab.podOn2(1)],
      }),
    );
    const both = 'node2-pod1+pod1';
    await nodes.expect([[lab.ext, atClusterIP(15), both]]);
    await nodes.restart('node1', ['--external-clusterip=false', POD_CIDRS]);
    onTestFinished(async () => nodes.restart('node1', []));
    await nodes.expect([
      [lab.ext, atClusterIP(15), 'silence'],
      [nodes.client, atClusterIP(15), both],
      [lab.node, atClusterIP(15), both],
      [lab.ext, atNodePort(15, lab.node), both],
      [lab.ext, atLoadBalancerIP(15), both],
    ]);
  });
});
