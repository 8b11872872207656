/**
 * Builds the real proxy out of its rooms and starts and stops it in the right order. Decides nothing: what
 * stands here is who gets whom.
 */
import type { Config } from './cli/config.ts';
import { kubeProxyConfigurationFromConfig } from './cli/configz.ts';
import type { Clock } from './clock.ts';
import { createSource } from './create-source.ts';
import { NodeEngine } from './engine/node/node-engine.ts';
import type { Problem } from './errors.ts';
import { NodeHealth } from './health/node-health.ts';
import { AddressMonitor } from './host/address-monitor.ts';
import { exec, execLines } from './host/exec.ts';
import { hasIPv6, localPortRange } from './host/kernel.ts';
import { PortMemory } from './host/port-memory.ts';
import { Conntrack } from './iptables/conntrack.ts';
import { RuleInstaller } from './iptables/installer.ts';
import { usableIptables } from './iptables/usable-iptables.ts';
import type { Logger } from './log.ts';
import { IP_FAMILIES, type IpFamily, hostPortText } from './model/address.ts';
import { SnapshotBuilder, type SourceObjects } from './model/snapshot.ts';
import { HttpServers } from './observe/http-servers.ts';
import { type Inventory, type Metrics, createMetrics } from './observe/metrics.ts';
import { Forwarder } from './proxy/forwarder.ts';
import { ListenerSet } from './proxy/listener-set.ts';
import { type PortRange, ProxyPorts } from './proxy/proxy-ports.ts';
import { ApiStatistics } from './sources/kubernetes/api-statistics.ts';
import { ChangeTracker } from './sync/change-tracker.ts';
import { Proxier } from './sync/proxier.ts';
import { Runner, type RunnerOptions } from './sync/runner.ts';
import type { SyncObserver } from './sync/sync-observer.ts';
import { UncapturableInterfaces } from './sync/uncapturable-interfaces.ts';

/** What the API server gives out as NodePorts unless told otherwise (--service-node-port-range). */
const NODE_PORTS: PortRange = { first: 30_000, last: 32_767 };
/**
 * As kube-proxy: the two writes that make a Service, of itself and of its endpoints, are not held apart by the minimum
 * interval.
 */
const SYNC_BURST = 2;
/** A failed sync is retried after this, doubling up to the sync period. */
const SYNC_RETRY_MS = 1000;

export interface UserspaceProxy {
  /** Resolves when the source is under way and the servers were told to bind; the first sync follows by itself. */
  start(): Promise<void>;
  /** Health says no from here on; everything else goes on. */
  announceStop(): void;
  /** Closes everything; established connections are reset. Rules stay. Idempotent. */
  close(): Promise<void>;
}

export interface ProxyDeps {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly version: string;
  /** Of the process: where a pod finds its API server. */
  readonly environment: Readonly<Record<string, string | undefined>>;
}

/** Ports the proxy never takes for itself. */
export function excludedPorts(): readonly PortRange[] {
  return [localPortRange(), NODE_PORTS];
}

/** The families that the kernel knows. */
export function kernelFamilies(): readonly IpFamily[] {
  return IP_FAMILIES.filter((family) => family === 'IPv4' || hasIPv6());
}

/** Remembered ports, or none with a warning: the proxy works without. */
export async function rememberedPorts(
  memory: PortMemory,
  logger: Logger,
): Promise<ReadonlyMap<string, number>> {
  try {
    return await memory.load();
  } catch (error) {
    logger.warn({ error }, 'Proxy ports of the last run are lost, taking new ones');
    return new Map();
  }
}

/** Rejects when the node cannot run a proxy at all: no iptables, no readable addresses, no ports. */
export async function createProxy(config: Config, deps: ProxyDeps): Promise<UserspaceProxy> {
  const { clock, logger } = deps;
  const iptables = await usableIptables(kernelFamilies(), { exec, logger });
  const families = iptables.map(({ family }) => family);
  const portStore = new PortMemory(config.stateDir);
  const remembered = await rememberedPorts(portStore, logger);
  const requestSync = (): void => runner.request();
  const apiStatistics = new ApiStatistics();
  const dataPath = createDataPath(config, deps, { remembered, requestSync });
  const addresses = new AddressMonitor({
    exec,
    execLines,
    logger,
    onChange: () => {
      proxier.nodeChanged();
      requestSync();
    },
  });
  const uncapturable = new UncapturableInterfaces(logger);
  const inventory = (): Inventory => ({
    listeners: dataPath.listeners.openCount,
    listenersMissing: Math.max(0, proxier.desired.listeners.size - dataPath.listeners.openCount),
    proxyPorts: dataPath.ports.takenCount,
    draining: dataPath.listeners.drainingCount,
    problemsByCode: proxier.problems.countByCode(),
    manifestErrors: proxier.sourceProblemCount,
    unusableInterfaces: uncapturable.count,
  });
  const { metrics, health, servers } = createObservation(config, deps, {
    dataPath,
    families,
    inventory,
    apiStatistics,
  });
  const conntrack = new Conntrack({ exec, logger });
  const proxier = new Proxier({
    clock,
    logger,
    backends: dataPath.forwarder,
    listeners: dataPath.listeners,
    rules: iptables.map((one) => new RuleInstaller(one)),
    flows: conntrack,
    portStore,
    observer: bothOf(metrics, health),
    nodeAddresses: () => addresses.current,
  });
  const task = async (run: { readonly isPeriodic: boolean }): Promise<boolean> => {
    if (run.isPeriodic) await addresses.refresh();
    uncapturable.update(addresses.current.withoutAddress, proxier.desired);
    return proxier.sync(run);
  };
  const runner = new Runner({ clock, logger, task }, runnerOptions(config));
  const source = await createSource(config, {
    ...deps,
    statistics: apiStatistics,
    onChange: changeHandler({ clock, metrics, proxier, requestSync }),
    onNodeChange: (node) => health.setNodeEligible(node?.isEligible ?? false),
  });
  return {
    async start() {
      await servers.start();
      await addresses.start();
      await source.start();
    },
    announceStop: () => health.stop(),
    async close() {
      await source.close();
      await addresses.close();
      await runner.close();
      await conntrack.close();
      dataPath.listeners.close();
      await dataPath.engine.shutdown();
      await servers.close();
    },
  };
}

