/**
 * Traffic of every kind through Services that change all the time, and at its end the question whether the proxy holds
 * what it held before. Prints the curve. Needs root; see README.md. Exits with 1 where something did not come back.
 */
import { runSoak, type SoakFigures, type SoakSample } from '../test/support/load-soak.ts';
import { AFTER_LONG_WARM_UP, COUNTS } from '../test/support/load-vitals.ts';
import { type BenchOutcome, runBenchCommand } from './support/bench-command.ts';
import { round } from './support/load-report.ts';
import { renderSparkline } from './support/sparkline.ts';

/** The columns of the curve. */
const COLUMNS: readonly (readonly [name: string, read: (sample: SoakSample) => number])[] = [
  ['heap MiB', ({ heapMiB }) => heapMiB],
  ['RSS MiB', ({ rssMiB }) => rssMiB],
  ...COUNTS.map((count) => [count, ({ counts }: SoakSample) => counts[count]] as const),
  ['changes', ({ changes }) => changes],
];

function renderRow(sample: SoakSample): string {
  const cells = COLUMNS.map(([name, read]) => {
    const value = read(sample);
    return (Number.isInteger(value) ? String(value) : value.toFixed(1)).padStart(name.length);
  });
  return `${(sample.atMs / 1_000).toFixed(0).padStart(6)}  ${cells.join('  ')}`;
}

const HEADER = `${'s'.padStart(6)}  ${COLUMNS.map(([name]) => name).join('  ')}`;

function judge(figures: SoakFigures): BenchOutcome {
  const { before, after, comparisons, samples, traffic, changes } = figures;
  const width = Math.max(...COLUMNS.map(([name]) => name.length));
  const lines = [
    `${changes} turns of changes`,
    ...traffic.map(({ kind, tried, failed, errors }) => {
      const which = errors.length === 0 ? '' : ` (${[...new Set(errors)].join(', ')})`;
      return `  ${kind}: ${tried} tried, ${failed} failed${which}`;
    }),
    '',
    HEADER,
    ...samples.map(renderRow),
    '',
    ...COLUMNS.map(([name, read]) => `${name.padEnd(width)}  ${renderSparkline(samples.map(read))}`),
    '',
    'at rest: before, after',
    ...comparisons.map(
      (each) =>
        `  ${each.what.padEnd(width)}  ${round(each.before)}  ${round(each.after)}${each.isBack ? '' : '  NOT BACK'}`,
    ),
  ];
  return {
    figures: { before, after, samples, traffic, changes },
    lines,
    criteria: [
      ...comparisons.map(({ what, isBack }) => ({ text: `${what} where it began`, isMet: isBack })),
      {
        text: 'all traffic went on, and nothing failed that may not',
        isMet: traffic.every(({ tried, failed, mayFail }) => failed < tried && (mayFail || failed === 0)),
      },
    ],
  };
}

await runBenchCommand({
  name: 'soak',
  numbers: {
    seconds: 1_200,
    'warm-up-seconds': 60,
    'sample-every-seconds': 30,
    'change-every-ms': 1_000,
    'vanished-ms': 30_000,
    'rest-seconds': 90,
  },
  run: async ({ options, proxyArgs, signal, say }) => {
    say(`${options['warm-up-seconds']} s of warm-up, then ${options.seconds} s`);
    say(HEADER);
    const figures = await runSoak({
      seconds: options.seconds,
      warmUpSeconds: options['warm-up-seconds'],
      sampleEveryMs: options['sample-every-seconds'] * 1_000,
      changeEveryMs: options['change-every-ms'],
      vanishedMs: options['vanished-ms'],
      restMs: options['rest-seconds'] * 1_000,
      tolerance: AFTER_LONG_WARM_UP,
      proxyArgs,
      signal,
      onSample: (sample) => say(renderRow(sample)),
    });
    return judge(figures);
  },
});
