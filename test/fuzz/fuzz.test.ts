/**
 * The short form of `npm run fuzz`: the first inputs of a seed for each reader. KUP_TEST_SEED is another one; KUP_TEST_LONG=1
 * takes a hundred times as many.
 */
import { expect, test } from 'vitest';
import { fuzz } from './fuzz-run.ts';
import { FUZZ_TARGET_NAMES } from './fuzz-target.ts';

const INPUTS = process.env['KUP_TEST_LONG'] === '1' ? 100_000 : 1000;
const SEED = Number(process.env['KUP_TEST_SEED'] ?? 1);
const PROMISES = {
  manifest:
    'no bytes in a manifest make the reader throw, hang or grow, and all that is wrong is told in short',
  watch: 'no bytes in a watch make the decoder throw, hang or grow, and how they are cut changes nothing',
};

test.each(FUZZ_TARGET_NAMES.map((name) => ({ name, promise: PROMISES[name] })))(
  '$promise',
  { timeout: 900_000 },
  async ({ name }) => {
    const { done } = await fuzz({ name, seed: SEED, inputs: INPUTS });
    expect(done).toBe(INPUTS);
  },
);
