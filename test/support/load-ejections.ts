/** What clients felt of a black-holed backend, by ejection period. Pure. */
import type { BlackHoleFigures, Look } from './load-black-hole.ts';

/** The first dial time-out: who waits longer was sent to the dead backend, or everything stood still. */
export const SLOW_MS = 250;

export interface SlowRequest {
  /** After the first request of the load. */
  readonly startMs: number;
  readonly latencyMs: number;
}

export interface EjectionPeriod {
  /** When its ejection was seen, after the first request of the load; the period lasts until the next. */
  readonly startMs: number;
  /** The requests begun in it that took longer than `SLOW_MS`. */
  readonly slow: readonly SlowRequest[];
  /** Dials of it that timed out: connections that the dead backend did cost something. */
  readonly timeouts: number;
  /** The longest that the proxy's event loop stood still in it. */
  readonly stallMs: number;
}

export interface EjectionFigures {
  /** Before the first ejection was seen. */
  readonly slowBefore: readonly SlowRequest[];
  readonly periods: readonly EjectionPeriod[];
  /** Latencies of the requests that were begun after the first ejection. */
  readonly latencyMsAfter: readonly number[];
}

export function ejectionFigures({ dark, looks }: Pick<BlackHoleFigures, 'dark' | 'looks'>): EjectionFigures {
  const originMs = dark.startMs.reduce((least, each) => Math.min(least, each), Number.POSITIVE_INFINITY);
  const requests = dark.startMs.map((startMs, index) => ({
    startMs: startMs - originMs,
    latencyMs: dark.latencyMs[index] ?? Number.NaN,
  }));
  const slow = requests
    .filter(({ latencyMs }) => latencyMs > SLOW_MS)
    .toSorted((one, other) => one.startMs - other.startMs);
  const firsts = looks.filter((look, index) => look.ejections > (looks[index - 1] ?? look).ejections);
  const periods = firsts.map((first, index): EjectionPeriod => {
    const next = firsts[index + 1];
    const isWithin = (atMs: number): boolean => atMs >= first.atMs && atMs < (next?.atMs ?? atMs + 1);
    // The dial that fails its trial belongs to the period that it ends.
    const last = next ?? looks.at(-1) ?? first;
    const within: readonly Look[] = looks.filter(({ atMs }) => isWithin(atMs));
    return {
      startMs: first.atMs - originMs,
      slow: slow.filter(({ startMs }) => isWithin(startMs + originMs)),
      timeouts: last.timeouts - first.timeouts,
      stallMs: within.reduce((longest, { stallMs }) => Math.max(longest, stallMs), 0),
    };
  });
  const firstMs = periods[0]?.startMs ?? Number.POSITIVE_INFINITY;
  return {
    slowBefore: slow.filter(({ startMs }) => startMs < firstMs),
    periods,
    latencyMsAfter: requests.filter(({ startMs }) => startMs >= firstMs).map(({ latencyMs }) => latencyMs),
  };
}
