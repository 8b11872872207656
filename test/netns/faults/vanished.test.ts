/**
 * Peers that vanish without a word, as when a machine loses its power: the kernel's keep-alive finds those that were
 * idle (`KEEP_ALIVE_DELAY_MS`: first probe after 15 s, then ten, a second apart), its retransmissions those with data
 * under way (`net.ipv4.tcp_retries2`). Keep-alive takes its time: the tests are one story, which begins in `beforeAll`.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openDescriptors } from '../../support/fault-process.ts';
import { FAMILIES, httpAt, httpOf, metricOf, sessionsGone, startProxy } from '../../support/fault-service.ts';
import { canMakeNamespaces, createLab, type Host, type Lab } from '../../support/netns-lab.ts';
import type { ProxyProcess } from '../../support/proxy-process.ts';
import { waitFor } from '../../support/wait.ts';

const ECHO = { name: 'echo', number: 60, ports: httpAt(8360) };
const VANISHED = { name: 'vanished', number: 61, ports: httpAt(8361) };
const FLOOD = { name: 'flood', number: 62, ports: httpAt(8362) };
const EACH = 20;
const NEIGHBOUR_MS = 5_000;
/** 25 s, and the machine may be busy. */
const KEEP_ALIVE_MS = 60_000;

describe.skipIf(canMakeNamespaces() !== undefined)('when peers vanish without FIN or RST', () => {
  let lab: Lab;
  let proxy: ProxyProcess;
  let idleDescriptors: number;
  let heldByStayer: number;
  let heldByNeighbour: number;

  beforeAll(async () => {
    // pod1 serves and stays, pod2 serves and vanishes, pod3 uses and vanishes, pod4 uses and stays.
    lab = await createLab({ pods: 4 });
    const [server, doomed, leaver, stayer] = await Promise.all(
      [1, 2, 3, 4].map(async (number) => lab.pod(number).agent()),
    );
    if (server === undefined || doomed === undefined || leaver === undefined || stayer === undefined)
      throw new Error('a pod is missing');
    await server.serveTcp({ port: 8360, mode: 'identify-echo', name: 'pod1' });
    await server.serveTcp({ port: 8362, mode: 'send-forever', name: 'pod1' });
    await doomed.serveTcp({ port: 8361, mode: 'hold', name: 'pod2' });
    // Some three to six seconds. The default of 15 means a quarter of an hour.
    await lab.node.run(['sysctl', '-qw', 'net.ipv4.tcp_retries2=3']);
    proxy = await startProxy(lab.node, [
      { ...ECHO, backends: [lab.pod(1)] },
      { ...VANISHED, backends: [lab.pod(2)] },
      { ...FLOOD, backends: [lab.pod(1)] },
    ]);
    await waitFor(async () => (await metricOf(proxy, 'connections_active')) === 0, {
      timeoutMs: 5_000,
      what: 'quiet',
    });
    idleDescriptors = await openDescriptors(proxy.pid);
    for (const family of FAMILIES) {
      await leaver.tcpHold({ ...httpOf(ECHO.number, family), count: EACH, named: true });
      await leaver.tcpStall({ ...httpOf(FLOOD.number, family), count: EACH });
    }
    heldByStayer = (await stayer.tcpHold({ ...httpOf(VANISHED.number), count: EACH })).id;
    heldByNeighbour = (await stayer.tcpHold({ ...httpOf(ECHO.number), count: EACH, named: true })).id;
    await vanish(lab.pod(2));
    await vanish(lab.pod(3));
  });
  afterAll(async () => {
    await proxy?.[Symbol.asyncDispose]();
    await lab?.close();
  });

  const vanish = async (pod: Host): Promise<void> => {
    await pod.run(['ip', 'link', 'set', 'eth0', 'down']);
  };

  test('clients of others notice nothing', async () => {
    const stayer = await lab.pod(4).agent();
    expect(await stayer.heldUse({ id: heldByNeighbour })).toMatchObject({ ok: EACH, failed: 0 });
    const load = { ...httpOf(ECHO.number), maxDurationMs: NEIGHBOUR_MS, pauseMs: 20, slowMs: 2_000 };
    const { id } = await stayer.startConnectLoad(load);
    const hasEnded = async (): Promise<boolean> =>
      (await stayer.loadReport({ id })).elapsedMs >= NEIGHBOUR_MS;
    await waitFor(hasEnded, { timeoutMs: 5 * NEIGHBOUR_MS, what: 'the load to end' });
    expect(await stayer.stopLoad({ id })).toMatchObject({ failed: 0, failures: [], slow: [] });
  });

  test('clients in the middle of a transfer are given up when net.ipv4.tcp_retries2 is spent', async () => {
    await sessionsGone(proxy, 'flood', KEEP_ALIVE_MS);
    expect(
      await metricOf(proxy, 'connection_closes_total', { service: 'flood', cause: 'client_reset' }),
    ).toBe(2 * EACH);
  }, 70_000);

  test('idle ones are found by keep-alive within half a minute, on either side', async () => {
    const stayer = await lab.pod(4).agent();
    await sessionsGone(proxy, 'vanished', KEEP_ALIVE_MS);
    // The client of a backend that is gone hears of it.
    expect(await stayer.heldStatus({ id: heldByStayer })).toMatchObject({ endedByReset: EACH });
    const active = async (): Promise<number> => metricOf(proxy, 'connections_active', { service: 'echo' });
    await waitFor(async () => (await active()) === EACH, {
      timeoutMs: KEEP_ALIVE_MS,
      what: 'those of pod4 alone',
    });
    expect(await stayer.heldUse({ id: heldByNeighbour })).toMatchObject({ ok: EACH, failed: 0 });
  }, 70_000);

  test('their descriptors come back', async () => {
    const stayer = await lab.pod(4).agent();
    await stayer.heldClose({ id: heldByNeighbour, how: 'fin' });
    await waitFor(async () => (await openDescriptors(proxy.pid)) <= idleDescriptors, {
      timeoutMs: 10_000,
      what: `no more than ${idleDescriptors} descriptors`,
    });
  });
});
