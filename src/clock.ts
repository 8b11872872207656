/**
 * The one clock. Everything that needs the time takes a `Clock` (shells) or `now` (pure state), so that
 * tests own it. No other file reads `Date` or `performance`.
 */

/** Milliseconds on a clock that never goes back and is unrelated to the time of day. */
export type MonotonicMs = number;

export interface Clock {
  /** For durations, time-outs and expiry. Never jumps. */
  now(): MonotonicMs;
  /**
   * Milliseconds since the epoch: may jump. For what people or other programs read (logs, health,
   * metrics) and for the age of what an earlier process has left.
   */
  wallTime(): number;
}

export const systemClock: Clock = {
  now: () => performance.now(),
  wallTime: () => Date.now(),
};
