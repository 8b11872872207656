/** Every time-out of a connection: when it strikes, what its client sees, and which metric says so. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Agent } from '../../support/agent-client.ts';
import { passTime } from '../../support/fault-process.ts';
import { FAMILIES, httpAt, httpOf, metricOf, sessionsGone, startProxy } from '../../support/fault-service.ts';
import { canMakeNamespaces, createLab, type Lab } from '../../support/netns-lab.ts';
import type { ProxyProcess } from '../../support/proxy-process.ts';
import { waitFor } from '../../support/wait.ts';

const DIAL_MS = 600;
const HALF_CLOSE_MS = 700;
const IDLE_MS = 1_500;
const DRAIN_MS = 2_000;
const EACH = 5;

const SILENT = { name: 'silent', number: 40, ports: httpAt(8440) };
const CLOSING = { name: 'closing', number: 41, ports: httpAt(8441) };
const UNREAD = { name: 'unread', number: 43, ports: httpAt(8443) };
const ECHO = { name: 'echo', number: 42, ports: httpAt(8442) };

describe.skipIf(canMakeNamespaces() !== undefined)('a connection', () => {
  let lab: Lab;
  let proxy: ProxyProcess;
  let client: Agent;

  beforeAll(async () => {
    lab = await createLab({ pods: 2 });
    const server = await lab.pod(1).agent();
    client = await lab.pod(2).agent();
    await lab.dropTraffic(lab.pod(1), { port: 8440 });
    await server.serveTcp({ port: 8441, mode: 'accept-fin', name: 'pod1' });
    await server.serveTcp({ port: 8443, mode: 'send-forever', name: 'pod1' });
    await server.serveTcp({ port: 8442, mode: 'identify-echo', name: 'pod1' });
    proxy = await start(
      `--dial-timeouts=${DIAL_MS / 2}ms,${DIAL_MS / 2}ms`,
      `--tcp-half-close-timeout=${HALF_CLOSE_MS}ms`,
      `--tcp-idle-timeout=${IDLE_MS}ms`,
    );
  });
  afterAll(async () => {
    await proxy?.[Symbol.asyncDispose]();
    await lab?.close();
  });

  const start = async (...args: readonly string[]): Promise<ProxyProcess> =>
    startProxy(
      lab.node,
      [SILENT, CLOSING, ECHO, UNREAD].map((service) => ({ ...service, backends: [lab.pod(1)] })),
      { args },
    );
  const closes = async (service: string, cause: string): Promise<number> =>
    metricOf(proxy, 'connection_closes_total', { service, cause });

  test.for(FAMILIES)('nobody accepts is reset when the dial time-outs are over, over %s', async (family) => {
    const labels = { service: 'silent', ip_family: family };
    const end = await client.tcpEnd({ ...httpOf(SILENT.number, family), timeoutMs: 10_000 });
    expect(end.outcome).toBe('reset');
    expect(end.elapsedMs).toBeGreaterThan(DIAL_MS - 50);
    expect(end.elapsedMs).toBeLessThan(5 * DIAL_MS);
    expect(await metricOf(proxy, 'dials_total', { ...labels, result: 'timeout' })).toBeGreaterThan(0);
    expect(await metricOf(proxy, 'connection_failures_total', { ...labels, reason: 'exhausted' })).toBe(1);
  });

  test('of which one side has ended is reset when the other stays silent for the half-close time-out', async () => {
    for (const family of FAMILIES) await client.tcpStall({ ...httpOf(CLOSING.number, family), count: EACH });
    const startedAt = performance.now();
    await sessionsGone(proxy, 'closing');
    expect(performance.now() - startedAt).toBeGreaterThan(HALF_CLOSE_MS / 2);
    expect(await closes('closing', 'half_close')).toBe(2 * EACH);
    expect(await closes('closing', 'idle')).toBe(0);
  });

  test('that is silent in both directions for the idle time-out is reset, one in use is not', async () => {
    const idle = await client.tcpHold({ ...httpOf(ECHO.number), count: EACH, named: true });
    const used = await client.tcpHold({ ...httpOf(ECHO.number, 'IPv6'), count: EACH, named: true });
    const isOver = async (): Promise<boolean> => {
      expect(await client.heldUse({ id: used.id })).toMatchObject({ ok: EACH });
      return (await client.heldStatus({ id: idle.id })).endedByReset === EACH;
    };
    await waitFor(isOver, { timeoutMs: 10_000, what: 'the idle ones to be reset', intervalMs: 100 });
    expect(await client.heldUse({ id: used.id })).toMatchObject({ ok: EACH });
    expect(await closes('echo', 'idle')).toBe(EACH);
    expect(await closes('echo', 'half_close')).toBe(0);
    await client.heldClose({ id: used.id, how: 'fin' });
    await sessionsGone(proxy, 'echo');
  });

  test('from which its client does not read is reset as idle when nothing has moved for so long', async () => {
    for (const family of FAMILIES) await client.tcpStall({ ...httpOf(UNREAD.number, family), count: EACH });
    await sessionsGone(proxy, 'unread', 20_000);
    expect(await closes('unread', 'idle')).toBe(2 * EACH);
  });

  test('stays for ever without an idle time-out, and through the drain it is served as before', async () => {
    await proxy[Symbol.asyncDispose]();
    proxy = await start('--drain-timeout', `${DRAIN_MS}ms`);
    const held = await client.tcpHold({ ...httpOf(ECHO.number), count: EACH, named: true });
    await passTime(IDLE_MS + 500);
    expect(await client.heldUse({ id: held.id })).toMatchObject({ ok: EACH, failed: 0 });
    expect(await closes('echo', 'idle')).toBe(0);

    const startedAt = performance.now();
    proxy.signal('SIGTERM');
    await waitFor(async () => (await proxy.health('/healthz')).status === 503, {
      timeoutMs: DRAIN_MS,
      what: 'health to say that it drains',
    });
    expect(await client.heldUse({ id: held.id })).toMatchObject({ ok: EACH, failed: 0 });
    const [answer] = await client.tcpIdentify({ ...httpOf(ECHO.number), count: 1 });
    expect(answer).toMatchObject({ ok: true });
    expect(await proxy.metric('kubeproxy_proxy_healthz_total', { code: '503' })).toBeGreaterThan(0);
    expect(await proxy.exited).toEqual({ exitCode: 0, signal: null });
    expect(performance.now() - startedAt).toBeGreaterThan(DRAIN_MS - 50);
  });
});
