/**
 * Which endpoint next, of a set that one or several listeners of a service port share: ClientIP affinity first,
 * then the scheduler. In memory, no I/O; time and randomness are passed in. Endpoint changes are one assignment:
 * no rule and no socket is touched.
 */
import type { MonotonicMs } from '../clock.ts';
import type { Endpoint } from '../model/endpoint.ts';
import type { SchedulerName, SessionAffinity } from '../model/service-policy.ts';
import { AffinityTable, type AffinityTie } from './affinity-table.ts';
import { type SchedulerDeps, buildScheduler } from './build-scheduler.ts';
import { type EjectionOptions, Ejections } from './ejection.ts';
import type { EndpointKeys, Random } from './round-robin.ts';
import type { PickRequest, Scheduler } from './scheduler.ts';
import { SessionCounts } from './session-counts.ts';

export interface BalancerOptions {
  /** Clients remembered per balancer; the longest absent is forgotten above that. */
  readonly affinityCapacity: number;
  readonly random: Random;
  /** Of Services that name none. */
  readonly scheduler: SchedulerName;
  readonly ejection: EjectionOptions;
}

export class Balancer {
  readonly #options: BalancerOptions;
  readonly #schedulerDeps: SchedulerDeps;
  readonly #sessions = new SessionCounts();
  readonly #ejections: Ejections;
  #schedulerName: SchedulerName;
  #scheduler: Scheduler;
  #endpointByKey: ReadonlyMap<string, Endpoint> = new Map();
  #affinity: AffinityTable | undefined;
  /** Of tables that were switched off. */
  #pastEvictions = 0;
  #pastAffinityChanges = 0;

  constructor(options: BalancerOptions) {
    this.#options = options;
    this.#ejections = new Ejections(options.ejection);
    const sessions = this.#sessions;
    this.#schedulerDeps = { random: options.random, sessionsOf: (endpointKey) => sessions.of(endpointKey) };
    this.#schedulerName = options.scheduler;
    this.#scheduler = buildScheduler(options.scheduler, this.#schedulerDeps);
  }

  /** How many endpoints a new connection may choose from. */
  get size(): number {
    return this.#endpointByKey.size;
  }

  has(endpointKey: string): boolean {
    return this.#endpointByKey.has(endpointKey);
  }

  /** Endpoints left out now because they did not answer. */
  ejectedAt(now: MonotonicMs): number {
    return this.#ejections.countAt(now);
  }

  /** How often one was left out, ever. */
  get ejections(): number {
    return this.#ejections.total;
  }

  /** Clients remembered now; one whose time is up counts until somebody is tied. */
  get affinityEntries(): number {
    return this.#affinity?.size ?? 0;
  }

  /** Clients forgotten for want of room, ever: it does not fall when affinity is switched off. */
  get affinityEvictions(): number {
    return this.#pastEvictions + (this.#affinity?.evictions ?? 0);
  }

  /** Grows whenever a client is tied or freed, for whatever reason but the time. */
  get affinityChanges(): number {
    return this.#pastAffinityChanges + (this.#affinity?.changes ?? 0);
  }

  /** The ties in force, the longest unused first; live, see `AffinityTable.ties`. */
  affinityTies(now: MonotonicMs): Iterable<AffinityTie> {
    return this.#affinity?.ties(now) ?? [];
  }

  /** Takes up ties of an earlier instance, as far as they still hold and their endpoint is there. */
  restoreAffinity(ties: Iterable<AffinityTie>, now: MonotonicMs): void {
    this.#affinity?.restore(ties, now);
    // As in `setEndpoints`: an empty set frees nobody, the endpoints may be on their way.
    if (this.size > 0) this.#affinity?.retainEndpoints(new Set(this.#endpointByKey.keys()));
  }

  /**
   * Sorted by key; false when nothing changes. Clients tied to an endpoint that is gone are freed; the others
   * stay where they are.
   */
  setEndpoints(endpoints: readonly Endpoint[]): boolean {
    if (endpoints.length === this.size && endpoints.every(({ key }) => this.has(key))) return false;
    this.#endpointByKey = new Map(endpoints.map((endpoint) => [endpoint.key, endpoint]));
    this.#scheduler.setEndpoints(endpoints);
    this.#ejections.retainEndpoints(this.#endpointByKey);
    // An empty set frees nobody: a Service that has no endpoint for a moment keeps its clients' ties (#25314).
    if (endpoints.length > 0) this.#affinity?.retainEndpoints(new Set(this.#endpointByKey.keys()));
    return true;
  }

