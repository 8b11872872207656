/**
 * The canary: a chain of ours in each table that nobody jumps to, with one rule, the stamp, whose comment says who wrote
 * the table last and by which of its writes. Every write takes that very stamp away and sets its own, so the kernel itself
 * refuses a write, the whole table at once, when somebody has flushed the table or another instance has written since. No
 * check before a write could promise that. Pure.
 */
import { CHAIN_PREFIX, type ChainName } from './rule.ts';

export const CANARY: ChainName = `${CHAIN_PREFIX}CANARY`;

/** No two writes have the same one. */
export interface Stamp {
  /** Of the instance, an integer. */
  readonly generation: number;
  /** Which of its writes; from 1 on. */
  readonly write: number;
}

const STAMP = / --comment "generation (\d+), write \d+" -j RETURN$/;

/** The rule without its chain, as iptables-save prints it. */
export function renderStamp({ generation, write }: Stamp): string {
  return `-m comment --comment "generation ${generation}, write ${write}" -j RETURN`;
}

/** The highest generation of a canary chain's stamps; undefined when there is none. */
export function generationOf(canary: readonly string[] | undefined): number | undefined {
  const generations = (canary ?? [])
    .map((rule) => Number(STAMP.exec(` ${rule}`)?.[1] ?? Number.NaN))
    .filter(Number.isSafeInteger);
  return generations.length === 0 ? undefined : Math.max(...generations);
}

/**
 * Lines that the kernel refuses unless the canary chain is what was seen: the rules that it held, or undefined when
 * there was none. After them it holds no rule.
 */
export function renderFence(seen: readonly string[] | undefined): readonly string[] {
  if (seen === undefined) return [`-N ${CANARY}`];
  // A chain that holds anything cannot be removed.
  if (seen.length === 0) return [`-X ${CANARY}`, `-N ${CANARY}`];
  return seen.map((rule) => `-D ${CANARY} ${rule}`);
}
