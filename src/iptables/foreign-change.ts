/** What somebody else has done to our rules, told from what iptables-save prints. Pure. */
import { renderStamp } from './canary.ts';
import type { KernelTable } from './kernel-table.ts';
import type { InstalledTable } from './render.ts';
import type { Spellings } from './spellings.ts';
import type { TableText } from './table-text.ts';

/**
 * - `flush`: the canary, or a chain of ours, is gone
 * - `jump`: a jump of ours is missing, doubled or another, or in nat stands behind KUBE-SERVICES
 * - `rules`: a chain of ours holds other rules than we wrote, or is none that we made
 */
export type ForeignChange = 'flush' | 'jump' | 'rules';

/** From the gravest on: what explains the others too. */
const BY_GRAVITY: readonly ForeignChange[] = ['flush', 'jump', 'rules'];

/** Undefined when there is none. */
export function gravest(changes: readonly (ForeignChange | undefined)[]): ForeignChange | undefined {
  return BY_GRAVITY.find((change) => changes.includes(change));
}

export function foreignChangeOf(
  kernel: KernelTable,
  installed: InstalledTable,
  spellings: Spellings,
): ForeignChange | undefined {
  const { text, stamp } = installed;
  if (kernel.canary?.includes(renderStamp(stamp)) !== true) return 'flush';
  if ([...text.chains.keys()].some((chain) => !kernel.chains.has(chain))) return 'flush';
  return gravest([changeOfJumps(kernel, text, spellings), changeOfRules(kernel, text, spellings)]);
}

function changeOfJumps(
  kernel: KernelTable,
  { hooks }: TableText,
  spellings: Spellings,
): ForeignChange | undefined {
  const isSame = (written: string, printed: string): boolean => spellings.isSame(written, printed);
  return hooks.every((hook) => kernel.isHookInPlace(hook, isSame)) ? undefined : 'jump';
}

function changeOfRules(
  kernel: KernelTable,
  { chains }: TableText,
  spellings: Spellings,
): ForeignChange | undefined {
  const isWhole =
    kernel.chains.size === chains.size &&
    kernel.canary?.length === 1 &&
    [...chains].every(([chain, rules]) => spellings.areSame(rules, kernel.chains.get(chain) ?? []));
  return isWhole ? undefined : 'rules';
}
