/** Medians and ratios of what bench/peers.ts has measured, and whether they are what they are to be. Pure. */
import type { ContenderKey } from './peer-contenders.ts';
import {
  FIGURES,
  type FigureKey,
  PLAIN_TARGETS,
  type PlainTarget,
  RATIO_TARGETS,
  type RatioTarget,
  type Turn,
} from './peer-figures.ts';
import { median } from './statistics.ts';

export interface Spread {
  readonly median: number;
  readonly least: number;
  readonly greatest: number;
  /** One for each round that has one. */
  readonly values: readonly number[];
}

export type Turns = ReadonlyMap<ContenderKey, readonly Turn[]>;

/** `beyond`: the stretch was reached as well. `none`: nothing was to be reached. */
export type Verdict = 'reached' | 'beyond' | 'not reached' | 'none';

export interface Ratio extends RatioTarget {
  readonly spread: Spread;
  readonly verdict: Verdict;
}

export interface PlainResult extends PlainTarget {
  readonly spread: Spread;
  readonly verdict: Verdict;
}

/** Of a contender's figure over the rounds; undefined when there is none. */
export function spreadOf(turns: Turns, key: ContenderKey, figure: FigureKey): Spread | undefined {
  return buildSpread((turns.get(key) ?? []).flatMap((turn) => turn[figure] ?? []));
}

/** Each is the median of the rounds' own ratios. Those of which nothing was measured are left out. */
export function buildRatios(turns: Turns, targets: readonly RatioTarget[] = RATIO_TARGETS): readonly Ratio[] {
  return targets.flatMap((target) => {
    const { figure, of, against } = target;
    const others = turns.get(against) ?? [];
    const ratios = (turns.get(of) ?? []).flatMap((turn, round) => {
      const one = turn[figure];
      const other = others[round]?.[figure];
      return one === undefined || other === undefined || other === 0 ? [] : one / other;
    });
    const spread = buildSpread(ratios);
    return spread === undefined ? [] : { ...target, spread, verdict: judge(spread.median, target) };
  });
}

export function buildPlainResults(
  turns: Turns,
  targets: readonly PlainTarget[] = PLAIN_TARGETS,
): readonly PlainResult[] {
  return targets.flatMap((target) => {
    const spread = spreadOf(turns, target.of, target.figure);
    if (spread === undefined) return [];
    const value = target.takes === 'worst' ? spread.greatest : spread.median;
    return { ...target, spread, verdict: judge(value, target) };
  });
}

/** The targets of which nothing was measured, in words: who against whom, and of what. */
export function listUnmeasured(ratios: readonly Ratio[], plain: readonly PlainResult[]): readonly string[] {
  const measured = new Set([...ratios, ...plain].map((each) => `${pairOf(each)}: ${each.figure}`));
  const wanted = [
    ...RATIO_TARGETS.filter(({ atMost, atLeast }) => atMost !== undefined || atLeast !== undefined),
    ...PLAIN_TARGETS,
  ];
  const missing = wanted.filter((each) => !measured.has(`${pairOf(each)}: ${each.figure}`));
  const pairs = [...new Set(missing.map(pairOf))];
  return pairs.map((pair) => {
    const titles = missing.filter((each) => pairOf(each) === pair).map(({ figure }) => FIGURES[figure].title);
    return `${pair}: ${titles.join('; ')}`;
  });
}

function pairOf({ of, against }: { readonly of: ContenderKey; readonly against?: ContenderKey }): string {
  return against === undefined ? of : `${of} against ${against}`;
}

function judge(value: number, { atMost, atLeast, stretch }: Partial<RatioTarget>): Verdict {
  if (atMost === undefined && atLeast === undefined) return 'none';
  if (value > (atMost ?? Infinity) || value < (atLeast ?? -Infinity) || Number.isNaN(value)) {
    return 'not reached';
  }
  return stretch !== undefined && value <= stretch ? 'beyond' : 'reached';
}

function buildSpread(values: readonly number[]): Spread | undefined {
  if (values.length === 0) return undefined;
  return {
    median: median(values),
    least: Math.min(...values),
    greatest: Math.max(...values),
    values,
  };
}
