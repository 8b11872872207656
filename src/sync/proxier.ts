/**
 * The algorithm, make-before-break. `update` is step 1 and touches memory only; `sync` is the rest:
 *
 * 1. desired = what the snapshot and the node need; the balancers get their endpoints: from here on new
 *    connections use them
 * 2. open the listeners that are missing, each behind its guard: no rule ever points at a closed port, and no
 *    port is ever open to direct access
 * 3. bring the rules to what is desired: one iptables-restore per family, or none
 * 4. let the listeners that nothing points at any more go, after a grace period
 * 5. remember the ports; tell whoever watches. A throw anywhere: the runner retries the whole pass
 *
 * Steps 2 to 4 are `family-sync.ts`. An endpoint change ends after step 1, unless a set becomes empty or stops
 * being so.
 */
import type { Clock } from '../clock.ts';
import { type DesiredState, DesiredStateBuilder, EMPTY_DESIRED_STATE } from '../desired/desired-state.ts';
import { type NodeSettings, type NodeView, buildNodeView } from '../desired/node-view.ts';
import { type Problem, ProxyError, isProxyError } from '../errors.ts';
import type { Logger } from '../log.ts';
import type { IpFamily, PerFamily } from '../model/address.ts';
import type { HealthCheck } from '../model/health-check.ts';
import type { NodeInfo } from '../model/node.ts';
import type { Diversion } from '../iptables/portal-rules.ts';
import type { Snapshot } from '../model/snapshot.ts';
import type { ListenerBackends } from '../proxy/backend-pool.ts';
import {
  type FamilyRules,
  FamilySync,
  type Flows,
  type Listeners,
  type NodeAddresses,
} from './family-sync.ts';
import type { Trigger } from './change-tracker.ts';
import { type RuleOwnership, ownedFlows, ownedRules } from './rule-ownership.ts';
import { ProblemLog } from './problem-log.ts';
import type { SyncObserver } from './sync-observer.ts';

export interface Backends {
  setBackends(key: string, backends: ListenerBackends): void;
  retainBackends(keys: ReadonlySet<string>): void;
}

/** Answers load balancers for the Services that ask for it (`healthCheckNodePort`). */
export interface HealthChecks {
  /** What is desired; bad news is told at once. */
  update(checks: readonly HealthCheck[]): void;
  /** The rules are in: the rest may be told too. */
  programmed(checks: readonly HealthCheck[]): void;
}

export interface PortStore {
  save(ports: ReadonlyMap<string, number>): Promise<void>;
}

export interface ProxierDeps {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly backends: Backends;
  readonly listeners: Listeners;
  /** One for each family that can be captured. */
  readonly rules: readonly FamilyRules[];
  readonly flows: Flows;
  readonly ownership: RuleOwnership;
  readonly portStore: PortStore;
  readonly observer: SyncObserver;
  readonly healthChecks: HealthChecks;
  readonly nodeAddresses: () => NodeAddresses;
  readonly settings: NodeSettings;
  readonly diversions: PerFamily<Diversion>;
  /** As `FamilySyncDeps.prepare`. */
  readonly prepare: (family: IpFamily) => Promise<unknown>;
}

/** Of those that wait for a sync, the latest that are remembered. */
const MAX_TRIGGERS = 10_000;

export class Proxier {
  readonly #deps: ProxierDeps;
  readonly #problems: ProblemLog;
  /** Undefined until the sources have told everything once: half a list would take away what works. */
  #snapshot: Snapshot | undefined;
  #sourceProblems: readonly Problem[] = [];
  #desired: DesiredState = EMPTY_DESIRED_STATE;
  readonly #builder = new DesiredStateBuilder();
  #node: NodeInfo | undefined;
  #nodeView: NodeView | undefined;
  readonly #families: readonly FamilySync[];
  /** Another instance has written the rules since the last pass. */
  #isRegained = false;
  /** Rules may lag behind what is desired. */
  #isAheadOfRules = true;
  /** What led to changes that no completed sync has served yet. */
  readonly #triggers: Trigger[] = [];
  #hasPortStoreFailed = false;
  #saving: Promise<void> | undefined;
  /** Of the listeners, when their ports were last remembered. */
  #savedVersion = -1;

