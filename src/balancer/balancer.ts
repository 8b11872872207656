/**
 * Which endpoint next, for one listener: ClientIP affinity first, then round robin. In memory, no I/O; time
 * and randomness are passed in. Endpoint changes are one assignment: no rule and no socket is touched.
 */
import type { MonotonicMs } from '../clock.ts';
import type { Endpoint } from '../model/endpoint.ts';
import type { SessionAffinity } from '../model/service-port.ts';
import { AffinityTable } from './affinity-table.ts';
import { type EndpointKeys, type Random, RoundRobin } from './round-robin.ts';

export interface BalancerOptions {
  /** Clients remembered per listener; the longest absent is forgotten above that. */
  readonly affinityCapacity: number;
  readonly random: Random;
}

export class Balancer {
  readonly #options: BalancerOptions;
  readonly #scheduler: RoundRobin;
  #endpointByKey: ReadonlyMap<string, Endpoint> = new Map();
  #affinity: AffinityTable | undefined;

  constructor(options: BalancerOptions) {
    this.#options = options;
    this.#scheduler = new RoundRobin(options.random);
  }

  /** How many endpoints a new connection may choose from. */
  get size(): number {
    return this.#endpointByKey.size;
  }

  has(endpointKey: string): boolean {
    return this.#endpointByKey.has(endpointKey);
  }

  get affinityEntries(): number {
    return this.#affinity?.size ?? 0;
  }

  get affinityEvictions(): number {
    return this.#affinity?.evictions ?? 0;
  }

  /**
   * Sorted by key; false when nothing changes. Clients tied to an endpoint that is gone are freed; the others
   * stay where they are.
   */
  setEndpoints(endpoints: readonly Endpoint[]): boolean {
    if (endpoints.length === this.size && endpoints.every(({ key }) => this.has(key))) return false;
    this.#endpointByKey = new Map(endpoints.map((endpoint) => [endpoint.key, endpoint]));
    this.#scheduler.setEndpoints(endpoints);
    // An empty set frees nobody: a Service that has no endpoint for a moment keeps its clients' ties (#25314).
    if (endpoints.length > 0) this.#affinity?.retainEndpoints(new Set(this.#endpointByKey.keys()));
    return true;
  }

  /** Takes effect at once, for the clients that are tied already too. */
  setAffinity(affinity: SessionAffinity): void {
    if (affinity.kind === 'None') {
      this.#affinity = undefined;
      return;
    }
    const { timeoutMs } = affinity;
    this.#affinity ??= new AffinityTable({ timeoutMs, capacity: this.#options.affinityCapacity });
    this.#affinity.setTimeoutMs(timeoutMs);
  }

  /**
   * The endpoint for a new connection of `client`, or undefined when there is none outside `excluded`. Ties a
   * client that is free, so that its simultaneous connections stay together.
   */
  pick(client: string, now: MonotonicMs, excluded: EndpointKeys): Endpoint | undefined {
    const tied = this.#affinity?.endpointOf(client, now);
    const affine = tied === undefined || excluded.has(tied) ? undefined : this.#endpointByKey.get(tied);
    if (affine !== undefined) return affine;
    const picked = this.#scheduler.pick((endpoint) => !excluded.has(endpoint.key));
    const isFree = tied === undefined || !this.has(tied);
    if (picked !== undefined && isFree) this.#affinity?.bind(client, picked.key, now);
    return picked;
  }

  /** The endpoint answered: the client is tied to it from now on, whatever it was tied to before. */
  succeeded(client: string, endpointKey: string, now: MonotonicMs): void {
    if (this.has(endpointKey)) this.#affinity?.bind(client, endpointKey, now);
  }

  /** The endpoint did not answer: the client is free to go elsewhere, and nothing is renewed. */
  failed(client: string, endpointKey: string): void {
    this.#affinity?.release(client, endpointKey);
  }
}
