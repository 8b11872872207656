/** The metrics of the API server as a source: do changes reach us, and if not, since when. All read at scrape. */
import type {
  ApiStatistics,
  ResourceName,
  ResourceStatistics,
} from '../sources/kubernetes/api-statistics.ts';
import type { MetricRegistry, Sample } from './metrics-registry.ts';

/** Without `api`, when there are manifests instead, the families exist and have no series. */
export function defineApiMetrics(registry: MetricRegistry, api: ApiStatistics | undefined): void {
  const family = (
    type: 'counter' | 'gauge',
    name: string,
    help: string,
    read: (resource: ResourceStatistics, name: ResourceName) => readonly Sample[],
  ): void => {
    registry.scraped(type, { name: `userspace_proxy_api_${name}`, help }, () =>
      [...(api?.resources ?? [])].flatMap(([resource, statistics]) => read(statistics, resource)),
    );
  };
  const gauge = (name: string, help: string, read: (resource: ResourceStatistics) => number): void =>
    family('gauge', name, help, (statistics, resource) => [
      { labels: { resource }, value: read(statistics) },
    ]);
  const counters = (
    name: string,
    help: string,
    label: string,
    read: (resource: ResourceStatistics) => ReadonlyMap<string, number>,
  ): void =>
    family('counter', name, help, (statistics, resource) =>
      [...read(statistics)].map(([key, value]) => ({ labels: { resource, [label]: key }, value })),
    );

  gauge('synced', 'Whether the first list of a resource is complete', ({ isSynced }) => Number(isSynced));
  gauge('watch_up', 'Whether a watch of the resource is established', ({ isWatching }) => Number(isWatching));
  gauge(
    'last_contact_timestamp_seconds',
    'When the API server last told anything of the resource, a bookmark included; 0: never',
    ({ lastContactAt }) => lastContactAt / 1000,
  );
  gauge(
    'down_since_timestamp_seconds',
    'Since when changes of the resource may be unknown to us; 0: they are not',
    ({ downSince }) => downSince / 1000,
  );
  family('counter', 'watches_total', 'Watches that the API server granted', ({ watches }, resource) => [
    { labels: { resource }, value: watches },
  ]);
  counters('lists_total', 'Lists that were begun, by why', 'reason', ({ lists }) => lists);
  counters('watch_events_total', 'Events of watches', 'type', ({ events }) => events);
  counters(
    'failures_total',
    'Lists and watches that failed, by error code',
    'code',
    ({ failures }) => failures,
  );
  registry.scraped(
    'counter',
    {
      name: 'rest_client_requests_total',
      help: 'Number of HTTP requests, partitioned by status code, method, and host',
    },
    () =>
      (api?.requests ?? []).map(({ host, code, count }) => ({
        labels: { host, code, method: 'GET' },
        value: count,
      })),
  );
}
