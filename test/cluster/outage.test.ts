/**
 * The API server goes away, hangs, loses its history, or was never there: what was known goes on to be served, and
 * what was missed is made good.
 */
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { ClusterUnderTest, whyNoClusterTests } from '../support/cluster-under-test.ts';
import type { ApiServer } from '../support/cluster-api-server.ts';
import { pathOf } from '../support/cluster-paths.ts';
import { buildSlice } from '../support/cluster-slices.ts';
import type { ProxyProcess } from '../support/proxy-process.ts';
import { waitFor } from '../support/wait.ts';

const isLong = process.env['KUP_TEST_LONG'] === '1';
const OUTAGE_MS = isLong ? 60_000 : 6_000;
/** The promise; the tests give it five times as long. */
const RECOVERY_MS = 5_000;
const RESOURCES = ['services', 'endpointslices', 'nodes'] as const;

describe.skipIf(whyNoClusterTests() !== undefined)('when the API server', { timeout: 300_000 }, () => {
  let cluster: ClusterUnderTest;
  let proxy: ProxyProcess;
  /** The proxy knows nothing of it: by it objects change while the proxy cannot see. */
  let other: ApiServer;
  let web: string;

  beforeAll(async () => {
    cluster = await ClusterUnderTest.start();
    other = await cluster.plane.addApiServer();
    await cluster.createPods('web', [1, 2]);
    web = await cluster.createService('web');
    await cluster.createPods('doomed', [3]);
    proxy = await cluster.startProxy();
    await cluster.answeredBy(web, ['pod1', 'pod2']);
  });
  afterAll(async () => {
    await cluster?.close();
  });

  /** Fresh connections to `web` without pause until the result is called, which gives how many there were. */
  const loadOnWeb = async (): Promise<() => Promise<number>> => {
    const client = await cluster.lab.pod(4).agent();
    const { id } = await client.startConnectLoad({
      host: web,
      port: 80,
      concurrency: 4,
      pauseMs: 5,
      maxDurationMs: 200_000,
    });
    return async () => {
      const report = await client.stopLoad({ id });
      expect(report).toMatchObject({ failed: 0, failures: [] });
      expect(report.requests).toBeGreaterThan(100);
      return report.requests;
    };
  };

  const isUp = async (): Promise<boolean> => (await proxy.metric('userspace_proxy_api_watch_up')) === 3;
  const isUpAgain = async (timeoutMs = 5 * RECOVERY_MS): Promise<void> => {
    await waitFor(isUp, { timeoutMs, what: 'all watches to be up' });
  };
  const outage = async (lengthMs: number): Promise<void> => {
    const end = performance.now() + lengthMs;
    const hasPassed = async (): Promise<boolean> => performance.now() >= end;
    await waitFor(hasPassed, { timeoutMs: lengthMs + 5_000, what: 'the outage to be over', intervalMs: 200 });
  };

  test('is killed and comes back, no request fails, and what changed meanwhile is true again in seconds', async () => {
    const gone = await cluster.createService('doomed');
    await cluster.answeredBy(gone, ['pod3']);
    const endLoad = await loadOnWeb();
    await cluster.plane.killApiServer();
    const isDown = async (): Promise<boolean> =>
      (await proxy.metric('userspace_proxy_api_watch_up')) === 0 &&
      (await proxy.metric('userspace_proxy_api_down_since_timestamp_seconds', { resource: 'services' })) > 0;
    await waitFor(isDown, { timeoutMs: 10_000, what: 'the outage to show in the metrics' });
    const { since } = await proxy.logged(
      ({ msg, resource }) =>
        String(msg).startsWith('The API server cannot be watched') && resource === 'services',
      'the outage',
    );
    expect(Date.parse(String(since))).toBeGreaterThan(Date.now() - 60_000);

    const api = other.api;
    await api.delete('/api/v1/namespaces/default/services/doomed');
    await api.create('/api/v1/namespaces/default/services', {
      metadata: { name: 'new' },
      spec: { ports: [{ name: 'http', port: 80, targetPort: 8080 }] },
    });
    // By hand: the controllers have lost their API server too, and take their own time to come back.
    const endpoints = [1, 2].map((number) => cluster.lab.pod(number).ipv4);
    await api.create(
      pathOf('endpointslices', { namespace: 'default' }),
      buildSlice({ name: 'new-1', service: 'new', endpoints }),
    );
    const created = await api.get<{ spec: { clusterIP: string } }>('/api/v1/namespaces/default/services/new');
    await outage(OUTAGE_MS);
    // What was known stays as it was.
    expect(await cluster.answers(gone, { count: 1, timeoutMs: 300 })).toEqual(['pod3']);

    await cluster.plane.startApiServer();
    const returnedAt = performance.now();
    await cluster.answeredBy(created.spec.clusterIP, ['pod1', 'pod2'], { timeoutMs: 5 * RECOVERY_MS });
    const isGone = async (): Promise<boolean> =>
      !(await cluster.answers(gone, { count: 1, timeoutMs: 300 })).includes('pod3');
    await waitFor(isGone, { timeoutMs: 5 * RECOVERY_MS, what: 'the deleted Service to be gone' });
    await isUpAgain();
    console.info(`all true ${Math.round(performance.now() - returnedAt)} ms after the return`);
    await endLoad();
    for (const resource of RESOURCES) {
      expect(await proxy.metric('userspace_proxy_api_down_since_timestamp_seconds', { resource })).toBe(0);
    }
  });

  test('has lost the history that a watch would go on from, everything is listed, and deletes are seen', async () => {
    await cluster.createPods('history', [1]);
    const gone = await cluster.createService('history');
    await cluster.answeredBy(gone, ['pod1']);
    const endLoad = await loadOnWeb();
    const expired = async (): Promise<number> =>
      proxy.metric('userspace_proxy_api_lists_total', { reason: 'expired' });
    const before = await expired();
    await cluster.plane.killApiServer();
    await other.api.delete('/api/v1/namespaces/default/services/history');
    for (let round = 0; round < 5; round += 1) {
      await other.api.patch('/api/v1/namespaces/default/services/web', {
        metadata: { labels: { round: `${round}` } },
      });
    }
    await cluster.plane.compactEtcd();
    await cluster.plane.startApiServer();
    await waitFor(async () => (await expired()) > before, {
      timeoutMs: 5 * RECOVERY_MS,
      what: 'a list for a 410',
    });
    const isGone = async (): Promise<boolean> =>
      (await cluster.answers(gone, { count: 1, timeoutMs: 300 }))[0] !== 'pod1';
    await waitFor(isGone, { timeoutMs: 5 * RECOVERY_MS, what: 'the deleted Service to be gone' });
    await isUpAgain();
    await endLoad();
  });

  test('hangs without closing a connection, that is noticed, shown, and over when it goes on', async () => {
    await proxy.stop();
    // Watches are renewed after 2 to 3 s: one that is silent for 4 is dead.
    proxy = await cluster.startProxy({ args: ['--watch-stall-timeout', '4s'] });
    const endLoad = await loadOnWeb();
    const stalls = async (): Promise<number> =>
      proxy.metric('userspace_proxy_api_failures_total', { code: 'ERR_API_STALLED' });
    const watches = async (): Promise<number> => proxy.metric('userspace_proxy_api_watches_total');
    await waitFor(async () => (await watches()) >= 3 * RESOURCES.length, {
      timeoutMs: 30_000,
      what: 'each watch to be renewed twice',
    });
    expect(await stalls()).toBe(0);
    cluster.plane.pauseApiServer();
    onTestFinished(() => cluster.plane.resumeApiServer());
    await waitFor(async () => (await stalls()) >= RESOURCES.length, {
      timeoutMs: 20_000,
      what: 'the watchdog to notice each watch',
    });
    const isDown = async (): Promise<boolean> =>
      (await proxy.metric('userspace_proxy_api_watch_up')) === 0 &&
      (await proxy.metric('userspace_proxy_api_down_since_timestamp_seconds', { resource: 'services' })) > 0;
    await waitFor(isDown, { timeoutMs: 30_000, what: 'the outage to show in the metrics' });
    await other.api.delete('/api/v1/namespaces/default/pods/web-pod2', { gracePeriodSeconds: 0 });
    cluster.plane.resumeApiServer();
    // Over: nothing says it but that a change is seen again.
    await cluster.answeredBy(web, ['pod1'], { timeoutMs: 10 * RECOVERY_MS });
    await cluster.createPods('web', [2]);
    await cluster.answeredBy(web, ['pod1', 'pod2'], { timeoutMs: 5 * RECOVERY_MS });
    await endLoad();
  });

  test('is away when the proxy starts, the proxy waits, changes nothing, and is ready when it comes', async () => {
    await proxy.stop();
    const rules = await proxy.rules();
    expect(rules.length).toBeGreaterThan(0);
    await cluster.plane.killApiServer();
    const later = await cluster.startProxy({ awaitReady: false });
    const line = await later.logged(
      ({ msg }) => String(msg).startsWith('The API server cannot be listed'),
      'that it waits',
      10_000,
    );
    expect(line).toMatchObject({ error: { code: 'ERR_API_UNREACHABLE' } });
    await outage(isLong ? 30_000 : 3_000);
    expect((await later.health('/readyz')).status).toBe(503);
    expect(await later.rules()).toEqual(rules);
    await cluster.plane.startApiServer();
    await later.ready(5 * RECOVERY_MS);
    await cluster.answeredBy(web, ['pod1', 'pod2']);
    expect(await later.metric('userspace_proxy_api_lists_total', { reason: 'expired' })).toBe(0);
  });
});
