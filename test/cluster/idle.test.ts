/** What it costs to watch a cluster in which nothing happens. */
import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ClusterUnderTest, whyNoClusterTests } from '../support/cluster-under-test.ts';
import type { ProxyProcess } from '../support/proxy-process.ts';
import { waitFor } from '../support/wait.ts';

const isLong = process.env['KUP_TEST_LONG'] === '1';
const IDLE_SECONDS = isLong ? 600 : 15;
/** Of a core. Where others use the machine, five times as much. */
const MAX_SHARE = isLong ? 0.005 : 0.025;
/** USER_HZ: of the times in /proc. */
const TICKS_PER_SECOND = 100;

/** User and system time of a process and of the programs it has run, in seconds. */
async function cpuSeconds(pid: number): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
  // proc(5): the fields after the name, which may hold anything; utime, stime, cutime and cstime are 14 to 17.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return fields.slice(11, 15).reduce((sum, ticks) => sum + Number(ticks), 0) / TICKS_PER_SECOND;
}

describe.skipIf(whyNoClusterTests() !== undefined)('an idle cluster', { timeout: 900_000 }, () => {
  let cluster: ClusterUnderTest;
  let proxy: ProxyProcess;

  beforeAll(async () => {
    cluster = await ClusterUnderTest.start();
    await cluster.createPods('web', [1, 2]);
    const ip = await cluster.createService('web');
    proxy = await cluster.startProxy({ args: ['-v', '0'] });
    await cluster.answeredBy(ip, ['pod1', 'pod2']);
  });
  afterAll(async () => {
    await cluster?.close();
  });

  /** The proxy's ends of its connections to the API server, sorted. */
  const connections = async (): Promise<readonly string[]> => {
    const lines = await cluster.lab.node.run(['ss', '-tnH', 'state', 'established', 'dport', '=', ':6443']);
    return lines
      .split('\n')
      .filter((line) => line.trim() !== '')
      .map((line) => line.trim().split(/\s+/)[2] ?? '')
      .sort();
  };

  test(`is watched for ${IDLE_SECONDS} s over the same three connections, for next to nothing`, async () => {
    // What the first lists were asked over is closed a few seconds later.
    const onlyWatches = async (): Promise<boolean> => (await connections()).length === 3;
    await waitFor(onlyWatches, { timeoutMs: 15_000, what: 'one connection for each watch' });
    const before = await connections();
    const requests = await proxy.metric('rest_client_requests_total');
    const watches = await proxy.metric('userspace_proxy_api_watches_total');
    const startedAt = performance.now();
    const cpuBefore = await cpuSeconds(proxy.pid);
    const isOver = (): boolean => performance.now() - startedAt >= IDLE_SECONDS * 1000;
    await waitFor(isOver, { timeoutMs: 2_000 * IDLE_SECONDS, what: 'the time to pass', intervalMs: 1000 });
    const share = (await cpuSeconds(proxy.pid)) - cpuBefore;
    const seconds = (performance.now() - startedAt) / 1000;
    console.info(`${((100 * share) / seconds).toFixed(2)} % of a core over ${Math.round(seconds)} s`);
    expect(share / seconds).toBeLessThan(MAX_SHARE);
    expect(await connections()).toEqual(before);
    // Where no bookmarks come, a watch is renewed after 90 s or more, over the connection that it had.
    const renewals = (await proxy.metric('userspace_proxy_api_watches_total')) - watches;
    expect(renewals).toBeLessThanOrEqual(3 * Math.ceil(IDLE_SECONDS / 90));
    // Silence is believed for longer and longer: after 2, 4 and more watches everything is listed to be sure.
    const silenceLists = await proxy.metric('userspace_proxy_api_lists_total', { reason: 'silent' });
    expect(silenceLists).toBeLessThanOrEqual(IDLE_SECONDS < 180 ? 0 : 2 * 3);
    expect(await proxy.metric('rest_client_requests_total')).toBe(requests + renewals + silenceLists);
    expect(await proxy.metric('userspace_proxy_api_failures_total')).toBe(0);
  });
});
