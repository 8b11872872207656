/**
 * The endpoints that one or several listeners share: a balancer, the counts of the service port, and the one line
 * in ten seconds that says why clients are refused. It outlives its listeners as long as another one refers to it,
 * so that affinity, position and session counts do too.
 */
import { type BalancerOptions, Balancer } from '../balancer/balancer.ts';
import type { MonotonicMs } from '../clock.ts';
import type { SocketAddress } from '../engine/engine.ts';
import type { Logger } from '../log.ts';
import type { IpFamily } from '../model/address.ts';
import type { Endpoint } from '../model/endpoint.ts';
import type { ProxyProtocolVersion } from '../model/service-policy.ts';
import type { ServicePort } from '../model/service-port.ts';
import { servicePortNameText } from '../model/service-port-name.ts';
import type { FailureReason, ServicePortStatistics } from './statistics.ts';

/** At most one line in this time tells that a Service's clients are refused. */
const REFUSAL_LOG_INTERVAL_MS = 10_000;

/** What a listener's sessions may use. */
export interface ListenerBackends {
  /**
   * Listeners with the same pool share balancer, affinity and counts. A pool is of one service port and family,
   * and all that refer to it are told the same endpoints.
   */
  readonly pool: string;
  readonly servicePort: ServicePort;
  readonly family: IpFamily;
  readonly endpoints: readonly Endpoint[];
  /** UDP flows to an endpoint outside this set are cut. */
  readonly servingKeys: ReadonlySet<string>;
  /** Where the clients of this listener connected to: known where it serves one portal only (decision 26). */
  readonly destination: SocketAddress | undefined;
}

export class BackendPool {
  readonly balancer: Balancer;
  /** Shared with the other pools of the service port and family. */
  readonly statistics: ServicePortStatistics;
  readonly #logger: Logger;
  #servicePort: ServicePort;
  #servingKeys: ReadonlySet<string> = new Set();
  #refusedSinceLog = 0;
  #lastRefusalLog: MonotonicMs = Number.NEGATIVE_INFINITY;

  constructor(
    deps: { readonly logger: Logger; readonly statistics: ServicePortStatistics },
    servicePort: ServicePort,
    options: BalancerOptions,
  ) {
    this.#logger = deps.logger;
    this.statistics = deps.statistics;
    this.#servicePort = servicePort;
    this.balancer = new Balancer(options);
  }

  /** `ns/name:port`. */
  get servicePortName(): string {
    return servicePortNameText(this.#servicePort.name);
  }

  get isUdp(): boolean {
    return this.#servicePort.name.protocol === 'UDP';
  }

  /** The header that backends expect now. Undefined: none; UDP has none. */
  get proxyProtocol(): ProxyProtocolVersion | undefined {
    return this.isUdp ? undefined : this.#servicePort.proxyProtocol;
  }

  isServing(endpointKey: string): boolean {
    return this.#servingKeys.has(endpointKey);
  }

  /** New connections use these from here on; false when no open session can be concerned. */
  update({
    servicePort,
    endpoints,
    servingKeys,
  }: Pick<ListenerBackends, 'servicePort' | 'endpoints' | 'servingKeys'>): boolean {
    this.#servicePort = servicePort;
    this.balancer.setAffinity(servicePort.sessionAffinity);
    this.balancer.setScheduler(servicePort.scheduler);
    const hasOtherEndpoints = this.balancer.setEndpoints(endpoints);
    const hasStoppedServing = this.#servingKeys.difference(servingKeys).size > 0;
    this.#servingKeys = servingKeys;
    return hasOtherEndpoints || hasStoppedServing;
  }

  /** The endpoint did not answer, or refused a flow. True when it is left out for a while from now on. */
  blame(endpointKey: string, now: MonotonicMs): boolean {
    if (!this.balancer.eject(endpointKey, now)) return false;
    this.#logger.debug(
      { servicePort: this.servicePortName, endpoint: endpointKey },
      'Endpoint left out for a while: it did not answer',
    );
    return true;
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
}
