/**
 * `npm run fuzz -- --inputs 1000000 [--target manifest|watch] [--seed N] [--first I]`: the full length, with a line of
 * progress now and then. Exits with 1 at the first input that breaks a promise, and says how to have it again.
 */
import { parseArgs } from 'node:util';
import { fuzz } from './fuzz-run.ts';
import { FUZZ_TARGET_NAMES } from './fuzz-target.ts';

const { values } = parseArgs({
  options: {
    inputs: { type: 'string', default: '1000000' },
    target: { type: 'string' },
    seed: { type: 'string', default: String(Date.now() % 2 ** 31) },
    first: { type: 'string', default: '0' },
  },
});
const names = FUZZ_TARGET_NAMES.filter((name) => values.target === undefined || name === values.target);
if (names.length === 0) throw new Error(`--target is one of ${FUZZ_TARGET_NAMES.join(', ')}`);
const [inputs, seed, first] = [values.inputs, values.seed, values.first].map(Number) as [
  number,
  number,
  number,
];

try {
  for (const name of names) {
    console.log(`${name}: ${inputs} inputs from number ${first} on, seed ${seed}`);
    await fuzz({
      name,
      seed,
      inputs,
      first,
      onProgress: ({ done, elapsedMs, slowestMs, slowest, heapBytes }) =>
        console.log(
          `${name}: ${done} in ${Math.round(elapsedMs / 1000)} s, ${Math.round((done / elapsedMs) * 1000)}/s; ` +
            `slowest ${slowestMs.toFixed(1)} ms (input ${slowest}); heap ${(heapBytes / 2 ** 20).toFixed(1)} MB`,
        ),
    });
  }
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
}
