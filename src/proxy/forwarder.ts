/**
 * The policy behind every engine: which endpoint a session is dialled to, what happens when that fails, and
 * what is counted. It joins a backend pool to each listener and never touches a socket.
 *
 *     opened ──► admitted ──► its turn ──► pick ──► dial ──► established ──► closed
 *                   │                        ▲        │
 *                   └─► refuse               └─ next ─┘ dialFailed     (nobody left: refuse)
 */
import type { AffinityTie } from '../balancer/affinity-table.ts';
import type { BalancerOptions } from '../balancer/balancer.ts';
import type { Clock, MonotonicMs } from '../clock.ts';
import type { Decision, EngineEvent, ListenerId, Policy, SessionBytes, SessionId } from '../engine/engine.ts';
import type { Logger } from '../log.ts';
import type { BackendPool, ListenerBackends } from './backend-pool.ts';
import { type DialBudget, dialBudget } from './dial-plan.ts';
import { Dialler } from './dialler.ts';
import { Entrance, type EntranceOptions } from './entrance.ts';
import { BackendPools, type PoolAffinity } from './backend-pools.ts';
import { Session } from './session.ts';
import {
  DIAL_DURATION_BUCKETS,
  HistogramCounts,
  type OpenBytes,
  type ProxyStatistics,
  SESSION_DURATION_BUCKETS,
  type ServicePortStatistics,
} from './statistics.ts';

export interface ForwarderOptions {
  /** One dial time-out for each pass over the endpoints. */
  readonly dialTimeoutsMs: readonly number[];
  /** TCP connections of one service port and family that are dialled at a time; at least 1. */
  readonly maxConcurrentDials: number;
  readonly entrance: EntranceOptions;
  readonly balancer: BalancerOptions;
}

/** What the forwarder asks of the engine outside its answers. */
export interface SessionControl {
  answer(session: SessionId, decision: Decision): void;
  reset(sessions: Iterable<SessionId>, cause?: 'stopped' | 'evicted'): void;
  lastUsed(session: SessionId): MonotonicMs | undefined;
  sessionBytes(): Iterable<SessionBytes>;
}

export interface ForwarderDeps {
  readonly clock: Clock;
  readonly logger: Logger;
  /** Listening sockets that are open or about to be. */
  readonly listeningSockets: () => number;
}

type Event<Kind extends EngineEvent['kind']> = Extract<EngineEvent, { kind: Kind }>;

export class Forwarder implements Policy {
  readonly #deps: ForwarderDeps;
  readonly #budget: DialBudget;
  readonly #pools: BackendPools;
  readonly #entrance: Entrance;
  readonly #dialler: Dialler;
  readonly #sessions = new Map<SessionId, Session>();
  readonly #dialDuration = new HistogramCounts(DIAL_DURATION_BUCKETS);
  readonly #sessionDuration = new HistogramCounts(SESSION_DURATION_BUCKETS);
  #control: SessionControl | undefined;

