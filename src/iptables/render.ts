/**
 * `iptables-restore --noflush` input: from what is installed to what is wanted. Every table begins with the fence of its
 * canary and ends with the new one (canary.ts). Pure.
 */
import { compareText } from '../model/endpoint.ts';
import { CANARY, type Stamp, renderFence, renderStamp } from './canary.ts';
import type { KernelTable } from './kernel-table.ts';
import type { ChainName, TableName } from './rule.ts';
import { type TableText, hasSameLines } from './table-text.ts';

export interface TableUpdate {
  /** '' when there is nothing to do. */
  readonly text: string;
  /** Rules of ours that the text adds, the canary left out. */
  readonly rulesWritten: number;
}

/** Which table, and by which write. */
export interface UpdateContext {
  readonly table: TableName;
  readonly stamp: Stamp;
}

/** What stands in a table, and by which write. */
export interface InstalledTable {
  readonly text: TableText;
  readonly stamp: Stamp;
}

function renderTable({ table, stamp }: UpdateContext, lines: readonly string[]): string {
  return [`*${table}`, ...lines, `-A ${CANARY} ${renderStamp(stamp)}`, 'COMMIT', ''].join('\n');
}

/**
 * Rewrites every chain of ours, removes those of ours that are not wanted, and puts each jump first in its
 * built-in chain if it is missing, doubled, another, or stands behind kube-proxy's. Declaring a chain empties it. Refused
 * by the kernel when the canary is not what `kernel` has.
 */
export function renderFullUpdate(at: UpdateContext, wanted: TableText, kernel: KernelTable): TableUpdate {
  const stale = [...kernel.chains.keys()].filter((chain) => !wanted.chains.has(chain)).sort(compareText);
  const declared = [...wanted.chains.keys(), ...stale].map(declare);
  const rules = [...wanted.chains].flatMap(([chain, own]) => renderChain(chain, own));
  const jumps = wanted.hooks.flatMap((hook) => {
    if (kernel.isHookInPlace(hook)) return [];
    return [...kernel.jumpsIn(hook.hook).map((line) => `-D ${line}`), `-I ${hook.hook} 1 ${hook.spec}`];
  });
  // A chain that is jumped to cannot be removed, and the whole table would be refused.
  const isRenewed = (line: string): boolean => wanted.hooks.some(({ hook }) => line.startsWith(`${hook} `));
  const leftovers = kernel.jumpsTo([...stale, CANARY]).filter((line) => !isRenewed(line));
  const removed = stale.map((chain) => `-X ${chain}`);
  const lines = [
    ...leftovers.map((line) => `-D ${line}`),
    ...renderFence(kernel.canary),
    ...declared,
    ...rules,
    ...jumps,
    ...removed,
  ];
  return { text: renderTable(at, lines), rulesWritten: rules.length + jumps.length };
}

/**
 * Rewrites the chains that differ from `installed`, which must be what the kernel holds. Refused by the kernel when the
 * canary is another.
 */
export function renderPartialUpdate(
  at: UpdateContext,
  wanted: TableText,
  installed: InstalledTable,
): TableUpdate {
  const before = installed.text.chains;
  const changed = [...wanted.chains].filter(([chain, rules]) => !hasSameLines(rules, before.get(chain)));
  const stale = [...before.keys()].filter((chain) => !wanted.chains.has(chain));
  const rules = changed.flatMap(([chain, own]) => renderChain(chain, own));
  const lines = [
    ...renderFence([renderStamp(installed.stamp)]),
    ...changed.map(([chain]) => declare(chain)),
    ...stale.map(declare),
    ...rules,
    ...stale.map((chain) => `-X ${chain}`),
  ];
  const isSame = changed.length + stale.length === 0;
  return { text: isSame ? '' : renderTable(at, lines), rulesWritten: rules.length };
}

/** Only the canary changes: from here on whoever wrote this table cannot write it any more. */
export function renderTakeover(at: UpdateContext, kernel: KernelTable): TableUpdate {
  return { text: renderTable(at, renderFence(kernel.canary)), rulesWritten: 0 };
}

/** Takes everything but the canary out of a table, which then belongs to this generation. */
export function renderRetirement(at: UpdateContext, kernel: KernelTable): TableUpdate {
  const lines = [...renderFence(kernel.canary), ...removalOf(kernel, [])];
  return { text: renderTable(at, lines), rulesWritten: 0 };
}

/** Removes everything of ours from a table, whoever wrote it. */
export function renderRemoval(table: TableName, kernel: KernelTable): TableUpdate {
  const lines = removalOf(kernel, kernel.canary === undefined ? [] : [CANARY]);
  return {
    text: lines.length === 0 ? '' : [`*${table}`, ...lines, 'COMMIT', ''].join('\n'),
    rulesWritten: 0,
  };
}

/** First the jumps, wherever they stand, then the chains. */
function removalOf(kernel: KernelTable, further: readonly ChainName[]): readonly string[] {
  const chains = [...kernel.chains.keys(), ...further].sort(compareText);
  return [
    ...chains.map(declare),
    ...kernel.allJumps().map((line) => `-D ${line}`),
    ...chains.map((chain) => `-X ${chain}`),
  ];
}

function declare(chain: ChainName): string {
  return `:${chain} - [0:0]`;
}

function renderChain(chain: ChainName, rules: readonly string[]): string[] {
  return rules.map((rule) => `-A ${chain} ${rule}`);
}
