/** Clients that do not read while their backend sends as fast as it can: what that costs, and who pays for it. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openDescriptors, residentBytes } from '../../support/fault-process.ts';
import { FAMILIES, httpAt, httpOf, metricOf, sessionsGone, startProxy } from '../../support/fault-service.ts';
import { canMakeNamespaces, createLab, type Lab } from '../../support/netns-lab.ts';
import type { ProxyProcess } from '../../support/proxy-process.ts';
import { waitFor } from '../../support/wait.ts';

const SLOW = { name: 'slow', number: 70, ports: httpAt(8370) };
const QUICK = { name: 'quick', number: 71, ports: httpAt(8371) };
const COUNT = 1_000;
/** Far more than the kernel takes on the way, with the buffers that the lab's hosts are given here. */
const BYTES = 768 * 1_024;
/** Of the proxy's own memory for each connection; without back-pressure it is most of `BYTES`. */
const MOST_BYTES_EACH = 384 * 1_024;

describe.skipIf(canMakeNamespaces() !== undefined)(
  '1,000 clients that do not read',
  { timeout: 120_000 },
  () => {
    let lab: Lab;
    let proxy: ProxyProcess;
    let idleDescriptors: number;
    const groups: number[] = [];
    let before: number;

    beforeAll(async () => {
      lab = await createLab({ pods: 3 });
      for (const host of [lab.node, lab.pod(1), lab.pod(3)])
        await host.run([
          'sysctl',
          '-qw',
          'net.ipv4.tcp_wmem=4096 16384 65536',
          'net.ipv4.tcp_rmem=4096 65536 131072',
        ]);
      await (await lab.pod(1).agent()).serveTcp({
        port: 8370,
        mode: 'send-octets',
        bytes: BYTES,
        name: 'pod1',
      });
      await (await lab.pod(2).agent()).serveTcp({ port: 8371, mode: 'identify', name: 'pod2' });
      proxy = await startProxy(lab.node, [
        { ...SLOW, backends: [lab.pod(1)] },
        { ...QUICK, backends: [lab.pod(2)] },
      ]);
      idleDescriptors = await openDescriptors(proxy.pid);
    });
    afterAll(async () => {
      await proxy?.[Symbol.asyncDispose]();
      await lab?.close();
    });

    const carried = async (): Promise<number> =>
      metricOf(proxy, 'connection_bytes_total', { service: 'slow', direction: 'from_backend' });

    test('cost the proxy at most 384 KiB of memory each', async () => {
      before = await residentBytes(proxy.pid);
      const client = await lab.pod(3).agent();
      for (const family of FAMILIES) {
        const { id, opened } = await client.tcpStall({ ...httpOf(SLOW.number, family), count: COUNT / 2 });
        expect(opened).toBe(COUNT / 2);
        groups.push(id);
      }
      // Until nothing moves any more.
      let last = -1;
      const isStill = async (): Promise<boolean> => {
        const now = await carried();
        const wasMoving = now !== last;
        last = now;
        return !wasMoving;
      };
      await waitFor(isStill, { timeoutMs: 90_000, intervalMs: 500, what: 'all to stand still' });
      expect(last).toBeLessThan(COUNT * BYTES);
      const each = ((await residentBytes(proxy.pid)) - before) / COUNT;
      expect(each).toBeLessThan(MOST_BYTES_EACH);
    });

    test('hold up nobody else', async () => {
      const client = await lab.pod(3).agent();
      const answers = await client.tcpIdentify({ ...httpOf(QUICK.number), count: 100 });
      expect(answers.filter(({ ok }) => !ok)).toEqual([]);
      const waited = answers.map(({ elapsedMs }) => elapsedMs).toSorted((a, b) => a - b);
      expect(waited[50]).toBeLessThan(500);
    });

    test('get every octet unchanged once they read, and leave nothing behind', async () => {
      const client = await lab.pod(3).agent();
      for (const id of groups) {
        const drained = await client.stallDrain({ id, bytes: BYTES, timeoutMs: 60_000 });
        expect(drained).toEqual({ whole: COUNT / 2, bytes: (COUNT / 2) * BYTES, failures: [] });
      }
      await sessionsGone(proxy, 'slow');
      await waitFor(async () => (await openDescriptors(proxy.pid)) <= idleDescriptors, {
        timeoutMs: 10_000,
        what: `no more than ${idleDescriptors} descriptors`,
      });
    });
  },
);
