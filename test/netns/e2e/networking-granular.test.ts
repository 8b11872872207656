/**
 * Kubernetes' test/e2e/network/networking.go, "Networking", with its "Granular Checks: Services": from pods, nodes and
 * endpoints, to clusterIPs and node ports, by TCP (what upstream calls http) and UDP. Reproduced here with the proxy in
 * network namespaces; every test has the name of the upstream case, once for each IP family. That rules which were
 * deleted come back is in disruptive.test.ts. SCTP is not carried.
 *
 * Of what kpng's userspacelin had to skip for good, one is here: kube-proxy's URLs.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Family } from '../../support/dual-stack.ts';
import { E2eCluster, type E2eService, ECHO_PORT, FAMILIES, NAME_PORT } from '../../support/e2e-cluster.ts';
import { isDown, isEchoed, isSticky, isUp, type Target } from '../../support/e2e-reach.ts';
import { canMakeNamespaces, type Host } from '../../support/netns-lab.ts';

const PROTOCOLS = [
  { name: 'http', protocol: 'TCP' },
  { name: 'udp', protocol: 'UDP' },
] as const;
type Protocol = (typeof PROTOCOLS)[number]['protocol'];

/** Where the Service leads to servers that echo; at 80 they say their names. */
const ECHO = 7;
/** In octets: the least, what fills an Ethernet frame, upstream's, a jumbo frame's, and the most a datagram carries. */
const SIZES = [1, 1_472, 2_000, 9_000, 65_507];
/** Upstream's SessionAffinityChecks. */
const AFFINITY_CHECKS = 10;

