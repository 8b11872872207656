/** The rules of a table as lines of text, in the form that iptables-save prints: what is written, and compared. Pure. */
import type { IpFamily } from '../model/address.ts';
import { type ChainName, type HookJump, type TableRules, renderRuleSpec } from './rule.ts';

export interface HookText {
  readonly hook: HookJump['hook'];
  /** The chain of ours that it leads to. */
  readonly chain: ChainName;
  readonly spec: string;
}

export interface TableText {
  readonly hooks: readonly HookText[];
  /** Of each chain its rules, without `-A` and the chain's name. */
  readonly chains: ReadonlyMap<ChainName, readonly string[]>;
}

/** Throws a `TypeError` when a hook's rule is no jump. */
export function renderTableText({ hooks, chains }: TableRules, family: IpFamily): TableText {
  return {
    hooks: hooks.map(({ hook, rule }) => {
      if (rule.target.kind !== 'jump') throw new TypeError(`${hook}: no jump, but ${rule.target.kind}`);
      return { hook, chain: rule.target.chain, spec: renderRuleSpec(rule, family) };
    }),
    chains: new Map(
      [...chains].map(([chain, rules]) => [chain, rules.map((rule) => renderRuleSpec(rule, family))]),
    ),
  };
}

export function hasSameLines(a: readonly string[], b: readonly string[] | undefined): boolean {
  return a.length === b?.length && a.every((line, index) => line === b[index]);
}
