/** Builders for the tests of the metrics: dependencies that a test changes and then scrapes. */
import type { EngineTotals } from '../../src/engine/engine.ts';
import { PROBLEM_CODES, type ProblemCode } from '../../src/errors.ts';
import type { IpFamily } from '../../src/model/address.ts';
import type { ServicePortName } from '../../src/model/service-port-name.ts';
import { type Inventory, type Metrics, createMetrics } from '../../src/observe/metrics.ts';
import {
  DIAL_DURATION_BUCKETS,
  HistogramCounts,
  SESSION_DURATION_BUCKETS,
  ServicePortStatistics,
} from '../../src/proxy/statistics.ts';
import { ApiStatistics } from '../../src/sources/kubernetes/api-statistics.ts';
import { type ParsedFamily, parsePrometheusText } from '../support/prometheus-text.ts';

export class MetricsFixture {
  readonly servicePorts: ServicePortStatistics[] = [];
  readonly dialDuration = new HistogramCounts(DIAL_DURATION_BUCKETS);
  readonly sessionDuration = new HistogramCounts(SESSION_DURATION_BUCKETS);
  engine: EngineTotals = {
    datagramsIn: 0,
    datagramsOut: 0,
    datagramsDropped: 0,
    flowControlPauses: 0,
    listenerErrors: 0,
  };
  inventory: Inventory = {
    listeners: 0,
    proxyPorts: 0,
    draining: 0,
    isStopping: false,
    listenersMissing: 0,
    problemsByCode: noProblems(),
    manifestErrors: 0,
    unusableInterfaces: 0,
    healthCheckServers: { listening: 0, failed: 0 },
    ownership: { isOwner: false, generation: 0, changes: 0 },
  };
  conntrackUse: { entries: number; max: number } | undefined = { entries: 10, max: 100 };
  /** Milliseconds since the epoch. */
  wallTime = Date.UTC(2026, 10, 21);
  readonly api = new ApiStatistics();
  /** How often `statistics()` was asked. */
  readings = 0;
  /** What `statistics()` throws, when set. */
  fault: Error | undefined;

  readonly metrics: Metrics;

  /** With an API server, of which nothing is known yet, unless told. */
  constructor({ hasApi = true } = {}) {
    this.metrics = createMetrics({
      clock: { wallTime: () => this.wallTime },
      statistics: () => {
        this.readings += 1;
        if (this.fault !== undefined) throw this.fault;
        const { servicePorts, dialDuration, sessionDuration } = this;
        const limits = { maxConnections: 9_000, maxUdpSessions: 4_000, dialsWaiting: 3 };
        return { servicePorts, dialDuration, sessionDuration, ...limits };
      },
      engineTotals: () => this.engine,
      inventory: () => this.inventory,
      conntrackUse: () => this.conntrackUse,
      api: hasApi ? this.api : undefined,
      version: '1.2.3',
      engine: 'native',
    });
  }

  addServicePort(
    tweak: (name: { -readonly [K in keyof ServicePortName]: ServicePortName[K] }) => void = () => {},
    family: IpFamily = 'IPv4',
  ) {
    const name = { namespace: 'default', name: 'web', port: 'http', protocol: 'TCP' as const };
    tweak(name);
    const statistics = new ServicePortStatistics(name, family);
    this.servicePorts.push(statistics);
    return statistics;
  }

  async scrape(): Promise<ReadonlyMap<string, ParsedFamily>> {
    return parsePrometheusText(await this.metrics.render());
  }
}

function noProblems(): Record<ProblemCode, number> {
  return Object.fromEntries(PROBLEM_CODES.map((code) => [code, 0])) as Record<ProblemCode, number>;
}
