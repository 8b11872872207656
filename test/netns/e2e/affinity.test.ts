/**
 * Kubernetes' test/e2e/network/service.go, "Services": the six cases of session affinity. Reproduced here with the
 * proxy in network namespaces; every test has the name of the upstream case, once for each IP family. NodePorts are used
 * from a pod, as upstream, and from outside; further properties of affinity are in test/netns/affinity.test.ts.
 *
 * Of what kpng's userspacelin had to skip for good, four are here: to switch session affinity and its time-out, both for
 * clusterIP and for NodePort.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Family } from '../../support/dual-stack.ts';
import { E2eCluster, type E2eService, FAMILIES, NAME_PORT } from '../../support/e2e-cluster.ts';
import { ask, isSticky, isUp, type Target } from '../../support/e2e-reach.ts';
import { canMakeNamespaces, type Host } from '../../support/netns-lab.ts';
import { waitFor } from '../../support/wait.ts';

/** Upstream's: so many answers of one host in a row make an affinity. */
const IN_A_ROW = 15;
/** Upstream's: so often a client may come back after the time-out until it is led to another host. */
const TRIES = 10;
/** Upstream waits for 15 s, and for 5 s more. */
const TIMEOUT_S = 2;

const KINDS = [
  { kind: 'ClusterIP', named: 'service with type clusterIP' },
  { kind: 'NodePort', named: 'NodePort service' },
] as const;

interface Place {
  readonly from: Host;
  readonly target: Target;
}

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

  const write = async (
    service: E2eService,
    kind: 'ClusterIP' | 'NodePort',
    { affinity = 'ClientIP', timeoutSeconds = 60 } = {},
  ): Promise<void> => {
    const nodePort = kind === 'NodePort' ? { nodePort: service.nodePort() } : {};
    await service.write({
      ports: [{ name: 'http', port: 80, targetPort: NAME_PORT, ...nodePort }],
      backends,
      tweak: ({ spec }) => {
        const sessionAffinityConfig = { clientIP: { timeoutSeconds } };
        Object.assign(spec, {
          sessionAffinity: affinity,
          ...(affinity === 'None' ? {} : { sessionAffinityConfig }),
        });
      },
    });
  };

  /** Where a Service of that type is used. */
  const placesOf = (
    service: E2eService,
    kind: 'ClusterIP' | 'NodePort',
    family: Family,
  ): readonly [Place, ...Place[]] => {
    const { lab } = cluster;
    if (kind === 'ClusterIP') return [{ from: lab.pod(4), target: service.at(family) }];
    const target = service.atNode(lab.node, family);
    return [
      { from: lab.pod(4), target },
      { from: lab.ext, target },
    ];
  };

  describe.for(FAMILIES)('over %s', { concurrent: true }, (family: Family) => {
    describe.for(KINDS)('$kind', { concurrent: true }, ({ kind, named }) => {
      test(`should have session affinity work for ${named}`, async () => {
        const service = cluster.service('affinity');
        await write(service, kind);
        for (const { from, target } of placesOf(service, kind, family)) {
          const host = await isSticky(from, target, IN_A_ROW);
          expect(await ask(from, target, { count: IN_A_ROW })).toEqual(Array(IN_A_ROW).fill(host));
        }
      });

      test(`should have session affinity timeout work for ${named}`, async () => {
        const service = cluster.service('affinity-timeout');
        await write(service, kind, { timeoutSeconds: TIMEOUT_S });
        const [{ from, target }] = placesOf(service, kind, family);
        const host = await isSticky(from, target, IN_A_ROW);
        // Each try comes only when the client has been away for longer than the time-out.
        const isAnother = async (): Promise<boolean> => {
          const [name = ''] = await ask(from, target);
          expect(backends.map((backend) => backend.name)).toContain(name);
          return name !== host;
        };
        const intervalMs = TIMEOUT_S * 1_000 + 100;
        await waitFor(isAnother, {
          timeoutMs: TRIES * intervalMs,
          intervalMs,
          what: `another host than ${host} to answer after the time-out`,
        });
      });

      test(`should be able to switch session affinity for ${named}`, async () => {
        const service = cluster.service('affinity-transition');
        const places = placesOf(service, kind, family);
        await write(service, kind);
        for (const { from, target } of places) await isSticky(from, target, IN_A_ROW);
        await write(service, kind, { affinity: 'None' });
        for (const { from, target } of places) await isUp(from, target, backends);
        await write(service, kind);
        for (const { from, target } of places) await isSticky(from, target, IN_A_ROW);
        await write(service, kind, { affinity: 'None' });
        for (const { from, target } of places) await isUp(from, target, backends);
      });
    });
  });
});
