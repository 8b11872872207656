/**
 * Properties that hold for whatever fast-check thinks of. Where one does not, it makes the counterexample as small as it
 * can and prints it with its seed; KUP_TEST_SEED=<seed> begins there.
 */
import * as fc from 'fast-check';

const isLong = process.env['KUP_TEST_LONG'] === '1';
/** Always the same in CI, so that a commit is not blamed for what was there before; another each time in a long run. */
const DEFAULT_SEED = isLong ? Date.now() % 2 ** 31 : 20_261_121;

/** Throws with seed and counterexample where the property does not hold. `runs`: fifty times as many with KUP_TEST_LONG=1. */
export function holds<T>(arbitrary: fc.Arbitrary<T>, predicate: (value: T) => void, runs = 300): void {
  fc.assert(fc.property(arbitrary, predicate), {
    seed: Number(process.env['KUP_TEST_SEED'] ?? DEFAULT_SEED),
    numRuns: isLong ? 50 * runs : runs,
  });
}
