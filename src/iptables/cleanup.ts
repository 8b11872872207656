/** `--cleanup`: takes every rule and chain of ours out of the kernel, and nothing else. */
import type { Iptables } from './iptables.ts';
import { renderRemoval } from './render.ts';
import { TABLES } from './rule.ts';

/** Removes what is ours from each of these; true when there was something. Rejects as `Iptables` does. */
export async function removeRulesOfAll(all: readonly Iptables[]): Promise<boolean> {
  let hasRemoved = false;
  for (const iptables of all) hasRemoved = (await removeRules(iptables)) || hasRemoved;
  return hasRemoved;
}

/** Removes what is ours from one family; true when there was something. Rejects as `Iptables` does. */
export async function removeRules(iptables: Iptables): Promise<boolean> {
  let input = '';
  for (const table of TABLES) input += renderRemoval(table, await iptables.read(table)).text;
  if (input === '') return false;
  await iptables.restore(input);
  return true;
}
