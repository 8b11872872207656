/** Stand-ins for everything the proxier drives. One journal shows the order; what nobody foresaw throws. */
import type { MovedPortal } from '../../src/conntrack/moved-portal.ts';
import { type ProxyError } from '../../src/errors.ts';
import type { ForeignChange } from '../../src/iptables/foreign-change.ts';
import type { Installed, RewriteReason, TableRulesAhead } from '../../src/iptables/installer.ts';
import type { Rule, RuleSet, TableName } from '../../src/iptables/rule.ts';
import type { IpFamily } from '../../src/model/address.ts';
import type { HealthCheck } from '../../src/model/health-check.ts';
import type { ListenerBackends } from '../../src/proxy/backend-pool.ts';
import type { ListenerPort, WantedListener } from '../../src/proxy/wanted-listener.ts';
import type { FamilyRules, Flows, Listeners } from '../../src/sync/family-sync.ts';
import type { Backends, HealthChecks, PortStore } from '../../src/sync/proxier.ts';
import type { RuleOwnership } from '../../src/sync/rule-ownership.ts';
import type { FamilySync, ResyncReason, SyncKind, SyncObserver } from '../../src/sync/sync-observer.ts';

export type Journal = string[];

export class FakeBackends implements Backends {
  readonly #journal: Journal;
  readonly byKey = new Map<string, ListenerBackends>();

  constructor(journal: Journal) {
    this.#journal = journal;
  }

  setBackends(key: string, backends: ListenerBackends): void {
    this.byKey.set(key, backends);
    this.#journal.push(`backends of ${key}: ${backends.endpoints.map((endpoint) => endpoint.key).join()}`);
  }

  retainBackends(keys: ReadonlySet<string>): void {
    for (const key of keys) {
      if (!this.byKey.has(key)) throw new Error(`${key} is retained and was never set`);
    }
    for (const key of this.byKey.keys()) if (!keys.has(key)) this.byKey.delete(key);
    this.#journal.push(`retain backends ${[...keys].join()}`);
  }
}

/** Listeners on ports 1000, 1001, …; a listener that was let go drains for ever. */
export class FakeListeners implements Listeners {
  readonly #journal: Journal;
  readonly #open = new Map<string, ListenerPort>();
  readonly #draining: ListenerPort[] = [];
  #pending: ReadonlyMap<string, ListenerPort> = new Map();
  version = 0;
  /** What the last `ensureOpen` was asked for. */
  wanted: readonly WantedListener[] = [];
  /** What it was last asked for in each family. */
  readonly wantedByFamily = new Map<IpFamily, readonly WantedListener[]>();
  /** Faults of single listeners by key. */
  readonly faults = new Map<string, ProxyError>();
  #nextPort = 1000;

  constructor(journal: Journal) {
    this.#journal = journal;
  }

