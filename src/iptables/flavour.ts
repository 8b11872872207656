/**
 * Which of the two iptables this node uses, nft or legacy. Rules of the one and of the other are both in force, unseen by
 * each other, so ours have to be where everybody else's are. The hints are those of Kubernetes' iptables-wrappers: the
 * kubelet makes a chain in the flavour that it uses (`iptables-wrapper-installer.sh`, kubernetes-sigs/iptables-wrappers).
 */
import { isProxyError } from '../errors.ts';
import type { Exec } from '../host/exec.ts';
import type { Logger } from '../log.ts';
import { IP_FAMILIES, type IpFamily } from '../model/address.ts';
import { CANARY } from './canary.ts';
import { type Flavour, Iptables } from './iptables.ts';
import { CHAIN_PREFIX, type TableName } from './rule.ts';

export interface FlavourDeps {
  readonly exec: Exec;
  readonly logger: Logger;
  /**
   * The tables that legacy programs have loaded in this network namespace. They are only run where there are some:
   * reading a table loads its module, and makes the nft programs warn for ever after.
   */
  readonly legacyTables: (family: IpFamily) => readonly string[];
}

/** The kubelet's, in the table mangle: of its newer and of its older versions. */
const HINT_CHAIN = /^:(KUBE-IPTABLES-HINT|KUBE-KUBELET-CANARY) /m;
const OWN_CHAIN = new RegExp(`^:${CHAIN_PREFIX}`, 'm');
/** A canary alone only says that rules of ours were here once. */
const OWN_RULES = new RegExp(`^:(?!${CANARY} )${CHAIN_PREFIX}`, 'm');
const FLAVOURS: readonly Flavour[] = ['nft', 'legacy'];
const VERSION_TIMEOUT_MS = 10_000;

/** Opens the iptables of one family in the flavour of this node, and in the other where there is something of ours. */
export type OpenIptables = (family: IpFamily) => Iptables;

/**
 * Looks for hints, those of either family for both: the kubelet's, then our own rules of an earlier run, nft before legacy;
 * without any the programs that have no flavour in their name decide. Says which it is, and why. Never rejects.
 */
export async function chooseIptables(deps: FlavourDeps): Promise<OpenIptables> {
  const node = new NodeFlavours(deps, await plainFlavour(deps.exec));
  const hint = (await node.find('mangle', HINT_CHAIN)) ?? (await node.find('nat', OWN_RULES));
  const flavour = hint?.flavour ?? node.plain;
  deps.logger.info(
    {
      flavour: flavour ?? 'unknown',
      programs: programsOf(node, flavour),
      reason:
        hint === undefined
          ? 'no hint, what iptables-save is'
          : `${hint.chain} in ${hint.family} ${hint.table}`,
    },
    'iptables chosen',
  );
  const former = await formerFlavour(node, flavour);
  return (family) => {
    const options = former.get(family);
    return node.open(family, flavour, options === undefined ? {} : { former: node.open(family, options) });
  };
}

/** Every iptables that may hold something of ours, for `--cleanup`. */
export async function iptablesWithOurs(family: IpFamily, deps: FlavourDeps): Promise<readonly Iptables[]> {
  const node = new NodeFlavours(deps, await plainFlavour(deps.exec));
  const others: Iptables[] = [];
  for (const flavour of FLAVOURS.filter((one) => one !== node.plain)) {
    if (await node.hasOurs(family, flavour)) others.push(node.open(family, flavour));
  }
  return [new Iptables(family, deps.exec), ...others];
}

interface Hint {
  readonly flavour: Flavour;
  readonly family: IpFamily;
  readonly table: string;
  readonly chain: string;
}

class NodeFlavours {
  /** What the programs without a flavour in their name are; undefined when they do not say. */
  readonly plain: Flavour | undefined;
  readonly #deps: FlavourDeps;
  #isWarned = false;

  constructor(deps: FlavourDeps, plain: Flavour | undefined) {
    this.#deps = deps;
    this.plain = plain;
  }

  open(
    family: IpFamily,
    flavour: Flavour | undefined,
    further: { readonly former?: Iptables } = {},
  ): Iptables {
    const name = flavour === undefined || flavour === this.plain ? {} : { flavour };
    return new Iptables(family, this.#deps.exec, { ...name, ...further });
  }

  async find(table: TableName | 'mangle', chain: RegExp): Promise<Hint | undefined> {
    for (const flavour of FLAVOURS) {
      for (const family of IP_FAMILIES) {
        const found = chain.exec(await this.#save(family, flavour, table))?.[0];
        if (found !== undefined) return { flavour, family, table, chain: found.slice(1).trim() };
      }
    }
    return undefined;
  }

  async hasOurs(family: IpFamily, flavour: Flavour): Promise<boolean> {
    for (const table of ['nat', 'filter'] as const) {
      if (OWN_CHAIN.test(await this.#save(family, flavour, table))) return true;
    }
    return false;
  }

  /** What cannot be read holds no hint. */
  async #save(family: IpFamily, flavour: Flavour, table: TableName | 'mangle'): Promise<string> {
    if (flavour === 'legacy' && !this.#deps.legacyTables(family).includes(table)) return '';
    try {
      return await this.open(family, flavour).save(table);
    } catch (error) {
      const isMissing = isProxyError(error) && isProxyError(error.cause, 'ERR_EXEC_NOT_FOUND');
      if (isMissing && flavour === 'legacy') this.#warnOfUnseenTables(family);
      return '';
    }
  }

  #warnOfUnseenTables(family: IpFamily): void {
    if (this.#isWarned) return;
    this.#isWarned = true;
    this.#deps.logger.warn(
      { family, tables: this.#deps.legacyTables(family), instead: this.plain ?? 'unknown' },
      'Rules of iptables-legacy are in force on this node, and it is not installed here: using what is',
    );
  }
}

/** `iptables-save v1.8.9 (nf_tables)`. */
async function plainFlavour(exec: Exec): Promise<Flavour | undefined> {
  try {
    const { stdout } = await exec('iptables-save', ['--version'], { timeoutMs: VERSION_TIMEOUT_MS });
    if (stdout.includes('nf_tables')) return 'nft';
    return stdout.includes('legacy') ? 'legacy' : undefined;
  } catch {
    return undefined;
  }
}

function programsOf(node: NodeFlavours, flavour: Flavour | undefined): string {
  return flavour === undefined || flavour === node.plain ? 'iptables-restore' : `iptables-${flavour}-restore`;
}

/** By family the other flavour, where something of ours is left from an earlier run. */
async function formerFlavour(
  node: NodeFlavours,
  chosen: Flavour | undefined,
): Promise<ReadonlyMap<IpFamily, Flavour>> {
  const former = new Map<IpFamily, Flavour>();
  if (chosen === undefined) return former;
  const other: Flavour = chosen === 'nft' ? 'legacy' : 'nft';
  for (const family of IP_FAMILIES) {
    if (await node.hasOurs(family, other)) former.set(family, other);
  }
  return former;
}
