/**
 * The seat of one listener key: its balancer, its counts, and the one line in ten seconds that says why its
 * clients are refused. It outlives reopened listeners, so that affinity and position do too.
 */
import { type BalancerOptions, Balancer } from '../balancer/balancer.ts';
import type { MonotonicMs } from '../clock.ts';
import type { Logger } from '../log.ts';
import type { IpFamily } from '../model/address.ts';
import type { Endpoint } from '../model/endpoint.ts';
import type { ServicePort } from '../model/service-port.ts';
import { servicePortNameText } from '../model/service-port-name.ts';
import { type FailureReason, ServicePortStatistics } from './statistics.ts';

/** At most one line in this time tells that a Service's clients are refused. */
const REFUSAL_LOG_INTERVAL_MS = 10_000;

/** What a listener's sessions may use. */
export interface ListenerBackends {
  readonly servicePort: ServicePort;
  readonly family: IpFamily;
  readonly endpoints: readonly Endpoint[];
  /** UDP flows to an endpoint outside this set are cut. */
  readonly servingKeys: ReadonlySet<string>;
}

/** Payload of the sessions that are open now. */
export interface OpenBytes {
  toBackend: number;
  fromBackend: number;
}

export class BackendPool {
  readonly balancer: Balancer;
  readonly statistics: ServicePortStatistics;
  readonly #logger: Logger;
  #servicePort: ServicePort;
  #servingKeys: ReadonlySet<string> = new Set();
  #refusedSinceLog = 0;
  #lastRefusalLog: MonotonicMs = Number.NEGATIVE_INFINITY;

  constructor(
    deps: { readonly logger: Logger },
    { servicePort, family }: Pick<ListenerBackends, 'servicePort' | 'family'>,
    options: BalancerOptions,
  ) {
    this.#logger = deps.logger;
    this.#servicePort = servicePort;
    this.balancer = new Balancer(options);
    this.statistics = new ServicePortStatistics(servicePort.name, family);
  }

  /** `ns/name:port`. */
  get servicePortName(): string {
    return servicePortNameText(this.#servicePort.name);
  }

  get isUdp(): boolean {
    return this.#servicePort.name.protocol === 'UDP';
  }

  isServing(endpointKey: string): boolean {
    return this.#servingKeys.has(endpointKey);
  }

  /** New connections use these from here on; false when no open session can be concerned. */
  update({ servicePort, endpoints, servingKeys }: ListenerBackends): boolean {
    this.#servicePort = servicePort;
    this.balancer.setAffinity(servicePort.sessionAffinity);
    const hasOtherEndpoints = this.balancer.setEndpoints(endpoints);
    const hasStoppedServing = this.#servingKeys.difference(servingKeys).size > 0;
    this.#servingKeys = servingKeys;
    return hasOtherEndpoints || hasStoppedServing;
  }

  refused(reason: FailureReason, lastFailure: string, now: MonotonicMs): void {
    this.statistics.failures[reason] += 1;
    this.#refusedSinceLog += 1;
    if (now - this.#lastRefusalLog < REFUSAL_LOG_INTERVAL_MS) return;
    const { protocol } = this.#servicePort.name;
    const endpoints = this.balancer.size;
    const refused = this.#refusedSinceLog;
    this.#logger.warn(
      { servicePort: this.servicePortName, protocol, reason, endpoints, lastFailure, refused },
      'Clients refused',
    );
    this.#lastRefusalLog = now;
    this.#refusedSinceLog = 0;
  }

  /** A copy of the counts with what only shows while sessions are open. */
  reading({ toBackend, fromBackend }: OpenBytes): ServicePortStatistics {
    const { statistics, balancer } = this;
    return Object.assign(new ServicePortStatistics(statistics.name, statistics.family), statistics, {
      bytesToBackend: statistics.bytesToBackend + toBackend,
      bytesFromBackend: statistics.bytesFromBackend + fromBackend,
      affinityEntries: balancer.affinityEntries,
      affinityEvictions: balancer.affinityEvictions,
    });
  }
}
