/** What the hammer in a pod is told, and what it tells, over the IPC channel. */

/** A run of fresh connections to an `identify` server, one every `paceMs`, however long each of them takes. */
export interface HammerRun {
  /** Comes back with every report, so that what is late from an earlier run is known as such. */
  readonly run: number;
  readonly host: string;
  readonly port: number;
  readonly paceMs: number;
  /** When an attempt is given up. Those that hang do not hold up the next ones. */
  readonly timeoutMs: number;
}

/** Undefined: stop. The next run replaces the one under way. */
export type HammerOrder = { readonly start: HammerRun } | { readonly start?: undefined };

/**
 * One connection. Times are those of `monotonicMs`, which all processes of a machine share. It has either the name of
 * who answered or the errno of the failure.
 */
export interface Attempt {
  readonly startMs: number;
  readonly endMs: number;
  readonly name?: string;
  readonly errno?: string;
}

/** The attempts that have ended since the last report. A message without any says that the hammer is there. */
export interface HammerReport {
  readonly run: number;
  readonly attempts: readonly Attempt[];
}

/** CLOCK_MONOTONIC in milliseconds with their fractions. */
export function monotonicMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}
