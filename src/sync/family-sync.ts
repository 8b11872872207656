/**
 * Steps 2 to 4 of a sync for one address family: listeners, guard, rules, and who may go. It knows what the rules
 * in the kernel were made from, so that a pass in which only endpoints changed touches neither.
 */
import type { Clock } from '../clock.ts';
import type { MovedPortal } from '../conntrack/moved-portal.ts';
import type { DesiredState } from '../desired/desired-state.ts';
import type { ListenerKey } from '../desired/portal.ts';
import { type ErrorCode, type ProxyError, isProxyError } from '../errors.ts';
import type { ForeignChange } from '../iptables/foreign-change.ts';
import type { Installed, TableRulesAhead } from '../iptables/installer.ts';
import type { Diversion } from '../iptables/portal-rules.ts';
import { type RuleSet, type TableName, countRules } from '../iptables/rule.ts';
import { buildRuleSet } from '../iptables/ruleset.ts';
import type { Logger } from '../log.ts';
import type { IpFamily, PerFamily } from '../model/address.ts';
import { type Protocol, servicePortNameText } from '../model/service-port-name.ts';
import type { ListenerPort, WantedListener } from '../proxy/wanted-listener.ts';
import { PortalFlows } from './portal-flows.ts';
import { RulesAheadLog } from './rules-ahead-log.ts';
import type { RuleCounts, SyncObserver } from './sync-observer.ts';
import { tableOrder } from './table-order.ts';

export interface Listeners {
  ensureOpen(wanted: readonly WantedListener[], guard: () => Promise<void>): Promise<readonly ProxyError[]>;
  retainKeys(family: IpFamily, keys: ReadonlySet<string>): void;
  /** Counts up with every change of what the next three return. */
  readonly version: number;
  proxyPorts(): ReadonlyMap<string, number>;
  plannedPorts(): ReadonlyMap<string, number>;
  guardedPorts(): readonly ListenerPort[];
  /** Those of them that another living instance accepts on. Undefined: there is none. */
  readonly peerPorts?: readonly ListenerPort[];
}

export interface FamilyRules {
  readonly family: IpFamily;
  install(wanted: RuleSet, tables?: readonly TableName[]): Promise<Installed>;
  /** What somebody else has changed; undefined when all is well. */
  verify(): Promise<ForeignChange | undefined>;
  /** As the tables were last read, of each built-in chain that has a jump of ours. */
  readonly rulesAhead: readonly TableRulesAhead[];
}

/** Makes conntrack forget the flows of portals that lead elsewhere now. Returns at once. */
export interface Flows {
  forget(portals: readonly MovedPortal[]): void;
}

/** The node at this moment; a new object exactly when something about it is different. */
export interface NodeAddresses {
  readonly all: readonly string[];
  /** Addresses that REDIRECT can choose. */
  readonly redirect: PerFamily<readonly string[]>;
}

export interface FamilySyncDeps {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly listeners: Listeners;
  readonly rules: FamilyRules;
  readonly flows: Flows;
  readonly observer: SyncObserver;
  readonly nodeAddresses: () => NodeAddresses;
  readonly diversions: PerFamily<Diversion>;
  /** What must be so before a listener of the family can be opened; rejects when it cannot be. */
  readonly prepare: (family: IpFamily) => Promise<unknown>;
}

/** What the rules in the kernel were made from. */
interface InForce {
  readonly desired: DesiredState;
  /** Of the listeners; -1 while some could not be opened, so that the next sync tries again. */
  readonly version: number;
  readonly node: NodeAddresses;
  readonly rulesTotal: RuleCounts;
}

const NONE: RuleCounts = { nat: 0, filter: 0 };
const WILDCARD: PerFamily<string> = { IPv4: '0.0.0.0', IPv6: '::' };
const RESTORE_FAULTS: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'ERR_IPTABLES_RESTORE',
  'ERR_IPTABLES_LOCKED',
  'ERR_EXEC_TIMEOUT',
]);

