/**
 * The metrics of the connection tracking table: how full it is (read at scrape), and what was deleted from it, by
 * kube-proxy's names (`pkg/proxy/metrics/metrics.go`).
 */
import type { ReconcilerObserver } from '../conntrack/reconciler.ts';
import { IP_FAMILIES, type IpFamily } from '../model/address.ts';
import type { CounterFamily, HistogramFamily, MetricRegistry, Sample } from './metrics-registry.ts';

/** `ExponentialBuckets(0.001, 2, 15)`: 1 ms to 16.384 s. */
export const RECONCILIATION_BUCKETS: readonly number[] = Array.from(
  { length: 15 },
  (_, power) => 2 ** power / 1000,
);

/** How many entries the table has, and may have. */
export interface ConntrackUse {
  readonly entries: number;
  readonly max: number;
}

export class ConntrackMetrics implements ReconcilerObserver {
  readonly #deleted: CounterFamily;
  readonly #durations: HistogramFamily;

  /** `read` is asked at each scrape; undefined: nothing is known, and there are no samples. */
  constructor(registry: MetricRegistry, read: () => ConntrackUse | undefined) {
    this.#deleted = registry.counter(
      {
        name: 'kubeproxy_conntrack_reconciler_deleted_entries_total',
        help: 'Cumulative conntrack flows deleted by conntrack reconciler',
      },
      ['ip_family'],
    );
    this.#durations = registry.histogram(
      {
        name: 'kubeproxy_conntrack_reconciler_sync_duration_seconds',
        help: 'ReconcileConntrackFlowsLatency latency in seconds',
      },
      ['ip_family'],
      RECONCILIATION_BUCKETS,
    );
    for (const family of IP_FAMILIES) {
      this.#deleted.inc({ ip_family: family }, 0);
      this.#durations.zero({ ip_family: family });
    }
    const gauge = (name: string, help: string, valueOf: (use: ConntrackUse) => number): void =>
      registry.scraped('gauge', { name: `userspace_proxy_conntrack_${name}`, help }, () => {
        const use = read();
        return use === undefined ? NO_SAMPLES : [{ labels: {}, value: valueOf(use) }];
      });
    gauge('entries', 'Entries in the connection tracking table', ({ entries }) => entries);
    gauge('entries_max', 'Most entries that the connection tracking table takes', ({ max }) => max);
  }

  flowsReconciled(family: IpFamily, result: { durationSeconds: number; deleted: number }): void {
    this.#deleted.inc({ ip_family: family }, result.deleted);
    this.#durations.observe({ ip_family: family }, result.durationSeconds);
  }
}

const NO_SAMPLES: readonly Sample[] = [];
