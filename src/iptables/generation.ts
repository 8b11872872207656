/** Which generations have written the rules that the kernel holds now. */
import type { Iptables } from './iptables.ts';
import { TABLES } from './rule.ts';

/**
 * The highest that any table of these families carries, in the other flavour too; 0 when there is none. Who starts as the
 * owner takes a higher one. Rejects as `Iptables` does.
 */
export async function highestGeneration(iptables: readonly Iptables[]): Promise<number> {
  let highest = 0;
  for (const one of iptables.flatMap((chosen) => [chosen, ...(chosen.former ? [chosen.former] : [])])) {
    for (const table of TABLES) highest = Math.max(highest, (await one.read(table)).generation ?? 0);
  }
  return highest;
}
