/** A dead endpoint is left out for a while: it taxes one connection for each ejection, not one in every so many. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Agent } from '../support/agent-client.ts';
import { clusterIP, dualStackObjects } from '../support/dual-stack.ts';
import { canMakeNamespaces, createLab, type Lab } from '../support/netns-lab.ts';
import { manifestText } from '../support/objects.ts';
import { ProxyProcess } from '../support/proxy-process.ts';
import { waitFor } from '../support/wait.ts';

const PORT = 8030;
/** Longer than any connection of a healthy endpoint, shorter than the first dial time-out. */
const SLOW_MS = 200;

describe.skipIf(canMakeNamespaces() !== undefined)(
  'a Service of which one of two endpoints is silent',
  () => {
    let lab: Lab;
    let client: Agent;
    let repair: () => Promise<void>;

    beforeAll(async () => {
      lab = await createLab();
      for (const pod of [lab.pod(1), lab.pod(2)])
        await (await pod.agent()).serveTcp({ port: PORT, mode: 'identify', name: pod.name });
      client = await lab.pod(4).agent();
      repair = await lab.dropTraffic(lab.pod(1), { port: PORT });
    });
    afterAll(async () => lab?.close());

    const start = async (...args: readonly string[]): Promise<ProxyProcess> => {
      const backends = [lab.pod(1), lab.pod(2)];
      const ports = [{ name: 'http', port: 80, targetPort: PORT, nodePort: 30_030 }];
      return ProxyProcess.start(lab.node, {
        manifests: {
          'half.yaml': manifestText(...dualStackObjects({ name: 'half', number: 30, ports, backends })),
        },
        args,
      });
    };
    /** One after the other: how many answered late, and by whom they were answered. */
    const requests = async (
      count: number,
    ): Promise<{ slow: number; failed: number; names: ReadonlySet<string> }> => {
      const answers = await client.tcpIdentify({
        host: clusterIP(30, 'IPv4'),
        port: 80,
        count,
        concurrency: 1,
      });
      return {
        slow: answers.filter(({ elapsedMs }) => elapsedMs > SLOW_MS).length,
        failed: answers.filter(({ ok }) => !ok).length,
        names: new Set(answers.map(({ name }) => name ?? '')),
      };
    };
    const value = async (proxy: ProxyProcess, name: string): Promise<number> =>
      proxy.metric(`userspace_proxy_${name}`, { service: 'half', ip_family: 'IPv4' });

    test('makes one request in forty wait, where without ejection half of them or more did', async () => {
      {
        await using proxy = await start('--ejection-time', '0');
        const { slow, failed } = await requests(8);
        // In turn, and after each failure the dead one is the first of the next turn.
        expect(slow).toBeGreaterThanOrEqual(4);
        expect(failed).toBe(0);
        expect(await value(proxy, 'endpoint_ejections_total')).toBe(0);
      }
      await using proxy = await start('--ejection-time', '20s');
      expect(await requests(40)).toEqual({ slow: 1, failed: 0, names: new Set(['pod2']) });
      expect(await value(proxy, 'endpoint_ejections_total')).toBe(1);
      expect(await value(proxy, 'endpoints_ejected')).toBe(1);
    });

    test('uses the endpoint again, once it answers its trial', async () => {
      await using proxy = await start('--ejection-time', '500ms');
      expect((await requests(4)).slow).toBe(1);
      await repair();
      await waitFor(async () => (await requests(4)).names.size === 2, {
        timeoutMs: 10_000,
        what: 'pod1 to answer',
      });
      expect(await value(proxy, 'endpoints_ejected')).toBe(0);
    });
  },
);
