/** The metrics of the node as a whole: what the engine counted, what is open, what is wrong with the input. */
import type { EngineTotals } from '../engine/engine.ts';
import { PROBLEM_CODES, type ProblemCode } from '../errors.ts';
import type { HealthCheckServerCounts } from './health-check-servers.ts';
import type { Labels, MetricRegistry, Sample } from './metrics-registry.ts';

/** What exists at this moment. */
export interface Inventory {
  /** Listeners that rules point at. */
  readonly listeners: number;
  /** Listeners that are wanted and not open. */
  readonly listenersMissing: number;
  readonly proxyPorts: number;
  /** Asked to stop, and still accepting. */
  readonly isStopping: boolean;
  /** Listeners that no rule points at any more and that still accept for their grace period. */
  readonly draining: number;
  /** Problems in objects and files that are not mended yet; a code that is missing counts 0. */
  readonly problemsByCode: Readonly<Partial<Record<ProblemCode, number>>>;
  /** Manifest files or documents that cannot be used as they are. */
  readonly manifestErrors: number;
  /** Interfaces on which REDIRECT drops packets because they have no address of that family. */
  readonly unusableInterfaces: number;
  /** Servers of health check node ports, one for each Service and address. */
  readonly healthCheckServers: HealthCheckServerCounts;
  /** Whether this instance writes the rules, the generation that its rules carry, and how often the former changed. */
  readonly ownership: { readonly isOwner: boolean; readonly generation: number; readonly changes: number };
}

/** One consistent reading for one scrape. */
export interface NodeReading {
  readonly engine: EngineTotals;
  readonly inventory: Inventory;
}

/** Defines the families; `reading` is asked once for each of them. */
export function defineNodeMetrics(registry: MetricRegistry, reading: () => NodeReading): void {
  const counter = (name: string, help: string, read: (engine: EngineTotals) => readonly Sample[]): void => {
    registry.scraped('counter', { name: `userspace_proxy_${name}`, help }, () => read(reading().engine));
  };
  const gauge = (name: string, help: string, read: (inventory: Inventory) => readonly Sample[]): void => {
    registry.scraped('gauge', { name: `userspace_proxy_${name}`, help }, () => read(reading().inventory));
  };

  counter('udp_datagrams_total', 'UDP datagrams carried, by direction', (engine) => [
    { labels: { direction: 'to_backend' }, value: engine.datagramsIn },
    { labels: { direction: 'from_backend' }, value: engine.datagramsOut },
  ]);
  counter(
    'udp_dropped_total',
    'UDP datagrams of clients dropped: sent before their backend was up, to no address that is served, or refused by the kernel',
    (engine) => single(engine.datagramsDropped),
  );
  counter(
    'flow_control_paused_total',
    'Times that one side of a TCP connection was paused because the other did not drain',
    (engine) => single(engine.flowControlPauses),
  );
  counter(
    'listener_errors_total',
    'Faults that listening sockets met, such as no descriptor for the next connection; they go on listening',
    (engine) => single(engine.listenerErrors),
  );
  gauge('listeners', 'Listeners that rules point at', (inventory) => single(inventory.listeners));
  gauge('listeners_missing', 'Listeners that are wanted and could not be opened', (inventory) =>
    single(inventory.listenersMissing),
  );
  gauge(
    'listeners_draining',
    'Listeners without rules that still accept for their grace period',
    (inventory) => single(inventory.draining),
  );
  gauge(
    'stopping',
    '1 from the signal to stop on: health says 503, listeners still accept until --drain-timeout ends',
    ({ isStopping }) => single(isStopping ? 1 : 0),
  );
  gauge('proxy_ports_allocated', 'Proxy ports in use', (inventory) => single(inventory.proxyPorts));
  gauge(
    'invalid_objects',
    'Problems in objects and files that are not mended yet, by error code',
    (inventory) =>
      PROBLEM_CODES.map((code) => ({ labels: { code }, value: inventory.problemsByCode[code] ?? 0 })),
  );
  gauge('manifest_errors', 'Manifest files or documents that cannot be used as they are', (inventory) =>
    single(inventory.manifestErrors),
  );
  gauge(
    'interfaces_without_address',
    'Interfaces on which REDIRECT drops packets because they have no address of that family',
    (inventory) => single(inventory.unusableInterfaces),
  );
  gauge('owner', '1 while this instance writes the rules, 0 while it waits or stands by', ({ ownership }) =>
    single(ownership.isOwner ? 1 : 0),
  );
  gauge(
    'rules_generation',
    'Generation that the rules of this instance carry; 0 before the first',
    (inventory) => single(inventory.ownership.generation),
  );
  registry.scraped(
    'counter',
    {
      name: 'userspace_proxy_ownership_changes_total',
      help: 'Times that this instance began to write the rules, or ceased to',
    },
    () => single(reading().inventory.ownership.changes),
  );
  gauge(
    'health_check_servers',
    "Servers of Services' health check node ports, by whether they could be bound",
    ({ healthCheckServers }) => [
      { labels: { state: 'listening' }, value: healthCheckServers.listening },
      { labels: { state: 'failed' }, value: healthCheckServers.failed },
    ],
  );
}

/** `userspace_proxy_build_info`: always 1, for joining the version to other series. */
export function defineBuildInfo(
  registry: MetricRegistry,
  labels: { version: string; node: string; engine: string },
): void {
  const text = { name: 'userspace_proxy_build_info', help: 'Always 1; the labels say what is running' };
  registry.scraped('gauge', text, () => single(1, labels));
}

function single(value: number, labels: Labels = {}): readonly Sample[] {
  return [{ labels, value }];
}