/** Of a sync that ended well but for some listeners. */
export interface FamilyOutcome {
  readonly faults: readonly ProxyError[];
  /** False: everything was in force already, nothing was touched. */
  readonly hasWritten: boolean;
}

export class FamilySync {
  readonly #deps: FamilySyncDeps;
  /** Undefined until the first sync has ended well, and again after a fault or a foreign change. */
  #inForce: InForce | undefined;
  readonly #portalFlows = new PortalFlows();
  readonly #rulesAheadLog: RulesAheadLog;

  constructor(deps: FamilySyncDeps) {
    this.#deps = deps;
    this.#rulesAheadLog = new RulesAheadLog(deps.logger);
  }

  get family(): IpFamily {
    return this.#deps.rules.family;
  }

  /** Looks whether somebody has changed our rules; if so the next `sync` writes them all again. */
  async verify(): Promise<void> {
    const { rules, observer } = this.#deps;
    const change = await rules.verify();
    this.#rulesAheadLog.update(this.family, rules.rulesAhead);
    observer.rulesAhead(this.family, rules.rulesAhead);
    if (change === undefined) return;
    this.#inForce = undefined;
    this.#noteForeignChange(change);
  }

  /** Another instance has written the rules meanwhile, and flows were led to its ports: all is written and looked at anew. */
  async distrust(): Promise<void> {
    await this.#deps.rules.verify();
    this.#inForce = undefined;
    this.#portalFlows.reset();
  }

  /** Flows that were led to another instance until now are looked at by the next sync. */
  doubtFlows(): void {
    this.#inForce = undefined;
    this.#portalFlows.reset();
  }

