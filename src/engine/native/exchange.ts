/**
 * The talk between the engine's thread and the policy: events come in batches, each batch is one call of the policy,
 * and what it decides goes out in one batch of commands.
 *
 * The thread runs ahead of the policy. While a `dialFailed` waits to be reported, the policy may have answered that
 * session with another dial: then it is about a dial that nobody cares for any more, and is passed over. The two sides
 * tell by the session's epoch, which counts the answers that were not given to an event.
 */
import type { Clock } from '../../clock.ts';
import type { Decision, EngineEvent, ListenerId, Policy, SessionId } from '../engine.ts';
import { CommandBatch, EVENT_KIND, EventBatch, type Submit } from './protocol.ts';

const EVENTS_PER_BATCH = 256;
/** More go in several batches. Preambles are PROXY headers of some ten bytes, as a rule. */
const COMMAND_ROOM = { commands: 512, preambleBytes: 65_536 } as const;

export interface ExchangeDeps {
  readonly clock: Clock;
  readonly policy: Policy;
  /** As `NativeAddon.drain`. */
  readonly drain: (events: ArrayBuffer) => number;
  readonly submit: Submit;
  readonly onListenerClosed: (listener: ListenerId) => void;
}

export class Exchange {
  readonly #deps: ExchangeDeps;
  readonly #events = new EventBatch(EVENTS_PER_BATCH);
  readonly #commands: CommandBatch;
  /** The epochs of the sessions that can be answered: the policy knows them, and not that they are established or closed. */
  readonly #epochs = new Map<SessionId, number>();
  #sessionCount = 0;
  #isReporting = false;

  constructor(deps: ExchangeDeps) {
    this.#deps = deps;
    this.#commands = new CommandBatch(deps.submit, COMMAND_ROOM);
  }

  /** Sessions that were opened and have not closed. */
  get sessionCount(): number {
    return this.#sessionCount;
  }

  /** The policy is being called, or is about to be for events that were drained. */
  get isReporting(): boolean {
    return this.#isReporting;
  }

  /** Reports batches of what waits, at most so many. False: more may wait. */
  report(maxBatches: number): boolean {
    this.#isReporting = true;
    try {
      for (let batches = 0; batches < maxBatches; batches += 1) {
        const count = this.#deps.drain(this.#events.buffer);
        if (count === 0) return true;
        this.#reportBatch(count);
        this.#commands.flush();
      }
      return false;
    } finally {
      this.#isReporting = false;
    }
  }

  /** As `Engine.answer`. */
  answer(session: SessionId, decision: Decision): void {
    const epoch = this.#epochs.get(session);
    if (epoch === undefined) return;
    this.#epochs.set(session, epoch + 1);
    this.#commands.answer(session, decision, epoch + 1);
    // Within a call of the policy it goes with what that returns.
    if (!this.#isReporting) this.#commands.flush();
  }

  /** As `Engine.reset`. */
  reset(sessions: Iterable<SessionId>, cause: 'stopped' | 'evicted'): void {
    for (const session of sessions) this.#commands.reset(session, cause);
    if (!this.#isReporting) this.#commands.flush();
  }

  #reportBatch(count: number): void {
    const events = this.#events;
    let batch: EngineEvent[] = [];
    for (let at = 0; at < count; at += 1) {
      switch (events.kind(at)) {
        case EVENT_KIND.opened:
          this.#epochs.set(events.session(at), 0);
          this.#sessionCount += 1;
          batch.push(events.opened(at));
          break;
        case EVENT_KIND.established:
          if (!this.#isOfThisEpoch(at)) break;
          this.#epochs.delete(events.session(at));
          batch.push(events.established(at));
          break;
        case EVENT_KIND.dialFailed:
          // Alone: what the policy does about it can make others in this batch obsolete.
          this.#callPolicy(batch);
          batch = [];
          if (this.#isOfThisEpoch(at)) this.#callPolicy([events.dialFailed(at)]);
          break;
        case EVENT_KIND.closed:
          this.#epochs.delete(events.session(at));
          this.#sessionCount -= 1;
          batch.push(events.closed(at));
          break;
        case EVENT_KIND.listenerClosed:
          this.#deps.onListenerClosed(events.listener(at));
          break;
        default:
          throw new Error(`an event of kind ${events.kind(at)} came from the native engine`);
      }
    }
    this.#callPolicy(batch);
  }

  #isOfThisEpoch(at: number): boolean {
    return this.#events.epoch(at) === this.#epochs.get(this.#events.session(at));
  }

  #callPolicy(events: readonly EngineEvent[]): void {
    if (events.length === 0) return;
    const decisions = this.#deps.policy.handle(events, this.#deps.clock.now());
    for (let at = 0; at < events.length; at += 1) {
      const decision = decisions[at];
      if (decision === undefined) continue;
      const { session } = events[at] as EngineEvent;
      const epoch = this.#epochs.get(session);
      // Else it has closed since, in the same batch, and the answer is for nobody.
      if (epoch !== undefined) this.#commands.answer(session, decision, epoch);
    }
  }
}
