/**
 * The algorithm, make-before-break. `update` is step 1 and touches memory only; `sync` is the rest:
 *
 * 1. desired = buildDesiredState(snapshot, node); the balancers get their endpoints: from here on new
 *    connections use them
 * 2. open the listeners that are missing, each behind its guard: no rule ever points at a closed port, and no
 *    port is ever open to direct access
 * 3. bring the rules to what is desired: one iptables-restore per family, or none
 * 4. let the listeners that nothing points at any more go, after a grace period
 * 5. remember the ports; tell whoever watches. A throw anywhere: the runner retries the whole pass
 */
import type { Clock } from '../clock.ts';
import {
  type DesiredState,
  type ListenerKey,
  type NodeView,
  buildDesiredState,
} from '../desired/desired-state.ts';
import { type Problem, ProxyError, errorText, isProxyError } from '../errors.ts';
import type { Installed } from '../iptables/installer.ts';
import { type RuleSet, type TableName, countRules } from '../iptables/rule.ts';
import { buildRuleSet } from '../iptables/ruleset.ts';
import type { Logger } from '../log.ts';
import type { IpAddress, IpFamily, PerFamily } from '../model/address.ts';
import { servicePortNameText } from '../model/service-port-name.ts';
import type { Snapshot } from '../model/snapshot.ts';
import type { ListenerBackends } from '../proxy/backend.ts';
import type { ListenerPort, WantedListener } from '../proxy/listener-set.ts';
import { ProblemLog } from './problem-log.ts';
import type { SyncObserver } from './sync-observer.ts';

export interface Backends {
  setBackends(key: string, backends: ListenerBackends): void;
  retainBackends(keys: ReadonlySet<string>): void;
}

export interface Listeners {
  ensureOpen(wanted: readonly WantedListener[], guard: () => Promise<void>): Promise<readonly ProxyError[]>;
  retainKeys(family: IpFamily, keys: ReadonlySet<string>): void;
  proxyPorts(): ReadonlyMap<string, number>;
  guardedPorts(): readonly ListenerPort[];
}

export interface FamilyRules {
  readonly family: IpFamily;
  install(wanted: RuleSet, tables?: readonly TableName[]): Promise<Installed>;
  verify(): Promise<boolean>;
}

export interface PortStore {
  save(ports: ReadonlyMap<string, number>): Promise<void>;
}

/** The node at this moment; read at every update and sync. */
export interface NodeAddresses {
  readonly all: readonly string[];
  /** Addresses that REDIRECT can choose. */
  readonly redirect: PerFamily<readonly string[]>;
}

export interface ProxierDeps {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly backends: Backends;
  readonly listeners: Listeners;
  /** One for each family that can be captured. */
  readonly rules: readonly FamilyRules[];
  readonly portStore: PortStore;
  readonly observer: SyncObserver;
  readonly nodeAddresses: () => NodeAddresses;
}

const WILDCARD: PerFamily<string> = { IPv4: '0.0.0.0', IPv6: '::' };

export class Proxier {
  readonly #deps: ProxierDeps;
  readonly #problems: ProblemLog;
  /** Undefined until the sources have told everything once: half a list would take away what works. */
  #snapshot: Snapshot | undefined;
  #sourceProblems: readonly Problem[] = [];
  #desired: DesiredState = { listeners: new Map(), portals: [], problems: [] };
  /** What the rules in the kernel were made from; nothing until a family's first sync has ended. */
  readonly #installedByFamily = new Map<IpFamily, DesiredState>();
  #hasPortStoreFailed = false;

  constructor(deps: ProxierDeps) {
    this.#deps = deps;
    this.#problems = new ProblemLog(deps.logger);
  }

  get desired(): DesiredState {
    return this.#desired;
  }

  get problems(): ProblemLog {
    return this.#problems;
  }

  /** Files and documents that cannot be used as they are. */
  get sourceProblemCount(): number {
    return this.#sourceProblems.length;
  }

  /** Step 1, synchronous. The caller asks the runner for a sync afterwards. */
  update(snapshot: Snapshot, sourceProblems: readonly Problem[]): void {
    this.#snapshot = snapshot;
    this.#sourceProblems = sourceProblems;
    this.#apply(snapshot);
  }

