/**
 * The health check node ports: one HTTP server for each address and port that a Service claims, as kube-proxy has
 * them. What they say is in `health/service-health.ts`. Any path and any method get the same answer (CONNECT aside,
 * which Node's server does not take), and connections are kept alive: each request is answered from what is known at
 * that moment, and a port that its Service gives up closes at once, with every connection to it.
 *
 * A port that cannot be bound is told once and tried again after every sync; the Service's traffic goes on without.
 */
import { ProxyError, errnoOf, errorText } from '../errors.ts';
import { type RefusedClaim, claimHealthCheckPorts } from '../health/health-check-claims.ts';
import { ServiceHealth, healthCheckAnswer } from '../health/service-health.ts';
import type { LogFields, Logger } from '../log.ts';
import { hostPortText } from '../model/address.ts';
import type { HealthCheck } from '../model/health-check.ts';
import { ConnectionRoom, HttpSocket } from './http-socket.ts';

/** Servers that are wanted; those that are being opened are in neither number. */
export interface HealthCheckServerCounts {
  readonly listening: number;
  /** They cannot be bound, or another Service has their port. */
  readonly failed: number;
}

/** Of all servers together at a time: load balancers ask now and then. */
const MAX_CONNECTIONS = 64;

export interface HealthCheckServersDeps {
  readonly logger: Logger;
  /** Asked for every answer. */
  readonly isProxyHealthy: () => boolean;
}

interface Place {
  /** The Service that answers here, as of now. */
  check: HealthCheck;
  readonly socket: HttpSocket;
  /** `failed` is not bound and is to be tried: also one that is new. */
  state: 'opening' | 'listening' | 'failed';
  /** The Service for which the log says that it failed. */
  toldService: string | undefined;
}

export class HealthCheckServers {
  readonly #deps: HealthCheckServersDeps;
  readonly #health = new ServiceHealth();
  readonly #room = new ConnectionRoom(MAX_CONNECTIONS);
  /** By `address:port`. */
  readonly #placeByName = new Map<string, Place>();
  /** By `address:port`: what still closes there, so that nothing is bound again too early. */
  readonly #closingByName = new Map<string, Promise<void>>();
  #refused: ReadonlyMap<string, RefusedClaim> = new Map();
  #closing: Promise<void> | undefined;

  constructor(deps: HealthCheckServersDeps) {
    this.#deps = deps;
  }

  /** Descriptors that the servers and their clients may take. */
  get descriptors(): number {
    return this.#placeByName.size === 0 ? 0 : this.#placeByName.size + MAX_CONNECTIONS;
  }

