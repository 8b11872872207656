/**
 * Builds the real proxy out of its rooms and starts and stops it in the right order. Decides nothing: what
 * stands here is who gets whom.
 */
import type { Config } from './cli/config.ts';
import type { Clock } from './clock.ts';
import { ConntrackReconciler } from './conntrack/reconciler.ts';
import { conntrackUpkeep } from './conntrack/upkeep.ts';
import { createSource } from './create-source.ts';
import { createDataPath, rememberedPorts, shareDescriptors } from './data-path.ts';
import { type Problem, ProxyError } from './errors.ts';
import { AffinityMemory } from './host/affinity-memory.ts';
import { AddressMonitor } from './host/address-monitor.ts';
import { ensureCaptureAddress } from './host/capture-address.ts';
import { exec, execEachLine, execLines } from './host/exec.ts';
import { coreCount, legacyTables, openFilesLimit } from './host/kernel.ts';
import { PortMemory } from './host/port-memory.ts';
import { createInstance } from './instance-ownership.ts';
import { sysctls } from './host/sysctl.ts';
import { RuleInstaller } from './iptables/installer.ts';
import { usableIptables } from './iptables/usable-iptables.ts';
import type { Logger } from './log.ts';
import type { IpFamily } from './model/address.ts';
import { SnapshotBuilder, type SourceObjects } from './model/snapshot.ts';
import { diversionsFromConfig, kernelFamilies, nodeSettingsFromConfig } from './node-settings.ts';
import { bothOf, createObservation } from './observation.ts';
import { HealthCheckServers } from './observe/health-check-servers.ts';
import type { Inventory, Metrics } from './observe/metrics.ts';
import { AffinityKeeper } from './proxy/affinity-keeper.ts';
import { ApiStatistics } from './sources/kubernetes/api-statistics.ts';
import { ChangeTracker } from './sync/change-tracker.ts';
import { Proxier } from './sync/proxier.ts';
import { Runner, type RunnerOptions } from './sync/runner.ts';
import { UncapturableInterfaces } from './sync/uncapturable-interfaces.ts';

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

/** Rejects when the node cannot run a proxy at all: no iptables, no readable addresses, no ports. */
export async function createProxy(config: Config, deps: ProxyDeps): Promise<UserspaceProxy> {
  const { clock, logger } = deps;
  const iptables = await usableIptables(await capturableFamilies(config, logger), {
    exec,
    logger,
    legacyTables,
  });
  const families = iptables.map(({ family }) => family);
  const portStore = new PortMemory(config.stateDir);
  const remembered = await rememberedPorts(portStore, logger);
  let isStopping = false;
  const requestSync = (): void => runner.request();
  const apiStatistics = new ApiStatistics();
  const descriptors = shareDescriptors(openFilesLimit());
  const dataPath = createDataPath(config, deps, {
    remembered,
    requestSync,
    descriptors,
    otherDescriptors: () => healthChecks.descriptors,
  });
  const affinity = new AffinityKeeper({
    clock,
    logger,
    store: new AffinityMemory({ clock }, config.stateDir),
    holder: dataPath.forwarder,
    isOwner: () => ownership.isOwner,
  });
  const { ownership, listeners } = createInstance(
    { clock, logger, iptables, dataPath, remembered },
    {
      requestSync,
      settled: async () => runner.settled(),
      onRegained: () => proxier.rulesRegained(),
      onPeerEnded: () => proxier.peerEnded(),
      closeServers: async () => {
        healthChecks.programmed([]);
        await servers.retire();
      },
      reopenServers: async () => servers.reopen(),
    },
  );
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
    isStopping,
    problemsByCode: proxier.problems.countByCode(),
    manifestErrors: proxier.sourceProblemCount,
    unusableInterfaces: uncapturable.count,
    healthCheckServers: healthChecks.counts,
    ownership,
  });
  const { metrics, health, servers } = createObservation(config, deps, {
    dataPath,
    families,
    inventory,
    apiStatistics,
    httpConnections: descriptors.httpConnections,
  });
  const healthChecks = new HealthCheckServers({ logger, isProxyHealthy: () => health.isProxyHealthy() });
  const conntrack = new ConntrackReconciler({ clock, exec: execEachLine, logger, observer: metrics });
  const attendConntrack = conntrackUpkeep(
    { sysctls, logger, reconciler: conntrack },
    { settings: config.conntrack, cores: coreCount() },
  );
  const proxier = new Proxier({
    clock,
    logger,
    backends: dataPath.forwarder,
    listeners,
    ownership,
    rules: iptables.map((one) => new RuleInstaller(one, { generation: () => ownership.generation })),
    flows: conntrack,
    portStore,
    observer: bothOf(metrics, health),
    healthChecks,
    nodeAddresses: () => addresses.current,
    settings: nodeSettingsFromConfig(config),
    diversions: diversionsFromConfig(config),
    prepare: async (family) =>
      config.capture === 'link-local' && ensureCaptureAddress(exec, family, addresses.current.all),
  });
  const task = async (run: { readonly isPeriodic: boolean }): Promise<boolean> => {
    if (run.isPeriodic) await addresses.refresh();
    if (config.capture === 'redirect') {
      uncapturable.update(addresses.current.withoutAddress, proxier.desired);
    }
    const isDone = await proxier.sync(run);
    if (ownership.isOwner) attendConntrack();
    return isDone;
  };
  const runner = new Runner({ clock, logger, task }, runnerOptions(config));
  const source = await createSource(config, {
    ...deps,
    statistics: apiStatistics,
    onChange: changeHandler({ clock, metrics, proxier, requestSync }),
    onNodeChange: (node) => {
      // Without an API server a Node object is optional.
      health.setNodeEligible(node?.isEligible ?? config.manifests.length > 0);
      proxier.nodeObjectChanged(node);
      requestSync();
    },
  });
  return {
    async start() {
      await servers.start();
      attendConntrack();
      await addresses.start();
      // Before there is any Service: each takes up its ties as it appears.
      await affinity.restore();
      affinity.start();
      await source.start();
    },
    announceStop() {
      isStopping = true;
      health.stop();
      ownership.stop();
    },
    async close() {
      await source.close();
      await addresses.close();
      await runner.close();
      await proxier.close();
      await conntrack.close();
      dataPath.listeners.close();
      await affinity.close();
      const { sessionCount } = dataPath.forwarder;
      if (sessionCount > 0) logger.info({ sessions: sessionCount }, 'Cutting what is still open');
      await dataPath.engine.shutdown();
      await healthChecks.close();
      await servers.close();
      // Last: others take it for the end of our listeners.
      ownership.close();
    },
  };
}

/**
 * The families that the kernel knows and, for `--capture link-local`, that it lets us have an address of. One that fails
 * is left out with a warning; rejects with `ERR_ADDRESS` when all do.
 */
async function capturableFamilies(config: Config, logger: Logger): Promise<readonly IpFamily[]> {
  if (config.capture !== 'link-local') return kernelFamilies();
  const capturable: IpFamily[] = [];
  let lastFault: unknown;
  for (const family of kernelFamilies()) {
    try {
      await ensureCaptureAddress(exec, family, []);
      capturable.push(family);
    } catch (error) {
      lastFault = error;
      logger.warn({ family, error }, 'No Service traffic of this family is captured');
    }
  }
  if (capturable.length > 0) return capturable;
  throw new ProxyError('ERR_ADDRESS', 'neither family gets its private address', { cause: lastFault });
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
