/**
 * kube-proxy's own metrics, where ours mean the same: names, types, labels and buckets as in Kubernetes'
 * `pkg/proxy/metrics/metrics.go`, so that its dashboards and alerts work unchanged.
 */
import type { Clock } from '../clock.ts';
import { IP_FAMILIES, type IpFamily } from '../model/address.ts';
import type {
  FamilySync,
  ResyncReason,
  RulesAheadOfOurs,
  SyncKind,
  SyncObserver,
} from '../sync/sync-observer.ts';
import type {
  CounterFamily,
  FamilyText,
  GaugeFamily,
  HistogramFamily,
  MetricRegistry,
} from './metrics-registry.ts';

/** `ExponentialBuckets(0.001, 2, 15)`: 1 ms to 16.384 s. */
export const SYNC_DURATION_BUCKETS: readonly number[] = Array.from(
  { length: 15 },
  (_, power) => 2 ** power / 1000,
);

/** 0.25, 0.5, 1 to 59 by 1, 60 to 115 by 5, 120 to 300 by 30 seconds. */
export const NETWORK_PROGRAMMING_BUCKETS: readonly number[] = [
  ...linearBuckets(0.25, 0.25, 2),
  ...linearBuckets(1, 1, 59),
  ...linearBuckets(60, 5, 12),
  ...linearBuckets(120, 30, 7),
];

const RESYNC_REASONS: readonly ResyncReason[] = ['start', 'failure', 'flush', 'jump', 'rules'];
const HEALTH_CODES = ['200', '503'];
const TRAFFIC_POLICIES = ['internal', 'external'] as const;

function linearBuckets(start: number, width: number, count: number): readonly number[] {
  return Array.from({ length: count }, (_, index) => start + width * index);
}

/** What the sync loop, the sources and the health server count. */
export class SyncMetrics implements SyncObserver {
  readonly #clock: Pick<Clock, 'wallTime'>;
  readonly #durations: ReturnType<typeof defineDurations>;
  readonly #rules: ReturnType<typeof defineRules>;
  readonly #times: ReturnType<typeof defineTimes>;
  readonly #noLocalEndpoints: GaugeFamily;
  readonly #answers: ReturnType<typeof defineAnswers>;
  #families: readonly IpFamily[] = IP_FAMILIES;
  #endpointChangesPending = 0;
  #endpointChangesTotal = 0;
  #serviceChangesPending = 0;
  #serviceChangesTotal = 0;
  /** Of the pending changes, those the pass under way will have served. */
  #beingServed = { endpoints: 0, services: 0 };

  constructor(deps: { readonly registry: MetricRegistry; readonly clock: Pick<Clock, 'wallTime'> }) {
    this.#clock = deps.clock;
    this.#durations = defineDurations(deps.registry);
    this.#times = defineTimes(deps.registry);
    this.#rules = defineRules(deps.registry);
    this.#noLocalEndpoints = defineNoLocalEndpoints(deps.registry);
    this.#answers = defineAnswers(deps.registry);
    this.#defineChanges(deps.registry);
    this.#zero();
  }

  /** The families this node programs (both unless told): only they have series of what is, not of what happened. */
  setFamilies(families: readonly IpFamily[]): void {
    this.#families = families;
    for (const family of IP_FAMILIES.filter((one) => !families.includes(one))) {
      const labels = { ip_family: family };
      this.#times.lastQueued.remove(labels);
      for (const policy of TRAFFIC_POLICIES) {
        this.#noLocalEndpoints.remove({ ...labels, traffic_policy: policy });
      }
    }
  }

  /** `count` Services were added, changed or deleted by a source; pending until `syncSucceeded`. */
  servicesChanged(count: number): void {
    this.#serviceChangesPending += count;
    this.#serviceChangesTotal += count;
  }

  /** `count` EndpointSlices were added, changed or deleted by a source; pending until `syncSucceeded`. */
  endpointSlicesChanged(count: number): void {
    this.#endpointChangesPending += count;
    this.#endpointChangesTotal += count;
  }

