/** The wait after a failure: bounds, steps and chance. */
import { describe, expect, test } from 'vitest';
import { Backoff, MAX_BACKOFF_MS, MIN_BACKOFF_MS } from '../../../src/sources/kubernetes/backoff.ts';
import { Random, seeds } from '../../support/random.ts';

const ALMOST_ONE = 1 - Number.EPSILON;

function waits(random: () => number, count: number): number[] {
  const backoff = new Backoff({ random });
  return Array.from({ length: count }, () => backoff.failed());
}

describe('the wait after a failure', () => {
  test('is between 0.8 s and 30 s', () => {
    expect([MIN_BACKOFF_MS, MAX_BACKOFF_MS]).toEqual([800, 30_000]);
  });

  test('is at its shortest 0.8 s, doubled each time, up to half of 30 s', () => {
    expect(waits(() => 0, 7)).toEqual([800, 1600, 3200, 6400, 12_800, 15_000, 15_000]);
  });

  test('is at its longest twice that, up to 30 s and never longer', () => {
    const longest = waits(() => ALMOST_ONE, 7);
    for (const [index, expected] of [1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000].entries()) {
      expect(longest[index]).toBeLessThanOrEqual(expected);
      expect(longest[index]).toBeCloseTo(expected, 3);
    }
  });

  test('stays so after an outage of days', () => {
    const backoff = new Backoff({ random: () => 0.5 });
    for (let count = 0; count < 5000; count += 1) backoff.failed();
    expect(backoff.failed()).toBe(22_500);
    expect(backoff.failures).toBe(5001);
  });

  test('begins anew after a success, and not otherwise', () => {
    const backoff = new Backoff({ random: () => 0 });
    expect([backoff.failed(), backoff.failed(), backoff.failures]).toEqual([800, 1600, 2]);
    backoff.succeeded();
    expect(backoff.failures).toBe(0);
    expect([backoff.failed(), backoff.failed(), backoff.failures]).toEqual([800, 1600, 2]);
  });

  test('has other bounds when told so', () => {
    const backoff = new Backoff({ random: () => 0 }, { minMs: 10, maxMs: 100 });
    expect(Array.from({ length: 5 }, () => backoff.failed())).toEqual([10, 20, 40, 50, 50]);
  });

  test.for(seeds(20))('differs from node to node within its step (seed %i)', (seed) => {
    const random = new Random(seed);
    const backoff = new Backoff({ random: () => random.next() });
    for (let step = 0; step < 12; step += 1) {
      const longest = Math.min(30_000, 1600 * 2 ** step);
      const waitMs = backoff.failed();
      expect(waitMs).toBeGreaterThanOrEqual(longest / 2);
      expect(waitMs).toBeLessThan(longest);
    }
  });
});