describe.skipIf(canMakeNamespaces() !== undefined)('Networking', { concurrent: true }, () => {
  let cluster: E2eCluster;
  /** One endpoint on each node, as upstream. */
  let endpoints: readonly Host[];
  let testPod: Host;

  beforeAll(async () => {
    cluster = await E2eCluster.start({ nodes: 2, pods: 2 });
    endpoints = [cluster.lab.pod(1), cluster.lab.podOn2(1)];
    testPod = cluster.lab.pod(2);
  });
  afterAll(async () => {
    await cluster?.close();
  });

  test('should check kube-proxy urls', async () => {
    for (const proxy of cluster.proxies) {
      const health = await proxy.health('/healthz');
      expect(health.status).toBe(200);
      expect(health.body).toContain('lastUpdated');
      expect((await proxy.page('/proxyMode')).status).toBe(200);
    }
  });

  /** A Service with both protocols, and node ports of its own unless told. */
  const write = async (
    service: E2eService,
    { backends = endpoints, hasNodePorts = true, affinity = 'None' } = {},
  ): Promise<void> => {
    const ports = PROTOCOLS.flatMap(({ name, protocol }) => [
      { name, protocol, port: 80, targetPort: NAME_PORT, nodePort: service.nodePort(0) },
      { name: `${name}-echo`, protocol, port: ECHO, targetPort: ECHO_PORT, nodePort: service.nodePort(1) },
    ]);
    await service.write({
      ports: hasNodePorts ? ports : ports.map(({ nodePort: _none, ...port }) => port),
      backends,
      tweak: ({ spec }) => void (spec.sessionAffinity = affinity),
    });
  };
  const nodePorts = (service: E2eService, family: Family, protocol: Protocol): readonly Target[] =>
    cluster.nodes.map((node) => service.atNode(node, family, { protocol }));

  /** Every endpoint answers that host, by the clusterIP and by the node port of every node. */
  const isServed = async (
    from: Host,
    service: E2eService,
    at: { readonly family: Family; readonly protocol: Protocol; readonly backends?: readonly Host[] },
  ): Promise<void> => {
    const { family, protocol, backends = endpoints } = at;
    for (const target of [service.at(family, { protocol }), ...nodePorts(service, family, protocol)])
      await isUp(from, target, backends);
  };

  const carriesLargeRequests = async (
    service: E2eService,
    { family, protocol }: { readonly family: Family; readonly protocol: Protocol },
  ): Promise<void> => {
    const port = service.nodePort(1);
    for (const bytes of SIZES) {
      await isEchoed(testPod, service.at(family, { port: ECHO, protocol }), bytes);
      for (const node of cluster.nodes)
        await isEchoed(cluster.lab.ext, service.atNode(node, family, { port, protocol }), bytes);
    }
  };

  describe.for(FAMILIES)('Granular Checks: Services over %s', { concurrent: true }, (family: Family) => {
    test.for(PROTOCOLS)('should function for pod-Service: $name', async ({ protocol }) => {
      const service = cluster.service('node-port-service');
      await write(service);
      await isServed(testPod, service, { family, protocol });
    });

    test.for(PROTOCOLS)('should function for node-Service: $name', async ({ protocol }) => {
      const service = cluster.service('node-port-service');
      await write(service);
      for (const node of cluster.nodes) await isServed(node, service, { family, protocol });
    });

    test.for(PROTOCOLS)('should function for endpoint-Service: $name', async ({ protocol }) => {
      const service = cluster.service('node-port-service');
      await write(service);
      for (const endpoint of endpoints) await isServed(endpoint, service, { family, protocol });
    });

    test('should function for multiple endpoint-Services with same selector', async () => {
      const [endpoint = testPod] = endpoints;
      const first = cluster.service('node-port-service');
      const second = cluster.service('second-node-port-service');
      await write(first);
      await write(second);
      await isServed(endpoint, first, { family, protocol: 'TCP' });
      await isServed(endpoint, second, { family, protocol: 'TCP' });
      await first.delete();
      await isDown(endpoint, first.at(family));
      await isServed(endpoint, second, { family, protocol: 'TCP' });
    });

    test.for(PROTOCOLS)('should update endpoints: $name', async ({ protocol }) => {
      const service = cluster.service('node-port-service');
      const [kept = testPod] = endpoints;
      const recovered = [kept, cluster.lab.podOn2(2)];
      await write(service);
      await isServed(testPod, service, { family, protocol });
      await write(service, { backends: [kept] });
      await isServed(testPod, service, { family, protocol, backends: [kept] });
      await write(service, { backends: recovered });
      await isServed(testPod, service, { family, protocol, backends: recovered });
    });

    test('should support basic nodePort: udp functionality', async () => {
      const service = cluster.service('node-port-service');
      await write(service);
      for (const target of nodePorts(service, family, 'UDP')) await isUp(cluster.lab.node, target, endpoints);
    });

    test.for(PROTOCOLS)('should update nodePort: $name', async ({ protocol }) => {
      const { node } = cluster.lab;
      const service = cluster.service('node-port-service');
      const targets = nodePorts(service, family, protocol);
      const areUp = async (): Promise<unknown> =>
        Promise.all(targets.map(async (target) => isUp(node, target, endpoints)));
      const areDown = async (): Promise<unknown> =>
        Promise.all(targets.map(async (target) => isDown(node, target)));
      await write(service);
      await areUp();
      // Upstream deletes the Service; to its node ports it is the same when it gives them up.
      await write(service, { hasNodePorts: false });
      await areDown();
      await isUp(node, service.at(family, { protocol }), endpoints);
      await write(service);
      await areUp();
      await service.delete();
      await areDown();
    });

    test.for(PROTOCOLS)(
      'should function for client IP based session affinity: $name [LinuxOnly]',
      async ({ protocol }) => {
        const service = cluster.service('session-affinity-service');
        await write(service, { affinity: 'ClientIP' });
        const host = await isSticky(testPod, service.at(family, { protocol }), AFFINITY_CHECKS);
        expect(endpoints.map(({ name }) => name)).toContain(host);
      },
    );

    test.for(PROTOCOLS)('should be able to handle large requests: $name', async ({ protocol }) => {
      const service = cluster.service('node-port-service');
      await write(service);
      await carriesLargeRequests(service, { family, protocol });
    });

    test('should function for service endpoints using hostNetwork', async () => {
      const { nodes } = cluster;
      const service = cluster.service('node-port-service');
      await write(service, { backends: nodes });
      for (const { protocol } of PROTOCOLS) {
        for (const from of [testPod, ...nodes])
          await isServed(from, service, { family, protocol, backends: nodes });
        await carriesLargeRequests(service, { family, protocol });
      }
    });
  });
});
