/** The report of bench/peers.ts as text. Pure. */
import { round } from './load-report.ts';
import { type Machine, renderMachine } from './machine.ts';
import { CONTENDER_KEYS, type ContenderKey, LABELS } from './peer-contenders.ts';
import { FIGURE_KEYS, FIGURES, type FigureKey } from './peer-figures.ts';
import {
  buildPlainResults,
  buildRatios,
  listUnmeasured,
  type PlainResult,
  type Ratio,
  type Spread,
  spreadOf,
  type Turns,
  type Verdict,
} from './peer-ratios.ts';
import type { PeerOptions, PeerRun } from './peer-run.ts';

export interface PeerReport {
  readonly machine: Machine;
  readonly options: PeerOptions;
  /** Seconds that all of it took. */
  readonly took: number;
  readonly ratios: readonly Ratio[];
  readonly plain: readonly PlainResult[];
  readonly contenders: readonly {
    readonly key: ContenderKey;
    readonly label: string;
    readonly configuration: string;
    readonly figures: Readonly<Partial<Record<FigureKey, Spread>>>;
  }[];
  readonly leftOut: readonly string[];
  /** Targets of which nothing was measured. */
  readonly unmeasured: readonly string[];
  /** What the reader has to know of the figures. */
  readonly notes: readonly string[];
  /** The kernel's settings. */
  readonly settings: readonly string[];
}

const VERDICTS: Readonly<Record<Verdict, string>> = {
  reached: 'reached',
  beyond: 'reached, and the stretch',
  'not reached': 'NOT REACHED',
  none: '',
};
const COLUMN = 16;

export function buildPeerReport(
  run: PeerRun,
  rest: Pick<PeerReport, 'machine' | 'options' | 'took' | 'settings' | 'notes'>,
): PeerReport {
  const { turns, configurations, leftOut } = run;
  const ratios = buildRatios(turns);
  const plain = buildPlainResults(turns);
  const contenders = CONTENDER_KEYS.filter((key) => turns.has(key)).map((key) => ({
    key,
    label: LABELS[key],
    configuration: configurations.get(key) ?? '',
    figures: figuresOf(turns, key),
  }));
  return { ...rest, ratios, plain, contenders, leftOut, unmeasured: listUnmeasured(ratios, plain) };
}

/** Whether nothing that was measured misses what it is to be. */
export function isReached({ ratios, plain }: PeerReport): boolean {
  return [...ratios, ...plain].every(({ verdict }) => verdict !== 'not reached');
}

export function renderPeerReport(report: PeerReport): string {
  const { machine, options, took, contenders, leftOut, unmeasured, settings, notes } = report;
  const { rounds, seconds, connections } = options;
  return [
    renderMachine(machine),
    `${rounds} rounds, ${seconds} s each measurement, ${connections} idle connections; took ${(took / 60).toFixed(1)} min`,
    ...notes.map((what) => `note: ${what}`),
    ...leftOut.map((what) => `left out: ${what}`),
    ...unmeasured.map((what) => `no verdict, not measured: ${what}`),
    '',
    'ratios: each the median of the rounds’ own ratios, with the least and the greatest of them',
    ...renderRatios(report),
    '',
    'medians of the rounds, ± half of what lies between the least and the greatest',
    ...renderFigures(contenders),
    '',
    'configuration',
    ...settings.map((line) => `  ${line}`),
    ...contenders.flatMap(({ label, configuration }) => [
      `${label}:`,
      ...configuration
        .trimEnd()
        .split('\n')
        .map((line) => `  ${line}`),
    ]),
    '',
  ].join('\n');
}

function renderRatios({ ratios, plain }: PeerReport): readonly string[] {
  const rows = [
    ...ratios.map((ratio) => {
      const { atMost, atLeast, stretch } = ratio;
      const bound = atMost === undefined ? (atLeast === undefined ? '' : `≥ ${atLeast}`) : `≤ ${atMost}`;
      return [
        FIGURES[ratio.figure].title,
        `${shorten(ratio.of)} against ${shorten(ratio.against)}`,
        `${ratio.spread.median.toFixed(2)} ×`,
        `(${ratio.spread.least.toFixed(2)} to ${ratio.spread.greatest.toFixed(2)})`,
        `${bound}${stretch === undefined ? '' : `, stretch ${stretch}`}`,
        VERDICTS[ratio.verdict],
      ];
    }),
    ...plain.map(({ figure, of, atMost, takes, spread, verdict }) => {
      const { title, unit } = FIGURES[figure];
      const value = takes === 'worst' ? spread.greatest : spread.median;
      return [
        `${title}${takes === 'worst' ? ', at worst' : ''}`,
        shorten(of),
        `${round(value)} ${unit}`.trimEnd(),
        `(${round(spread.least)} to ${round(spread.greatest)})`,
        `≤ ${atMost}`,
        VERDICTS[verdict],
      ];
    }),
  ];
  return rows.length === 0 ? ['  none'] : renderColumns(rows);
}

function renderFigures(contenders: PeerReport['contenders']): readonly string[] {
  const used = FIGURE_KEYS.filter((key) => contenders.some(({ figures }) => figures[key] !== undefined));
  const width = Math.max(0, ...used.map((key) => titleOf(key).length));
  const header = contenders.map(({ key }) => shorten(key).padStart(COLUMN)).join('');
  return [
    `  ${''.padEnd(width)}${header}`,
    ...used.map((key) => {
      const cells = contenders.map(({ figures }) => renderSpread(figures[key]).padStart(COLUMN));
      return `  ${titleOf(key).padEnd(width)}${cells.join('')}`;
    }),
  ];
}

function titleOf(key: FigureKey): string {
  const { title, unit } = FIGURES[key];
  return unit === '' ? title : `${title} (${unit})`;
}

function renderSpread(spread: Spread | undefined): string {
  if (spread === undefined) return '-';
  const half = (spread.greatest - spread.least) / 2;
  const part = spread.median === 0 ? 0 : (100 * half) / Math.abs(spread.median);
  return `${round(spread.median)}${part < 0.5 ? '' : ` ±${part.toFixed(0)}%`}`;
}

function renderColumns(rows: readonly (readonly string[])[]): readonly string[] {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  return rows.map((row) =>
    `  ${row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join('  ')}`.trimEnd(),
  );
}

function shorten(key: ContenderKey): string {
  return key === 'kube-proxy' ? 'Go' : key;
}

function figuresOf(turns: Turns, key: ContenderKey): Readonly<Partial<Record<FigureKey, Spread>>> {
  return Object.fromEntries(
    FIGURE_KEYS.flatMap((figure) => {
      const spread = spreadOf(turns, key, figure);
      return spread === undefined ? [] : [[figure, spread]];
    }),
  );
}
