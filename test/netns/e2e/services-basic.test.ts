/**
 * Kubernetes' test/e2e/network/service.go, "Services": endpoints, ports and Services that come and go. Reproduced here
 * with the proxy in network namespaces; every test has the name of the upstream case, once for each IP family.
 *
 * Of what kpng's userspacelin had to skip for good, none is here.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Family } from '../../support/dual-stack.ts';
import { E2eCluster, FAMILIES, NAME_PORT } from '../../support/e2e-cluster.ts';
import { isDown, isRefused, isUp } from '../../support/e2e-reach.ts';
import { canMakeNamespaces } from '../../support/netns-lab.ts';

const HTTP = { name: 'http', port: 80, targetPort: NAME_PORT };
const DNS = { name: 'dns', port: 80, targetPort: NAME_PORT, protocol: 'UDP' } as const;

describe.skipIf(canMakeNamespaces() !== undefined)('Services', { concurrent: true }, () => {
  let cluster: E2eCluster;

  beforeAll(async () => {
    cluster = await E2eCluster.start({ nodes: 2, pods: 2 });
    const { lab } = cluster;
    for (const [pod, port] of [
      [lab.pod(1), 100],
      [lab.podOn2(1), 101],
    ] as const)
      await (await pod.agent()).serveTcp({ port, mode: 'identify', name: pod.name });
  });
  afterAll(async () => {
    await cluster?.close();
  });

  describe.for(FAMILIES)('over %s', { concurrent: true }, (family: Family) => {
    test('should serve a basic endpoint from pods', async () => {
      const { lab } = cluster;
      const service = cluster.service('endpoint-test');
      const [here, there] = [lab.pod(1), lab.podOn2(1)];
      const client = lab.pod(2);
      await service.write({ ports: [HTTP] });
      await isRefused(client, service.at(family));
      await service.write({ ports: [HTTP], backends: [here] });
      await isUp(client, service.at(family), [here]);
      await service.write({ ports: [HTTP], backends: [here, there] });
      await isUp(client, service.at(family), [here, there]);
      await service.write({ ports: [HTTP], backends: [there] });
      await isUp(client, service.at(family), [there]);
      await service.write({ ports: [HTTP] });
      await isRefused(client, service.at(family));
    });

    test('should serve multiport endpoints from pods', async () => {
      const { lab } = cluster;
      const service = cluster.service('multi-endpoint-test');
      const [here, there] = [lab.pod(1), lab.podOn2(1)];
      const client = lab.pod(2);
      const isMade = async (backends: { one: boolean; two: boolean }): Promise<void> => {
        await service.write({
          ports: [
            { name: 'portname1', port: 80, targetPort: 100, backends: backends.one ? [here] : [] },
            { name: 'portname2', port: 81, targetPort: 101, backends: backends.two ? [there] : [] },
          ],
        });
        const [one, two] = [service.at(family), service.at(family, { port: 81 })];
        await (backends.one ? isUp(client, one, [here]) : isRefused(client, one));
        await (backends.two ? isUp(client, two, [there]) : isRefused(client, two));
      };
      await isMade({ one: false, two: false });
      await isMade({ one: true, two: false });
      await isMade({ one: true, two: true });
      await isMade({ one: false, two: true });
      await isMade({ one: false, two: false });
    });

    test('should be updated after adding or deleting ports', async () => {
      const { lab } = cluster;
      const service = cluster.service('edit-port-test');
      const backends = [lab.pod(1), lab.podOn2(1)];
      const client = lab.pod(2);
      const second = { ...HTTP, name: 'portname2', port: 81 };
      await service.write({ ports: [HTTP], backends });
      await isUp(client, service.at(family), backends);
      await isDown(client, service.at(family, { port: 81 }));
      await service.write({ ports: [HTTP, second], backends });
      await isUp(client, service.at(family, { port: 81 }), backends);
      await isUp(client, service.at(family), backends);
      await service.write({ ports: [HTTP], backends });
      await isDown(client, service.at(family, { port: 81 }));
      await isUp(client, service.at(family), backends);
    });

    test('should serve endpoints on same port and different protocols', async () => {
      const { lab } = cluster;
      const service = cluster.service('multiprotocol-test');
      const backends = [lab.pod(1), lab.podOn2(1)];
      const client = lab.pod(2);
      const [tcp, udp] = [service.at(family), service.at(family, { protocol: 'UDP' })];
      await service.write({ ports: [HTTP, DNS], backends });
      await isUp(client, tcp, backends);
      await isUp(client, udp, backends);
      await service.write({ ports: [HTTP], backends });
      await isDown(client, udp);
      await isUp(client, tcp, backends);
      await service.write({ ports: [DNS], backends });
      await isUp(client, udp, backends);
      await isDown(client, tcp);
    });

    test('should allow pods to hairpin back to themselves through services', async () => {
      const { lab } = cluster;
      const service = cluster.service('hairpin-test');
      const pod = lab.pod(1);
      const ports = [
        { ...HTTP, nodePort: service.nodePort() },
        { ...DNS, nodePort: service.nodePort() },
      ];
      await service.write({ ports, backends: [pod] });
      for (const protocol of ['TCP', 'UDP'] as const) {
        await isUp(pod, service.at(family, { protocol }), [pod]);
        for (const node of cluster.nodes) await isUp(pod, service.atNode(node, family, { protocol }), [pod]);
      }
    });

    test('should be able to up and down services', async () => {
      const { lab } = cluster;
      const backends = [lab.pod(1), lab.podOn2(1), lab.podOn2(2)];
      const client = lab.pod(2);
      const [first, second, third] = [1, 2, 3].map((number) => cluster.service(`up-down-${number}`));
      if (first === undefined || second === undefined || third === undefined) throw new Error('no Service');
      await first.write({ ports: [HTTP], backends });
      await second.write({ ports: [HTTP], backends });
      await isUp(client, first.at(family), backends);
      await isUp(client, second.at(family), backends);
      const agent = await client.agent();
      const load = await agent.startConnectLoad({ ...second.at(family), timeoutMs: 900, pauseMs: 10 });
      await first.delete();
      await isDown(client, first.at(family));
      await isUp(client, second.at(family), backends);
      await third.write({ ports: [HTTP], backends });
      await isUp(client, third.at(family), backends);
      await isDown(client, first.at(family));
      const { requests, failures } = await agent.stopLoad(load);
      expect(failures).toEqual([]);
      expect(requests).toBeGreaterThan(10);
    });

    test('should work after the service has been recreated', async () => {
      const { lab } = cluster;
      const service = cluster.service('service-deletion');
      const backends = [lab.podOn2(1)];
      const client = lab.pod(2);
      await service.write({ ports: [HTTP], backends });
      await isUp(client, service.at(family), backends);
      await service.delete();
      await isDown(client, service.at(family));
      await service.write({ ports: [HTTP], backends });
      await isUp(client, service.at(family), backends);
    });
  });
});
