/** One of two backends is black-holed: it costs at most one slow connection per ejection, and never a failed one. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Agent } from '../../support/agent-client.ts';
import type { LoadReport } from '../../support/agent-protocol.ts';
import { FAMILIES, httpAt, httpOf, metricOf, startProxy } from '../../support/fault-service.ts';
import { passTime } from '../../support/fault-process.ts';
import { canMakeNamespaces, createLab, type Lab } from '../../support/netns-lab.ts';
import type { ProxyProcess } from '../../support/proxy-process.ts';

const PORT = 8320;
const SERVICE = { name: 'half', number: 20, ports: httpAt(PORT) };
/** The same with the good backend alone: what is slow there is the machine's fault. */
const SOUND = { name: 'sound', number: 21, ports: httpAt(PORT) };
/** Of the first dial time-out, --dial-timeouts: what is slower has waited for the dead backend. */
const SLOW_MS = 250;
const LOAD_MS = 4_000;
/** Four workers with these pauses make some 180 connections a second. */
const PACE = { concurrency: 4, pauseMs: 20 };

describe.skipIf(canMakeNamespaces() !== undefined)(
  'with one of two backends black-holed, 180 requests/s',
  () => {
    let lab: Lab;
    let client: Agent;

    beforeAll(async () => {
      lab = await createLab({ pods: 3 });
      for (const pod of [lab.pod(1), lab.pod(2)])
        await (await pod.agent()).serveTcp({ port: PORT, mode: 'identify', name: pod.name });
      await lab.dropTraffic(lab.pod(1), { port: PORT });
      client = await lab.pod(3).agent();
    });
    afterAll(async () => lab?.close());

    const start = async (...args: readonly string[]): Promise<ProxyProcess> =>
      startProxy(
        lab.node,
        [
          { ...SERVICE, backends: [lab.pod(1), lab.pod(2)] },
          { ...SOUND, backends: [lab.pod(2)] },
        ],
        { args },
      );
    const loads = async (number: number, ms: number): Promise<readonly LoadReport[]> => {
      const ids = await Promise.all(
        FAMILIES.map(async (family) =>
          client.startConnectLoad({ ...httpOf(number, family), ...PACE, slowMs: SLOW_MS }),
        ),
      );
      await passTime(ms);
      return Promise.all(ids.map(async (id) => client.stopLoad(id)));
    };

    test('none fails, and after the first ejection at most one waits per ejection, in each family', async () => {
      await using proxy = await start('--ejection-time', '1s');
      const [reports, sound] = await Promise.all([
        loads(SERVICE.number, LOAD_MS),
        loads(SOUND.number, LOAD_MS),
      ]);
      const isMachineSlow = sound.some(({ slow }) => slow.length > 0);
      for (const [index, report] of reports.entries()) {
        expect(report).toMatchObject({ failed: 0, failures: [] });
        expect(Object.keys(report.byName)).toEqual(['pod2']);
        const labels = { service: 'half', ip_family: FAMILIES[index] ?? '' };
        const ejections = await metricOf(proxy, 'endpoint_ejections_total', labels);
        // At 0, 1 s and 3 s: each lasts twice as long as the one before.
        expect(ejections).toBeGreaterThanOrEqual(2);
        // One connection has waited a dial time-out for each; those under way at the time went elsewhere at once.
        const timeouts = { ...labels, result: 'timeout' };
        expect(await metricOf(proxy, 'dials_total', timeouts)).toBe(ejections);
        const first = report.slow[0]?.atMs ?? 0;
        const later = report.slow.filter(({ atMs }) => atMs > first + SLOW_MS);
        expect(isMachineSlow ? 0 : later.length).toBeLessThanOrEqual(ejections - 1);
      }
    });

    test('of 50 that come at once one finds out, and the others go elsewhere as soon as it has, in each family', async () => {
      await using proxy = await start('--dial-timeouts', '2s');
      const burst = { count: 50, concurrency: 50, timeoutMs: 20_000 };
      const answers = await Promise.all(
        FAMILIES.map(async (family) => client.tcpIdentify({ ...httpOf(SERVICE.number, family), ...burst })),
      );
      expect(answers.flat().filter(({ ok, name }) => !ok || name !== 'pod2')).toEqual([]);
      for (const family of FAMILIES) {
        const labels = { service: 'half', ip_family: family };
        expect(await metricOf(proxy, 'dials_total', { ...labels, result: 'timeout' })).toBe(1);
        expect(await metricOf(proxy, 'dial_retries_total', labels)).toBe(25);
      }
    });

    test('many wait when nobody is ejected, and still none fails', async () => {
      await using proxy = await start('--ejection-time', '0');
      for (const report of await loads(SERVICE.number, 2_000)) {
        expect(report).toMatchObject({ failed: 0, failures: [] });
        // Every second one at least, and nothing gets better with time.
        expect(report.slow.length).toBeGreaterThanOrEqual(report.requests / 3);
        expect(report.slow.at(-1)?.atMs).toBeGreaterThan(1_000);
      }
      expect(await metricOf(proxy, 'endpoint_ejections_total', { service: 'half' })).toBe(0);
    });
  },
);