  /** Step 1 again, because the node's addresses have changed. */
  nodeChanged(): void {
    if (this.#snapshot !== undefined) this.#apply(this.#snapshot);
  }

  /**
   * Steps 2 to 5, each family by itself: a fault of one does not hold up the other. `isPeriodic`: also look
   * whether somebody has changed our rules. Does nothing before the first `update`.
   */
  async sync({ isPeriodic }: { readonly isPeriodic: boolean }): Promise<void> {
    if (this.#snapshot === undefined) return;
    const desired = this.#desired;
    const startedAt = this.#deps.clock.now();
    this.#deps.observer.syncStarted();
    const faults: unknown[] = [];
    for (const rules of this.#deps.rules) {
      try {
        if (isPeriodic) await this.#verify(rules);
        faults.push(...(await this.#syncFamily(rules, desired)));
      } catch (error) {
        faults.push(error);
      }
    }
    this.#deps.backends.retainBackends(this.#neededKeys(desired));
    await this.#rememberPorts();
    if (faults.length > 0) throw syncFault(faults);
    this.#deps.observer.syncSucceeded();
    const durationMs = Math.round(this.#deps.clock.now() - startedAt);
    this.#deps.logger.debug(
      { listeners: desired.listeners.size, portals: desired.portals.length, durationMs },
      'Sync complete',
    );
  }

  /** Faults of single listeners are returned: the others are programmed. */
  async #syncFamily(rules: FamilyRules, desired: DesiredState): Promise<readonly ProxyError[]> {
    const { family } = rules;
    const { listeners } = this.#deps;
    const startedAt = this.#deps.clock.now();
    try {
      // Until the rules are swapped the old ones hold; only the guard of the new ports comes first.
      const faults = await listeners.ensureOpen(this.#wantedListeners(family, desired), async () => {
        const current = this.#installedByFamily.get(family) ?? desired;
        await rules.install(this.#ruleSet(family, current), ['filter']);
      });
      const wanted = this.#ruleSet(family, desired);
      const { kind, rulesWritten } = await rules.install(wanted);
      this.#installedByFamily.set(family, desired);
      listeners.retainKeys(family, this.#neededKeys(desired));
      this.#deps.observer.familySynced({
        family,
        kind: kind === 'unchanged' ? 'endpoints' : kind,
        durationSeconds: (this.#deps.clock.now() - startedAt) / 1000,
        rulesTotal: { nat: countRules(wanted.nat), filter: countRules(wanted.filter) },
        rulesWritten,
      });
      return faults;
    } catch (error) {
      if (isProxyError(error, 'ERR_IPTABLES_RESTORE') || isProxyError(error, 'ERR_IPTABLES_LOCKED')) {
        this.#deps.observer.restoreFailed(family, this.#installedByFamily.has(family) ? 'partial' : 'full');
      }
      throw error;
    }
  }

  /** What is desired now may already be ahead of what this sync is about: neither is let go. */
  #neededKeys(desired: DesiredState): ReadonlySet<string> {
    return new Set<string>([...desired.listeners.keys(), ...this.#desired.listeners.keys()]);
  }

  #apply(snapshot: Snapshot): void {
    this.#desired = buildDesiredState(snapshot, this.#nodeView());
    for (const [key, { servicePort, family, endpoints, servingKeys }] of this.#desired.listeners) {
      this.#deps.backends.setBackends(key, { servicePort, family, endpoints, servingKeys });
    }
    this.#problems.update([...this.#sourceProblems, ...snapshot.problems, ...this.#desired.problems]);
    this.#deps.observer.updateQueued();
  }

  #nodeView(): NodeView {
    return {
      families: this.#deps.rules.map(({ family }) => family),
      addresses: new Set(this.#deps.nodeAddresses().all as readonly IpAddress[]),
    };
  }

  #wantedListeners(family: IpFamily, desired: DesiredState): WantedListener[] {
    const redirect = this.#deps.nodeAddresses().redirect[family];
    return [...desired.listeners.values()]
      .filter((listener) => listener.family === family)
      .map(({ key, servicePort: { name } }) => ({
        key,
        family,
        protocol: name.protocol,
        servicePortName: servicePortNameText(name),
        addresses: name.protocol === 'UDP' ? redirect : [WILDCARD[family]],
      }));
  }

  #ruleSet(family: IpFamily, desired: DesiredState): RuleSet {
    const proxyPorts = this.#deps.listeners.proxyPorts() as ReadonlyMap<ListenerKey, number>;
    return buildRuleSet(family, { desired, proxyPorts, guardedPorts: this.#deps.listeners.guardedPorts() });
  }

  async #verify(rules: FamilyRules): Promise<void> {
    if (!(await rules.verify())) return;
    this.#deps.observer.resynced('foreign_change');
    this.#deps.logger.warn(
      { family: rules.family },
      'Rules were changed by another program, writing them again',
    );
  }

  async #rememberPorts(): Promise<void> {
    try {
      await this.#deps.portStore.save(this.#deps.listeners.proxyPorts());
      this.#hasPortStoreFailed = false;
    } catch (error) {
      if (!this.#hasPortStoreFailed) {
        this.#deps.logger.warn(
          { error: errorText(error) },
          'Proxy ports will not be the same after a restart',
        );
      }
      this.#hasPortStoreFailed = true;
    }
  }
}

function syncFault(faults: readonly unknown[]): ProxyError {
  const [first] = faults;
  if (faults.length === 1 && first instanceof ProxyError) return first;
  return new ProxyError('ERR_SYNC_FAILED', `${faults.length} faults, the first`, { cause: first });
}