  constructor(deps: ForwarderDeps, options: ForwarderOptions) {
    this.#deps = deps;
    this.#budget = dialBudget(options.dialTimeoutsMs);
    this.#dialler = new Dialler(
      {
        sessionOf: (id) => this.#sessions.get(id),
        answer: (id, decision) => this.#control?.answer(id, decision),
      },
      options,
    );
    this.#entrance = new Entrance(options.entrance, {
      listeningSockets: deps.listeningSockets,
      lastUsed: (session) => this.#control?.lastUsed(session),
    });
    this.#pools = new BackendPools(deps, options.balancer);
  }

  /** The engine needs its policy to be made, so the way back is set after. */
  attach(control: SessionControl): void {
    this.#control = control;
  }

  /**
   * From here on new sessions of this listener key, and of every other with the same pool, use these endpoints.
   * Dials under way to one that is gone start over with another; established TCP connections are left alone; UDP
   * flows whose endpoint no longer serves are cut, and their next datagram finds another.
   */
  setBackends(key: string, backends: ListenerBackends): void {
    const pool = this.#pools.set(key, backends, this.#deps.clock.now());
    if (pool !== undefined) this.#moveSessions(pool);
  }

  /**
   * Forgets what is not in `keys`, but nothing that a listener is bound to: it still accepts, and must follow the
   * key when it is wanted again. The next call after it was unbound forgets that too. Established sessions live on;
   * whoever still waits for a dial of a Service that is gone is refused.
   */
  retainBackends(keys: ReadonlySet<string>): void {
    if (!this.#pools.retain(keys)) return;
    const now = this.#deps.clock.now();
    for (const [id, session] of this.#sessions) {
      if (!session.isWaiting || this.#pools.has(session.pool)) continue;
      this.#control?.answer(id, this.#dialler.refuse(session, 'no_endpoints', now));
    }
  }

  /** Ties of an earlier instance, by pool: each is taken up as soon as its pool is there. */
  restoreAffinity(tiesByPool: ReadonlyMap<string, readonly AffinityTie[]>): void {
    this.#pools.restoreAffinity(tiesByPool, this.#deps.clock.now());
  }

  /** The ties of every pool that has any; live. */
  affinity(now: MonotonicMs): readonly PoolAffinity[] {
    return this.#pools.affinity(now);
  }

  /** As long as it is the same, all ties are. */
  get affinityChanges(): number {
    return this.#pools.affinityChanges;
  }

  /** Sessions of this listener use the backends that `key` has at the time. */
  bindListener(listener: ListenerId, key: string): void {
    this.#pools.bind(listener, key);
  }

  unbindListener(listener: ListenerId): void {
    this.#pools.unbind(listener);
  }

  handle(events: readonly EngineEvent[], now: MonotonicMs): readonly (Decision | undefined)[] {
    return events.map((event) => this.#handleOne(event, now));
  }

  statistics(): ProxyStatistics {
    return {
      servicePorts: this.#pools.readings(this.#openBytes(), this.#deps.clock.now()),
      dialDuration: this.#dialDuration,
      sessionDuration: this.#sessionDuration,
      maxConnections: this.#entrance.maxConnections,
      maxUdpSessions: this.#entrance.maxUdpSessions,
      dialsWaiting: this.#dialler.waiting,
    };
  }

  /** Connections and UDP flows that are open now. */
  get sessionCount(): number {
    return this.#sessions.size;
  }

  /** Is there room for so many more listening sockets? */
  hasRoomToListen(sockets: number): boolean {
    return this.#entrance.hasRoomToListen(sockets);
  }

  #openBytes(): ReadonlyMap<ServicePortStatistics, OpenBytes> {
    const open = new Map<ServicePortStatistics, OpenBytes>();
    for (const { session: id, bytesIn, bytesOut } of this.#control?.sessionBytes() ?? []) {
      const statistics = this.#sessions.get(id)?.pool.statistics;
      if (statistics === undefined) continue;
      const sum = open.get(statistics) ?? { toBackend: 0, fromBackend: 0 };
      sum.toBackend += bytesIn;
      sum.fromBackend += bytesOut;
      open.set(statistics, sum);
    }
    return open;
  }

  #handleOne(event: EngineEvent, now: MonotonicMs): Decision | undefined {
    switch (event.kind) {
      case 'opened':
        return this.#opened(event, now);
      case 'dialFailed':
        return this.#dialFailed(event, now);
      case 'established':
        return this.#established(event, now);
      case 'closed':
        return this.#closed(event, now);
    }
  }

  #opened({ listener, session: id, client }: Event<'opened'>, now: MonotonicMs): Decision | undefined {
    const seat = this.#pools.seatOf(listener);
    if (seat === undefined) return { kind: 'refuse' };
    const session = new Session({ id, client }, seat, { budget: this.#budget, now });
    const { statistics } = session.pool;
    statistics.sessionsTotal += 1;
    statistics.sessionsActive += 1;
    this.#sessions.set(id, session);
    const admittance = this.#entrance.admit(session.arrival, now);
    if (admittance.kind === 'refused') return this.#dialler.overflow(session, admittance.why, now);
    session.isAdmitted = true;
    if (admittance.evicted !== undefined) this.#evict(admittance.evicted);
    return this.#dialler.next(session, now);
  }

  /** It counts no more from here on: its end may be reported later, and others may have to be let in before that. */
  #evict(id: SessionId): void {
    const session = this.#sessions.get(id);
    if (session !== undefined) this.#countOut(session);
    this.#control?.reset([id], 'evicted');
  }

  /** It is not among the open ones any more. Idempotent. */
  #countOut(session: Session): void {
    if (session.isCountedOut) return;
    session.isCountedOut = true;
    session.pool.statistics.sessionsActive -= 1;
    if (session.isAdmitted) this.#entrance.left(session.arrival);
  }

  #dialFailed({ session: id, failure, errno }: Event<'dialFailed'>, now: MonotonicMs): Decision | undefined {
    const session = this.#sessions.get(id);
    if (session === undefined) return undefined;
    const { pool, client, endpointKey } = session;
    pool.statistics.dials[failure] += 1;
    session.dialFailed(failure, errno);
    // Another endpoint would not help where a descriptor or memory is missing; where a source port is, it does.
    if (failure === 'noDescriptor' || failure === 'local') return this.#dialler.refuse(session, 'local', now);
    const isEjected = failure !== 'noSourcePort' && this.#blame(pool, { client, endpointKey }, now);
    const decision = this.#dialler.next(session, now);
    if (decision?.kind === 'dial') pool.statistics.dialRetries += 1;
    if (isEjected) this.#dialler.moveAway(pool, endpointKey, now);
    return decision;
  }

  #blame(
    pool: BackendPool,
    { client, endpointKey }: { client: string; endpointKey: string },
    now: MonotonicMs,
  ): boolean {
    pool.balancer.failed(client, endpointKey);
    return pool.blame(endpointKey, now);
  }

  #established({ session: id }: Event<'established'>, now: MonotonicMs): undefined {
    const session = this.#sessions.get(id);
    if (session === undefined) return;
    const { pool, client, endpointKey, dialledAt } = session;
    session.isEstablished = true;
    this.#dialler.done(session, now);
    pool.statistics.dials.ok += 1;
    this.#dialDuration.observe((now - dialledAt) / 1000);
    pool.balancer.succeeded(client, endpointKey, now);
    // Nobody has answered a UDP "connection" yet.
    if (pool.isUdp) pool.balancer.reachable();
    else pool.balancer.reinstate(endpointKey);
    if (!this.#deps.logger.isLevelEnabled('trace')) return;
    this.#deps.logger.trace(
      { servicePort: pool.servicePortName, client, endpoint: endpointKey },
      'Session established',
    );
  }

  #closed({ session: id, cause, bytesIn, bytesOut }: Event<'closed'>, now: MonotonicMs): undefined {
    const session = this.#sessions.get(id);
    if (session === undefined) return;
    this.#sessions.delete(id);
    session.leaveEndpoint();
    this.#countOut(session);
    this.#dialler.done(session, now);
    const { pool, client, endpointKey, openedAt } = session;
    const { statistics } = pool;
    statistics.closes[cause] += 1;
    statistics.bytesToBackend += bytesIn;
    statistics.bytesFromBackend += bytesOut;
    this.#sessionDuration.observe((now - openedAt) / 1000);
    // Also a client that gave up before its endpoint answered: it must not stay tied to one that never does.
    const gaveUp = cause === 'clientReset' && !session.isEstablished;
    if (cause === 'backendRefused' || gaveUp) pool.balancer.failed(client, endpointKey);
    if (cause === 'backendRefused') pool.blame(endpointKey, now);
  }

  #moveSessions(pool: BackendPool): void {
    const now = this.#deps.clock.now();
    for (const [id, session] of this.#sessions) {
      if (session.pool !== pool) continue;
      if (!session.isEstablished) {
        const decision = pool.balancer.has(session.endpointKey)
          ? undefined
          : this.#dialler.next(session, now);
        if (decision !== undefined) this.#control?.answer(id, decision);
      } else if (pool.isUdp && !pool.isServing(session.endpointKey)) {
        this.#control?.reset([id]);
      }
    }
  }
}
