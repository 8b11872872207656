/**
 * What `iptables-save -t <table>` says about us: our chains with their rules, and the jumps into them. Everything else in
 * the table is other people's and is only looked at to know the order. Pure.
 */
import { createHash } from 'node:crypto';
import { ProxyError } from '../errors.ts';
import { CANARY, generationOf } from './canary.ts';
import { CHAIN_PREFIX, type ChainName, type HookJump } from './rule.ts';
import type { HookText } from './table-text.ts';

/** kube-proxy's own jump: in nat ours must stand before it. */
const KUBE_PROXY_JUMP = '-j KUBE-SERVICES';
/** The target stands last, and only there: a comment may say anything. */
const OWN_JUMP = new RegExp(` -[jg] (${CHAIN_PREFIX}\\S+)$`);

/** Rules of others that stand before our jump in a built-in chain. */
export interface RulesAhead {
  readonly hook: HookJump['hook'];
  readonly count: number;
  /** The first of them, without `-A` and the chain; '' when there is none. */
  readonly first: string;
}

export class KernelTable {
  /** Our chains, the canary left out, and the rules of each, without `-A` and the chain's name. */
  readonly chains: ReadonlyMap<ChainName, readonly string[]>;
  /** The rules of the canary chain; undefined when there is no such chain. */
  readonly canary: readonly string[] | undefined;
  /** The rules of every chain that is not ours, without the `-A`, in order. */
  readonly #foreignRules: readonly string[];
  #jumps: readonly string[] | undefined;

  constructor(chains: ReadonlyMap<ChainName, readonly string[]>, foreignRules: readonly string[]) {
    this.chains = new Map([...chains].filter(([chain]) => chain !== CANARY));
    this.canary = chains.get(CANARY);
    this.#foreignRules = foreignRules;
  }

  static readonly empty = new KernelTable(new Map(), []);

  /** Of the instance that wrote this table last; undefined when the canary does not say. */
  get generation(): number | undefined {
    return generationOf(this.canary);
  }

  /** There is anything of ours. */
  get isOurs(): boolean {
    return this.chains.size > 0 || this.canary !== undefined;
  }

  /** The rules in a built-in chain that jump to a chain of ours, as `CHAIN spec`. */
  jumpsIn(hook: HookJump['hook']): readonly string[] {
    return this.allJumps().filter((line) => line.startsWith(`${hook} `));
  }

  /** Every rule outside our chains that jumps into them. */
  allJumps(): readonly string[] {
    this.#jumps ??= this.#foreignRules.filter((line) => OWN_JUMP.test(line));
    return this.#jumps;
  }

  /** Those of them that lead to one of these chains. */
  jumpsTo(chains: readonly ChainName[]): readonly string[] {
    return this.allJumps().filter((line) => chains.some((chain) => OWN_JUMP.exec(line)?.[1] === chain));
  }

  /** Exactly one jump, before kube-proxy's, and it reads as `isSame` says it must. */
  isHookInPlace(
    { hook, spec }: HookText,
    isSame: (wanted: string, printed: string) => boolean = (wanted, printed) => wanted === printed,
  ): boolean {
    const [jump, ...others] = this.jumpsIn(hook);
    if (jump === undefined || others.length > 0) return false;
    if (!isSame(spec, jump.slice(hook.length + 1))) return false;
    const inHook = this.#rulesIn(hook);
    const kubeProxy = inHook.findIndex((line) => line.endsWith(KUBE_PROXY_JUMP));
    return kubeProxy === -1 || inHook.indexOf(jump) < kubeProxy;
  }

  /** What stands before our first jump in a built-in chain; nothing where there is none. */
  rulesAhead(hook: HookJump['hook']): RulesAhead {
    const [jump = ''] = this.jumpsIn(hook);
    const inHook = this.#rulesIn(hook);
    const count = Math.max(0, inHook.indexOf(jump));
    return { hook, count, first: count === 0 ? '' : (inHook[0] ?? '').slice(hook.length + 1) };
  }

  #rulesIn(hook: HookJump['hook']): readonly string[] {
    return this.#foreignRules.filter((line) => line.startsWith(`${hook} `));
  }
}

/** Parses `iptables-save -t <table>`; an empty text is an empty table. Throws `ERR_IPTABLES_PARSE`. */
export function parseKernelTable(saved: string): KernelTable {
  const chains = new Map<ChainName, string[]>();
  const foreignRules: string[] = [];
  for (const line of saved.split('\n')) {
    if (line === '' || line.startsWith('#') || line.startsWith('*') || line === 'COMMIT') continue;
    const [, verb, chain = '', rest = ''] = /^(?:\[\d+:\d+\] )?(:|-A )(\S+) ?(.*)$/.exec(line) ?? [];
    if (verb === undefined)
      throw new ProxyError('ERR_IPTABLES_PARSE', `unknown line from iptables-save: ${JSON.stringify(line)}`);
    if (!isOwnChain(chain)) {
      if (verb !== ':') foreignRules.push(`${chain} ${rest}`);
      continue;
    }
    const rules = chains.get(chain);
    if (rules === undefined) chains.set(chain, verb === ':' ? [] : [rest]);
    else if (verb !== ':') rules.push(rest);
  }
  return new KernelTable(chains, foreignRules);
}

function isOwnChain(chain: string): chain is ChainName {
  return chain.startsWith(CHAIN_PREFIX);
}

/**
 * The same for two texts of `iptables-save` exactly when they differ in no more than times and the counters of chains:
 * to see that nothing has changed without reading ten thousand rules line by line.
 */
export function fingerprintOf(saved: string): string {
  const firstRule = saved.indexOf('\n-A ');
  const end = firstRule === -1 ? saved.length : firstRule;
  const head = saved
    .slice(0, end)
    .replaceAll(/^#.*$/gm, '')
    .replaceAll(/ \[\d+:\d+\]$/gm, '');
  const commit = saved.indexOf('\nCOMMIT', end);
  const rules = saved.slice(end, commit === -1 ? saved.length : commit);
  return createHash('sha1').update(head).update('\n').update(rules).digest('base64');
}
