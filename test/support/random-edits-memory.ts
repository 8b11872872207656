/**
 * A whole proxy in memory, from the objects of a source to the tables of a kernel and the listeners of an engine: every
 * room of the product is the real one, only the kernel, the sockets and the source are not. At every restore and every
 * opening it looks whether anybody is led to a port on which nobody listens, or a port open that is not guarded.
 */
import type { DesiredListener } from '../../src/desired/desired-state.ts';
import type { NodeSettings } from '../../src/desired/node-view.ts';
import { type ListenerId, type ListenerSpec } from '../../src/engine/engine.ts';
import { ServiceHealth } from '../../src/health/service-health.ts';
import type { Exec } from '../../src/host/exec.ts';
import { Iptables } from '../../src/iptables/iptables.ts';
import { RuleInstaller } from '../../src/iptables/installer.ts';
import type { Diversion } from '../../src/iptables/portal-rules.ts';
import { buildRuleSet } from '../../src/iptables/ruleset.ts';
import { IP_FAMILIES, type IpFamily } from '../../src/model/address.ts';
import { nodeInfoFromNode } from '../../src/model/node.ts';
import { SnapshotBuilder } from '../../src/model/snapshot.ts';
import { Forwarder } from '../../src/proxy/forwarder.ts';
import { ListenerSet } from '../../src/proxy/listener-set.ts';
import { ProxyPorts } from '../../src/proxy/proxy-ports.ts';
import type { NodeAddresses } from '../../src/sync/family-sync.ts';
import { Proxier } from '../../src/sync/proxier.ts';
import { FakeClock } from './fake-clock.ts';
import { KernelExec } from './fake-exec.ts';
import { FakeListenerEngine } from './fake-listener-engine.ts';
import { FakeSessions } from './fake-sessions.ts';
import { FakeObserver, FakeOwnership, FakePortStore, type Journal } from './fake-sync.ts';
import { NetfilterTables } from './netfilter-tables.ts';
import type { ClusterState } from './random-cluster.ts';
import { FlowTable } from './random-edits-flows.ts';
import { Random } from './random.ts';
import { RecordingLogger } from './recording-logger.ts';
import { dnatTo, firstLoadOf, withoutWrites } from './rule-fixture.ts';
import { makeForwarderOptions } from './forwarder-options.ts';

export const GRACE_PERIOD_MS = 1000;
export const PORT_RANGE = { first: 20_000, last: 20_199 };
/** Of an endpoint that does not answer. */
export const EJECTION_MS = 1000;

const REFUSED = { exitCode: 4, stdout: '', stderr: 'another program holds the xtables lock' } as const;

export interface MemoryProxyOptions {
  readonly settings: NodeSettings;
  readonly addresses: NodeAddresses;
  readonly capture: 'redirect' | 'link-local';
  /** Of the proxy's own chances, and of how long the fakes take. */
  readonly seed: number;
  /** Ports of an earlier proxy by listener key; none unless told. */
  readonly remembered?: ReadonlyMap<string, number>;
}

export class MemoryProxy {
  readonly clock = new FakeClock();
  readonly logger = new RecordingLogger();
  readonly kernel = new KernelExec();
  readonly engine = new FakeListenerEngine();
  readonly sessions = new FakeSessions(this.clock);
  readonly health = new ServiceHealth();
  readonly flows = new FlowTable(this.kernel);
  readonly observer: FakeObserver;
  readonly portStore: FakePortStore;
  readonly forwarder: Forwarder;
  readonly listeners: ListenerSet;
  readonly ports: ProxyPorts;
  readonly proxier: Proxier;
  /** By listener. */
  readonly keyOf = new Map<ListenerId, string>();
  /** What the fakes and the proxy did that no proxy may do. */
  readonly faults: string[] = [];
  /** What becomes of restores: `half` is one whose first table is committed and whose second is refused. */
  restores: 'work' | 'fail' | 'half' = 'work';
  /** Somebody has asked for a sync. */
  isSyncDue = false;
  addresses: NodeAddresses;
  readonly #options: MemoryProxyOptions;
  readonly #random: Random;
  readonly #snapshots = new SnapshotBuilder();
  #node: ClusterState['node'];

