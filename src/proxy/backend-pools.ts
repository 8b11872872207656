/**
 * Which listener uses which pool, and how long pools and counts live:
 *
 *     listener ──► seat (of a listener key) ──► pool ──► counts (of a service port and family)
 *
 * A seat is kept while its key is wanted or a listener is bound to it, a pool while a seat refers to it, and the
 * counts while a pool of their service port and family is left: what a pool had counted before it was forgotten
 * (a policy that changed from Local to Cluster) stays counted.
 */
import type { AffinityTie } from '../balancer/affinity-table.ts';
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

/** The ClientIP affinity of one pool. */
export interface PoolAffinity {
  /** The pool's name: the same after a restart. */
  readonly pool: string;
  /** How many ties there are, those included whose time is up. */
  readonly size: number;
  /** The longest unused first; live, see `AffinityTable.ties`. */
  readonly ties: Iterable<AffinityTie>;
}

export class BackendPools {
  readonly #logger: Logger;
  readonly #options: BalancerOptions;
  readonly #seatByKey = new Map<string, { pool: BackendPool; destination: SocketAddress | undefined }>();
  readonly #seatByListener = new Map<ListenerId, Seat>();
  readonly #poolByName = new Map<string, BackendPool>();
  /** By service port and family. */
  readonly #countsByKey = new Map<string, ServicePortStatistics>();
  /** Ties of an earlier instance, by pool, until that pool appears. */
  readonly #remembered = new Map<string, readonly AffinityTie[]>();
  /** Of pools that are forgotten. */
  #pastAffinityChanges = 0;
  /** Some pool may have lost its last seat. */
  #hasSeatLeft = false;

  constructor(deps: { readonly logger: Logger }, options: BalancerOptions) {
    this.#logger = deps.logger;
    this.#options = options;
  }

  /** Returns the pool when open sessions of it may be concerned. */
  set(key: string, backends: ListenerBackends, now: MonotonicMs): BackendPool | undefined {
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
    const mayConcern = pool.update(backends);
    this.#restoreTies(backends.pool, pool, now);
    return mayConcern ? pool : undefined;
  }

  /** Forgets every seat outside `keys` that no listener is bound to, and what is needed by none that is left. True when that was a pool. */
  retain(keys: ReadonlySet<string>): boolean {
    const bound = new Set(this.#seatByListener.values());
    for (const [key, seat] of this.#seatByKey) {
      if (keys.has(key) || bound.has(seat)) continue;
      this.#seatByKey.delete(key);
      this.#hasSeatLeft = true;
    }
    // A sync has gone by: pools that have not appeared are those of Services that are gone.
    if (this.#poolByName.size > 0) this.#remembered.clear();
    // Called with every sync, and nearly always for nothing.
    const mayForget = this.#hasSeatLeft;
    this.#hasSeatLeft = false;
    return mayForget && this.#forgetUnused();
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

  /** Ties of an earlier instance by pool: taken up now where the pool is there, else when it appears. */
  restoreAffinity(tiesByPool: ReadonlyMap<string, readonly AffinityTie[]>, now: MonotonicMs): void {
    for (const [name, ties] of tiesByPool) this.#remembered.set(name, ties);
    for (const [name, pool] of this.#poolByName) this.#restoreTies(name, pool, now);
  }

  affinity(now: MonotonicMs): readonly PoolAffinity[] {
    return [...this.#poolByName]
      .filter(([, { balancer }]) => balancer.affinityEntries > 0)
      .map(([pool, { balancer }]) => ({
        pool,
        size: balancer.affinityEntries,
        ties: balancer.affinityTies(now),
      }));
  }

  /** Grows whenever a client of any pool is tied or freed: as long as it is the same, so are all ties. */
  /** Is it that of a Service that is there? */
  has(pool: BackendPool): boolean {
    return this.#poolByName.values().some((one) => one === pool);
  }

  get affinityChanges(): number {
    let changes = this.#pastAffinityChanges;
    for (const { balancer } of this.#poolByName.values()) changes += balancer.affinityChanges;
    return changes;
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

  #forgetUnused(): boolean {
    const before = this.#poolByName.size;
    const needed = new Set([...this.#seatByKey.values()].map(({ pool }) => pool));
    for (const [name, pool] of this.#poolByName) {
      if (needed.has(pool)) continue;
      this.#poolByName.delete(name);
      // The balancer is asked no more for what it counted.
      this.#pastAffinityChanges +=
        pool.balancer.affinityChanges + (pool.balancer.affinityEntries > 0 ? 1 : 0);
      pool.statistics.affinityEvictions += pool.balancer.affinityEvictions;
      pool.statistics.ejections += pool.balancer.ejections;
    }
    const counting = new Set([...needed].map(({ statistics }) => statistics));
    for (const [key, counts] of this.#countsByKey) {
      if (!counting.has(counts)) this.#countsByKey.delete(key);
    }
    return this.#poolByName.size < before;
  }

  #restoreTies(name: string, pool: BackendPool, now: MonotonicMs): void {
    const ties = this.#remembered.get(name);
    if (ties === undefined) return;
    this.#remembered.delete(name);
    pool.balancer.restoreAffinity(ties, now);
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
