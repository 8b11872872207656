/** Which rule a handle of nf_tables means: the kernel's list of handles, laid beside what iptables-save prints. */
import type { NftMessage, RuleHandle } from './nft-netlink.ts';

/** Gathers the answers to requests for all rules. */
export class HandleList {
  readonly rules: RuleHandle[] = [];
  #done = Promise.withResolvers<void>();

  /** Resolves when the answer that is expected now is complete; rejects when the kernel refuses to give it. */
  async expect(): Promise<void> {
    this.#done = Promise.withResolvers<void>();
    return this.#done.promise;
  }

  add(message: NftMessage): void {
    if (message.kind === 'rule') this.rules.push(message.rule);
    else if (message.kind === 'done') this.#done.resolve();
    else if (message.kind === 'error')
      this.#done.reject(new Error(`nf_tables answers errno ${message.errno}`));
  }
}

/** The texts of rules by their handles. */
export class RuleTexts {
  readonly #textByRule = new Map<string, string>();

  /** `savedByFamily` is what iptables-save printed while the kernel had these handles. */
  constructor({ rules }: HandleList, savedByFamily: Readonly<Record<4 | 6, string>>) {
    const printed = new Map([...linesByChain(4, savedByFamily[4]), ...linesByChain(6, savedByFamily[6])]);
    const listed = Map.groupBy(rules, chainKey);
    for (const [chain, own] of listed) {
      const lines = printed.get(chain) ?? [];
      if (lines.length !== own.length)
        throw new Error(`${chain} has ${own.length} rules, of which iptables-save prints ${lines.length}`);
      for (const [index, rule] of own.entries()) this.#textByRule.set(ruleKey(rule), lines[index] ?? '');
    }
  }

  /** `nat -A CHAIN …`. Throws on a rule that is not known. */
  of(rule: Omit<RuleHandle, 'handle'> & { readonly handle: bigint | undefined }): string {
    const text = this.#textByRule.get(ruleKey(rule));
    if (text === undefined) throw new Error(`no rule is known as ${ruleKey(rule)}`);
    return text;
  }
}

function linesByChain(family: 4 | 6, saved: string): Map<string, readonly string[]> {
  let table = '';
  const lines = new Map<string, string[]>();
  for (const line of saved.split('\n')) {
    if (line.startsWith('*')) table = line.slice(1);
    const chain = /^-A (\S+) /.exec(line)?.[1];
    if (chain === undefined) continue;
    const key = chainKey({ family, table, chain });
    lines.set(key, [...(lines.get(key) ?? []), `${table} ${line}`]);
  }
  return lines;
}

function chainKey({ family, table, chain }: Omit<RuleHandle, 'handle'>): string {
  return `IPv${family} ${table} ${chain}`;
}

function ruleKey({
  handle,
  ...place
}: Omit<RuleHandle, 'handle'> & { readonly handle: bigint | undefined }): string {
  return `${chainKey(place)} ${handle}`;
}
