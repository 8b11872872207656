/**
 * The policy behind every engine: which endpoint a session is dialled to, what happens when that fails, and
 * what is counted. It joins one backend pool to each listener and never touches a socket.
 *
 *     opened ──► pick ──► dial ──► established ──► closed
 *                  ▲        │
 *                  └─ next ─┘ dialFailed     (nobody left: refuse)
 */
import type { BalancerOptions } from '../balancer/balancer.ts';
import type { Clock, MonotonicMs } from '../clock.ts';
import type { Decision, EngineEvent, ListenerId, Policy, SessionBytes, SessionId } from '../engine/engine.ts';
import type { Logger } from '../log.ts';
import { BackendPool, type ListenerBackends, type OpenBytes } from './backend-pool.ts';
import { DialPlan } from './dial-plan.ts';
import {
  DIAL_DURATION_BUCKETS,
  type FailureReason,
  HistogramCounts,
  type ProxyStatistics,
  SESSION_DURATION_BUCKETS,
} from './statistics.ts';

export interface ForwarderOptions {
  /** One dial time-out for each pass over the endpoints. */
  readonly dialTimeoutsMs: readonly number[];
  readonly balancer: BalancerOptions;
}

interface Session {
  readonly pool: BackendPool;
  readonly client: string;
  readonly openedAt: MonotonicMs;
  readonly plan: DialPlan;
  endpointKey: string;
  lastFailure: string;
  dialledAt: MonotonicMs;
  isEstablished: boolean;
}

/** What the forwarder asks of the engine outside its answers. */
export interface SessionControl {
  answer(session: SessionId, decision: Decision): void;
  reset(sessions: Iterable<SessionId>): void;
  sessionBytes(): Iterable<SessionBytes>;
}

export interface ForwarderDeps {
  readonly clock: Clock;
  readonly logger: Logger;
}

type Event<Kind extends EngineEvent['kind']> = Extract<EngineEvent, { kind: Kind }>;

export class Forwarder implements Policy {
  readonly #deps: ForwarderDeps;
  readonly #options: ForwarderOptions;
  readonly #poolByKey = new Map<string, BackendPool>();
  readonly #poolByListener = new Map<ListenerId, BackendPool>();
  readonly #sessions = new Map<SessionId, Session>();
  readonly #dialDuration = new HistogramCounts(DIAL_DURATION_BUCKETS);
  readonly #sessionDuration = new HistogramCounts(SESSION_DURATION_BUCKETS);
  #control: SessionControl | undefined;

  constructor(deps: ForwarderDeps, options: ForwarderOptions) {
    this.#deps = deps;
    this.#options = options;
  }

  /** The engine needs its policy to be made, so the way back is set after. */
  attach(control: SessionControl): void {
    this.#control = control;
  }

  /**
   * From here on new sessions of this listener key use these endpoints. Dials under way to one that is gone
   * start over with another; established TCP connections are left alone; UDP flows whose endpoint no longer
   * serves are cut, and their next datagram finds another.
   */
  setBackends(key: string, backends: ListenerBackends): void {
    const pool = this.#poolByKey.get(key) ?? new BackendPool(this.#deps, backends, this.#options.balancer);
    this.#poolByKey.set(key, pool);
    if (pool.update(backends)) this.#moveSessions(pool);
  }

