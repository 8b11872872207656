/**
 * The metrics of the data path: one set of series for each service port and family, rebuilt at every scrape from
 * the plain numbers of `proxy/statistics.ts`, so that they vanish with the service port. Never a client's address.
 *
 * A service port that nobody has used yet shows only its connections and its failures, at 0: a node carries a few of
 * a large cluster's Services, and 23 series for each of the others would make every scrape hold up the traffic.
 */
import type { CloseCause } from '../engine/engine.ts';
import {
  CLOSE_CAUSES,
  DIAL_RESULTS,
  type DialResult,
  FAILURE_REASONS,
  type ServicePortStatistics,
} from '../proxy/statistics.ts';
import type { ProxyStatistics } from '../proxy/statistics.ts';
import type { Labels, MetricRegistry, Sample } from './metrics-registry.ts';

/** The engine's close causes as label values. */
const LABEL_BY_CAUSE: Readonly<Record<CloseCause, string>> = {
  fin: 'fin',
  clientReset: 'client_reset',
  backendReset: 'backend_reset',
  idle: 'idle',
  halfClose: 'half_close',
  evicted: 'evicted',
  refused: 'refused',
  backendRefused: 'backend_refused',
  stopped: 'stopped',
};

/** The results of dials as label values. */
const LABEL_BY_RESULT: Readonly<Record<DialResult, string>> = {
  ok: 'ok',
  refused: 'refused',
  unreachable: 'unreachable',
  timeout: 'timeout',
  noSourcePort: 'no_source_port',
  noDescriptor: 'no_descriptor',
  local: 'local',
};

/** A series of a service port, before the labels that name the service port. */
type Series = readonly [labels: Labels, value: number];

interface ServicePortFamily {
  readonly type: 'counter' | 'gauge';
  /** Without the prefix. */
  readonly name: string;
  readonly help: string;
  /** Also for service ports that have never had a connection. */
  readonly isAlways?: true;
  readonly read: (of: ServicePortStatistics) => readonly Series[];
}

const NO_LABELS: Labels = {};

const SERVICE_PORT_FAMILIES: readonly ServicePortFamily[] = [
  {
    type: 'counter',
    name: 'connections_total',
    help: 'Connections accepted from clients (TCP), or client flows seen (UDP)',
    isAlways: true,
    read: (of) => [[NO_LABELS, of.sessionsTotal]],
  },
  {
    type: 'gauge',
    name: 'connections_active',
    help: 'Connections (TCP) or client flows (UDP) that are open now',
    isAlways: true,
    read: (of) => [[NO_LABELS, of.sessionsActive]],
  },
  {
    type: 'counter',
    name: 'connection_failures_total',
    help: 'Connections that never reached a backend, by reason',
    isAlways: true,
    read: (of) => FAILURE_REASONS.map((reason) => [{ reason }, of.failures[reason]]),
  },
  {
    type: 'counter',
    name: 'connection_bytes_total',
    help: 'Payload bytes carried, by direction, open connections included',
    read: (of) => [
      [{ direction: 'to_backend' }, of.bytesToBackend],
      [{ direction: 'from_backend' }, of.bytesFromBackend],
    ],
  },
  {
    type: 'counter',
    name: 'connection_closes_total',
    help: 'Connections that ended, by cause',
    read: (of) => CLOSE_CAUSES.map((cause) => [{ cause: LABEL_BY_CAUSE[cause] }, of.closes[cause]]),
  },
  {
    type: 'counter',
    name: 'dials_total',
    help: 'Attempts to reach an endpoint, by result',
    read: (of) => DIAL_RESULTS.map((result) => [{ result: LABEL_BY_RESULT[result] }, of.dials[result]]),
  },
  {
    type: 'counter',
    name: 'dial_retries_total',
    help: 'Attempts to reach an endpoint that followed a failed one of the same connection',
    read: (of) => [[NO_LABELS, of.dialRetries]],
  },
  {
    type: 'gauge',
    name: 'endpoints_ejected',
    help: 'Endpoints left out now because they did not answer',
    read: (of) => [[NO_LABELS, of.endpointsEjected]],
  },
  {
    type: 'counter',
    name: 'endpoint_ejections_total',
    help: 'How often an endpoint was left out because it did not answer',
    read: (of) => [[NO_LABELS, of.ejections]],
  },
  {
    type: 'gauge',
    name: 'affinity_entries',
    help: 'Clients that ClientIP affinity holds on an endpoint now',
    read: (of) => [[NO_LABELS, of.affinityEntries]],
  },
  {
    type: 'counter',
    name: 'affinity_evictions_total',
    help: 'Clients that lost their affinity because the table was full',
    read: (of) => [[NO_LABELS, of.affinityEvictions]],
  },
];

/** Defines the families; `statistics` is asked once for each of them and must give the same reading in one scrape. */
export function defineServicePortMetrics(registry: MetricRegistry, statistics: () => ProxyStatistics): void {
  const identityLabels = new WeakMap<ServicePortStatistics, Labels>();
  const sharedLabelsOf = (of: ServicePortStatistics): Labels => {
    const known = identityLabels.get(of) ?? identityLabelsOf(of);
    identityLabels.set(of, known);
    return known;
  };
  for (const family of SERVICE_PORT_FAMILIES) {
    const text = { name: `userspace_proxy_${family.name}`, help: family.help };
    registry.scraped(family.type, text, () => {
      const samples: Sample[] = [];
      for (const of of statistics().servicePorts) {
        if (family.isAlways !== true && of.sessionsTotal === 0) continue;
        const sharedLabels = sharedLabelsOf(of);
        for (const [labels, value] of family.read(of)) samples.push({ labels, sharedLabels, value });
      }
      return samples;
    });
  }
  const gauge = (name: string, help: string, read: (of: ProxyStatistics) => number): void => {
    registry.scraped('gauge', { name: `userspace_proxy_${name}`, help }, () => [
      { labels: NO_LABELS, value: read(statistics()) },
    ]);
  };
  gauge(
    'connections_max',
    'TCP connections that may be open now, by --max-connections and descriptors',
    (of) => of.maxConnections,
  );
  gauge(
    'udp_sessions_max',
    'UDP sessions that may be open now, by --max-udp-sessions and descriptors',
    (of) => of.maxUdpSessions,
  );
  gauge(
    'dials_waiting',
    'TCP connections that wait because --max-concurrent-dials of their Service port are dialled',
    (of) => of.dialsWaiting,
  );
  registry.scrapedHistogram(
    {
      name: 'userspace_proxy_connection_duration_seconds',
      help: 'How long connections (TCP) and client flows (UDP) lasted',
    },
    () => statistics().sessionDuration,
  );
  registry.scrapedHistogram(
    { name: 'userspace_proxy_dial_duration_seconds', help: 'How long attempts to reach an endpoint took' },
    () => statistics().dialDuration,
  );
}

function identityLabelsOf({ name, family }: ServicePortStatistics): Labels {
  return {
    namespace: name.namespace,
    service: name.name,
    port: name.port,
    protocol: name.protocol,
    ip_family: family,
  };
}
