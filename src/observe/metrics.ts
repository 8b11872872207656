/**
 * Every metric of the proxy, in one registry. What is defined where:
 *
 *   metrics-registry.ts      prom-client, and nothing else imports it
 *   metrics-sync.ts          kubeproxy_*: syncs, changes, health answers (written by events)
 *   metrics-service-port.ts  userspace_proxy_*: connections and dials of each service port (read at scrape)
 *   metrics-node.ts          userspace_proxy_*: engine, inventory, build (read at scrape)
 *   metrics-conntrack.ts     kubeproxy_conntrack_*, userspace_proxy_conntrack_*: the connection tracking table
 *   metrics-api.ts           userspace_proxy_api_*, rest_client_*: the API server as a source (read at scrape)
 *
 * `docs/metrics.md` lists them for operators; a test compares the two.
 */
import type { Clock } from '../clock.ts';
import type { ReconcilerObserver } from '../conntrack/reconciler.ts';
import type { EngineTotals } from '../engine/engine.ts';
import type { IpFamily } from '../model/address.ts';
import type { ProxyStatistics } from '../proxy/statistics.ts';
import type { ApiStatistics } from '../sources/kubernetes/api-statistics.ts';
import type { SyncObserver } from '../sync/sync-observer.ts';
import { defineApiMetrics } from './metrics-api.ts';
import { ConntrackMetrics, type ConntrackUse } from './metrics-conntrack.ts';
import { type Inventory, type NodeReading, defineBuildInfo, defineNodeMetrics } from './metrics-node.ts';
import { MetricRegistry } from './metrics-registry.ts';
import { defineServicePortMetrics } from './metrics-service-port.ts';
import { SyncMetrics } from './metrics-sync.ts';

export type { Inventory } from './metrics-node.ts';

export interface MetricsDeps {
  readonly clock: Pick<Clock, 'wallTime'>;
  /** Asked once per scrape; the bytes of open connections are in it. */
  statistics(): ProxyStatistics;
  /** Asked once per scrape. */
  engineTotals(): EngineTotals;
  /** Asked once per scrape. */
  inventory(): Inventory;
  /** Asked at each scrape; undefined: not known. */
  conntrackUse(): ConntrackUse | undefined;
  /** What the client of the API server counts; undefined: there is none. */
  readonly api: ApiStatistics | undefined;
  /** The version of this program and its engine (`native` or `node`), for `userspace_proxy_build_info`. */
  readonly version: string;
  readonly engine: string;
}

export interface Metrics extends SyncObserver, ReconcilerObserver {
  /** The families this node programs; both unless told. */
  setFamilies(families: readonly IpFamily[]): void;
  /** Services that a source saw added, changed or deleted. */
  servicesChanged(count: number): void;
  /** EndpointSlices that a source saw added, changed or deleted. */
  endpointSlicesChanged(count: number): void;
  /** `/healthz` of the health server was answered with this status. */
  healthzAnswered(code: number): void;
  /** `/livez` of the health server was answered with this status. */
  livezAnswered(code: number): void;
  /** Of what `render` gives. */
  readonly contentType: string;
  /** Everything in the Prometheus text format. Rejects when a dependency throws; the next scrape tries again. */
  render(): Promise<string>;
}

/** The metrics of one proxy; nothing is shared between two calls. */
export function createMetrics(deps: MetricsDeps): Metrics {
  const registry = new MetricRegistry();
  const sync = new SyncMetrics({ registry, clock: deps.clock });
  const conntrack = new ConntrackMetrics(registry, () => deps.conntrackUse());
  let reading: Reading | undefined;
  // Rendering asks every family in the tick in which the reading was taken, so one scrape never mixes two.
  const current = (): Reading => (reading ??= takeReading(deps));
  defineServicePortMetrics(registry, () => current().statistics);
  defineNodeMetrics(registry, current);
  defineApiMetrics(registry, deps.api);
  defineBuildInfo(registry, { version: deps.version, node: process.version, engine: deps.engine });
  registry.addProcessMetrics();

  return {
    setFamilies: (families) => sync.setFamilies(families),
    servicesChanged: (count) => sync.servicesChanged(count),
    endpointSlicesChanged: (count) => sync.endpointSlicesChanged(count),
    networkProgrammed: (family, durationSeconds) => sync.networkProgrammed(family, durationSeconds),
    healthzAnswered: (code) => sync.healthzAnswered(code),
    livezAnswered: (code) => sync.livezAnswered(code),
    updateQueued: () => sync.updateQueued(),
    syncStarted: () => sync.syncStarted(),
    familySynced: (family) => sync.familySynced(family),
    restoreFailed: (family, kind) => sync.restoreFailed(family, kind),
    resynced: (reason) => sync.resynced(reason),
    rulesAhead: (family, rules) => sync.rulesAhead(family, rules),
    syncSucceeded: () => sync.syncSucceeded(),
    flowsReconciled: (family, result) => conntrack.flowsReconciled(family, result),
    contentType: registry.contentType,
    render: async () => {
      reading = takeReading(deps);
      return registry.render();
    },
  };
}

interface Reading extends NodeReading {
  readonly statistics: ProxyStatistics;
}

function takeReading(deps: MetricsDeps): Reading {
  return { statistics: deps.statistics(), engine: deps.engineTotals(), inventory: deps.inventory() };
}