  constructor(deps: ProxierDeps) {
    this.#deps = deps;
    this.#problems = new ProblemLog(deps.logger);
    const flows = ownedFlows(deps.flows, deps.ownership);
    this.#families = deps.rules.map(
      (rules) => new FamilySync({ ...deps, flows, rules: ownedRules(rules, deps.ownership) }),
    );
  }

  /** To be called when no sync follows: resolves when what is being remembered has been. */
  async close(): Promise<void> {
    await this.#saving;
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

  /** Step 1, synchronous. The caller asks the runner for a sync afterwards. `triggers`: what led to it. */
  update(snapshot: Snapshot, sourceProblems: readonly Problem[], triggers: readonly Trigger[] = []): void {
    this.#snapshot = snapshot;
    this.#sourceProblems = sourceProblems;
    this.#apply(snapshot);
    // Where no rule has to follow, traffic goes the new way from here on.
    if (this.#isAheadOfRules) this.#triggers.push(...triggers);
    else this.#programmed(triggers);
    // While syncs fail for hours nobody needs to know more than that.
    this.#triggers.splice(0, this.#triggers.length - MAX_TRIGGERS);
  }

  /** The sources know nothing yet, and say why. */
  reportSourceProblems(problems: readonly Problem[]): void {
    this.#sourceProblems = problems;
    this.#problems.update(problems);
  }

  /** Step 1 again, because the own Node object is different: its labels, addresses or ranges of pods. */
  nodeObjectChanged(node: NodeInfo | undefined): void {
    this.#node = node;
    this.nodeChanged();
  }

  /** Step 1 again, because the node's addresses have changed. */
  nodeChanged(): void {
    this.#nodeView = undefined;
    if (this.#snapshot !== undefined) this.#apply(this.#snapshot);
  }

  /** After another instance wrote the rules they are ours again: the next pass believes nothing that it remembers. */
  rulesRegained(): void {
    this.#isRegained = true;
    this.#isAheadOfRules = true;
    this.#savedVersion = -1;
  }

  /** Another instance has ended, to whose listeners flows were led: the next pass looks after them. */
  peerEnded(): void {
    for (const family of this.#families) family.doubtFlows();
  }

  /**
   * Steps 2 to 5, each family by itself: a fault of one does not hold up the other. `isPeriodic`: also look
   * whether somebody has changed our rules. Does nothing before the first `update`, nor while another instance owns
   * the rules. Resolves with whether anything was written.
   */
  async sync({ isPeriodic }: { readonly isPeriodic: boolean }): Promise<boolean> {
    const { ownership } = this.#deps;
    if (this.#snapshot === undefined) return false;
    if (!ownership.isOwner && !(await ownership.ensure())) return false;
    let hasWritten = false;
    const desired = this.#desired;
    const served = this.#triggers.length;
    const startedAt = this.#deps.clock.now();
    this.#deps.observer.syncStarted();
    const listenerFaults: ProxyError[] = [];
    const ruleFaults: unknown[] = [];
    for (const family of this.#families) {
      try {
        if (this.#isRegained) await family.distrust();
        else if (isPeriodic) await family.verify();
        const outcome = await family.sync(desired, () => this.#neededKeys(desired));
        listenerFaults.push(...outcome.faults);
        hasWritten ||= outcome.hasWritten;
      } catch (error) {
        ruleFaults.push(error);
      }
    }
    if (ruleFaults.some((fault) => isProxyError(fault, 'ERR_OWNERSHIP_LOST'))) ownership.lost();
    if (!ownership.isOwner) return false;
    this.#deps.backends.retainBackends(this.#neededKeys(desired));
    this.#rememberPorts();
    // A listener that cannot open harms its own Service only: retried, but no reason to call the node unhealthy.
    if (ruleFaults.length === 0) {
      this.#isRegained = false;
      ownership.synced(this.#deps.listeners.version);
      this.#deps.observer.syncSucceeded();
      this.#deps.healthChecks.programmed(this.#reachableChecks(desired));
      this.#deps.healthChecks.update(this.#desired.healthChecks);
      // What came during the sync and needs no rule is served as well.
      const isCaughtUp = desired.capture === this.#desired.capture;
      const servedCount = isCaughtUp ? this.#triggers.length : served;
      this.#programmed(this.#triggers.splice(0, servedCount));
      this.#isAheadOfRules = !isCaughtUp;
    }
    const faults = [...ruleFaults, ...listenerFaults];
    if (faults.length > 0) throw syncFault(faults);
    const durationMs = Math.round(this.#deps.clock.now() - startedAt);
    this.#deps.logger.debug(
      { listeners: desired.listeners.size, portals: desired.capture.portals.length, durationMs },
      'Sync complete',
    );
    return hasWritten;
  }

  /** A Service of which some listener could not be opened is refused there: load balancers are to go elsewhere. */
  #reachableChecks({ listeners, healthChecks }: DesiredState): readonly HealthCheck[] {
    if (healthChecks.length === 0) return healthChecks;
    const open = this.#deps.listeners.proxyPorts();
    const closed = new Set(
      [...listeners.values()]
        .filter(({ key }) => !open.has(key))
        .map(({ family, servicePort: { name } }) => `${name.namespace}/${name.name}/${family}`),
    );
    return healthChecks.map((check) =>
      closed.has(`${check.namespace}/${check.name}/${check.family}`)
        ? { ...check, localEndpoints: 0 }
        : check,
    );
  }

  /** What is desired now may already be ahead of what this sync is about: neither is let go. */
  #neededKeys(desired: DesiredState): ReadonlySet<string> {
    return new Set<string>([...desired.listeners.keys(), ...this.#desired.listeners.keys()]);
  }

  #apply(snapshot: Snapshot): void {
    const { listeners: before, capture } = this.#desired;
    this.#desired = this.#builder.build(snapshot, this.#currentNodeView());
    if (this.#desired.capture !== capture) this.#isAheadOfRules = true;
    for (const [key, listener] of this.#desired.listeners) {
      if (before.get(key) !== listener) this.#deps.backends.setBackends(key, listener);
    }
    this.#deps.healthChecks.update(this.#desired.healthChecks);
    this.#problems.update([...this.#sourceProblems, ...snapshot.problems, ...this.#desired.problems]);
    this.#deps.observer.updateQueued();
  }

  #programmed(triggers: readonly Trigger[]): void {
    const now = this.#deps.clock.wallTime();
    for (const { family, at } of triggers) {
      if (!this.#families.some((served) => served.family === family)) continue;
      this.#deps.observer.networkProgrammed(family, Math.max(0, now - at) / 1000);
    }
  }

  #currentNodeView(): NodeView {
    this.#nodeView ??= buildNodeView(this.#deps.settings, {
      families: this.#families.map(({ family }) => family),
      addresses: this.#deps.nodeAddresses().all,
      node: this.#node,
    });
    return this.#nodeView;
  }

  /** Beside the syncs: a file system that hangs must hold up nothing. What is newer goes next. */
  #rememberPorts(): void {
    if (this.#saving !== undefined || this.#deps.listeners.version === this.#savedVersion) return;
    this.#saving = this.#savePorts().finally(() => (this.#saving = undefined));
  }

  async #savePorts(): Promise<void> {
    try {
      for (let { version } = this.#deps.listeners; version !== this.#savedVersion; ) {
        await this.#deps.portStore.save(this.#deps.listeners.proxyPorts());
        this.#savedVersion = version;
        ({ version } = this.#deps.listeners);
      }
      if (this.#hasPortStoreFailed) this.#deps.logger.info({}, 'Proxy ports are remembered again');
      this.#hasPortStoreFailed = false;
    } catch (error) {
      if (!this.#hasPortStoreFailed) {
        this.#deps.logger.warn({ error }, 'Proxy ports will not be the same after a restart');
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
