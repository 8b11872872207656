/**
 * Upstream's tests of healthCheckNodePort, and kube-proxy's answers to the letter: what a load balancer hears is how it
 * knows the nodes that have endpoints.
 */
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { errnoOf } from '../../support/agent-socket.ts';
import { addressOf } from '../../support/dual-stack.ts';
import { canMakeNamespaces, type Host, type Lab } from '../../support/netns-lab.ts';
import {
  atLoadBalancerIP,
  atNodePort,
  type EndpointAt,
  FAMILIES,
  healthCheckPortOf,
  loadBalancerIP,
  nodePortOf,
  POD_PORT,
  sliceOf,
  TERMINATING,
  type TwoNodeServiceOptions,
  twoNodeService,
} from '../../support/two-nodes-objects.ts';
import { TwoNodes } from '../../support/two-nodes.ts';
import { waitFor } from '../../support/wait.ts';

/** From 503 to 200 is after the rules, and so is the opening of a port. */
const DEADLINE_MS = 5_000;

describe.skipIf(canMakeNamespaces() !== undefined)('health check node ports', () => {
  let nodes: TwoNodes;
  let lab: Lab;

  beforeAll(async () => {
    nodes = await TwoNodes.start();
    ({ lab } = nodes);
  });
  afterAll(async () => {
    await nodes?.[Symbol.asyncDispose]();
  });

  /** A load balancer's Service, with policy Local unless told. */
  const balanced = (
    number: number,
    endpoints: readonly (Host | EndpointAt)[],
    options: Partial<TwoNodeServiceOptions> = {},
  ): readonly object[] =>
    twoNodeService({
      name: `lb-${number}`,
      number,
      type: 'LoadBalancer',
      external: 'Local',
      endpoints,
      ...options,
    });

  /** The status that the outside hears from that node over each family, or how it is turned away. */
  const statusOf = async (number: number, node: Host): Promise<string> => {
    const client = await lab.ext.agent();
    const port = healthCheckPortOf(number);
    const statuses = await Promise.all(
      FAMILIES.map(async (family) =>
        client
          .httpGet({ host: addressOf(node, family), port, path: '/healthz' })
          .then(({ status }) => String(status), errnoOf),
      ),
    );
    return [...new Set(statuses)].join('+');
  };
  const become = async (number: number, expected: readonly [node: string, node2: string]): Promise<void> => {
    let seen: readonly string[] = [];
    const isSo = async (): Promise<boolean> => {
      seen = await Promise.all([lab.node, lab.node2].map(async (node) => statusOf(number, node)));
      return seen.join() === expected.join();
    };
    await waitFor(isSo, { timeoutMs: DEADLINE_MS, what: `health ${expected.join()}` }).catch(() =>
      expect(seen).toEqual(expected),
    );
  };

  describe('[sig-network] Services', () => {
    test('should implement NodePort and HealthCheckNodePort correctly when ExternalTrafficPolicy changes', async () => {
      const service = (external: 'Local' | 'Cluster'): readonly object[] =>
        balanced(10, [lab.pod(1)], { external });
      await nodes.apply(...service('Local'));
      await become(10, ['200', '503']);
      await nodes.expect([
        [lab.ext, atNodePort(10, lab.node), 'pod1'],
        [lab.ext, atNodePort(10, lab.node2), 'silence'],
      ]);
      await nodes.apply(...service('Cluster'));
      await become(10, ['ECONNREFUSED', 'ECONNREFUSED']);
      await nodes.expect([
        [lab.ext, atNodePort(10, lab.node), 'pod1'],
        [lab.ext, atNodePort(10, lab.node2), 'pod1'],
      ]);
      await nodes.apply(...service('Local'));
      await become(10, ['200', '503']);
      await nodes.expect([[lab.ext, atNodePort(10, lab.node2), 'silence']]);
    });

    test('should fail health check node port if there are only terminating endpoints', async () => {
      await nodes.apply(...balanced(11, [lab.pod(1)]));
      await become(11, ['200', '503']);
      await nodes.apply(...balanced(11, [{ host: lab.pod(1), conditions: TERMINATING }]));
      await become(11, ['503', '503']);
      // It serves on all the same.
      await nodes.expect([
        [lab.ext, atNodePort(11, lab.node), 'pod1'],
        [nodes.client, atNodePort(11, lab.node), 'pod1'],
      ]);
    });
  });

  describe('[sig-network] LoadBalancers ExternalTrafficPolicy: Local', () => {
    test('should work for type=LoadBalancer', async () => {
      await nodes.apply(...balanced(20, [lab.pod(1)]));
      await nodes.expect([[lab.ext, atLoadBalancerIP(20), 'pod1']]);
      await become(20, ['200', '503']);
      // Nor does it leave its health check port behind.
      await nodes.apply(...balanced(20, [lab.pod(1)], { type: 'ClusterIP' }));
      await become(20, ['ECONNREFUSED', 'ECONNREFUSED']);
    });

    test('should only target nodes with endpoints', async () => {
      await nodes.apply(...balanced(21, []));
      await become(21, ['503', '503']);
      await nodes.apply(...balanced(21, [lab.pod(1)]));
      await become(21, ['200', '503']);
      await nodes.expect([[lab.ext, atLoadBalancerIP(21), 'pod1']]);
      await nodes.apply(...balanced(21, [lab.podOn2(1)]));
      await become(21, ['503', '200']);
      // Which is where the load balancer sends it from now on.
      for (const family of FAMILIES) await nodes.routeOutside(loadBalancerIP(21, family), lab.node2);
      await nodes.expect([[lab.ext, atLoadBalancerIP(21), 'node2-pod1']]);
    });

    test('should target all nodes with endpoints', async () => {
      await nodes.apply(...balanced(22, [lab.pod(1), lab.podOn2(1)]));
      await become(22, ['200', '200']);
      await nodes.expect([[lab.ext, atLoadBalancerIP(22), 'pod1']]);
      for (const family of FAMILIES) await nodes.routeOutside(loadBalancerIP(22, family), lab.node2);
      await nodes.expect([[lab.ext, atLoadBalancerIP(22), 'node2-pod1']]);
    });

    test('should work from pods', async () => {
      await nodes.restart('node2', ['--cluster-cidr=10.244.0.0/16,fd00:244::/32']);
      await nodes.apply(...balanced(23, [lab.pod(1)]));
      await nodes.expect([
        [nodes.client, atLoadBalancerIP(23), 'pod1'],
        [nodes.clientOn2, atLoadBalancerIP(23), 'pod1'],
      ]);
    });

    test('should handle updates to ExternalTrafficPolicy field', async () => {
      const service = (external: 'Local' | 'Cluster'): readonly object[] =>
        balanced(24, [lab.pod(1)], { external });
      await nodes.apply(...service('Local'));
      await become(24, ['200', '503']);
      await nodes.apply(...service('Cluster'));
      // Nodes without endpoints proxy to the others', and nobody answers health checks.
      await nodes.expect([[lab.ext, atNodePort(24, lab.node2), 'pod1']]);
      await become(24, ['ECONNREFUSED', 'ECONNREFUSED']);
      await nodes.apply(...service('Local'));
      await become(24, ['200', '503']);
    });
  });

  test('the answers are kube-proxy’s, to any path', async () => {
    await nodes.apply(...balanced(30, [lab.pod(1), lab.pod(2)]));
    await become(30, ['200', '503']);
    const client = await lab.ext.agent();
    const port = healthCheckPortOf(30);
    for (const [node, count] of [
      [lab.node, 2],
      [lab.node2, 0],
    ] as const) {
      const answer = await client.httpGet({ host: node.ipv4, port, path: '/any/path?at=all' });
      expect(answer.status).toBe(count > 0 ? 200 : 503);
      expect(answer.headers).toMatchObject({
        'content-type': 'application/json',
        'x-content-type-options': 'nosniff',
        'x-load-balancing-endpoint-weight': String(count),
      });
      expect(answer.body).toBe(
        [
          '{',
          '\t"service": {',
          '\t\t"namespace": "default",',
          '\t\t"name": "lb-30"',
          '\t},',
          `\t"localEndpoints": ${count},`,
          '\t"serviceProxyHealthy": true',
          '}',
        ].join('\n'),
      );
    }
  });

  test('the weight counts pods, not ports, and not those that are being deleted', async () => {
    const weightOf = async (second: EndpointAt): Promise<unknown> => {
      const objects = balanced(31, [lab.pod(1), second], {
        tweak: ({ spec }) =>
          spec.ports?.push({ name: 'more', port: 81, protocol: 'TCP', nodePort: nodePortOf(91) }),
      });
      const more = { endpoints: [lab.pod(1)], port: POD_PORT + 1, portName: 'more', suffix: '-more' };
      await nodes.apply(...objects, ...FAMILIES.map((family) => sliceOf('lb-31', family, more)));
      await become(31, ['200', '503']);
      const client = await lab.ext.agent();
      const answer = await client.httpGet({ host: lab.node.ipv6, port: healthCheckPortOf(31), path: '/' });
      return answer.headers['x-load-balancing-endpoint-weight'];
    };
    expect(await weightOf({ host: lab.pod(2) })).toBe('2');
    expect(await weightOf({ host: lab.pod(2), conditions: TERMINATING })).toBe('1');
  });

  test('a firewall that lets nothing in lets load balancers ask, and their traffic in', async () => {
    const rule = 'INPUT -i eth0 -p tcp -m conntrack --ctstate NEW -j DROP'.split(' ');
    for (const iptables of ['iptables', 'ip6tables']) {
      await lab.node2.run([iptables, '-w', '5', '-A', ...rule]);
      onTestFinished(async () => void (await lab.node2.run([iptables, '-w', '5', '-D', ...rule])));
    }
    await nodes.apply(...balanced(32, [lab.pod(1)]));
    await become(32, ['200', '503']);
    await nodes.apply(...balanced(32, [lab.podOn2(1)]));
    await become(32, ['503', '200']);
    await nodes.expect([[lab.ext, atNodePort(32, lab.node2), 'node2-pod1']]);
  });

  test('a health check port closes with its Service', async () => {
    await nodes.apply(...balanced(33, [lab.pod(1)]));
    await become(33, ['200', '503']);
    await nodes.apply();
    await become(33, ['ECONNREFUSED', 'ECONNREFUSED']);
  });
});