  /**
   * Takes effect with the next connection, for the clients that are tied already too. Switched off it frees
   * everybody for good; switched on it ties clients as they come, and those whose dial is under way as they
   * are answered.
   */
  setAffinity(affinity: SessionAffinity): void {
    if (affinity.kind === 'None') {
      this.#pastEvictions = this.affinityEvictions;
      this.#pastAffinityChanges = this.affinityChanges + (this.affinityEntries > 0 ? 1 : 0);
      this.#affinity = undefined;
      return;
    }
    const { timeoutMs } = affinity;
    this.#affinity ??= new AffinityTable({ timeoutMs, capacity: this.#options.affinityCapacity });
    this.#affinity.setTimeoutMs(timeoutMs);
  }

  /**
   * From the next choice on; undefined is the one of the options. The one it is already keeps its position.
   * Endpoints, affinity and session counts stay with any.
   */
  setScheduler(name: SchedulerName = this.#options.scheduler): void {
    if (name === this.#schedulerName) return;
    this.#schedulerName = name;
    this.#scheduler = buildScheduler(name, this.#schedulerDeps);
    this.#scheduler.setEndpoints([...this.#endpointByKey.values()]);
  }

  /**
   * The endpoint for a new connection, or undefined when there is none outside `excluded`. Who did not answer lately is
   * chosen only where nobody else is left. Ties a client that is free, so that its simultaneous connections stay
   * together.
   */
  pick(request: PickRequest, now: MonotonicMs, excluded: EndpointKeys): Endpoint | undefined {
    const picked = this.#pickOutside(request, now, this.#leftOut(now, excluded));
    const endpoint =
      picked ?? (this.#ejections.isEmpty ? undefined : this.#pickOutside(request, now, excluded));
    if (endpoint !== undefined) this.#ejections.chosen(endpoint.key, now);
    return endpoint;
  }

  /** The endpoint answered: the client is tied to it from now on, whatever it was tied to before. */
  succeeded(client: string, endpointKey: string, now: MonotonicMs): void {
    if (this.has(endpointKey)) this.#affinity?.bind(client, endpointKey, now);
  }

  /** The endpoint did not answer: the client is free to go elsewhere, and nothing is renewed. */
  failed(client: string, endpointKey: string): void {
    this.#affinity?.release(client, endpointKey);
  }

  /**
   * The endpoint is to blame for a failed dial, or refused a flow. True when it is left out for it from now on; never
   * the last one in use.
   */
  eject(endpointKey: string, now: MonotonicMs): boolean {
    return this.has(endpointKey) && this.#ejections.failed(endpointKey, now, this.size);
  }

  /** A connection has tried every endpoint in vain: nobody is left out until somebody answers. */
  exhausted(): void {
    this.#ejections.suspend();
  }

  /** Everybody failed, and nobody has answered since: not worth trying all of them with each connection. */
  get isHopeless(): boolean {
    return this.#ejections.isSuspended;
  }

  /** Is there an endpoint in use outside `excluded`? */
  hasOther(now: MonotonicMs, excluded: EndpointKeys): boolean {
    const leftOut = this.#leftOut(now, excluded);
    return this.#endpointByKey.keys().some((key) => !leftOut.has(key));
  }

  /** An endpoint can be reached, which is all that UDP tells: who fails from here on is left out again. */
  reachable(): void {
    this.#ejections.resume();
  }

  /** The endpoint is seen to answer: it is left out no more. */
  reinstate(endpointKey: string): void {
    this.#ejections.succeeded(endpointKey);
  }

  #leftOut(now: MonotonicMs, excluded: EndpointKeys): EndpointKeys {
    if (this.#ejections.isEmpty) return excluded;
    return { has: (key) => excluded.has(key) || this.#ejections.isOut(key, now) };
  }

  #pickOutside(request: PickRequest, now: MonotonicMs, excluded: EndpointKeys): Endpoint | undefined {
    const tied = this.#affinity?.endpointOf(request.client, now);
    const affine = tied === undefined || excluded.has(tied) ? undefined : this.#endpointByKey.get(tied);
    if (affine !== undefined) return affine;
    const picked = this.#scheduler.pick(request, (endpoint) => !excluded.has(endpoint.key));
    const isFree = tied === undefined || !this.has(tied);
    if (picked !== undefined && isFree) this.#affinity?.bind(request.client, picked.key, now);
    return picked;
  }

  /** A session is dialled to the endpoint from now on; to be ended exactly once by `sessionEnded`. */
  sessionBegan(endpointKey: string): void {
    this.#sessions.began(endpointKey);
  }

  /** Throws when the endpoint has no session: the caller has lost count. */
  sessionEnded(endpointKey: string): void {
    this.#sessions.ended(endpointKey);
  }

  /** Sessions dialled or open now, also of an endpoint that has left the set. */
  sessionsOf(endpointKey: string): number {
    return this.#sessions.of(endpointKey);
  }
}
