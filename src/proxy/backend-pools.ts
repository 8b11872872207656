/**
 * Which listener uses which pool, and how long pools and counts live:
 *
 *     listener ──► seat (of a listener key) ──► pool ──► counts (of a service port and family)
 *
 * A seat is kept while its key is wanted or a listener is bound to it, a pool while a seat refers to it, and the
 * counts while a pool of their service port and family is left: what a pool had counted before it was forgotten
 * (a policy that changed from Local to Cluster) stays counted.
 */
import type { BalancerOptions } from '../balancer/balancer.ts';
import type { MonotonicMs } from '../clock.ts';
import type { ListenerId, SocketAddress } from '../engine/engine.ts';
import type { Logger } from '../log.ts';
import { BackendPool, type ListenerBackends } from './backend-pool.ts';
import { type OpenBytes, ServicePortStatistics } from './statistics.ts';

/** What a listener's next session uses. */
export interface Seat {
  readonly pool: BackendPool;
  /** Where its clients connected to, if that is known. */
  readonly destination: SocketAddress | undefined;
}

export class BackendPools {
  readonly #logger: Logger;
  readonly #options: BalancerOptions;
  readonly #seatByKey = new Map<string, { pool: BackendPool; destination: SocketAddress | undefined }>();
  readonly #seatByListener = new Map<ListenerId, Seat>();
  readonly #poolByName = new Map<string, BackendPool>();
  /** By service port and family. */
  readonly #countsByKey = new Map<string, ServicePortStatistics>();
  /** Some pool may have lost its last seat. */
  #hasSeatLeft = false;

  constructor(deps: { readonly logger: Logger }, options: BalancerOptions) {
    this.#logger = deps.logger;
    this.#options = options;
  }

  /** Returns the pool when open sessions of it may be concerned. */
  set(key: string, backends: ListenerBackends): BackendPool | undefined {
    const pool = this.#poolByName.get(backends.pool) ?? this.#createPool(backends);
    const { destination } = backends;
    const seat = this.#seatByKey.get(key);
    if (seat === undefined) {
      this.#seatByKey.set(key, { pool, destination });
    } else {
      if (seat.pool !== pool) this.#hasSeatLeft = true;
      // The same object again: listeners are bound to it.
      Object.assign(seat, { pool, destination });
    }
    return pool.update(backends) ? pool : undefined;
  }

  /** Forgets every seat outside `keys` that no listener is bound to, and what is needed by none that is left. */
  retain(keys: ReadonlySet<string>): void {
    const bound = new Set(this.#seatByListener.values());
    for (const [key, seat] of this.#seatByKey) {
      if (keys.has(key) || bound.has(seat)) continue;
      this.#seatByKey.delete(key);
      this.#hasSeatLeft = true;
    }
    // Called with every sync, and nearly always for nothing.
    if (this.#hasSeatLeft) this.#forgetUnused();
    this.#hasSeatLeft = false;
  }

  /** Does nothing when the key was never set. */
  bind(listener: ListenerId, key: string): void {
    const seat = this.#seatByKey.get(key);
    if (seat !== undefined) this.#seatByListener.set(listener, seat);
  }

  unbind(listener: ListenerId): void {
    this.#seatByListener.delete(listener);
  }

  seatOf(listener: ListenerId): Seat | undefined {
    return this.#seatByListener.get(listener);
  }

  /** Copies, one for each service port and family, over all its pools. `open`: what only shows while sessions are. */
  readings(
    open: ReadonlyMap<ServicePortStatistics, OpenBytes>,
    now: MonotonicMs,
  ): readonly ServicePortStatistics[] {
    const readingOf = new Map<ServicePortStatistics, ServicePortStatistics>();
    for (const counts of this.#countsByKey.values()) readingOf.set(counts, counts.copy(open.get(counts)));
    for (const { statistics, balancer } of this.#poolByName.values()) {
      const reading = readingOf.get(statistics);
      if (reading === undefined) continue;
      reading.affinityEntries += balancer.affinityEntries;
      reading.affinityEvictions += balancer.affinityEvictions;
      reading.endpointsEjected += balancer.ejectedAt(now);
      reading.ejections += balancer.ejections;
    }
    return [...readingOf.values()];
  }

  #forgetUnused(): void {
    const needed = new Set([...this.#seatByKey.values()].map(({ pool }) => pool));
    for (const [name, pool] of this.#poolByName) {
      if (needed.has(pool)) continue;
      this.#poolByName.delete(name);
      // The balancer is asked no more for what it counted.
      pool.statistics.affinityEvictions += pool.balancer.affinityEvictions;
      pool.statistics.ejections += pool.balancer.ejections;
    }
    const counting = new Set([...needed].map(({ statistics }) => statistics));
    for (const [key, counts] of this.#countsByKey) {
      if (!counting.has(counts)) this.#countsByKey.delete(key);
    }
  }

  #createPool({ pool: name, servicePort, family }: ListenerBackends): BackendPool {
    const key = `${servicePort.key}/${family}`;
    const statistics = this.#countsByKey.get(key) ?? new ServicePortStatistics(servicePort.name, family);
    this.#countsByKey.set(key, statistics);
    const pool = new BackendPool({ logger: this.#logger, statistics }, servicePort, this.#options);
    this.#poolByName.set(name, pool);
    return pool;
  }
}