  get counts(): HealthCheckServerCounts {
    const states = [...this.#placeByName.values()].map(({ state }) => state);
    return {
      listening: states.filter((state) => state === 'listening').length,
      failed: states.filter((state) => state === 'failed').length + this.#refused.size,
    };
  }

  /** The endpoints have changed: what is worse than before is answered from now on. Opens and closes nothing. */
  update(checks: readonly HealthCheck[]): void {
    if (this.#closing !== undefined) return;
    const before = this.#health.checks;
    this.#health.update(checks);
    if (this.#health.checks === before) return;
    for (const [name, { check }] of claimHealthCheckPorts(this.#health.checks).claimByPlace) {
      const place = this.#placeByName.get(name);
      if (place !== undefined) place.check = check;
    }
  }

  /**
   * The rules are those of `checks`, which `update` has seen before: everything is answered from now on. Ports close
   * in this call, and open soon after it; those that failed are tried again, so call this after every sync that
   * ended well, also when nothing has changed.
   */
  programmed(checks: readonly HealthCheck[]): void {
    if (this.#closing !== undefined) return;
    this.#health.programmed(checks);
    const { claimByPlace, refused } = claimHealthCheckPorts(this.#health.checks);
    for (const [name, place] of this.#placeByName) {
      if (!claimByPlace.has(name)) this.#remove(name, place);
    }
    for (const [name, { address, check }] of claimByPlace) {
      const place = this.#placeByName.get(name) ?? this.#add(name, address, check);
      place.check = check;
      if (place.state === 'failed') void this.#open(name, place);
    }
    this.#tellRefused(refused);
  }

  /** Resolves when every port is closed and every connection has ended. Idempotent; never rejects. */
  async close(): Promise<void> {
    this.#closing ??= this.#closeOnce();
    return this.#closing;
  }

  async #closeOnce(): Promise<void> {
    for (const [name, place] of this.#placeByName) this.#remove(name, place);
    this.#refused = new Map();
    await Promise.all(this.#closingByName.values());
  }

  #add(name: string, address: string, check: HealthCheck): Place {
    const { logger, isProxyHealthy } = this.#deps;
    const socket = new HttpSocket(
      { log: logger, answer: () => healthCheckAnswer(place.check, isProxyHealthy()) },
      {
        address: { host: address, port: check.port, ipv6Only: true },
        room: this.#room,
        fields: { healthCheck: name },
      },
    );
    const place: Place = { check, socket, state: 'failed', toldService: undefined };
    this.#placeByName.set(name, place);
    return place;
  }

  #remove(name: string, place: Place): void {
    this.#placeByName.delete(name);
    const before = this.#closingByName.get(name);
    const closing = Promise.all([before, place.socket.close()]).then(() => {
      if (this.#closingByName.get(name) === closing) this.#closingByName.delete(name);
    });
    this.#closingByName.set(name, closing);
    this.#deps.logger.debug(this.#fieldsOf(name, place.check), 'Health check port closed');
  }

  /** Never rejects. Does nothing for a place that was removed in the meantime. */
  async #open(name: string, place: Place): Promise<void> {
    place.state = 'opening';
    await this.#closingByName.get(name);
    try {
      await place.socket.open();
    } catch (error: unknown) {
      place.state = 'failed';
      if (this.#placeByName.get(name) === place) this.#tellFailed(name, place, error);
      return;
    }
    if (this.#placeByName.get(name) !== place) return;
    place.state = 'listening';
    const level = place.toldService === undefined ? 'debug' : 'info';
    this.#deps.logger[level](this.#fieldsOf(name, place.check), 'Health check port open');
  }

  #tellFailed(name: string, place: Place, cause: unknown): void {
    const service = serviceText(place.check);
    const message = `cannot serve the health check of Service ${service} on ${name}: ${errorText(cause)}`;
    const error = new ProxyError('ERR_HTTP_BIND', message, { cause });
    const fields = { ...this.#fieldsOf(name, place.check), errno: errnoOf(cause), error };
    if (place.toldService === service) this.#deps.logger.debug(fields, 'Still cannot open health check port');
    else this.#deps.logger.error(fields, 'Cannot open health check port, will try again');
    place.toldService = service;
  }

  #tellRefused(refused: readonly RefusedClaim[]): void {
    const told = this.#refused;
    this.#refused = new Map(refused.map((claim) => [refusalKey(claim), claim]));
    for (const [key, { address, check, holder }] of this.#refused) {
      if (told.has(key)) continue;
      const name = hostPortText(address, check.port);
      const [service, other] = [serviceText(check), serviceText(holder)];
      const message = `the health check of Service ${service} has no port: Service ${other} has ${name}`;
      const error = new ProxyError('ERR_HTTP_BIND', message);
      this.#deps.logger.error(
        { ...this.#fieldsOf(name, check), holder: other, error },
        'Health check port is that of another Service',
      );
    }
  }

  #fieldsOf(name: string, check: HealthCheck): LogFields {
    return { service: serviceText(check), port: check.port, healthCheck: name };
  }
}

function serviceText({ namespace, name }: HealthCheck): string {
  return `${namespace}/${name}`;
}

function refusalKey({ address, check, holder }: RefusedClaim): string {
  return [hostPortText(address, check.port), serviceText(check), serviceText(holder)].join(' ');
}
