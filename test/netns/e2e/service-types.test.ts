/**
 * Kubernetes' test/e2e/network/service.go, "Services": NodePort Services, and Services whose type changes. Reproduced
 * here with the proxy in network namespaces; every test has the name of the upstream case, once for each IP family.
 * Upstream also looks the externalName up in DNS, which is no proxy's business.
 *
 * Of what kpng's userspacelin had to skip for good, none is here.
 */
import { afterAll, beforeAll, describe, test } from 'vitest';
import type { Family } from '../../support/dual-stack.ts';
import { E2eCluster, type E2eService, FAMILIES, NAME_PORT } from '../../support/e2e-cluster.ts';
import type { E2eSpec } from '../../support/e2e-objects.ts';
import { isDown, isUp } from '../../support/e2e-reach.ts';
import { canMakeNamespaces, type Host } from '../../support/netns-lab.ts';
import type { ServiceTweak } from '../../support/objects.ts';

const HTTP = { name: 'http', port: 80, targetPort: NAME_PORT };

/** As the API server leaves it: without clusterIPs. */
const becomeExternalName: ServiceTweak = ({ spec }) => {
  Object.assign(spec, { type: 'ExternalName', externalName: 'externalsvc.default.svc.cluster.local' });
  delete spec.clusterIP;
  delete spec.clusterIPs;
};

describe.skipIf(canMakeNamespaces() !== undefined)('Services', { concurrent: true }, () => {
  let cluster: E2eCluster;
  let backends: readonly Host[];

  beforeAll(async () => {
    cluster = await E2eCluster.start({ nodes: 2, pods: 2 });
    backends = [cluster.lab.pod(1), cluster.lab.podOn2(1)];
  });
  afterAll(async () => {
    await cluster?.close();
  });

  /** From a pod by the clusterIP; from it, from each node and from outside by every node's node port. */
  const isReachable = async (service: E2eService, family: Family): Promise<void> => {
    const { lab, nodes } = cluster;
    await isUp(lab.pod(2), service.at(family), backends);
    for (const from of [lab.pod(2), ...nodes, lab.ext])
      for (const node of nodes) await isUp(from, service.atNode(node, family), backends);
  };
  const isGone = async (service: E2eService, family: Family): Promise<void> => {
    const { lab, nodes } = cluster;
    for (const from of [lab.pod(2), lab.ext]) {
      for (const node of nodes) await isDown(from, service.atNode(node, family));
    }
    await isDown(lab.pod(2), service.at(family));
  };
  const nodePort = (service: E2eService): E2eSpec => ({
    ports: [{ ...HTTP, nodePort: service.nodePort() }],
    backends,
  });
  const plain = (): E2eSpec => ({ ports: [HTTP], backends });
  const externalName = (spec: E2eSpec): E2eSpec => ({ ...spec, tweak: becomeExternalName });

  describe.for(FAMILIES)('over %s', { concurrent: true }, (family: Family) => {
    test('should be able to create a functioning NodePort service', async () => {
      const service = cluster.service('nodeport-test');
      await service.write(nodePort(service));
      await isReachable(service, family);
    });

    test('should be able to change the type from ExternalName to ClusterIP', async () => {
      const service = cluster.service('externalname-service');
      const client = cluster.lab.pod(2);
      await service.write(externalName(plain()));
      await isDown(client, service.at(family));
      await service.write(plain());
      await isUp(client, service.at(family), backends);
    });

    test('should be able to change the type from ExternalName to NodePort', async () => {
      const service = cluster.service('externalname-service');
      await service.write(externalName(plain()));
      await isGone(service, family);
      await service.write(nodePort(service));
      await isReachable(service, family);
    });

    test('should be able to change the type from ClusterIP to ExternalName', async () => {
      const service = cluster.service('clusterip-service');
      const client = cluster.lab.pod(2);
      await service.write(plain());
      await isUp(client, service.at(family), backends);
      await service.write(externalName(plain()));
      await isDown(client, service.at(family));
    });

    test('should be able to change the type from NodePort to ExternalName', async () => {
      const service = cluster.service('nodeport-service');
      await service.write(nodePort(service));
      await isReachable(service, family);
      await service.write(externalName(plain()));
      await isGone(service, family);
    });

    test('should be able to change the type from NodePort to ExternalName, whatever the object still says', async () => {
      const service = cluster.service('nodeport-service');
      await service.write(nodePort(service));
      await isReachable(service, family);
      // A clusterIP and a node port that were left in are not served either.
      await service.write({ ...nodePort(service), tweak: ({ spec }) => void (spec.type = 'ExternalName') });
      await isGone(service, family);
      await service.write(nodePort(service));
      await isReachable(service, family);
    });

    test('should be able to update service type to NodePort listening on same port number but different protocols', async () => {
      const service = cluster.service('nodeport-update-service');
      const { lab, nodes } = cluster;
      const tcp = { ...HTTP, name: 'tcp-port', nodePort: service.nodePort() };
      const udp = { ...tcp, name: 'udp-port', protocol: 'UDP' } as const;
      await service.write({ ports: [{ ...HTTP, name: 'tcp-port' }], backends });
      await isUp(lab.pod(2), service.at(family), backends);
      await isDown(lab.ext, service.atNode(lab.node, family));
      await service.write({ ports: [tcp], backends });
      await isReachable(service, family);
      await service.write({ ports: [tcp, udp], backends });
      for (const protocol of ['TCP', 'UDP'] as const) {
        await isUp(lab.pod(2), service.at(family, { protocol }), backends);
        for (const node of nodes) await isUp(lab.ext, service.atNode(node, family, { protocol }), backends);
      }
    });
  });
});
