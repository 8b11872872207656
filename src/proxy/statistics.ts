/**
 * What the data path counts, as plain numbers on plain objects: nothing here costs more than an addition. The
 * metrics read them at scrape.
 */
import type { CloseCause, DialFailure } from '../engine/engine.ts';
import type { IpFamily } from '../model/address.ts';
import type { ServicePortName } from '../model/service-port-name.ts';

export type DialResult = 'ok' | DialFailure;
export const DIAL_RESULTS = [
  'ok',
  'refused',
  'unreachable',
  'timeout',
  'noSourcePort',
  'noDescriptor',
  'local',
] as const satisfies readonly DialResult[];

/**
 * `no_endpoints`: nothing to dial; `exhausted`: everything was tried; `local`: this node could not dial; `overflow`:
 * there were too many already.
 */
export const FAILURE_REASONS = ['no_endpoints', 'exhausted', 'local', 'overflow'] as const;
export type FailureReason = (typeof FAILURE_REASONS)[number];

export const CLOSE_CAUSES = [
  'fin',
  'clientReset',
  'backendReset',
  'idle',
  'halfClose',
  'evicted',
  'refused',
  'backendRefused',
  'stopped',
] as const satisfies readonly CloseCause[];

/** Upper bounds in seconds of the buckets of dial duration; the last bucket is everything above. */
export const DIAL_DURATION_BUCKETS = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5] as const;

/** Upper bounds in seconds of the buckets of connection duration. */
export const SESSION_DURATION_BUCKETS = [0.01, 0.1, 1, 10, 60, 600, 3600, 86_400] as const;

/** A histogram as plain numbers: `counts[i]` observations in bucket i, the last one above every bound. */
export class HistogramCounts {
  readonly bounds: readonly number[];
  readonly counts: number[];
  sum = 0;

  constructor(bounds: readonly number[]) {
    this.bounds = bounds;
    this.counts = Array<number>(bounds.length + 1).fill(0);
  }

  observe(value: number): void {
    const at = this.bounds.findIndex((bound) => value <= bound);
    const index = at === -1 ? this.bounds.length : at;
    this.counts[index] = (this.counts[index] ?? 0) + 1;
    this.sum += value;
  }
}

/** Payload of the sessions that are open now. */
export interface OpenBytes {
  toBackend: number;
  fromBackend: number;
}

/** The counts of one service port and family, over all its pools; they live as long as one of them does. */
export class ServicePortStatistics {
  readonly name: ServicePortName;
  readonly family: IpFamily;
  sessionsTotal = 0;
  sessionsActive = 0;
  /** Of the sessions that have ended; in a reading, of those that are open too. */
  bytesToBackend = 0;
  bytesFromBackend = 0;
  dialRetries = 0;
  readonly dials: Record<DialResult, number> = zeros(DIAL_RESULTS);
  readonly failures: Record<FailureReason, number> = zeros(FAILURE_REASONS);
  readonly closes: Record<CloseCause, number> = zeros(CLOSE_CAUSES);
  /** Kept by the balancers: only a reading has them. */
  affinityEntries = 0;
  /** Of pools that are gone; in a reading, of all. */
  affinityEvictions = 0;
  /** Kept by the balancers, as the entries. */
  endpointsEjected = 0;
  /** As the evictions. */
  ejections = 0;

  constructor(name: ServicePortName, family: IpFamily) {
    this.name = name;
    this.family = family;
  }

  /** As it is now, with the bytes of the sessions that are open. */
  copy({ toBackend, fromBackend }: OpenBytes = { toBackend: 0, fromBackend: 0 }): ServicePortStatistics {
    const { name, family, dials, failures, closes } = this;
    return Object.assign(new ServicePortStatistics(name, family), this, {
      dials: { ...dials },
      failures: { ...failures },
      closes: { ...closes },
      bytesToBackend: this.bytesToBackend + toBackend,
      bytesFromBackend: this.bytesFromBackend + fromBackend,
    });
  }
}

/** One consistent reading of everything the data path counts, taken at scrape: the bytes of open sessions are in it. */
export interface ProxyStatistics {
  readonly servicePorts: readonly ServicePortStatistics[];
  readonly dialDuration: HistogramCounts;
  readonly sessionDuration: HistogramCounts;
  /** TCP connections and UDP sessions that may be open now. */
  readonly maxConnections: number;
  readonly maxUdpSessions: number;
  /** TCP connections that wait for others of their Service port to be dialled. */
  readonly dialsWaiting: number;
}

function zeros<Key extends string>(keys: readonly Key[]): Record<Key, number> {
  return Object.fromEntries(keys.map((key) => [key, 0])) as Record<Key, number>;
}
