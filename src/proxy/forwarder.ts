/**
 * The policy behind every engine: which endpoint a session is dialled to, what happens when that fails, and
 * what is counted. It joins one backend to each listener and never touches a socket.
 *
 *     opened ──► pick ──► dial ──► established ──► closed
 *                  ▲        │
 *                  └─ next ─┘ dialFailed     (nobody left: refuse)
 */
import type { BalancerOptions } from '../balancer/balancer.ts';
import type { Clock, MonotonicMs } from '../clock.ts';
import type { Decision, EngineEvent, ListenerId, Policy, SessionBytes, SessionId } from '../engine/engine.ts';
import type { Logger } from '../log.ts';
import { Backend, type ListenerBackends, type OpenBytes } from './backend.ts';
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
  readonly backend: Backend;
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
  readonly #backendByKey = new Map<string, Backend>();
  readonly #backendByListener = new Map<ListenerId, Backend>();
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
    const backend = this.#backendByKey.get(key) ?? new Backend(this.#deps, backends, this.#options.balancer);
    this.#backendByKey.set(key, backend);
    if (backend.update(backends)) this.#moveSessions(backend);
  }

  /**
   * Forgets what is not in `keys`, but nothing that a listener is bound to: it still accepts, and must follow the
   * key when it is wanted again. The next call after it was unbound forgets that too.
   */
  retainBackends(keys: ReadonlySet<string>): void {
    const bound = new Set(this.#backendByListener.values());
    for (const [key, backend] of this.#backendByKey) {
      if (!keys.has(key) && !bound.has(backend)) this.#backendByKey.delete(key);
    }
  }

  /** Sessions of this listener use the backends that `key` has now. */
  bindListener(listener: ListenerId, key: string): void {
    const backend = this.#backendByKey.get(key);
    if (backend !== undefined) this.#backendByListener.set(listener, backend);
  }

  unbindListener(listener: ListenerId): void {
    this.#backendByListener.delete(listener);
  }

  handle(events: readonly EngineEvent[], now: MonotonicMs): readonly (Decision | undefined)[] {
    return events.map((event) => this.#handleOne(event, now));
  }

  statistics(): ProxyStatistics {
    const open = this.#openBytes();
    const nothing: OpenBytes = { toBackend: 0, fromBackend: 0 };
    return {
      servicePorts: [...this.#backendByKey.values()].map((backend) =>
        backend.reading(open.get(backend) ?? nothing),
      ),
      dialDuration: this.#dialDuration,
      sessionDuration: this.#sessionDuration,
    };
  }

  #openBytes(): ReadonlyMap<Backend, OpenBytes> {
    const open = new Map<Backend, OpenBytes>();
    for (const { session: id, bytesIn, bytesOut } of this.#control?.sessionBytes() ?? []) {
      const session = this.#sessions.get(id);
      if (session === undefined) continue;
      const sum = open.get(session.backend) ?? { toBackend: 0, fromBackend: 0 };
      sum.toBackend += bytesIn;
      sum.fromBackend += bytesOut;
      open.set(session.backend, sum);
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
    const backend = this.#backendByListener.get(listener);
    if (backend === undefined) return { kind: 'refuse' };
    backend.statistics.sessionsTotal += 1;
    backend.statistics.sessionsActive += 1;
    const session: Session = {
      backend,
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
    const { backend, client, endpointKey } = session;
    backend.statistics.dials[failure] += 1;
    session.lastFailure = `${endpointKey}: ${errno}`;
    if (failure === 'local') return this.#refuse(session, 'local', now);
    backend.balancer.failed(client, endpointKey);
    session.plan.failed(endpointKey, failure);
    const decision = this.#next(session, now);
    if (decision.kind === 'dial') backend.statistics.dialRetries += 1;
    return decision;
  }

  #next(session: Session, now: MonotonicMs): Decision {
    const { balancer } = session.backend;
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

  #refuse({ backend, lastFailure }: Session, reason: FailureReason, now: MonotonicMs): Decision {
    backend.refused(reason, lastFailure, now);
    return { kind: 'refuse' };
  }

  #established({ session: id }: Event<'established'>, now: MonotonicMs): undefined {
    const session = this.#sessions.get(id);
    if (session === undefined) return;
    const { backend, client, endpointKey, dialledAt } = session;
    session.isEstablished = true;
    backend.statistics.dials.ok += 1;
    this.#dialDuration.observe((now - dialledAt) / 1000);
    backend.balancer.succeeded(client, endpointKey, now);
    if (!this.#deps.logger.isLevelEnabled('trace')) return;
    this.#deps.logger.trace(
      { servicePort: backend.servicePortName, client, endpoint: endpointKey },
      'Session established',
    );
  }

  #closed({ session: id, cause, bytesIn, bytesOut }: Event<'closed'>, now: MonotonicMs): undefined {
    const session = this.#sessions.get(id);
    if (session === undefined) return;
    this.#sessions.delete(id);
    const { backend, client, endpointKey, openedAt } = session;
    const { statistics } = backend;
    statistics.sessionsActive -= 1;
    statistics.closes[cause] += 1;
    statistics.bytesToBackend += bytesIn;
    statistics.bytesFromBackend += bytesOut;
    this.#sessionDuration.observe((now - openedAt) / 1000);
    // Also a client that gave up before its endpoint answered: it must not stay tied to one that never does.
    const gaveUp = cause === 'clientReset' && !session.isEstablished;
    if (cause === 'backendRefused' || gaveUp) backend.balancer.failed(client, endpointKey);
  }

  #moveSessions(backend: Backend): void {
    const now = this.#deps.clock.now();
    for (const [id, session] of this.#sessions) {
      if (session.backend !== backend) continue;
      if (!session.isEstablished) {
        if (!backend.balancer.has(session.endpointKey)) this.#control?.answer(id, this.#next(session, now));
      } else if (backend.isUdp && !backend.isServing(session.endpointKey)) {
        this.#control?.reset([id]);
      }
    }
  }
}
