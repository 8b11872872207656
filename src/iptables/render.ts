/** `iptables-restore --noflush` input: from what is installed to what is wanted. Pure. */
import { compareText } from '../model/endpoint.ts';
import type { IpFamily } from '../model/address.ts';
import type { KernelTable } from './kernel-table.ts';
import { type ChainName, type Rule, type TableName, type TableRules, renderRuleSpec } from './rule.ts';

export interface TableUpdate {
  /** '' when there is nothing to do. */
  readonly text: string;
  /** Rules of ours that the text adds. */
  readonly rulesWritten: number;
}

/** The lines that stand between `*table` and `COMMIT`, wrapped. */
function renderTable(table: TableName, lines: readonly string[]): string {
  return lines.length === 0 ? '' : [`*${table}`, ...lines, 'COMMIT', ''].join('\n');
}

/**
 * Rewrites every chain of ours, removes those of ours that are not wanted, and puts each jump first in its
 * built-in chain if it is missing, doubled, or stands behind kube-proxy's. Declaring a chain empties it.
 */
export function renderFullUpdate(
  { table, family }: { readonly table: TableName; readonly family: IpFamily },
  wanted: TableRules,
  kernel: KernelTable,
): TableUpdate {
  const stale = [...kernel.chains.keys()].filter((chain) => !wanted.chains.has(chain)).sort(compareText);
  const declared = [...wanted.chains.keys(), ...stale].map((chain) => `:${chain} - [0:0]`);
  const rules = [...wanted.chains].flatMap(([chain, own]) => renderChain(chain, own, family));
  const jumps = wanted.hooks.flatMap(({ hook, rule }) => {
    if (kernel.isHookInPlace(hook, rule)) return [];
    return [
      ...kernel.jumpsIn(hook).map((line) => `-D ${line}`),
      `-I ${hook} 1 ${renderRuleSpec(rule, family)}`,
    ];
  });
  // A chain that is jumped to cannot be removed, and the whole table would be refused.
  const isRenewed = (line: string): boolean => wanted.hooks.some(({ hook }) => line.startsWith(`${hook} `));
  const leftovers = kernel.jumpsTo(stale).filter((line) => !isRenewed(line));
  const removed = [...leftovers.map((line) => `-D ${line}`), ...stale.map((chain) => `-X ${chain}`)];
  return {
    text: renderTable(table, [...declared, ...rules, ...jumps, ...removed]),
    rulesWritten: rules.length + jumps.length,
  };
}

/** Rewrites the chains that differ from `installed`, which must be what the kernel holds. */
export function renderPartialUpdate(
  { table, family }: { readonly table: TableName; readonly family: IpFamily },
  wanted: TableRules,
  installed: TableRules,
): TableUpdate {
  const changed = [...wanted.chains].filter(
    ([chain, rules]) => !hasSameRules(rules, installed.chains.get(chain), family),
  );
  const stale = [...installed.chains.keys()].filter((chain) => !wanted.chains.has(chain));
  const declared = [...changed.map(([chain]) => chain), ...stale].map((chain) => `:${chain} - [0:0]`);
  const rules = changed.flatMap(([chain, own]) => renderChain(chain, own, family));
  const removed = stale.map((chain) => `-X ${chain}`);
  return { text: renderTable(table, [...declared, ...rules, ...removed]), rulesWritten: rules.length };
}

function renderChain(chain: ChainName, rules: readonly Rule[], family: IpFamily): string[] {
  return rules.map((rule) => `-A ${chain} ${renderRuleSpec(rule, family)}`);
}

function hasSameRules(a: readonly Rule[], b: readonly Rule[] | undefined, family: IpFamily): boolean {
  if (a === b) return true;
  if (b === undefined || a.length !== b.length) return false;
  return a.every((rule, index) => {
    const other = b[index];
    return other !== undefined && renderRuleSpec(rule, family) === renderRuleSpec(other, family);
  });
}

/** Removes everything of ours from a table: first the jumps, wherever they stand, then the chains. */
export function renderRemoval(table: TableName, kernel: KernelTable): TableUpdate {
  const jumps = kernel.allJumps().map((line) => `-D ${line}`);
  const chains = [...kernel.chains.keys()].sort(compareText);
  const declared = chains.map((chain) => `:${chain} - [0:0]`);
  const removed = chains.map((chain) => `-X ${chain}`);
  return { text: renderTable(table, [...declared, ...jumps, ...removed]), rulesWritten: 0 };
}
