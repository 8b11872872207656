/**
 * Kubernetes' cases marked [Disruptive] in test/e2e/network/service.go and networking.go: the proxy is restarted, and its
 * rules are deleted. Reproduced here with the proxy in network namespaces; every test has the name of the upstream case.
 * "should work after restarting apiserver" needs an API server: test/cluster/outage.test.ts, "when the API server is
 * killed and comes back, …", with a Service that is made meanwhile.
 *
 * Of what kpng's userspacelin had to skip for good, none is here.
 */
import { isDeepStrictEqual } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { E2eCluster, type E2eService, FAMILIES, NAME_PORT } from '../../support/e2e-cluster.ts';
import { isDown, isUp } from '../../support/e2e-reach.ts';
import { canMakeNamespaces, type Host } from '../../support/netns-lab.ts';
import { ownChains } from '../../support/rule-chains.ts';
import { waitFor } from '../../support/wait.ts';

const SYNC_PERIOD_MS = 2_000;
const PROTOCOLS = ['TCP', 'UDP'] as const;
const COMMANDS = ['iptables', 'ip6tables'];

describe.skipIf(canMakeNamespaces() !== undefined)('[Disruptive]', () => {
  let cluster: E2eCluster;
  let backends: readonly Host[];

  beforeAll(async () => {
    cluster = await E2eCluster.start({
      nodes: 2,
      pods: 2,
      args: ['--iptables-sync-period', `${SYNC_PERIOD_MS}ms`],
    });
    backends = [cluster.lab.pod(1), cluster.lab.podOn2(1), cluster.lab.podOn2(2)];
  });
  afterAll(async () => {
    await cluster?.close();
  });

  const create = async (name: string): Promise<E2eService> => {
    const service = cluster.service(name);
    const port = { port: 80, targetPort: NAME_PORT, nodePort: service.nodePort() };
    const ports = [
      { ...port, name: 'http' },
      { ...port, name: 'udp', protocol: 'UDP' as const },
    ];
    await service.write({ ports, backends });
    return service;
  };

  /** In both families, by both protocols, from a pod and from outside. */
  const isServed = async (service: E2eService): Promise<void> => {
    const { lab, nodes } = cluster;
    const ways = FAMILIES.flatMap((family) => PROTOCOLS.map((protocol) => ({ family, protocol })));
    const byEach = ways.map(async ({ family, protocol }) => {
      await isUp(lab.pod(2), service.at(family, { protocol }), backends);
      for (const node of nodes) await isUp(lab.ext, service.atNode(node, family, { protocol }), backends);
    });
    await Promise.all(byEach);
  };

  /** All at once for each table, of whoever they are, so that the proxy cannot put them back in between. */
  const deleteAllRules = async (node: Host): Promise<void> => {
    for (const command of COMMANDS) {
      const saved = await node.run([`${command}-save`]);
      // What a table has of itself: its name, and the chains that have a policy.
      const empty = saved.split('\n').filter((line) => /^(?:\*|:\S+ (?!-)|COMMIT)/.test(line));
      await node.run([`${command}-restore`], { input: `${empty.join('\n')}\n` });
    }
  };

  test('should recreate its iptables rules if they are deleted', async () => {
    const service = await create('iptables-flush-test');
    await isServed(service);
    const before = await Promise.all(cluster.nodes.map(ownChains));
    const deletedAt = performance.now();
    await Promise.all(cluster.nodes.map(deleteAllRules));
    await isUp(cluster.lab.pod(2), service.at('IPv4'), backends);
    // Upstream's bound.
    expect(performance.now() - deletedAt).toBeLessThan(SYNC_PERIOD_MS + 5_000);
    await isServed(service);
    for (const [index, node] of cluster.nodes.entries()) {
      const isSame = async (): Promise<boolean> => isDeepStrictEqual(await ownChains(node), before[index]);
      await waitFor(isSame, {
        timeoutMs: SYNC_PERIOD_MS + 5_000,
        what: `the rules of ${node.name} as before`,
      });
    }
  });

  test.for([
    { signal: 'SIGTERM', suffix: '' },
    { signal: 'SIGKILL', suffix: ', which was killed' },
  ] as const)('should work after restarting kube-proxy$suffix', async ({ signal }) => {
    const [first, second, gone] = [
      await create('restart-proxy-1'),
      await create('restart-proxy-2'),
      await create('restart-proxy-gone'),
    ];
    for (const service of [first, second, gone]) await isServed(service);
    await gone.delete();
    await isDown(cluster.lab.pod(2), gone.at('IPv4'));
    await cluster.restartProxies(signal);
    await isServed(first);
    await isServed(second);
    await isDown(cluster.lab.pod(2), gone.at('IPv4'));
    const third = await create('restart-proxy-3');
    await isServed(third);
    for (const service of [first, second, third]) await service.delete();
  });
});
