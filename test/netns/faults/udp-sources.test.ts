/**
 * Many more UDP sources than there may be sessions, 64,000 at full length. Each costs the node two conntrack entries,
 * which end with the lab's namespaces; nobody else of the machine has any part in them.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Agent } from '../../support/agent-client.ts';
import { openDescriptors } from '../../support/fault-process.ts';
import { dnsAt, dnsOf, metricOf, startProxy } from '../../support/fault-service.ts';
import { canMakeNamespaces, createLab, type Lab } from '../../support/netns-lab.ts';
import type { ProxyProcess } from '../../support/proxy-process.ts';
import { waitFor } from '../../support/wait.ts';

const isLong = process.env['KUP_TEST_LONG'] === '1';
const CLIENTS = 4;
const SOURCES = isLong ? 64_000 : 6_000;
const CAP = 1_000;
const FIRST_PORT = 10_000;
const FLOODED = { name: 'flooded', number: 60, ports: dnsAt(8460) };
const CALM = { name: 'calm', number: 61, ports: dnsAt(8460) };

describe.skipIf(canMakeNamespaces() !== undefined)(
  `${SOURCES} UDP sources under a cap of ${CAP} sessions`,
  () => {
    let lab: Lab;
    let proxy: ProxyProcess;
    let calm: Agent;
    let floods: readonly Agent[];
    let idleDescriptors: number;

    beforeAll(async () => {
      lab = await createLab({ pods: CLIENTS + 2 });
      await (await lab.pod(1).agent()).serveUdp({ port: 8460, mode: 'echo', name: 'pod1' });
      calm = await lab.pod(2).agent();
      floods = await Promise.all(
        Array.from({ length: CLIENTS }, async (_, index) => lab.pod(3 + index).agent()),
      );
      proxy = await startProxy(
        lab.node,
        [FLOODED, CALM].map((service) => ({ ...service, backends: [lab.pod(1)] })),
        { args: ['--max-udp-sessions', `${CAP}`] },
      );
      idleDescriptors = await openDescriptors(proxy.pid);
    });
    afterAll(async () => {
      await proxy?.[Symbol.asyncDispose]();
      await lab?.close();
    });

    const of = async (name: string, service: string, labels = {}): Promise<number> =>
      metricOf(proxy, name, { service, protocol: 'UDP', ...labels });

    test('never have more than that, the longest idle make room, and the session of a client in use lives', async () => {
      const ask = async (): Promise<{ received: number }> =>
        calm.udpSequence({ ...dnsOf(CALM.number), count: 1, localPort: 44_000 });
      expect(await ask()).toMatchObject({ received: 1 });
      const received: number[] = [];
      const flood = async (): Promise<void> => {
        for (const client of floods) {
          const result = await client.udpFlood({
            ...dnsOf(FLOODED.number),
            sockets: SOURCES / CLIENTS,
            datagrams: 1,
            firstLocalPort: FIRST_PORT,
            timeoutMs: isLong ? 60_000 : 10_000,
            patienceMs: 500,
          });
          expect(result.sent).toBe(SOURCES / CLIENTS);
          received.push(result.received);
        }
      };
      const flooding = flood();
      const worst = { sessions: 0, descriptors: 0 };
      const flooded = { isOver: false };
      const end = flooding.finally(() => {
        flooded.isOver = true;
      });
      let unanswered = 0;
      const look = async (): Promise<boolean> => {
        worst.sessions = Math.max(worst.sessions, (await of('connections_active', 'flooded')) + 1);
        worst.descriptors = Math.max(worst.descriptors, await openDescriptors(proxy.pid));
        if ((await ask()).received !== 1) unanswered += 1;
        return flooded.isOver;
      };
      // Not all the time: a page of metrics costs the proxy what a hundred sessions do.
      await waitFor(look, { timeoutMs: 300_000, what: 'the flood to be over', intervalMs: 50 });
      await end;
      expect(unanswered).toBe(0);
      // A socket buffer that is full is a datagram lost, here as anywhere.
      expect(received.reduce((total, count) => total + count, 0)).toBeGreaterThan(0.9 * SOURCES);

      expect(worst.sessions).toBeLessThanOrEqual(CAP);
      expect(worst.descriptors).toBeLessThanOrEqual(idleDescriptors + CAP + 20);
      const opened = await of('connections_total', 'flooded');
      const evicted = await of('connection_closes_total', 'flooded', { cause: 'evicted' });
      expect(opened).toBeGreaterThan(0.9 * SOURCES);
      expect(evicted).toBe(opened - (await of('connections_active', 'flooded')));
      expect([await of('connections_total', 'calm'), await of('connections_active', 'calm')]).toEqual([1, 1]);
    }, 320_000);

    test('that were evicted are served anew, and the youngest still have their session', async () => {
      const client = await lab.pod(2 + CLIENTS).agent();
      const ask = async (localPort: number): Promise<number> => {
        const before = await of('connections_total', 'flooded');
        const at = dnsOf(FLOODED.number);
        expect(await client.udpSequence({ ...at, count: 1, localPort })).toMatchObject({ received: 1 });
        return (await of('connections_total', 'flooded')) - before;
      };
      // The last first: the first one takes somebody's place.
      expect(await ask(FIRST_PORT + SOURCES / CLIENTS - 1)).toBe(0);
      expect(await ask(FIRST_PORT)).toBe(1);
    });

    test('leave the node its conntrack table: two entries each', async () => {
      const count = async (): Promise<number> =>
        Number(await lab.node.run(['sysctl', '-n', 'net.netfilter.nf_conntrack_count']));
      const entries = await waitFor(count, { timeoutMs: 5_000, what: 'the number of entries' });
      expect(entries).toBeLessThan(2.2 * SOURCES + 500);
    });
  },
);
