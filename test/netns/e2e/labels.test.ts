/**
 * Kubernetes' test/e2e/network/service.go, "Services": Services that a label keeps from this proxy. Reproduced here with
 * the proxy in network namespaces and its objects in manifests; every test has the name of the upstream case, once for
 * each IP family. With an API server, where the labels are a selector, test/cluster/services.test.ts does the same.
 *
 * Of what kpng's userspacelin had to skip for good, none is here.
 */
import { afterAll, beforeAll, describe, test } from 'vitest';
import type { Family } from '../../support/dual-stack.ts';
import { E2eCluster, type E2eService, FAMILIES, NAME_PORT } from '../../support/e2e-cluster.ts';
import { isDown, isUp } from '../../support/e2e-reach.ts';
import { canMakeNamespaces, type Host } from '../../support/netns-lab.ts';

const CASES = [
  { label: 'service.kubernetes.io/service-proxy-name', value: 'foo-bar' },
  // Any value counts, be it none.
  { label: 'service.kubernetes.io/headless', value: '' },
];

describe.skipIf(canMakeNamespaces() !== undefined)('Services', { concurrent: true }, () => {
  let cluster: E2eCluster;
  let backends: readonly Host[];

  beforeAll(async () => {
    cluster = await E2eCluster.start({ pods: 4 });
    backends = [1, 2, 3].map((number) => cluster.lab.pod(number));
  });
  afterAll(async () => {
    await cluster?.close();
  });

  /** Its slices have its labels, as the EndpointSlice controller sees to it. */
  const write = async (service: E2eService, labels: Readonly<Record<string, string>>): Promise<void> => {
    await service.write({
      ports: [{ name: 'http', port: 80, targetPort: NAME_PORT, nodePort: service.nodePort() }],
      backends,
      tweak: ({ metadata }) => void Object.assign(metadata ?? {}, { labels }),
      tweakSlice: ({ metadata }) => void Object.assign(metadata?.labels ?? {}, labels),
    });
  };

  describe.for(FAMILIES)('over %s', { concurrent: true }, (family: Family) => {
    test.for(CASES)('should implement $label', async ({ label, value }) => {
      const { lab } = cluster;
      const client = lab.pod(4);
      const disabled = cluster.service('disabled');
      const toggled = cluster.service('toggled');
      const nodePortOf = (service: E2eService): ReturnType<E2eService['at']> =>
        service.atNode(lab.node, family);
      await write(disabled, { [label]: value });
      await write(toggled, {});
      await isUp(client, toggled.at(family), backends);
      await isUp(lab.ext, nodePortOf(toggled), backends);
      await isDown(client, disabled.at(family));
      await isDown(lab.ext, nodePortOf(disabled));
      await write(toggled, { [label]: value });
      await isDown(client, toggled.at(family));
      await isDown(lab.ext, nodePortOf(toggled));
      await write(toggled, {});
      await isUp(client, toggled.at(family), backends);
      await isUp(lab.ext, nodePortOf(toggled), backends);
      await isDown(client, disabled.at(family));
    });
  });
});
