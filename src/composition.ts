/**
 * Builds the real proxy out of its rooms and starts and stops it in the right order. Decides nothing: what
 * stands here is who gets whom.
 */
import type { Config } from './cli/config.ts';
import { kubeProxyConfigurationFromConfig } from './cli/configz.ts';
import type { Clock } from './clock.ts';
import { type ListenerId } from './engine/engine.ts';
import { NodeEngine } from './engine/node/node-engine.ts';
import { type Problem, ProxyError, errorText } from './errors.ts';
import { NodeHealth } from './health/node-health.ts';
import { AddressMonitor } from './host/address-monitor.ts';
import { exec, execLines } from './host/exec.ts';
import { hasIPv6, localPortRange } from './host/kernel.ts';
import { PortMemory } from './host/port-memory.ts';
import { RuleInstaller } from './iptables/installer.ts';
import { Iptables } from './iptables/iptables.ts';
import type { Logger } from './log.ts';
import { IP_FAMILIES, hostPortText } from './model/address.ts';
import { type SourceObjects, snapshotFromObjects } from './model/snapshot.ts';
import { HttpServers } from './observe/http-servers.ts';
import { type Metrics, createMetrics } from './observe/metrics.ts';
import { Forwarder } from './proxy/forwarder.ts';
import { ListenerSet } from './proxy/listener-set.ts';
import { type PortRange, ProxyPorts } from './proxy/proxy-ports.ts';
import { ManifestsSource } from './sources/manifests/manifests-source.ts';
import { Proxier } from './sync/proxier.ts';
import { Runner } from './sync/runner.ts';
import type { SyncObserver } from './sync/sync-observer.ts';
import { UncapturableInterfaces } from './sync/uncapturable-interfaces.ts';

/** What the API server gives out as NodePorts unless told otherwise (--service-node-port-range). */
const NODE_PORTS: PortRange = { first: 30_000, last: 32_767 };
/** A failed sync is retried after this, doubling up to the sync period. */
const SYNC_RETRY_MS = 1000;

export interface UserspaceProxy {
  /** Resolves when the source was read and the servers were told to bind; the first sync follows by itself. */
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
}

/** Ports the proxy never takes for itself. */
export function excludedPorts(): readonly PortRange[] {
  return [localPortRange(), NODE_PORTS];
}

/**
 * The iptables of each family this node can capture. A family whose iptables does not work is left out with a
 * warning. Rejects with `ERR_IPTABLES_UNAVAILABLE` when none works.
 */
export async function usableIptables(logger: Logger): Promise<readonly Iptables[]> {
  const usable: Iptables[] = [];
  let lastFault: unknown;
  for (const family of IP_FAMILIES) {
    if (family === 'IPv6' && !hasIPv6()) continue;
    const iptables = new Iptables(family, exec);
    try {
      await iptables.read('nat');
      usable.push(iptables);
    } catch (error) {
      lastFault = error;
      logger.warn({ family, error: errorText(error) }, 'No Service traffic of this family is captured');
    }
  }
  if (usable.length > 0) return usable;
  throw new ProxyError('ERR_IPTABLES_UNAVAILABLE', 'iptables works for neither family', { cause: lastFault });
}

/** Remembered ports, or none with a warning: the proxy works without. */
export async function rememberedPorts(
  memory: PortMemory,
  logger: Logger,
): Promise<ReadonlyMap<string, number>> {
  try {
    return await memory.load();
  } catch (error) {
    logger.warn({ error: errorText(error) }, 'Proxy ports of the last run are lost, taking new ones');
    return new Map();
  }
}

