/** One Service, or one client, takes all it can get of the node's connections and UDP sessions: others still find room. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Agent } from '../../support/agent-client.ts';
import {
  dnsAt,
  dnsOf,
  FAMILIES,
  httpAt,
  httpOf,
  metricOf,
  sessionsGone,
  startProxy,
} from '../../support/fault-service.ts';
import { canMakeNamespaces, createLab, type Lab } from '../../support/netns-lab.ts';
import type { ProxyProcess } from '../../support/proxy-process.ts';

/** TCP connections in all. Of the last sixteenth nobody gets more than a few. */
const CAP = 1_600;
/** UDP sessions in all. A fourth of them, which a client may hold unmolested, is more than are unanswered at a time. */
const UDP_CAP = 800;
const GREEDY = { name: 'greedy', number: 10, ports: [...httpAt(8410), ...dnsAt(8410)] };
const MODEST = { name: 'modest', number: 11, ports: [...httpAt(8410), ...dnsAt(8410)] };
const CAPPED = { name: 'capped', number: 12, ports: httpAt(8410) };
const PER_SERVICE = 120;
/** More than fit under any of these caps. */
const MANY = CAP + 100;

describe.skipIf(canMakeNamespaces() !== undefined)('while somebody takes all he can get', () => {
  let lab: Lab;
  let proxy: ProxyProcess;
  let greedy: Agent;
  let modest: Agent;

  beforeAll(async () => {
    lab = await createLab({ pods: 3 });
    const server = await lab.pod(1).agent();
    await server.serveTcp({ port: 8410, mode: 'identify-echo', name: 'pod1' });
    await server.serveUdp({ port: 8410, mode: 'echo', name: 'pod1' });
    [greedy, modest] = await Promise.all([lab.pod(2).agent(), lab.pod(3).agent()]);
    proxy = await start('--max-connections', `${CAP}`, '--max-udp-sessions', `${UDP_CAP}`);
  });
  afterAll(async () => {
    await proxy?.[Symbol.asyncDispose]();
    await lab?.close();
  });

  const start = async (...args: readonly string[]): Promise<ProxyProcess> =>
    startProxy(
      lab.node,
      [GREEDY, MODEST, CAPPED].map((service) => ({ ...service, backends: [lab.pod(1)] })),
      { args },
    );

  test.for(FAMILIES)(
    'of the connections, other clients of other Services are served, over %s',
    async (family) => {
      const held = await greedy.tcpHold({ ...httpOf(GREEDY.number, family), count: MANY, named: true });
      expect(held.open).toBeLessThan(CAP);
      expect(held.open).toBeGreaterThanOrEqual(0.9 * CAP);
      expect(held.endedByFin).toBe(0);
      const answers = await modest.tcpIdentify({
        ...httpOf(MODEST.number, family),
        count: 20,
        concurrency: 2,
      });
      expect(answers.filter(({ ok }) => !ok)).toEqual([]);
      expect(await metricOf(proxy, 'connection_failures_total', { service: 'modest' })).toBe(0);
      // He keeps what he has, and gets no more.
      expect(await greedy.heldUse({ id: held.id })).toMatchObject({ ok: held.open });
      const labels = { service: 'greedy', ip_family: family, reason: 'overflow' };
      expect(await metricOf(proxy, 'connection_failures_total', labels)).toBe(MANY - held.open);
      await greedy.heldClose({ id: held.id, how: 'reset' });
      await sessionsGone(proxy, 'greedy');
    },
  );

  test.for(FAMILIES)(
    'of the UDP sessions, the session of another client lives on, over %s',
    async (family) => {
      // One datagram from each of many sources, as often as they will, while the other asks now and then.
      const backend = await modest.udpSequence({
        ...dnsOf(MODEST.number, family),
        count: 1,
        localPort: 40_000,
      });
      expect(backend.received).toBe(1);
      const active = { service: 'modest', protocol: 'UDP' };
      const opened = await metricOf(proxy, 'connections_total', active);
      for (let round = 0; round < 2; round += 1) {
        const target = dnsOf(GREEDY.number, family);
        const flood = await greedy.udpFlood({
          ...target,
          sockets: UDP_CAP,
          datagrams: 1,
          firstLocalPort: 10_000 + round * UDP_CAP,
          patienceMs: 500,
          timeoutMs: 5_000,
        });
        expect(flood.sent).toBe(UDP_CAP);
      }
      const again = await modest.udpSequence({
        ...dnsOf(MODEST.number, family),
        count: 10,
        localPort: 40_000,
      });
      expect(again).toMatchObject({ received: 10, inOrder: true });
      // The same session still, although it was the one that had been idle longest.
      expect(await metricOf(proxy, 'connections_total', active)).toBe(opened);
      const evicted = { service: 'greedy', cause: 'evicted' };
      expect(await metricOf(proxy, 'connection_closes_total', evicted)).toBeGreaterThan(UDP_CAP / 2);
    },
  );

  test('a Service with a cap of its own keeps to it, and its neighbours have the rest', async () => {
    await proxy.stop();
    await proxy[Symbol.asyncDispose]();
    proxy = await start('--max-connections-per-service', `${PER_SERVICE}`);
    const held = await greedy.tcpHold({ ...httpOf(CAPPED.number), count: 2 * PER_SERVICE, named: true });
    expect(held.open).toBe(PER_SERVICE);
    expect(held.endedByFin).toBe(0);
    const overflow = { service: 'capped', reason: 'overflow' };
    expect(await metricOf(proxy, 'connection_failures_total', overflow)).toBe(PER_SERVICE);
    const other = await modest.tcpHold({ ...httpOf(MODEST.number), count: PER_SERVICE, named: true });
    expect(other.open).toBe(PER_SERVICE);
    // One that leaves makes room for one.
    await greedy.heldClose({ id: held.id, how: 'fin' });
    await sessionsGone(proxy, 'capped');
    const answers = await modest.tcpIdentify({ ...httpOf(CAPPED.number), count: 10 });
    expect(answers.filter(({ ok }) => !ok)).toEqual([]);
  });
});
