/**
 * Upstream's tests of endpoints that are being deleted: where no other is ready they go on serving, for the cluster
 * and for each node's own set by itself.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { canMakeNamespaces, type Host, type Lab } from '../../support/netns-lab.ts';
import {
  atClusterIP,
  atNodePort,
  type EndpointAt,
  FAMILIES,
  nodeObject,
  SERVICE_PORT,
  TERMINATING,
  type TwoNodeServiceOptions,
  twoNodeService,
} from '../../support/two-nodes-objects.ts';
import { TwoNodes } from '../../support/two-nodes.ts';

/** Being deleted, and no longer passing its readiness probe. */
const FAILING: EndpointAt['conditions'] = { ready: false, serving: false, terminating: true };

describe.skipIf(canMakeNamespaces() !== undefined)('[sig-network] Services', () => {
  let nodes: TwoNodes;
  let lab: Lab;
  let pod: Host;
  let podOn2: Host;

  beforeAll(async () => {
    nodes = await TwoNodes.start({
      args: ['--detect-local-mode=NodeCIDR'],
      objects: ({ node, node2 }) => [nodeObject(node), nodeObject(node2)],
    });
    ({ lab } = nodes);
    pod = nodes.client;
    podOn2 = nodes.clientOn2;
  });
  afterAll(async () => {
    await nodes?.[Symbol.asyncDispose]();
  });

  const apply = async (...services: readonly TwoNodeServiceOptions[]): Promise<void> =>
    nodes.apply(nodeObject(lab.node), nodeObject(lab.node2), ...services.flatMap(twoNodeService));

  /** With one ready pod on the first node, which then is deleted, but serves on while it may. */
  const applyAndDelete = async (service: Omit<TwoNodeServiceOptions, 'endpoints'>): Promise<void> => {
    await apply({ ...service, endpoints: [lab.pod(1)] });
    await apply({ ...service, endpoints: [{ host: lab.pod(1), conditions: TERMINATING }] });
  };

  test('should fallback to terminating endpoints when there are no ready endpoints with internalTrafficPolicy=Cluster', async () => {
    await applyAndDelete({ name: 'itp-cluster', number: 10 });
    await nodes.expect([
      [pod, atClusterIP(10), 'pod1'],
      [podOn2, atClusterIP(10), 'pod1'],
    ]);
  });

  test('should fallback to local terminating endpoints when there are no ready endpoints with internalTrafficPolicy=Local', async () => {
    await applyAndDelete({ name: 'itp-local', number: 11, internal: 'Local' });
    await nodes.expect([
      [pod, atClusterIP(11), 'pod1'],
      [podOn2, atClusterIP(11), 'silence'],
    ]);
  });

  // The name is upstream's to the letter.
  test('should fallback to terminating endpoints when there are no ready endpoints with externallTrafficPolicy=Cluster', async () => {
    await applyAndDelete({ name: 'etp-cluster', number: 12, type: 'NodePort' });
    await nodes.expect([
      [pod, atNodePort(12, lab.node), 'pod1'],
      [podOn2, atNodePort(12, lab.node), 'pod1'],
      [lab.ext, atNodePort(12, lab.node2), 'pod1'],
    ]);
  });

  test('should fallback to local terminating endpoints when there are no ready endpoints with externalTrafficPolicy=Local', async () => {
    await applyAndDelete({ name: 'etp-local', number: 13, type: 'NodePort', external: 'Local' });
    await nodes.expect([
      // From another node's pod it is external, and there is no endpoint.
      [pod, atNodePort(13, lab.node2), 'silence'],
      [lab.ext, atNodePort(13, lab.node2), 'silence'],
      [pod, atNodePort(13, lab.node), 'pod1'],
      [podOn2, atNodePort(13, lab.node), 'pod1'],
      // As kube-proxy has it, and upstream does not ask: a pod to its own node's port.
      [podOn2, atNodePort(13, lab.node2), 'pod1'],
    ]);
  });

  test('the cluster’s endpoints and those of a node fall back each by themselves', async () => {
    await apply({
      name: 'apart',
      number: 14,
      type: 'NodePort',
      external: 'Local',
      endpoints: [{ host: lab.pod(1), conditions: TERMINATING }, lab.podOn2(1)],
    });
    await nodes.expect([
      [lab.ext, atNodePort(14, lab.node), 'pod1'],
      [lab.ext, atNodePort(14, lab.node2), 'node2-pod1'],
      [pod, atClusterIP(14), 'node2-pod1'],
      [pod, atNodePort(14, lab.node), 'node2-pod1'],
    ]);
  });

  test('an endpoint that is deleted and does not serve any more is no fallback', async () => {
    await apply({
      name: 'failing',
      number: 15,
      type: 'NodePort',
      endpoints: [{ host: lab.pod(1), conditions: FAILING }],
    });
    await nodes.expect([
      [pod, atClusterIP(15), 'refused'],
      [lab.ext, atNodePort(15, lab.node), 'refused'],
    ]);
  });

  test('new connections leave an endpoint that is being deleted, those it has stay', async () => {
    const service = { name: 'leaving', number: 16 };
    await apply({ ...service, endpoints: [lab.pod(1)] });
    const client = await pod.agent();
    const held = await Promise.all(
      FAMILIES.map(async (family) =>
        client.tcpHold({ ...atClusterIP(16).at(family), count: 3, named: true }),
      ),
    );
    expect(held.map(({ byName }) => byName)).toEqual([{ pod1: 3 }, { pod1: 3 }]);
    await apply({ ...service, endpoints: [{ host: lab.pod(1), conditions: TERMINATING }, lab.podOn2(1)] });
    await nodes.expect([[pod, atClusterIP(16, SERVICE_PORT), 'node2-pod1']]);
    const after = await Promise.all(held.map(async ({ id }) => client.heldStatus({ id })));
    expect(after.map(({ open }) => open)).toEqual([3, 3]);
  });
});
