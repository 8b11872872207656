/**
 * What the proxy holds comes back to what it was, whatever clients and Services did meanwhile. `bench/soak.ts` is the same
 * for 20 minutes, and prints the curve.
 */
import { describe, expect, test } from 'vitest';
import { runSoak } from '../../support/load-soak.ts';
import { AFTER_LONG_WARM_UP, AFTER_SHORT_WARM_UP } from '../../support/load-vitals.ts';
import { canMakeNamespaces } from '../../support/netns-lab.ts';

const isLong = process.env['KUP_TEST_LONG'] === '1';
const LENGTH = isLong
  ? { seconds: 600, warmUpSeconds: 60, vanishedMs: 30_000, tolerance: AFTER_LONG_WARM_UP, proxyArgs: [] }
  : {
      seconds: 6,
      warmUpSeconds: 3,
      // Clients that vanish are noticed after 25 s by keep-alive probes, and so much sooner by this.
      proxyArgs: ['--tcp-idle-timeout=1500ms'],
      vanishedMs: 2_500,
      tolerance: AFTER_SHORT_WARM_UP,
    };

describe.skipIf(canMakeNamespaces() !== undefined)('after mixed traffic through changing Services', () => {
  test('descriptors, sessions, affinity entries, listeners, rules and memory are what they were', {
    timeout: 2 * LENGTH.seconds * 1_000 + 240_000,
  }, async () => {
    const paces = { sampleEveryMs: 2_000, changeEveryMs: 500, restMs: 60_000 };
    const { comparisons, samples, traffic, changes } = await runSoak({ ...LENGTH, ...paces });
    expect(comparisons.filter(({ isBack }) => !isBack)).toEqual([]);
    // There was something to come back from.
    expect(changes).toBeGreaterThanOrEqual(1);
    expect(Math.max(...samples.map(({ counts }) => counts.udpSessions))).toBeGreaterThan(0);
    expect(traffic.filter(({ mayFail, failed }) => failed > 0 && !mayFail)).toEqual([]);
    expect(traffic.filter(({ tried, failed }) => failed >= tried)).toEqual([]);
  });
});