  /**
   * Forgets what is not in `keys`, but nothing that a listener is bound to: it still accepts, and must follow the
   * key when it is wanted again. The next call after it was unbound forgets that too.
   */
  retainBackends(keys: ReadonlySet<string>): void {
    const bound = new Set(this.#poolByListener.values());
    for (const [key, pool] of this.#poolByKey) {
      if (!keys.has(key) && !bound.has(pool)) this.#poolByKey.delete(key);
    }
  }

  /** Sessions of this listener use the backends that `key` has now. */
  bindListener(listener: ListenerId, key: string): void {
    const pool = this.#poolByKey.get(key);
    if (pool !== undefined) this.#poolByListener.set(listener, pool);
  }

  unbindListener(listener: ListenerId): void {
    this.#poolByListener.delete(listener);
  }

  handle(events: readonly EngineEvent[], now: MonotonicMs): readonly (Decision | undefined)[] {
    return events.map((event) => this.#handleOne(event, now));
  }

  statistics(): ProxyStatistics {
    const open = this.#openBytes();
    const nothing: OpenBytes = { toBackend: 0, fromBackend: 0 };
    return {
      servicePorts: [...this.#poolByKey.values()].map((pool) => pool.reading(open.get(pool) ?? nothing)),
      dialDuration: this.#dialDuration,
      sessionDuration: this.#sessionDuration,
    };
  }

  #openBytes(): ReadonlyMap<BackendPool, OpenBytes> {
    const open = new Map<BackendPool, OpenBytes>();
    for (const { session: id, bytesIn, bytesOut } of this.#control?.sessionBytes() ?? []) {
      const session = this.#sessions.get(id);
      if (session === undefined) continue;
      const sum = open.get(session.pool) ?? { toBackend: 0, fromBackend: 0 };
      sum.toBackend += bytesIn;
      sum.fromBackend += bytesOut;
      open.set(session.pool, sum);
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

  #opened({ listener, session: id, client }: Event<'opened'>, now: MonotonicMs): Decision {
    const pool = this.#poolByListener.get(listener);
    if (pool === undefined) return { kind: 'refuse' };
    pool.statistics.sessionsTotal += 1;
    pool.statistics.sessionsActive += 1;
    const session: Session = {
      pool,
      client: client.address,
      openedAt: now,
      plan: new DialPlan(this.#options.dialTimeoutsMs, now),
      endpointKey: '',
      lastFailure: '',
      dialledAt: now,
      isEstablished: false,
    };
    this.#sessions.set(id, session);
    return this.#next(session, now);
  }

  #dialFailed({ session: id, failure, errno }: Event<'dialFailed'>, now: MonotonicMs): Decision | undefined {
    const session = this.#sessions.get(id);
    if (session === undefined) return undefined;
    const { pool, client, endpointKey } = session;
    pool.statistics.dials[failure] += 1;
    session.lastFailure = `${endpointKey}: ${errno}`;
    if (failure === 'local') return this.#refuse(session, 'local', now);
    pool.balancer.failed(client, endpointKey);
    session.plan.failed(endpointKey, failure);
    const decision = this.#next(session, now);
    if (decision.kind === 'dial') pool.statistics.dialRetries += 1;
    return decision;
  }

  #next(session: Session, now: MonotonicMs): Decision {
    const { balancer } = session.pool;
    const attempt = session.plan.next(
      {
        size: balancer.size,
        has: (key) => balancer.has(key),
        pick: (excluded) => balancer.pick(session.client, now, excluded),
      },
      now,
    );
    if (attempt.kind === 'giveUp') return this.#refuse(session, attempt.reason, now);
    session.endpointKey = attempt.endpoint.key;
    session.dialledAt = now;
    const { address, port } = attempt.endpoint;
    return { kind: 'dial', to: { address, port }, timeoutMs: attempt.timeoutMs };
  }

  #refuse({ pool, lastFailure }: Session, reason: FailureReason, now: MonotonicMs): Decision {
    pool.refused(reason, lastFailure, now);
    return { kind: 'refuse' };
  }

  #established({ session: id }: Event<'established'>, now: MonotonicMs): undefined {
    const session = this.#sessions.get(id);
    if (session === undefined) return;
    const { pool, client, endpointKey, dialledAt } = session;
    session.isEstablished = true;
    pool.statistics.dials.ok += 1;
    this.#dialDuration.observe((now - dialledAt) / 1000);
    pool.balancer.succeeded(client, endpointKey, now);
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
    const { pool, client, endpointKey, openedAt } = session;
    const { statistics } = pool;
    statistics.sessionsActive -= 1;
    statistics.closes[cause] += 1;
    statistics.bytesToBackend += bytesIn;
    statistics.bytesFromBackend += bytesOut;
    this.#sessionDuration.observe((now - openedAt) / 1000);
    // Also a client that gave up before its endpoint answered: it must not stay tied to one that never does.
    const gaveUp = cause === 'clientReset' && !session.isEstablished;
    if (cause === 'backendRefused' || gaveUp) pool.balancer.failed(client, endpointKey);
  }

  #moveSessions(pool: BackendPool): void {
    const now = this.#deps.clock.now();
    for (const [id, session] of this.#sessions) {
      if (session.pool !== pool) continue;
      if (!session.isEstablished) {
        if (!pool.balancer.has(session.endpointKey)) this.#control?.answer(id, this.#next(session, now));
      } else if (pool.isUdp && !pool.isServing(session.endpointKey)) {
        this.#control?.reset([id]);
      }
    }
  }
}
