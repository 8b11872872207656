/** The control plane the other cluster tests stand on: that it is a real one, that it can fail, that it goes away. */
import { existsSync } from 'node:fs';
import { dirname } from 'node:path';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { ApiError, type WatchEvent } from '../support/cluster-api.ts';
import type { ApiClient } from '../support/cluster-api.ts';
import { clusterAssets, whyNoCluster } from '../support/cluster-assets.ts';
import { pathOf } from '../support/cluster-paths.ts';
import { ControlPlane } from '../support/control-plane.ts';
import { createLab, type Lab } from '../support/netns-lab.ts';

const reason = whyNoCluster();
if (reason !== undefined) process.stderr.write(`skipped, for lack of a control plane: ${reason}\n`);

const NODE = 'node-1';
const SERVICES = pathOf('services', { namespace: 'default' });

describe.skipIf(clusterAssets() === undefined)('a control plane', () => {
  let lab: Lab;
  let plane: ControlPlane;
  beforeAll(async () => {
    lab = await createLab({ pods: 2 });
    plane = await ControlPlane.start(lab);
    await plane.objects.createNode({ name: NODE, ips: [lab.node.ipv4] });
  });
  afterAll(async () => {
    await plane?.close();
    await lab?.close();
  });

  /** `ready` or not by address, over all slices of the Service. */
  const endpointsOf = async (service: string): Promise<Record<string, boolean>> => {
    const slices = await plane.objects.slicesOf(service);
    const endpoints = slices.flatMap((slice) => slice.endpoints ?? []);
    return Object.fromEntries(
      endpoints.map(({ addresses, conditions }) => [addresses[0] ?? '', conditions?.ready !== false]),
    );
  };
  const haveEndpoints = async (service: string, expected: Record<string, boolean>): Promise<void> => {
    await expect.poll(async () => endpointsOf(service), { timeout: 5_000 }).toEqual(expected);
  };

  test('makes slices of both families from a Service and its ready pods', async () => {
    const { spec } = await plane.objects.createService({
      name: 'web',
      spec: { ipFamilyPolicy: 'RequireDualStack' },
    });
    expect(spec?.clusterIPs).toEqual([
      expect.stringMatching(/^10\.96\./),
      expect.stringMatching(/^fd00:96::/),
    ]);
    const addresses = lab.pods.flatMap(({ ipv4, ipv6 }) => [ipv4, ipv6]);
    for (const { name, ipv4, ipv6 } of lab.pods) {
      await plane.objects.createPod({ name, labels: { app: 'web' }, ips: [ipv4, ipv6], nodeName: NODE });
    }
    await haveEndpoints('web', Object.fromEntries(addresses.map((address) => [address, true])));

    const [first, second] = lab.pods;
    await plane.objects.setPodReady('pod1', false);
    await haveEndpoints('web', {
      ...Object.fromEntries([first?.ipv4, first?.ipv6].map((address) => [address, false])),
      ...Object.fromEntries([second?.ipv4, second?.ipv6].map((address) => [address, true])),
    });
    await plane.objects.deletePod('pod1');
    await haveEndpoints('web', Object.fromEntries([second?.ipv4, second?.ipv6].map((each) => [each, true])));
    await plane.objects.deleteService('web');
    await haveEndpoints('web', {});
  });

  test('leaves slices that a test writes to the test', async () => {
    await plane.objects.createService({ name: 'own', selector: null });
    const request = { name: 'own-1', service: 'own' };
    await plane.objects.writeSlice({ ...request, endpoints: ['10.244.1.50'] });
    await plane.objects.updateSlice({ ...request, endpoints: ['10.244.1.51'] });
    expect(await endpointsOf('own')).toEqual({ '10.244.1.51': true });
  });

  test('is reached by the node, by pods and from outside', async () => {
    for (const host of [lab.node, lab.pod(1), lab.ext]) {
      const agent = await host.agent();
      expect(await agent.tcpProbe({ host: '10.99.0.2', port: 6443 })).toMatchObject({ outcome: 'connected' });
    }
  });

  test('says which request failed, how and why', async () => {
    const path = `${SERVICES}/nobody`;
    await expect(plane.api.get(path)).rejects.toThrow(
      `GET ${path}: 404 NotFound: services "nobody" not found`,
    );
    const nobody = plane.client({});
    await expect(nobody.get(path)).rejects.toMatchObject({ status: 401, reason: 'Unauthorized' });
  });

  test('takes client certificates of the authorities it trusts, and of no other', async () => {
    const other = await plane.createClientCa('other-ca');
    const subject = { user: 'carol', groups: ['system:masters', 'a/b+c'] };
    const old = plane.client(await plane.issueClientCert(subject));
    const young = plane.client(await plane.issueClientCert({ ...subject, ca: other }));
    await old.list(SERVICES);
    await expect(young.list(SERVICES)).rejects.toMatchObject({ status: 401 });
    await plane.trustClientCAs([other], { restart: true });
    await young.list(SERVICES);
    await expect(old.list(SERVICES)).rejects.toMatchObject({ status: 401 });
    await plane.trustClientCAs([plane.clientCa], { restart: true });
  });

  test('refuses the token of a Secret that is gone', async () => {
    const name = 'proxy';
    await plane.objects.createServiceAccount(name);
    await plane.objects.bindClusterRole('system:node-proxier', `system:serviceaccount:default:${name}`);
    const secret = await plane.objects.createSecret('session');
    const token = async (): Promise<ApiClient> => {
      const request = { name, boundTo: secret, expirationSeconds: 600 };
      return plane.client({ token: await plane.objects.serviceAccountToken(request) });
    };
    const [used, unused] = [await token(), await token()];
    await used.list(SERVICES);
    await expect(used.list(pathOf('secrets'))).rejects.toMatchObject({ status: 403 });
    await plane.api.delete(pathOf('secrets', { namespace: 'default', name: 'session' }));
    // A token that was accepted is accepted unseen for another ten seconds; this one never was.
    await expect.poll(async () => statusOf(unused.list(SERVICES)), { timeout: 5_000 }).toBe(401);
  });

  test('lists what a user asked for', async () => {
    const user = 'dave';
    const dave = plane.client(await plane.issueClientCert({ user }));
    await plane.objects.bindClusterRole('system:node-proxier', user);
    await expect.poll(async () => statusOf(dave.list(pathOf('services'))), { timeout: 5_000 }).toBe(200);
    await statusOf(dave.get(pathOf('secrets', { namespace: 'default', name: 'x' })));
    for await (const _ of dave.watch(pathOf('endpointslices'))) break;
    const audited = async (): Promise<readonly string[]> =>
      (await plane.auditedRequests({ user })).map(
        ({ verb, resource, code }) => `${verb} ${resource} ${code}`,
      );
    const expected = [
      'list services 200',
      'get secrets 403',
      // Written when it has ended.
      'watch endpointslices.discovery.k8s.io 200',
    ];
    await expect.poll(audited, { timeout: 5_000 }).toEqual(expect.arrayContaining(expected));
    const counts = await plane.requestCounts();
    expect(counts.find(({ verb, resource }) => verb === 'LIST' && resource === 'services')).toMatchObject({
      code: '200',
    });
  });

  test('answers nothing while it is paused, and everything afterwards', async () => {
    plane.pauseApiServer();
    onTestFinished(() => plane.resumeApiServer());
    let isAnswered = false;
    const answer = plane.api.list(SERVICES).then(() => {
      isAnswered = true;
    });
    const agent = await lab.node.agent();
    expect(await agent.tcpProbe({ host: '10.99.0.2', port: 6443 })).toMatchObject({ outcome: 'connected' });
    expect(isAnswered).toBe(false);
    plane.resumeApiServer();
    await answer;
  });

  test('keeps its objects over a crash, but not the history', async () => {
    const { metadata } = await plane.objects.createService({ name: 'kept' });
    const { resourceVersion } = metadata;
    const watched = async (): Promise<WatchEvent> => firstEvent(plane.api, SERVICES, { resourceVersion });
    await plane.objects.createService({ name: 'later' });
    expect(await watched()).toMatchObject({ type: 'ADDED', object: { metadata: { name: 'later' } } });

    await plane.killApiServer();
    await expect(plane.api.list(SERVICES)).rejects.not.toBeInstanceOf(ApiError);
    const revision = await plane.compactEtcd();
    expect(revision).toBeGreaterThan(Number(resourceVersion));
    await plane.startApiServer({ until: 'accepting' });
    await plane.apiServer.ready();
    expect(await plane.api.get(`${SERVICES}/kept`)).toMatchObject({ metadata: { uid: metadata.uid } });
    expect(await watched()).toMatchObject({ type: 'ERROR', object: { code: 410, reason: 'Expired' } });
  });

  test('forgets the events before a compaction', async () => {
    const events = pathOf('events', { namespace: 'default' });
    const { metadata } = await plane.api.list(events);
    await plane.objects.createService({ name: 'newer' });
    await plane.compactEtcd();
    const { resourceVersion } = metadata;
    expect(await firstEvent(plane.api, events, { resourceVersion })).toMatchObject({
      type: 'ERROR',
      object: { code: 410 },
    });
  });

  test('has a second API server when it is asked for one, which takes over', async () => {
    const second = await plane.addApiServer();
    await haveEndpoints('kubernetes', { '10.99.0.2': true, '10.99.0.3': true });
    await plane.killApiServer();
    expect((await second.api.get(pathOf('nodes', { name: NODE }))).metadata.name).toBe(NODE);
    await plane.startApiServer();
    await second.stop();
    expect(second.isRunning).toBe(false);
  });

  test('says why a program does not start', async () => {
    const other = await createLab({ pods: 0 });
    onTestFinished(async () => other.close());
    const start = ControlPlane.start(other, { apiServerFlags: ['--no-such-flag'] });
    await expect(start).rejects.toThrow(/kube-apiserver has ended:[^]*no-such-flag/);
  });

  test('leaves no files', async () => {
    const directory = dirname(plane.serverCaPath);
    expect(existsSync(directory)).toBe(true);
    await plane.close();
    await plane.close();
    expect(existsSync(directory)).toBe(false);
  });
});

/** The status of the answer, 200 for all that are no error. */
async function statusOf(answer: Promise<unknown>): Promise<number> {
  try {
    await answer;
    return 200;
  } catch (error: unknown) {
    if (error instanceof ApiError) return error.status;
    throw error;
  }
}

async function firstEvent(api: ApiClient, path: string, query: object): Promise<WatchEvent> {
  for await (const event of api.watch(path, { ...query }, AbortSignal.timeout(5_000))) return event;
  throw new Error(`the watch on ${path} ended without an event`);
}
