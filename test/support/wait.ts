/**
 * The one polling helper of the tests: waits, within a bound, until something that can be observed is so. A test
 * that would sleep instead calls this, names what it waits for, and fails with the last thing it saw.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { inspect } from 'node:util';

export interface WaitOptions {
  /** The bound in milliseconds, counted from the call; the condition is tried at least once. */
  readonly timeoutMs: number;
  /** What is waited for, as it reads after "waited for": `the namespace to be gone`. */
  readonly what: string;
  /** The pause between two tries; 20 ms unless told. */
  readonly intervalMs?: number;
}

/**
 * Tries `condition` until it gives a truthy value, and resolves with that value. A condition that throws has not
 * come true yet; the last error becomes the `cause`. Rejects when the bound has passed. The timers are the real
 * ones, also under vitest's fake timers.
 */
export async function waitFor<T>(
  condition: () => T | Promise<T>,
  options: WaitOptions,
): Promise<Exclude<T, false | 0 | '' | null | undefined>> {
  const deadline = performance.now() + options.timeoutMs;
  for (;;) {
    let last: T | undefined;
    let cause: unknown;
    try {
      last = await condition();
      // A type cannot say "truthy"; the test in this line is what makes the assertion true.
      if (last) return last as Exclude<T, false | 0 | '' | null | undefined>;
    } catch (error: unknown) {
      cause = error;
    }
    if (performance.now() >= deadline) {
      const seen =
        cause === undefined ? `last saw ${inspect(last, { depth: 3 })}` : `last error: ${inspect(cause)}`;
      throw new Error(`waited ${options.timeoutMs} ms for ${options.what}; ${seen}`, { cause });
    }
    await delay(options.intervalMs ?? 20);
  }
}