  async ensureOpen(
    wanted: readonly WantedListener[],
    guard: () => Promise<void>,
  ): Promise<readonly ProxyError[]> {
    this.wanted = wanted;
    const [first] = wanted;
    if (first !== undefined) this.wantedByFamily.set(first.family, wanted);
    const missing = wanted.filter(({ key }) => !this.#open.has(key));
    if (missing.length === 0) return [];
    const opening = new Map(
      missing.map(({ key, family, protocol, servicePortName }) => [
        key,
        { family, protocol, servicePortName, port: this.#nextPort++ },
      ]),
    );
    this.#pending = opening;
    await guard();
    this.#pending = new Map();
    const faults: ProxyError[] = [];
    for (const [key, port] of opening) {
      const fault = this.faults.get(key);
      if (fault === undefined) {
        this.#open.set(key, port);
        this.version += 1;
        this.#journal.push(`open ${key}`);
      } else {
        faults.push(fault);
      }
    }
    return faults;
  }

  retainKeys(family: IpFamily, keys: ReadonlySet<string>): void {
    for (const [key, port] of this.#open) {
      if (port.family !== family || keys.has(key)) continue;
      this.#open.delete(key);
      this.#draining.push(port);
      this.version += 1;
      this.#journal.push(`drain ${key}`);
    }
  }

  proxyPorts(): ReadonlyMap<string, number> {
    return new Map([...this.#open].map(([key, { port }]) => [key, port]));
  }

  plannedPorts(): ReadonlyMap<string, number> {
    return new Map([...this.#open, ...this.#pending].map(([key, { port }]) => [key, port]));
  }

  guardedPorts(): readonly ListenerPort[] {
    return [...this.#open.values(), ...this.#pending.values(), ...this.#draining];
  }
}

/** Rules of one family that are only noted. */
export class FakeRules implements FamilyRules {
  readonly family: IpFamily;
  readonly #journal: Journal;
  readonly installed: RuleSet[] = [];
  /** Both tables were written and nothing has spoilt that since. */
  #isWhole = false;
  /** What the next installs do instead, one each. */
  readonly faults: (Error | undefined)[] = [];
  /** What `verify` finds. */
  change: ForeignChange | undefined;
  rulesAhead: readonly TableRulesAhead[] = [];
  #reason: RewriteReason = 'start';
  verifyFault: Error | undefined;
  /** Awaited by every install; a test may hold one up here. */
  gate: () => Promise<void> = async () => {};

  constructor(family: IpFamily, journal: Journal) {
    this.family = family;
    this.#journal = journal;
  }

  async install(wanted: RuleSet, tables: readonly TableName[] = ['nat', 'filter']): Promise<Installed> {
    if (wanted.family !== this.family) throw new Error(`rules of ${wanted.family} for ${this.family}`);
    this.#journal.push(`install ${this.family} ${tables.join('+')}`);
    await this.gate();
    const fault = this.faults.shift();
    if (fault !== undefined) {
      this.#spoil('failure');
      throw fault;
    }
    this.installed.push(wanted);
    const rulesWritten = { nat: 1, filter: 1 };
    if (this.#isWhole) return { kind: 'partial', rulesWritten };
    this.#isWhole = tables.length === 2;
    return { kind: 'full', reason: this.#reason, rulesWritten };
  }

  #spoil(reason: RewriteReason): void {
    if (this.#isWhole) this.#reason = reason;
    this.#isWhole = false;
  }

  async verify(): Promise<ForeignChange | undefined> {
    this.#journal.push(`verify ${this.family}`);
    if (this.verifyFault !== undefined) throw this.verifyFault;
    if (this.change !== undefined) this.#spoil(this.change);
    return this.change;
  }

  /** The REDIRECT rules of the last install, as `comment → port`. */
  get redirects(): readonly string[] {
    return this.#lastNatRules().flatMap(({ comment, target }) =>
      target.kind === 'redirect' ? [`${comment} → ${target.port}`] : [],
    );
  }

  /** Its DNAT rules, as `comment → address port`. */
  get translations(): readonly string[] {
    return this.#lastNatRules().flatMap(({ comment, target }) =>
      target.kind === 'dnat' ? [`${comment} → ${target.address} ${target.port}`] : [],
    );
  }

  #lastNatRules(): readonly Rule[] {
    return [...(this.installed.at(-1)?.nat.chains.values() ?? [])].flat();
  }
}

/** Owns the rules unless told. */
export class FakeOwnership implements RuleOwnership {
  isOwner = true;
  lostCount = 0;
  /** Versions of the listeners after each pass that ended well. */
  readonly syncedVersions: number[] = [];

  async ensure(): Promise<boolean> {
    return Promise.resolve(this.isOwner);
  }

  lost(): void {
    this.isOwner = false;
    this.lostCount += 1;
  }

  synced(version: number): void {
    if (!this.isOwner) throw new Error('a pass of somebody who does not own the rules');
    this.syncedVersions.push(version);
  }
}

/** Notes every portal whose flows are to be forgotten. */
export class FakeFlows implements Flows {
  readonly #journal: Journal;

  constructor(journal: Journal) {
    this.#journal = journal;
  }

  forget(portals: readonly MovedPortal[]): void {
    if (portals.length === 0) throw new Error('nothing to forget, and asked to');
    for (const { family, protocol, address = 'node', port } of portals) {
      // Of TCP they are the few that nobody has answered yet; what the syncs do is told without them.
      if (protocol === 'UDP') this.#journal.push(`forget flows to ${family} ${address} port ${port}`);
    }
  }
}

/** All but the count, which may be less than what is desired. */
function identityOf(check: HealthCheck): string {
  return JSON.stringify({ ...check, localEndpoints: 0 });
}

/** Notes what of health checks is told; nothing is noted where there is none. Only what is known can be programmed. */
export class FakeHealthChecks implements HealthChecks {
  readonly #journal: Journal;
  readonly #known = new Set<string>();

  constructor(journal: Journal) {
    this.#journal = journal;
  }

  update(checks: readonly HealthCheck[]): void {
    for (const check of checks) this.#known.add(identityOf(check));
    this.#note('desired', checks);
  }

  programmed(checks: readonly HealthCheck[]): void {
    for (const check of checks) {
      if (!this.#known.has(identityOf(check)))
        throw new Error(`${check.name} is programmed and was never desired`);
    }
    this.#note('programmed', checks);
  }

  #note(what: string, checks: readonly HealthCheck[]): void {
    if (checks.length === 0) return;
    const texts = checks.map(({ name, family, localEndpoints }) => `${name} ${family} ${localEndpoints}`);
    this.#journal.push(`health checks ${what}: ${texts.join()}`);
  }
}

export class FakePortStore implements PortStore {
  readonly #journal: Journal;
  saved: ReadonlyMap<string, number> | undefined;
  fault: Error | undefined;

  constructor(journal: Journal) {
    this.#journal = journal;
  }

  async save(ports: ReadonlyMap<string, number>): Promise<void> {
    this.#journal.push('save ports');
    if (this.fault !== undefined) throw this.fault;
    this.saved = new Map(ports);
  }
}

/** Throws when a sync is reported that nobody began. */
export class FakeObserver implements SyncObserver {
  readonly #journal: Journal;
  readonly families: FamilySync[] = [];
  readonly restoreFailures: string[] = [];
  readonly resyncs: ResyncReason[] = [];
  readonly ahead = new Map<IpFamily, readonly TableRulesAhead[]>();
  readonly programmed: { readonly family: IpFamily; readonly seconds: number }[] = [];
  #isUnderWay = false;

  constructor(journal: Journal) {
    this.#journal = journal;
  }

  updateQueued(): void {
    this.#journal.push('update queued');
  }

  syncStarted(): void {
    this.#isUnderWay = true;
    this.#journal.push('sync started');
  }

  familySynced(sync: FamilySync): void {
    if (!this.#isUnderWay) throw new Error('a family was synced outside a sync');
    this.families.push(sync);
  }

  restoreFailed(family: IpFamily, kind: SyncKind): void {
    this.restoreFailures.push(`${family} ${kind}`);
  }

  resynced(reason: ResyncReason): void {
    this.resyncs.push(reason);
  }

  rulesAhead(family: IpFamily, rules: readonly TableRulesAhead[]): void {
    this.ahead.set(family, rules);
  }

  networkProgrammed(family: IpFamily, seconds: number): void {
    this.programmed.push({ family, seconds });
  }

  syncSucceeded(): void {
    if (!this.#isUnderWay) throw new Error('a sync succeeded that was not begun');
    this.#isUnderWay = false;
    this.#journal.push('sync succeeded');
  }
}