  /** The kernel refused what was no longer a change of what it holds: before any look was due. */
  #noteRewrite(installed: Installed): void {
    if (installed.kind !== 'full') return;
    const { reason } = installed;
    if (reason !== 'start' && reason !== 'failure') this.#noteForeignChange(reason);
  }

  #noteForeignChange(change: ForeignChange): void {
    // While the rules were gone, flows went past us: all of them are to be forgotten again.
    this.#portalFlows.reset();
    this.#deps.logger.warn(
      { family: this.family, change },
      'Rules were changed by another program, writing them again',
    );
  }

  /**
   * Brings this family to `desired` and lets every listener outside `neededKeys` go, which is asked
   * when the rules are written: more may be needed by then. Faults of single listeners are
   * returned: the others are programmed. Rejects when the rules could not be written; the old ones then hold.
   */
  async sync(desired: DesiredState, neededKeys: () => ReadonlySet<string>): Promise<FamilyOutcome> {
    const startedAt = this.#deps.clock.now();
    const before = this.#inForce;
    if (before !== undefined && this.#isInForce(before, desired)) {
      this.#tell(
        { kind: 'unchanged', rulesWritten: NONE },
        { desired, rulesTotal: before.rulesTotal, startedAt },
      );
      return { faults: [], hasWritten: false };
    }
    // Taken before anything is awaited: what changes meanwhile is for the next sync.
    const node = this.#deps.nodeAddresses();
    try {
      await this.#deps.prepare(this.family);
      const faults = await this.#ensureListeners(desired, before?.desired ?? desired);
      const { version } = this.#deps.listeners;
      const wanted = this.#ruleSet(desired, this.#deps.listeners.proxyPorts());
      const portalsBefore = before?.desired.capture.portals ?? [];
      const order = tableOrder(portalsBefore, desired.capture.portals);
      const installed = await this.#deps.rules.install(wanted, order);
      if (before !== undefined) this.#noteRewrite(installed);
      this.#forgetMovedFlows(desired, node);
      const rulesTotal = { nat: countRules(wanted.nat), filter: countRules(wanted.filter) };
      this.#inForce = { desired, version: faults.length === 0 ? version : -1, node, rulesTotal };
      this.#deps.listeners.retainKeys(this.family, neededKeys());
      this.#tell(installed, { desired, rulesTotal, startedAt });
      return { faults, hasWritten: true };
    } catch (error) {
      this.#inForce = undefined;
      if (isProxyError(error) && RESTORE_FAULTS.has(error.code)) {
        this.#deps.observer.restoreFailed(this.family, before === undefined ? 'full' : 'partial');
      }
      throw error;
    }
  }

  /** Nothing that rules or sockets depend on is different: what changed were endpoints, and they are in use already. */
  #isInForce({ desired: { capture }, version, node }: InForce, desired: DesiredState): boolean {
    const isSameNode = node === this.#deps.nodeAddresses();
    return capture === desired.capture && version === this.#deps.listeners.version && isSameNode;
  }

  /** Until the rules are swapped the old ones hold; only the guard of new ports comes first. */
  async #ensureListeners(desired: DesiredState, current: DesiredState): Promise<readonly ProxyError[]> {
    const { listeners, rules } = this.#deps;
    return listeners.ensureOpen(this.#wantedListeners(desired), async () => {
      await rules.install(this.#ruleSet(current, listeners.plannedPorts()), ['filter']);
    });
  }

  #wantedListeners(desired: DesiredState): WantedListener[] {
    const { family } = this;
    return [...desired.listeners.values()]
      .filter((listener) => listener.family === family)
      .map(({ key, servicePort: { name } }) => ({
        key,
        family,
        protocol: name.protocol,
        servicePortName: servicePortNameText(name),
        addresses: this.#listenAddresses(name.protocol, this.#deps.nodeAddresses()),
      }));
  }

  /** Where diverted packets arrive; a reply must leave from there too, which for UDP is up to the socket. */
  #listenAddresses(protocol: Protocol, { redirect }: NodeAddresses): readonly string[] {
    const { family } = this;
    const diversion = this.#deps.diversions[family];
    if (diversion.kind === 'dnat') return [diversion.address];
    return protocol === 'UDP' ? redirect[family] : [WILDCARD[family]];
  }

  #ruleSet(desired: DesiredState, ports: ReadonlyMap<string, number>): RuleSet {
    const proxyPorts = ports as ReadonlyMap<ListenerKey, number>;
    const guardedPorts = this.#deps.listeners.guardedPorts();
    const diversion = this.#deps.diversions[this.family];
    return buildRuleSet(this.family, { capture: desired.capture, proxyPorts, guardedPorts, diversion });
  }

  /** After the rules, or a flow would be remembered the old way again. */
  #forgetMovedFlows({ capture }: DesiredState, node: NodeAddresses): void {
    const { family } = this;
    const moved = this.#portalFlows.moved(
      capture.portals.filter((portal) => portal.family === family),
      this.#deps.listeners.proxyPorts(),
      {
        listenAddresses: this.#listenAddresses('UDP', node),
        podSources: capture.podSources[family],
        nodePortRanges: capture.nodePortRanges[family],
        localhostNodePorts: capture.localhostNodePorts,
        localAddresses: node.all,
        sparedPorts: new Set((this.#deps.listeners.peerPorts ?? []).map(({ port }) => port)),
      },
    );
    if (moved.length > 0) this.#deps.flows.forget(moved);
  }

  #tell(
    installed: Installed,
    {
      desired,
      rulesTotal,
      startedAt,
    }: { readonly desired: DesiredState; readonly rulesTotal: RuleCounts; readonly startedAt: number },
  ): void {
    const { kind, rulesWritten } = installed;
    if (installed.kind === 'full') this.#deps.observer.resynced(installed.reason);
    this.#deps.observer.familySynced({
      family: this.family,
      kind: kind === 'unchanged' ? 'endpoints' : kind,
      durationSeconds: (this.#deps.clock.now() - startedAt) / 1000,
      rulesTotal,
      rulesWritten,
      noLocalEndpoints: desired.noLocalEndpoints[this.family],
    });
  }
}