interface DataPath {
  readonly forwarder: Forwarder;
  readonly engine: NodeEngine;
  readonly listeners: ListenerSet;
  readonly ports: ProxyPorts;
}

function createDataPath(
  config: Config,
  { clock, logger }: ProxyDeps,
  wiring: { readonly remembered: ReadonlyMap<string, number>; readonly requestSync: () => void },
): DataPath {
  const balancer = { affinityCapacity: config.affinityTableSize, random: Math.random };
  const forwarder = new Forwarder({ clock, logger }, { dialTimeoutsMs: config.dialTimeoutsMs, balancer });
  const engine = new NodeEngine(
    { clock, policy: forwarder },
    {
      halfCloseTimeoutMs: config.halfCloseTimeoutMs,
      udpUnrepliedTimeoutMs: config.udpUnrepliedTimeoutMs,
      udpRepliedTimeoutMs: config.udpRepliedTimeoutMs,
      maxUdpSessions: config.maxUdpSessions,
    },
  );
  forwarder.attach(engine);
  const ports = new ProxyPorts({
    range: config.proxyPortRange,
    excluded: excludedPorts(),
    random: Math.random,
    remembered: wiring.remembered,
  });
  const listeners = new ListenerSet(
    { engine, binding: forwarder, ports, clock, logger, onChange: wiring.requestSync },
    { gracePeriodMs: config.listenerGracePeriodMs },
  );
  return { forwarder, engine, listeners, ports };
}

function createObservation(
  config: Config,
  { clock, logger, version }: ProxyDeps,
  read: {
    readonly dataPath: DataPath;
    readonly families: readonly IpFamily[];
    readonly inventory: () => Inventory;
    readonly apiStatistics: ApiStatistics;
  },
): { readonly metrics: Metrics; readonly health: NodeHealth; readonly servers: HttpServers } {
  const health = new NodeHealth(
    { clock },
    { timeoutMs: 2 * config.syncPeriodMs, hasNodeObject: config.manifests.length === 0 },
  );
  health.setFamilies(read.families);
  const metrics = createMetrics({
    clock,
    version,
    statistics: () => read.dataPath.forwarder.statistics(),
    engineTotals: () => read.dataPath.engine.totals(),
    inventory: read.inventory,
    api: config.manifests.length === 0 ? read.apiStatistics : undefined,
  });
  metrics.setFamilies(read.families);
  const servers = new HttpServers(
    { log: logger, health, metrics, configz: kubeProxyConfigurationFromConfig(config) },
    {
      healthzBindAddress: bindText(config.healthzBindAddress),
      metricsBindAddress: bindText(config.metricsBindAddress),
      bindAddressHardFail: config.bindAddressHardFail,
    },
  );
  return { metrics, health, servers };
}

function runnerOptions(config: Config): RunnerOptions {
  return {
    minIntervalMs: config.minSyncPeriodMs,
    burst: SYNC_BURST,
    periodMs: config.syncPeriodMs,
    retryMs: SYNC_RETRY_MS,
    maxRetryMs: Math.max(SYNC_RETRY_MS, config.syncPeriodMs),
  };
}

/** What a source tells becomes endpoints in the balancers at once, and a sync soon. */
function changeHandler(deps: {
  readonly clock: Clock;
  readonly metrics: Metrics;
  readonly proxier: Proxier;
  readonly requestSync: () => void;
}): (objects: SourceObjects | undefined, problems: readonly Problem[]) => void {
  const builder = new SnapshotBuilder();
  const tracker = new ChangeTracker(deps);
  return (objects, problems) => {
    if (objects === undefined) {
      deps.proxier.reportSourceProblems(problems);
      return;
    }
    const { services, endpointSlices, triggers } = tracker.update(objects);
    deps.metrics.servicesChanged(services);
    deps.metrics.endpointSlicesChanged(endpointSlices);
    deps.proxier.update(builder.build(objects), problems, triggers);
    deps.requestSync();
  };
}

function bindText(address: Config['healthzBindAddress']): string {
  return address === undefined ? '' : hostPortText(address.address, address.port);
}

function bothOf(
  first: SyncObserver,
  second: Pick<SyncObserver, 'updateQueued' | 'syncStarted' | 'syncSucceeded'>,
): SyncObserver {
  return {
    updateQueued() {
      first.updateQueued();
      second.updateQueued();
    },
    syncStarted() {
      first.syncStarted();
      second.syncStarted();
    },
    familySynced: (sync) => first.familySynced(sync),
    restoreFailed: (family, kind) => first.restoreFailed(family, kind),
    resynced: (reason) => first.resynced(reason),
    networkProgrammed: (family, durationSeconds) => first.networkProgrammed(family, durationSeconds),
    syncSucceeded() {
      first.syncSucceeded();
      second.syncSucceeded();
    },
  };
}
