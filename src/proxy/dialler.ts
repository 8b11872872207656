/**
 * From a session that was let in to a dial, and from a dial that failed to the next: whose turn it is, which endpoint,
 * and what to do when there is none. The forwarder hears what happened; what follows from it for dials is here.
 */
import type { MonotonicMs } from '../clock.ts';
import type { Decision, SessionId } from '../engine/engine.ts';
import type { BackendPool } from './backend-pool.ts';
import { DialSlots } from './dial-slots.ts';
import type { Session } from './session.ts';
import type { FailureReason } from './statistics.ts';

export interface DiallerDeps {
  readonly sessionOf: (id: SessionId) => Session | undefined;
  /** As `Engine.answer`. */
  readonly answer: (session: SessionId, decision: Decision) => void;
}

export interface DiallerOptions {
  /** TCP connections of one service port and family that are dialled at a time; at least 1. */
  readonly maxConcurrentDials: number;
}

export class Dialler {
  readonly #deps: DiallerDeps;
  readonly #options: DiallerOptions;
  readonly #slots: DialSlots;
  #isCallingUp = false;

  constructor(deps: DiallerDeps, options: DiallerOptions) {
    this.#deps = deps;
    this.#options = options;
    this.#slots = new DialSlots(options.maxConcurrentDials);
  }

  /** Sessions that wait for their turn. */
  get waiting(): number {
    return this.#slots.waiting;
  }

  /** The next dial, or the end; undefined: it has to wait for its turn. */
  next(session: Session, now: MonotonicMs): Decision | undefined {
    const { id, pool, deadline } = session;
    if (!pool.isUdp && !this.#slots.enter(pool.statistics, id, deadline)) return undefined;
    const attempt = session.next(now);
    if (attempt.kind === 'giveUp') return this.#giveUp(session, attempt.reason, now);
    const { endpoint, timeoutMs } = attempt;
    const to = { address: endpoint.address, port: endpoint.port };
    const preamble = session.preamble();
    return preamble === undefined
      ? { kind: 'dial', to, timeoutMs }
      : { kind: 'dial', to, timeoutMs, preamble };
  }

  #giveUp(session: Session, reason: 'no_endpoints' | 'exhausted', now: MonotonicMs): Decision {
    if (reason === 'no_endpoints') return this.refuse(session, reason, now);
    if (session.hasLocalFault) return this.refuse(session, 'local', now);
    session.pool.balancer.exhausted();
    return this.refuse(session, reason, now);
  }

  /** There are too many already. */
  overflow(session: Session, why: string, now: MonotonicMs): Decision {
    session.lastFailure = why;
    return this.refuse(session, 'overflow', now);
  }

  /** That is the end of it; its clients' Service counts why. */
  refuse(session: Session, reason: FailureReason, now: MonotonicMs): Decision {
    session.leaveEndpoint();
    session.pool.refused(reason, session.lastFailure, now);
    return { kind: 'refuse' };
  }

  /** An endpoint is ejected: whoever is being dialled to it need not find out for himself, if he can go elsewhere. */
  moveAway(pool: BackendPool, endpointKey: string, now: MonotonicMs): void {
    for (const id of this.#slots.dialling(pool.statistics)) {
      const session = this.#deps.sessionOf(id);
      if (session?.pool !== pool || session.endpointKey !== endpointKey || !session.canMove(now)) continue;
      const decision = this.next(session, now);
      if (decision === undefined) continue;
      if (decision.kind === 'dial') pool.statistics.dialRetries += 1;
      this.#deps.answer(id, decision);
    }
  }

  /** It is dialled no more: who waits for that may be. */
  done({ id, pool: { isUdp, statistics } }: Session, now: MonotonicMs): void {
    if (isUdp) return;
    this.#slots.leave(statistics, id);
    // To refuse somebody ends his session within the call, which comes here again.
    if (this.#isCallingUp) return;
    this.#isCallingUp = true;
    for (;;) {
      const turn = this.#slots.next(statistics, now);
      const session = turn && this.#deps.sessionOf(turn.session);
      if (turn === undefined || session === undefined) break;
      const decision = turn.isLate
        ? this.overflow(session, `waited too long for one of ${this.#options.maxConcurrentDials} dials`, now)
        : this.next(session, now);
      if (decision !== undefined) this.#deps.answer(session.id, decision);
    }
    this.#isCallingUp = false;
  }
}