/** Rejects when the node cannot run a proxy at all: no iptables, no readable addresses, no ports. */
export async function createProxy(config: Config, deps: ProxyDeps): Promise<UserspaceProxy> {
  const { clock, logger } = deps;
  const iptables = await usableIptables(logger);
  const families = iptables.map(({ family }) => family);
  const portMemory = new PortMemory(config.stateDir);
  const ports = new ProxyPorts({
    range: config.proxyPortRange,
    excluded: excludedPorts(),
    random: Math.random,
    remembered: await rememberedPorts(portMemory, logger),
  });

  const health = new NodeHealth({ clock }, { timeoutMs: 2 * config.syncPeriodMs });
  health.setFamilies(families);

  const forwarder = new Forwarder(
    { clock, logger, onListenerFault: (id, errno) => listenerFailed(id, errno) },
    {
      dialTimeoutsMs: config.dialTimeoutsMs,
      balancer: { affinityCapacity: config.affinityTableSize, random: Math.random },
    },
  );
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
  const listeners = new ListenerSet(
    { engine, binding: forwarder, ports, clock, logger, onChange: () => runner.request() },
    { gracePeriodMs: config.listenerGracePeriodMs },
  );
  const listenerFailed = (id: ListenerId, errno: string): void => {
    listeners.listenerFailed(id, errno);
    runner.request();
  };

  const addresses = new AddressMonitor({
    exec,
    execLines,
    logger,
    onChange: () => {
      proxier.nodeChanged();
      runner.request();
    },
  });
  const uncapturable = new UncapturableInterfaces(logger);
  const metrics = createMetrics({
    clock,
    version: deps.version,
    statistics: () => forwarder.statistics(),
    engineTotals: () => engine.totals(),
    inventory: () => ({
      listeners: listeners.openCount,
      proxyPorts: ports.takenCount,
      draining: listeners.drainingCount,
      problemsByCode: proxier.problems.countByCode(),
      manifestErrors: proxier.sourceProblemCount,
      unusableInterfaces: uncapturable.count,
    }),
  });
  metrics.setFamilies(families);
  const proxier = new Proxier({
    clock,
    logger,
    backends: forwarder,
    listeners,
    rules: iptables.map((one) => new RuleInstaller(one)),
    portStore: portMemory,
    observer: bothOf(metrics, health),
    nodeAddresses: () => addresses.current,
  });
  const runner = new Runner(
    {
      clock,
      logger,
      task: async (run) => {
        if (run.isPeriodic) await addresses.refresh();
        uncapturable.update(addresses.current.withoutAddress, proxier.desired);
        await proxier.sync(run);
      },
    },
    {
      minIntervalMs: config.minSyncPeriodMs,
      periodMs: config.syncPeriodMs,
      retryMs: SYNC_RETRY_MS,
      maxRetryMs: Math.max(SYNC_RETRY_MS, config.syncPeriodMs),
    },
  );
  const source = new ManifestsSource(
    { clock, logger, onChange: changeHandler({ metrics, proxier, runner }) },
    { paths: config.manifests },
  );
  const servers = new HttpServers(
    { log: logger, health, metrics, configz: kubeProxyConfigurationFromConfig(config) },
    {
      healthzBindAddress: bindText(config.healthzBindAddress),
      metricsBindAddress: bindText(config.metricsBindAddress),
      bindAddressHardFail: config.bindAddressHardFail,
    },
  );

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
      listeners.close();
      await engine.shutdown();
      await servers.close();
    },
  };
}

/** What a source tells becomes endpoints in the balancers at once, and a sync soon. */
function changeHandler(deps: {
  readonly metrics: Metrics;
  readonly proxier: Proxier;
  readonly runner: Runner;
}): (objects: SourceObjects, problems: readonly Problem[]) => void {
  let before: SourceObjects = { services: [], endpointSlices: [] };
  return (objects, problems) => {
    deps.metrics.servicesChanged(changedCount(before.services, objects.services));
    deps.metrics.endpointSlicesChanged(changedCount(before.endpointSlices, objects.endpointSlices));
    before = objects;
    deps.proxier.update(snapshotFromObjects(objects), problems);
    deps.runner.request();
  };
}

/** Added, changed and deleted objects; an object that is there in two versions is one change. */
function changedCount(before: readonly NamedObject[], after: readonly NamedObject[]): number {
  const added = new Set(after).difference(new Set(before));
  const removed = new Set(before).difference(new Set(after));
  const names = [...added, ...removed].map(({ metadata }) => `${metadata?.namespace}/${metadata?.name}`);
  return new Set(names).size;
}

interface NamedObject {
  readonly metadata?: { readonly namespace?: string; readonly name?: string };
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
    syncSucceeded() {
      first.syncSucceeded();
      second.syncSucceeded();
    },
  };
}
