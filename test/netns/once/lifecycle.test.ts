/** How the proxy starts and stops, and what it leaves behind. */
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { clusterIP, dualStackObjects } from '../../support/dual-stack.ts';
import { canMakeNamespaces, createLab, type Lab } from '../../support/netns-lab.ts';
import { manifestText } from '../../support/objects.ts';
import { ProxyProcess } from '../../support/proxy-process.ts';
import { waitFor } from '../../support/wait.ts';

const DRAIN_MS = 2_000;
const HTTP = { name: 'http', port: 80, targetPort: 8080, nodePort: 30_080 };
const ECHO = { name: 'echo', port: 7, targetPort: 8007 };
const WEB = { name: 'web', number: 10, ports: [HTTP, ECHO] };
const TARGET = { host: clusterIP(WEB.number, 'IPv4'), port: HTTP.port };

describe.skipIf(canMakeNamespaces() !== undefined)('the proxy', () => {
  let lab: Lab;

  beforeAll(async () => {
    lab = await createLab();
    const server = await lab.pod(1).agent();
    await server.serveTcp({ port: HTTP.targetPort, mode: 'identify', name: 'pod1' });
    await server.serveTcp({ port: ECHO.targetPort, mode: 'identify-echo', name: 'pod1' });
  });
  afterAll(async () => {
    await lab?.close();
  });

  const start = async (options: Parameters<typeof ProxyProcess.start>[1] = {}): Promise<ProxyProcess> => {
    const objects = dualStackObjects({ ...WEB, backends: [lab.pod(1)] });
    const manifests = { 'web.yaml': manifestText(...objects) };
    const proxy = await ProxyProcess.start(lab.node, { manifests, ...options });
    onTestFinished(async () => proxy[Symbol.asyncDispose]());
    await proxy.captured('default/web:http');
    return proxy;
  };

  test('says by its health that it stops, and accepts until the drain is over', async () => {
    const proxy = await start({ args: [`--drain-timeout=${DRAIN_MS}ms`] });
    const rules = await proxy.rules();
    const client = await lab.pod(4).agent();
    const held = await client.tcpHold({ host: TARGET.host, port: ECHO.port, count: 3, named: true });
    const load = await client.startConnectLoad({ ...TARGET, concurrency: 2, pauseMs: 2 });
    const status = async (path: string): Promise<number> => (await proxy.health(path)).status;
    expect([await status('/healthz'), await status('/readyz'), await status('/livez')]).toEqual([
      200, 200, 200,
    ]);

    const signalled = performance.now();
    proxy.signal('SIGTERM');
    await waitFor(async () => (await status('/healthz')) === 503, { timeoutMs: DRAIN_MS, what: 'health' });
    expect([await status('/readyz'), await status('/livez')]).toEqual([503, 200]);
    const before = (await client.loadReport(load)).requests;
    const goesOn = async (): Promise<boolean> => (await client.loadReport(load)).requests >= before + 50;
    await waitFor(goesOn, { timeoutMs: DRAIN_MS, what: '50 connections more' });
    expect(await client.stopLoad(load)).toMatchObject({ failed: 0, failures: [] });
    expect(await client.heldUse(held)).toMatchObject({ ok: 3, failed: 0 });

    expect(await proxy.exited).toEqual({ exitCode: 0, signal: null });
    expect(performance.now() - signalled).toBeGreaterThan(DRAIN_MS - 50);
    expect(await proxy.rules()).toEqual(rules);
    const areReset = async (): Promise<boolean> => (await client.heldStatus(held)).endedByReset === 3;
    await waitFor(areReset, { timeoutMs: 5_000, what: 'three resets' });
  });

  test.for([
    { name: 'another signal', signal: 'SIGINT', afterMs: 0 },
    { name: 'the same signal after more than a second', signal: 'SIGTERM', afterMs: 1_100 },
  ] as const)(
    'takes a signal that comes twice within a second for one, and $name for haste',
    async ({ signal, afterMs }) => {
      const proxy = await start({ args: ['--drain-timeout=1h'] });
      const client = await lab.pod(4).agent();
      const signalled = performance.now();
      proxy.signal('SIGTERM');
      await proxy.logged(({ msg }) => String(msg).startsWith('Draining'), 'the drain');
      proxy.signal('SIGTERM');
      expect(await client.tcpIdentify({ ...TARGET, count: 1 })).toMatchObject([{ ok: true }]);
      await waitFor(() => performance.now() - signalled >= afterMs, {
        timeoutMs: 2 * afterMs + 100,
        what: 'the second to be over',
      });
      expect(proxy.isRunning).toBe(true);
      proxy.signal(signal);
      expect(await proxy.exited).toEqual({ exitCode: 0, signal: null });
    },
  );

  test.for([
    { name: 'its old ports', sameState: true },
    { name: 'other ports', sameState: false },
  ])('starts beside the rules of a crash, which hold until it accepts on $name', async ({ sameState }) => {
    const crashed = await start();
    const port = await crashed.proxyPort('default/web:http');
    crashed.signal('SIGKILL');
    await crashed.exited;
    const client = await lab.pod(4).agent();
    expect((await client.tcpProbe(TARGET)).outcome).toBe('refused');
    // Whoever is not redirected hears nothing at all; whoever is hears a refusal until somebody accepts.
    const load = await client.startConnectLoad({ ...TARGET, timeoutMs: 900, pauseMs: 50 });
    const samples: boolean[] = [];
    const watching = new AbortController();
    const watched = (async () => {
      while (!watching.signal.aborted) {
        const rules = await crashed.rules();
        samples.push(rules.some((rule) => /"default\/web:http".*--dport 80 .*REDIRECT/.test(rule)));
      }
    })();
    const proxy = await start(sameState ? { directory: crashed.directory } : {});
    const answered = async (): Promise<boolean> =>
      ((await client.loadReport(load)).byName['pod1'] ?? 0) >= 10;
    await waitFor(answered, { timeoutMs: 5_000, what: 'ten answers' });
    watching.abort();
    await watched;
    const { failures } = await client.stopLoad(load);
    expect(failures.filter(({ errno }) => !/^ECONN(REFUSED|RESET)$/.test(errno))).toEqual([]);
    expect(samples.length).toBeGreaterThan(5);
    expect(samples).not.toContain(false);
    expect((await proxy.proxyPort('default/web:http')) === port).toBe(sameState);
    // Nothing of the old instance is left beside the new.
    expect((await proxy.rules()).filter((rule) => rule.includes(`--to-ports ${port}`)).length > 0).toBe(
      sameState,
    );
  });

  test('shows kube-proxy’s pages on kube-proxy’s ports', async () => {
    const proxy = await start();
    const [healthz, livez, readyz] = await Promise.all(
      ['/healthz', '/livez', '/readyz'].map(async (path) => proxy.health(path)),
    );
    expect(JSON.parse(healthz?.body ?? '')).toMatchObject({
      lastUpdated: expect.stringMatching(/^\d{4}-/),
      currentTime: expect.stringMatching(/^\d{4}-/),
      nodeEligible: true,
      healthy: true,
      status: { IPv4: { healthy: true }, IPv6: { healthy: true } },
    });
    expect(healthz?.headers['content-type']).toBe('application/json');
    expect(JSON.parse(livez?.body ?? '')).not.toHaveProperty('nodeEligible');
    expect(JSON.parse(readyz?.body ?? '')).toMatchObject({ ready: true });

    expect(await proxy.page('/proxyMode')).toMatchObject({ status: 200, body: 'userspace' });
    expect(await proxy.page('/healthz')).toMatchObject({ status: 200, body: 'ok' });
    const configz = JSON.parse((await proxy.page('/configz')).body) as Record<string, object>;
    expect(configz['kubeproxy.config.k8s.io']).toMatchObject({
      kind: 'KubeProxyConfiguration',
      mode: 'userspace',
    });
    const metrics = await proxy.page('/metrics');
    expect(metrics.headers['content-type']).toContain('text/plain; version=0.0.4');
    expect(await proxy.metric('kubeproxy_sync_proxy_rules_duration_seconds_count')).toBeGreaterThan(0);
    expect((await proxy.page('/nothing')).status).toBe(404);
  });

  test('lets the outside see its health, and nothing else', async () => {
    await start();
    const outside = await lab.ext.agent();
    const host = lab.node.ipv4;
    expect(await outside.httpGet({ host, port: 10_256, path: '/healthz' })).toMatchObject({ status: 200 });
    expect(await outside.tcpProbe({ host, port: 10_249 })).toMatchObject({ outcome: 'refused' });
  });
});
