/** Builds what makes the proxy visible: metrics, health, and the servers for both. Decides nothing. */
import type { Config } from './cli/config.ts';
import { kubeProxyConfigurationFromConfig } from './cli/configz.ts';
import type { Clock } from './clock.ts';
import { readTableUse } from './conntrack/table-use.ts';
import type { DataPath } from './data-path.ts';
import { NodeHealth } from './health/node-health.ts';
import { sysctls } from './host/sysctl.ts';
import type { Logger } from './log.ts';
import { type IpFamily, hostPortText } from './model/address.ts';
import { HttpServers } from './observe/http-servers.ts';
import { type Inventory, type Metrics, createMetrics } from './observe/metrics.ts';
import type { ApiStatistics } from './sources/kubernetes/api-statistics.ts';
import type { SyncObserver } from './sync/sync-observer.ts';

export function createObservation(
  config: Config,
  { clock, logger, version }: { readonly clock: Clock; readonly logger: Logger; readonly version: string },
  read: {
    readonly dataPath: DataPath;
    readonly families: readonly IpFamily[];
    readonly inventory: () => Inventory;
    readonly apiStatistics: ApiStatistics;
    /** Of each of the two servers at a time. */
    readonly httpConnections: number;
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
    engine: read.dataPath.engineName,
    statistics: () => read.dataPath.forwarder.statistics(),
    engineTotals: () => read.dataPath.engine.totals(),
    inventory: read.inventory,
    conntrackUse: () => readTableUse(sysctls),
    api: config.manifests.length === 0 ? read.apiStatistics : undefined,
  });
  metrics.setFamilies(read.families);
  const servers = new HttpServers(
    { log: logger, health, metrics, configz: kubeProxyConfigurationFromConfig(config) },
    {
      healthzBindAddress: bindText(config.healthzBindAddress),
      metricsBindAddress: bindText(config.metricsBindAddress),
      bindAddressHardFail: config.bindAddressHardFail,
      maxConnections: read.httpConnections,
    },
  );
  return { metrics, health, servers };
}

function bindText(address: Config['healthzBindAddress']): string {
  return address === undefined ? '' : hostPortText(address.address, address.port);
}

export function bothOf(
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
    rulesAhead: (family, rules) => first.rulesAhead(family, rules),
    networkProgrammed: (family, durationSeconds) => first.networkProgrammed(family, durationSeconds),
    syncSucceeded() {
      first.syncSucceeded();
      second.syncSucceeded();
    },
  };
}
