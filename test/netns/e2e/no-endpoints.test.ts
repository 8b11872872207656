/**
 * Kubernetes' test/e2e/network/service.go, "Services": whoever connects to a Service without endpoints is refused, at
 * once. Reproduced here with the proxy in network namespaces; every test has the name of the upstream case, once for
 * each IP family. Upstream tries TCP at the clusterIP from a pod; here it is every kind of address, TCP and UDP, from
 * wherever the address can be used.
 *
 * Of what kpng's userspacelin had to skip for good, both are here: rejected when there are no endpoints, and for evicted
 * pods.
 */
import { afterAll, beforeAll, describe, test } from 'vitest';
import type { Family } from '../../support/dual-stack.ts';
import { E2eCluster, type E2eService, FAMILIES, NAME_PORT } from '../../support/e2e-cluster.ts';
import type { E2eSpec } from '../../support/e2e-objects.ts';
import { isRefused, isUp, type Target } from '../../support/e2e-reach.ts';
import { canMakeNamespaces, type Host } from '../../support/netns-lab.ts';

const PROTOCOLS = ['TCP', 'UDP'] as const;

describe.skipIf(canMakeNamespaces() !== undefined)('Services', { concurrent: true }, () => {
  let cluster: E2eCluster;

  beforeAll(async () => {
    cluster = await E2eCluster.start({ pods: 2 });
    // The kernel sends a client six ICMP errors, and then one a second; these tests ask for more.
    await cluster.lab.node.run(['sh', '-c', 'echo 0 >/proc/sys/net/ipv4/icmp_ratelimit']);
  });
  afterAll(async () => {
    await cluster?.close();
  });

  /** With an address of every kind, for both protocols. */
  const specOf = (service: E2eService, spec: Partial<E2eSpec> = {}): E2eSpec => ({
    ports: PROTOCOLS.map((protocol) => ({
      name: protocol.toLowerCase(),
      port: 80,
      targetPort: NAME_PORT,
      protocol,
      nodePort: service.nodePort(),
    })),
    ...spec,
    tweak: (made) => {
      made.spec.type = 'LoadBalancer';
      made.spec.externalIPs = FAMILIES.map((family) => service.externalIP(family));
      made.status = {
        loadBalancer: { ingress: FAMILIES.map((family) => ({ ip: service.loadBalancerIP(family) })) },
      };
      spec.tweak?.(made);
    },
  });

  /** From a pod, the node and outside: every address that one has a way to. */
  const placesOf = (service: E2eService, family: Family): readonly { from: Host; target: Target }[] => {
    const { lab } = cluster;
    return PROTOCOLS.flatMap((protocol) => {
      const outer = [
        service.atNode(lab.node, family, { protocol }),
        { host: service.externalIP(family), port: 80, protocol },
        { host: service.loadBalancerIP(family), port: 80, protocol },
      ];
      const inner = [service.at(family, { protocol }), ...outer];
      return [
        ...inner.map((target) => ({ from: lab.pod(2), target })),
        ...inner.map((target) => ({ from: lab.node, target })),
        ...outer.map((target) => ({ from: lab.ext, target })),
      ];
    });
  };
  const isRefusedEverywhere = async (service: E2eService, family: Family): Promise<void> => {
    for (const { from, target } of placesOf(service, family)) await isRefused(from, target);
  };

  describe.for(FAMILIES)('over %s', { concurrent: true }, (family: Family) => {
    test('should be rejected when no endpoints exist', async () => {
      const service = cluster.service('no-pods');
      await service.write(specOf(service));
      await isRefusedEverywhere(service, family);
    });

    test('should be rejected when no endpoints exist, nor any slice', async () => {
      const service = cluster.service('no-slices');
      await service.write(specOf(service, { hasSlices: false }));
      await isRefusedEverywhere(service, family);
    });

    test('should be rejected for evicted pods (no endpoints exist)', async () => {
      const service = cluster.service('evicted-pods');
      const backends = [cluster.lab.pod(1)];
      const tweak: E2eSpec['tweak'] = ({ spec }) => void (spec.publishNotReadyAddresses = true);
      await service.write(specOf(service, { backends, tweak }));
      for (const { from, target } of placesOf(service, family)) await isUp(from, target, backends);
      await service.write(specOf(service, { tweak }));
      await isRefusedEverywhere(service, family);
      await service.write(specOf(service, { backends, tweak }));
      for (const { from, target } of placesOf(service, family)) await isUp(from, target, backends);
    });

    test('should be rejected for evicted pods (no endpoints exist that are ready or serve)', async () => {
      const service = cluster.service('evicted-pods');
      await service.write(
        specOf(service, {
          backends: [cluster.lab.pod(1)],
          tweakSlice: ({ endpoints = [] }) => {
            for (const endpoint of endpoints) endpoint.conditions = { ready: false, serving: false };
          },
        }),
      );
      await isRefusedEverywhere(service, family);
    });
  });
});
