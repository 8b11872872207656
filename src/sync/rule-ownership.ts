/**
 * What ownership means to a sync: of several instances on a node one writes, and each leaves the ports of the others
 * alone. Who that is decides `host/ownership.ts`; here is what it may not do who is not.
 */
import { ProxyError } from '../errors.ts';
import type { MovedPortal } from '../conntrack/moved-portal.ts';
import type { ListenerPort } from '../proxy/wanted-listener.ts';
import type { FamilyRules, Flows, Listeners } from './family-sync.ts';

export interface RuleOwnership {
  readonly isOwner: boolean;
  /** Whether a pass may write; the first call may take as long as another instance needs to yield. */
  ensure(): Promise<boolean>;
  /** The kernel refused a write because somebody has a newer generation. */
  lost(): void;
  /** A pass has ended well, with the listeners of that version. */
  synced(version: number): void;
}

/** Rules that are not touched by who may not: `install` and `verify` reject with `ERR_OWNERSHIP_LOST`. */
export function ownedRules(rules: FamilyRules, ownership: Pick<RuleOwnership, 'isOwner'>): FamilyRules {
  const expectOwnership = (): void => {
    if (!ownership.isOwner) throw new ProxyError('ERR_OWNERSHIP_LOST', 'another instance writes the rules');
  };
  return {
    family: rules.family,
    get rulesAhead() {
      return rules.rulesAhead;
    },
    async install(wanted, tables) {
      expectOwnership();
      return rules.install(wanted, tables);
    },
    async verify() {
      expectOwnership();
      return rules.verify();
    },
  };
}

/** Whoever does not own the rules cannot know which flows lead astray. */
export function ownedFlows(flows: Flows, ownership: Pick<RuleOwnership, 'isOwner'>): Flows {
  return {
    forget: (portals: readonly MovedPortal[]) => {
      if (ownership.isOwner) flows.forget(portals);
    },
  };
}

/** The listeners of this instance, and guards for those of the others too. */
export class ListenersBesidePeers implements Listeners {
  readonly #own: Listeners;
  #peerPorts: readonly ListenerPort[] = [];
  #changes = 0;

  constructor(own: Listeners) {
    this.#own = own;
  }

  get peerPorts(): readonly ListenerPort[] {
    return this.#peerPorts;
  }

  get version(): number {
    return this.#own.version + this.#changes;
  }

  /** False: they are what they were. */
  setPeerPorts(ports: readonly ListenerPort[]): boolean {
    if (JSON.stringify(ports) === JSON.stringify(this.#peerPorts)) return false;
    this.#peerPorts = ports;
    this.#changes += 1;
    return true;
  }

  guardedPorts(): readonly ListenerPort[] {
    const own = this.#own.guardedPorts();
    const taken = new Set(own.map(placeOf));
    return [...own, ...this.#peerPorts.filter((port) => !taken.has(placeOf(port)))];
  }

  proxyPorts(): ReadonlyMap<string, number> {
    return this.#own.proxyPorts();
  }

  plannedPorts(): ReadonlyMap<string, number> {
    return this.#own.plannedPorts();
  }

  ensureOpen: Listeners['ensureOpen'] = async (wanted, guard) => this.#own.ensureOpen(wanted, guard);

  retainKeys: Listeners['retainKeys'] = (family, keys) => this.#own.retainKeys(family, keys);
}

function placeOf({ family, protocol, port }: ListenerPort): string {
  return `${protocol}/${family}/${port}`;
}
