/** How the parts of the Node engine talk to the policy: one event at a time, answered at once or later. */
import type { Clock, MonotonicMs } from '../../clock.ts';
import type { Decision, EngineEvent, Policy, SessionId } from '../engine.ts';

export class Reporter {
  readonly clock: Clock;
  readonly #policy: Policy;
  #lastId = 0;

  constructor(deps: { readonly clock: Clock; readonly policy: Policy }) {
    this.clock = deps.clock;
    this.#policy = deps.policy;
  }

  /** Ids of sessions and listeners come from one sequence and are never used twice. */
  nextId(): number {
    this.#lastId += 1;
    return this.#lastId;
  }

  nextSessionId(): SessionId {
    return this.nextId() as SessionId;
  }

  report(event: EngineEvent): Decision | undefined {
    return this.#policy.handle([event], this.clock.now())[0];
  }
}

/** What the engine keeps by session id; both protocols have it. */
export interface NodeSession {
  readonly id: SessionId;
  readonly bytesIn: number;
  readonly bytesOut: number;
  answer(decision: Decision): void;
  /** UDP: when it last carried a datagram. */
  readonly lastUsed: MonotonicMs | undefined;
  reset(cause: 'stopped' | 'evicted'): void;
}

/** The counts behind `Engine.totals`, shared by all parts. */
export interface MutableTotals {
  datagramsIn: number;
  datagramsOut: number;
  datagramsDropped: number;
  flowControlPauses: number;
  listenerErrors: number;
}
