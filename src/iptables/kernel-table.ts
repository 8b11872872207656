/**
 * What `iptables-save -t <table>` says about us: our chains with their number of rules, and the jumps into
 * them. Everything else in the table is other people's and is only looked at to know the order. Pure.
 */
import { ProxyError } from '../errors.ts';
import { CHAIN_PREFIX, type ChainName, type HookJump, type Rule, type TableRules } from './rule.ts';

/** kube-proxy's own jump: in nat ours must stand before it. */
const KUBE_PROXY_JUMP = '-j KUBE-SERVICES';
/** The target stands last, and only there: a comment may say anything. */
const OWN_JUMP = new RegExp(` -[jg] (${CHAIN_PREFIX}\\S+)$`);

export class KernelTable {
  /** Our chains and how many rules each holds. */
  readonly chains: ReadonlyMap<ChainName, number>;
  /** The rules of every chain that is not ours, without the `-A`, in order. */
  readonly #foreignRules: readonly string[];

  constructor(chains: ReadonlyMap<ChainName, number>, foreignRules: readonly string[]) {
    this.chains = chains;
    this.#foreignRules = foreignRules;
  }

  static readonly empty = new KernelTable(new Map(), []);

  /** The rules in a built-in chain that jump to a chain of ours, as `CHAIN spec`. */
  jumpsIn(hook: HookJump['hook']): readonly string[] {
    return this.allJumps().filter((line) => line.startsWith(`${hook} `));
  }

  /** Every rule outside our chains that jumps into them. */
  allJumps(): readonly string[] {
    return this.#foreignRules.filter((line) => OWN_JUMP.test(line));
  }

  /** Those of them that lead to one of these chains. */
  jumpsTo(chains: readonly ChainName[]): readonly string[] {
    return this.allJumps().filter((line) => chains.some((chain) => OWN_JUMP.exec(line)?.[1] === chain));
  }

  /** Exactly one jump to the right chain, before kube-proxy's. */
  isHookInPlace(hook: HookJump['hook'], rule: Rule): boolean {
    const jumps = this.jumpsIn(hook);
    const [jump] = jumps;
    if (jump === undefined || jumps.length > 1 || rule.target.kind !== 'jump') return false;
    if (!jump.endsWith(` -j ${rule.target.chain}`)) return false;
    const inHook = this.#foreignRules.filter((line) => line.startsWith(`${hook} `));
    const kubeProxy = inHook.findIndex((line) => line.endsWith(KUBE_PROXY_JUMP));
    return kubeProxy === -1 || inHook.indexOf(jump) < kubeProxy;
  }

  /** Have our chains as many rules as `wanted`, and are our jumps in place? */
  matches(wanted: TableRules): boolean {
    return (
      this.chains.size === wanted.chains.size &&
      [...wanted.chains].every(([chain, rules]) => this.chains.get(chain) === rules.length) &&
      wanted.hooks.every(({ hook, rule }) => this.isHookInPlace(hook, rule))
    );
  }
}

/** Parses `iptables-save -t <table>`; an empty text is an empty table. Throws `ERR_IPTABLES_PARSE`. */
export function parseKernelTable(saved: string): KernelTable {
  const chains = new Map<ChainName, number>();
  const foreignRules: string[] = [];
  for (const line of saved.split('\n')) {
    if (line === '' || line.startsWith('#') || line.startsWith('*') || line === 'COMMIT') continue;
    const [, verb, chain = '', rest = ''] = /^(?:\[\d+:\d+\] )?(:|-A )(\S+) ?(.*)$/.exec(line) ?? [];
    if (verb === undefined)
      throw new ProxyError('ERR_IPTABLES_PARSE', `unknown line from iptables-save: ${JSON.stringify(line)}`);
    if (!isOwnChain(chain)) {
      if (verb !== ':') foreignRules.push(`${chain} ${rest}`);
    } else {
      chains.set(chain, (chains.get(chain) ?? 0) + (verb === ':' ? 0 : 1));
    }
  }
  return new KernelTable(chains, foreignRules);
}

function isOwnChain(chain: string): chain is ChainName {
  return chain.startsWith(CHAIN_PREFIX);
}
