/** What can be fuzzed, and what an input is: a number, of which everything else follows. */
import { Random } from '../support/random.ts';

export interface FuzzTarget {
  readonly name: FuzzTargetName;
  /** Takes in one input and checks what it promised; throws or rejects where the promise is broken. */
  readonly run: (random: Random) => void | Promise<void>;
  /** The input that `run` would take in, for whoever has to look at it. */
  readonly describe: (random: Random) => string;
}

export const FUZZ_TARGET_NAMES = ['manifest', 'watch'] as const;
export type FuzzTargetName = (typeof FUZZ_TARGET_NAMES)[number];

/** The source of input `index` of a run: the same whatever was run before it. */
export function randomOfInput(seed: number, index: number): Random {
  const mixed = Math.imul(seed ^ 0x9e37_79b9, 0x85eb_ca6b) ^ Math.imul(index + 1, 0xc2b2_ae35);
  return new Random(mixed >>> 0);
}