  constructor(options: MemoryProxyOptions) {
    this.#options = options;
    this.#random = new Random(options.seed);
    this.addresses = options.addresses;
    const { clock, logger } = this;
    const journal: Journal = [];
    this.observer = new FakeObserver(journal);
    this.portStore = new FakePortStore(journal);
    const random = (): number => this.#random.next();
    const { scheduler } = options.settings;
    this.forwarder = new Forwarder(
      { clock, logger, listeningSockets: () => 0 },
      makeForwarderOptions({ dialTimeoutsMs: [250], balancer: { random, scheduler } }),
    );
    this.forwarder.attach(this.sessions);
    this.sessions.policy = this.forwarder;
    const { remembered = new Map() } = options;
    this.ports = new ProxyPorts({ range: PORT_RANGE, excluded: [], random, remembered });
    this.listeners = this.#createListeners();
    this.proxier = new Proxier({
      clock,
      logger,
      backends: this.forwarder,
      listeners: this.listeners,
      rules: IP_FAMILIES.map(
        (family) => new RuleInstaller(new Iptables(family, this.#exec), { generation: () => 1 }),
      ),
      flows: this.flows,
      ownership: new FakeOwnership(),
      portStore: this.portStore,
      observer: this.observer,
      healthChecks: this.health,
      nodeAddresses: () => this.addresses,
      settings: options.settings,
      diversions: { IPv4: this.#diversion('IPv4'), IPv6: this.#diversion('IPv6') },
      prepare: async () => Promise.resolve(),
    });
  }

  /** As a source tells it: the Node first, if it is another. */
  update({ services, endpointSlices, node }: ClusterState): void {
    if (node !== this.#node) {
      this.#node = node;
      this.proxier.nodeObjectChanged(node && nodeInfoFromNode(node));
    }
    this.proxier.update(this.#snapshots.build({ services, endpointSlices }), []);
    this.isSyncDue = true;
  }

  changeAddresses(addresses: NodeAddresses): void {
    this.addresses = addresses;
    this.proxier.nodeChanged();
    this.isSyncDue = true;
  }

  /** One sync; false when it failed, and then another one is due. */
  async sync({ isPeriodic = false } = {}): Promise<boolean> {
    this.isSyncDue = false;
    try {
      await this.proxier.sync({ isPeriodic });
      return true;
    } catch {
      this.isSyncDue = true;
      return false;
    }
  }

  /** Syncs until none is due. */
  async settle(): Promise<void> {
    for (let count = 0; this.isSyncDue; count += 1) {
      if (count > 20) throw new Error('there is no end to the syncs');
      await this.sync();
    }
  }

  /** Both tables as they are loaded. */
  saved(family: IpFamily): string {
    return savedOf(this.kernel.tables[family]);
  }

  /** Both tables as a first load of what is desired now would leave them. */
  rendered(family: IpFamily): string {
    const rules = buildRuleSet(family, {
      capture: this.proxier.desired.capture,
      proxyPorts: this.listeners.proxyPorts() as ReadonlyMap<DesiredListener['key'], number>,
      guardedPorts: this.listeners.guardedPorts(),
      diversion: this.#diversion(family),
    });
    const tables = new NetfilterTables(family === 'IPv4' ? 4 : 6);
    tables.load(firstLoadOf(rules));
    return savedOf(tables);
  }

  get settings(): NodeSettings {
    return this.#options.settings;
  }

  /** Listeners that are open, by key. */
  openListeners(): ReadonlyMap<string, { readonly id: ListenerId; readonly spec: ListenerSpec }> {
    return new Map(
      [...this.engine.listeners].map(([id, spec]) => [this.keyOf.get(id) ?? `listener ${id}`, { id, spec }]),
    );
  }

  close(): void {
    this.listeners.close();
  }

  readonly #exec: Exec = async (command, args, options) => {
    await this.#passTime();
    const isRestore = command.endsWith('-restore');
    const fault = isRestore ? this.restores : 'work';
    const [first, rest] = (options.input ?? '').split(/(?<=COMMIT\n)/);
    const input = fault === 'half' ? (first ?? '') : (options.input ?? '');
    const isRefused = fault === 'fail' || (fault === 'half' && rest === undefined);
    const result = isRefused
      ? REFUSED
      : await this.kernel.exec(command, args, isRestore ? { ...options, input } : options);
    if (isRestore && !isRefused) this.#checkRules();
    await this.#passTime();
    return fault === 'half' ? REFUSED : result;
  };

  #createListeners(): ListenerSet {
    const { engine, forwarder, ports, clock, logger } = this;
    engine.gate = async () => this.#passTime();
    const onChange = (): void => {
      this.isSyncDue = true;
    };
    return new ListenerSet(
      {
        engine: {
          open: async (spec) => {
            this.#checkGuard(spec);
            return engine.open(spec);
          },
          close: async (id) => engine.close(id),
          setAddresses: async (id, addresses) => engine.setAddresses(id, addresses),
          socketsFor: (spec) => engine.socketsFor(spec),
        },
        binding: {
          bindListener: (id, key) => {
            this.keyOf.set(id, key);
            forwarder.bindListener(id, key);
          },
          unbindListener: (id) => forwarder.unbindListener(id),
        },
        ports,
        hasRoomToListen: () => true,
        clock,
        logger,
        onChange,
      },
      { gracePeriodMs: GRACE_PERIOD_MS },
    );
  }

  #diversion(family: IpFamily): Diversion {
    return this.#options.capture === 'redirect' ? { kind: 'redirect' } : dnatTo(family);
  }

  /** A few turns of the microtask queue, in which anything may happen. */
  async #passTime(): Promise<void> {
    for (let turns = this.#random.below(4); turns > 0; turns -= 1) await Promise.resolve();
  }

  #checkRules(): void {
    for (const family of IP_FAMILIES) {
      for (const { rule } of this.kernel.tables[family].allRules('nat')) {
        const { verdict, spec } = rule;
        if (verdict.kind !== 'redirect' && verdict.kind !== 'dnat') continue;
        const isHeard = [...this.engine.listeners.values()].some(
          (listener) =>
            listener.family === family &&
            listener.port === verdict.port &&
            spec.includes(`-p ${listener.protocol.toLowerCase()} `),
        );
        if (!isHeard) this.faults.push(`nobody listens where ${family} ${spec} leads`);
      }
    }
    for (const spec of this.engine.listeners.values()) this.#checkGuard(spec);
  }

  #checkGuard({ family, protocol, port }: ListenerSpec): void {
    const guard = `-p ${protocol.toLowerCase()} -m conntrack --ctstate DNAT `;
    const at = ` --dport ${port} -j ACCEPT`;
    const isGuarded = this.kernel.tables[family]
      .allRules('filter')
      .some(({ rule: { spec } }) => spec.includes(guard) && spec.endsWith(at));
    if (!isGuarded) this.faults.push(`nobody guards ${protocol} port ${port} of ${family}`);
  }
}

function savedOf(tables: NetfilterTables): string {
  return withoutWrites(['nat', 'filter'].map((table) => tables.save(table)).join(''));
}