  networkProgrammed(family: IpFamily, durationSeconds: number): void {
    this.#durations.networkProgramming.observe({ ip_family: family }, durationSeconds);
  }

  /** `/healthz` of the health server was answered with this status. */
  healthzAnswered(code: number): void {
    this.#answers.healthz.inc({ code: String(code) });
  }

  /** `/livez` of the health server was answered with this status. */
  livezAnswered(code: number): void {
    this.#answers.livez.inc({ code: String(code) });
  }

  updateQueued(): void {
    const seconds = this.#clock.wallTime() / 1000;
    for (const family of this.#families) this.#times.lastQueued.set({ ip_family: family }, seconds);
  }

  familySynced(sync: FamilySync): void {
    const labels = { ip_family: sync.family };
    this.#durations.all.observe(labels, sync.durationSeconds);
    (sync.kind === 'full' ? this.#durations.full : this.#durations.partial).observe(
      labels,
      sync.durationSeconds,
    );
    this.#times.lastSynced.set(labels, this.#clock.wallTime() / 1000);
    for (const table of ['nat', 'filter'] as const) {
      this.#rules.total.set({ ...labels, table }, sync.rulesTotal[table]);
      this.#rules.last.set({ ...labels, table }, sync.rulesWritten[table]);
    }
    for (const policy of TRAFFIC_POLICIES) {
      this.#noLocalEndpoints.set({ ...labels, traffic_policy: policy }, sync.noLocalEndpoints[policy]);
    }
  }

  /** As in kube-proxy, a failed partial restore counts in both counters. */
  restoreFailed(family: IpFamily, kind: SyncKind): void {
    this.#rules.restoreFailures.inc({ ip_family: family });
    if (kind === 'partial') this.#rules.partialRestoreFailures.inc({ ip_family: family });
  }

  resynced(reason: ResyncReason): void {
    this.#rules.resyncs.inc({ reason });
  }

  rulesAhead(family: IpFamily, rules: readonly RulesAheadOfOurs[]): void {
    for (const { table, hook, count } of rules) {
      this.#rules.ahead.set({ ip_family: family, table, chain: hook }, count);
    }
  }

  syncStarted(): void {
    this.#beingServed = { endpoints: this.#endpointChangesPending, services: this.#serviceChangesPending };
  }

  syncSucceeded(): void {
    this.#endpointChangesPending -= this.#beingServed.endpoints;
    this.#serviceChangesPending -= this.#beingServed.services;
    this.#beingServed = { endpoints: 0, services: 0 };
  }

  #defineChanges(registry: MetricRegistry): void {
    const one = (type: 'counter' | 'gauge', name: string, help: string, read: () => number): void => {
      registry.scraped(type, { name: `kubeproxy_sync_proxy_rules_${name}`, help }, () => [
        { labels: {}, value: read() },
      ]);
    };
    const pending = (what: string): string => `Pending proxy rules ${what} changes`;
    const total = (what: string): string => `Cumulative proxy rules ${what} changes`;
    one('gauge', 'endpoint_changes_pending', pending('Endpoint'), () => this.#endpointChangesPending);
    one('counter', 'endpoint_changes_total', total('Endpoint'), () => this.#endpointChangesTotal);
    one('gauge', 'service_changes_pending', pending('Service'), () => this.#serviceChangesPending);
    one('counter', 'service_changes_total', total('Service'), () => this.#serviceChangesTotal);
  }

  /**
   * Series that must exist before their first event: a rate over a series that appears with 1 never sees that 1, and
   * the kubernetes-mixin dashboard builds its list of instances from `network_programming_…_bucket`.
   */
  #zero(): void {
    for (const family of IP_FAMILIES) {
      const labels = { ip_family: family };
      for (const histogram of Object.values(this.#durations)) histogram.zero(labels);
      this.#rules.restoreFailures.inc(labels, 0);
      this.#rules.partialRestoreFailures.inc(labels, 0);
      for (const policy of TRAFFIC_POLICIES) {
        this.#noLocalEndpoints.set({ ...labels, traffic_policy: policy }, 0);
      }
    }
    for (const reason of RESYNC_REASONS) this.#rules.resyncs.inc({ reason }, 0);
    for (const code of HEALTH_CODES) {
      this.#answers.healthz.inc({ code }, 0);
      this.#answers.livez.inc({ code }, 0);
    }
  }
}

const BY_FAMILY = ['ip_family'];
const BY_TABLE = ['ip_family', 'table'];

function defineDurations(
  registry: MetricRegistry,
): Record<'all' | 'full' | 'partial' | 'networkProgramming', HistogramFamily> {
  const sync = (kind: string, help: string): HistogramFamily =>
    registry.histogram(
      {
        name: `kubeproxy_sync_${kind}proxy_rules_duration_seconds`,
        help: `SyncProxyRules latency in seconds${help}`,
      },
      BY_FAMILY,
      SYNC_DURATION_BUCKETS,
    );
  const programming = {
    name: 'kubeproxy_network_programming_duration_seconds',
    help: 'In Cluster Network Programming Latency in seconds',
  };
  return {
    all: sync('', ''),
    full: sync('full_', ' for full resyncs'),
    partial: sync('partial_', ' for partial resyncs, those that write no rule included'),
    networkProgramming: registry.histogram(programming, BY_FAMILY, NETWORK_PROGRAMMING_BUCKETS),
  };
}

function defineTimes(registry: MetricRegistry): Record<'lastSynced' | 'lastQueued', GaugeFamily> {
  const gauge = (name: string, help: string): GaugeFamily =>
    registry.gauge({ name: `kubeproxy_sync_proxy_rules_${name}_seconds`, help }, BY_FAMILY);
  return {
    lastSynced: gauge('last_timestamp', 'The last time proxy rules were successfully synced'),
    lastQueued: gauge('last_queued_timestamp', 'The last time a sync of proxy rules was queued'),
  };
}

function defineRules(
  registry: MetricRegistry,
): Record<'total' | 'last' | 'ahead', GaugeFamily> &
  Record<'restoreFailures' | 'partialRestoreFailures' | 'resyncs', CounterFamily> {
  const text = (name: string, help: string): FamilyText => ({
    name: `kubeproxy_sync_proxy_rules_iptables_${name}`,
    help,
  });
  const resyncs = {
    name: 'userspace_proxy_iptables_resyncs_total',
    help: 'Full rewrites of the rules for another reason than a change of ours',
  };
  const failures = text('restore_failures_total', 'Cumulative proxy iptables restore failures');
  const partial = text(
    'partial_restore_failures_total',
    'Cumulative proxy iptables partial restore failures',
  );
  const ahead = {
    name: 'userspace_proxy_iptables_rules_ahead',
    help: 'Rules of other programs that stand before our jump in a built-in chain',
  };
  return {
    ahead: registry.gauge(ahead, [...BY_TABLE, 'chain']),
    total: registry.gauge(text('total', 'Total number of iptables rules owned by this proxy'), BY_TABLE),
    last: registry.gauge(
      text('last', 'Number of iptables rules written by this proxy in last sync'),
      BY_TABLE,
    ),
    restoreFailures: registry.counter(failures, BY_FAMILY),
    partialRestoreFailures: registry.counter(partial, BY_FAMILY),
    resyncs: registry.counter(resyncs, ['reason']),
  };
}

/** Its name ends as a counter's does; in kube-proxy too it is a gauge. */
function defineNoLocalEndpoints(registry: MetricRegistry): GaugeFamily {
  const text = {
    name: 'kubeproxy_sync_proxy_rules_no_local_endpoints_total',
    help: 'Number of services with a Local traffic policy and no endpoints',
  };
  return registry.gauge(text, ['ip_family', 'traffic_policy']);
}

function defineAnswers(registry: MetricRegistry): Record<'healthz' | 'livez', CounterFamily> {
  const counter = (page: string): CounterFamily =>
    registry.counter(
      { name: `kubeproxy_proxy_${page}_total`, help: `Cumulative proxy ${page} HTTP status` },
      ['code'],
    );
  return { healthz: counter('healthz'), livez: counter('livez') };
}
