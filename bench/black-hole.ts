/**
 * What a black-holed backend, one of two, costs the clients of its Service. Needs root; see README.md. Exits with 1
 * where what is promised does not hold.
 */
import { runBlackHole, type BlackHoleFigures } from '../test/support/load-black-hole.ts';
import { ejectionFigures, SLOW_MS, type SlowRequest } from '../test/support/load-ejections.ts';
import { runBenchCommand, type BenchOutcome } from './support/bench-command.ts';
import {
  renderCounts,
  renderLatencies,
  renderRequests,
  seconds,
  withoutLists,
} from './support/load-report.ts';
import { summarize } from './support/statistics.ts';

const TARGET_P99_MS = 20;
/** Of an ejection period: one is due, and many are a machine that stood still. */
const MAX_LISTED = 5;

function judge(figures: BlackHoleFigures): BenchOutcome {
  const { healthy, dark, direct, dials } = figures;
  const { slowBefore, periods, latencyMsAfter } = ejectionFigures(figures);
  const after = summarize(latencyMsAfter);
  const worst = Math.max(0, ...periods.map(({ slow }) => slow.length));
  const [first] = periods;
  const lines = [
    `both backends: ${renderRequests(healthy)}`,
    `one black-holed: ${renderRequests(dark)}`,
    `  until the first ejection, seen after ${first === undefined ? '-' : seconds(first.startMs)}: ` +
      `${slowBefore.length} requests above ${SLOW_MS} ms`,
    `  after it: ${renderLatencies(latencyMsAfter)}`,
    `  beside it, past the proxy: ${renderRequests(direct)}`,
    `dials: ${renderCounts(dials)}`,
    `ejection periods: dials that timed out, the longest stall of the proxy, and the requests above ${SLOW_MS} ms`,
    ...periods.map(({ startMs, slow, timeouts, stallMs }, index) => {
      const next = periods[index + 1];
      const span = `${seconds(startMs).padStart(8)} to ${next === undefined ? 'the end' : seconds(next.startMs)}`;
      return (
        `  ${String(index + 1).padStart(2)}  ${span.padEnd(22)} ${timeouts} timed out, ${stallMs.toFixed(0)} ms; ` +
        renderSlow(slow)
      );
    }),
  ];
  const failed = healthy.failures.length + dark.failures.length;
  return {
    figures: {
      healthy: withoutLists(healthy),
      dark: withoutLists(dark),
      direct: withoutLists(direct),
      after,
      slowBefore,
      periods,
      dials,
    },
    lines,
    criteria: [
      { text: 'no request failed', isMet: failed === 0 },
      { text: 'the backend was ejected', isMet: periods.length > 0 },
      {
        text: `p99 below ${TARGET_P99_MS} ms after the first ejection`,
        isMet: after.p99 < TARGET_P99_MS,
      },
      { text: `at most one request above ${SLOW_MS} ms in each ejection period`, isMet: worst <= 1 },
      {
        text: 'at most one dial that timed out in each ejection period',
        isMet: periods.every(({ timeouts }) => timeouts <= 1),
      },
    ],
  };
}

function renderSlow(slow: readonly SlowRequest[]): string {
  const listed = slow
    .slice(0, MAX_LISTED)
    .map(({ startMs, latencyMs }) => `${latencyMs.toFixed(0)} ms at ${seconds(startMs)}`);
  const more = slow.length - listed.length;
  return [...listed, ...(more > 0 ? [`${more} more`] : [])].join(', ') || 'none';
}

await runBenchCommand({
  name: 'black-hole',
  numbers: { seconds: 60, 'per-second': 200 },
  run: async ({ options, proxyArgs, signal, say }) => {
    say(`${options.seconds} s with one of two backends black-holed`);
    const { seconds: length, 'per-second': perSecond } = options;
    return judge(await runBlackHole({ seconds: length, perSecond, proxyArgs, signal }));
  },
});
