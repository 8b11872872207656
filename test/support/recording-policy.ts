/**
 * A policy for engines under test. It keeps every event, decides what the test says, and checks on the side what
 * every engine promises of its events. It fails closed: an event that nobody decides is a violation.
 */
import type { MonotonicMs } from '../../src/clock.ts';
import type { Decision, EngineEvent, Policy, SessionId, SocketAddress } from '../../src/engine/engine.ts';

export type EventOf<Kind extends EngineEvent['kind']> = Extract<EngineEvent, { kind: Kind }>;

/** What a test decides; `undefined`: nothing yet, the answer comes later. */
export type Decide = (event: EventOf<'opened'> | EventOf<'dialFailed'>) => Decision | undefined;

export interface TimedEvent {
  readonly event: EngineEvent;
  /** By `performance.now()`, when it was handled. */
  readonly at: number;
}

export const REFUSE: Decision = { kind: 'refuse' };

/** A dial that has all the time it needs, unless told. */
export function dialTo({ address, port }: SocketAddress, timeoutMs = 60_000): Decision {
  return { kind: 'dial', to: { address, port }, timeoutMs };
}

/** As `dialTo`, with something that the backend is to get first. */
export function dialWith(preamble: Uint8Array, to: SocketAddress): Decision {
  const { address, port } = to;
  return { kind: 'dial', to: { address, port }, timeoutMs: 60_000, preamble };
}

/** Nothing yet: `Engine.answer` follows. */
export const later: Decide = () => undefined;

export class RecordingPolicy implements Policy {
  readonly timed: TimedEvent[] = [];
  /** What the engine did against its contract. */
  readonly violations: string[] = [];
  /** Sessions that were opened and have not closed. */
  readonly open = new Set<SessionId>();
  readonly #seen = new Set<number>();

  decide: Decide = (event) => {
    this.violations.push(`nobody decides about ${event.kind}`);
    return REFUSE;
  };

  handle(events: readonly EngineEvent[], now: MonotonicMs): readonly (Decision | undefined)[] {
    return events.map((event) => {
      this.timed.push({ event, at: performance.now() });
      if (!Number.isFinite(now)) this.violations.push(`${event.kind} at ${now}`);
      this.#check(event);
      return event.kind === 'opened' || event.kind === 'dialFailed' ? this.decide(event) : undefined;
    });
  }

  all<Kind extends EngineEvent['kind']>(kind: Kind): readonly EventOf<Kind>[] {
    return this.timed.map(({ event }) => event).filter((event) => event.kind === kind) as EventOf<Kind>[];
  }

  /** The events of one session, in order. */
  of(session: SessionId): readonly EngineEvent[] {
    return this.timed.map(({ event }) => event).filter((event) => event.session === session);
  }

  kindsOf(session: SessionId): readonly EngineEvent['kind'][] {
    return this.of(session).map(({ kind }) => kind);
  }

  closedOf(session: SessionId): EventOf<'closed'> | undefined {
    return this.all('closed').find((event) => event.session === session);
  }

  /** When an event of that kind came for that session; throws when it did not. */
  timeOf(session: SessionId, kind: EngineEvent['kind']): number {
    const found = this.timed.find(({ event }) => event.kind === kind && event.session === session);
    if (found === undefined) throw new Error(`session ${session} has no event ${kind}`);
    return found.at;
  }

  #check(event: EngineEvent): void {
    const { session } = event;
    if (event.kind === 'opened') {
      if (this.#seen.has(session)) this.violations.push(`session id ${session} was used before`);
      if (this.#seen.has(event.listener))
        this.violations.push(`listener id ${event.listener} is a session's`);
      this.#seen.add(session);
      this.open.add(session);
    } else if (!this.open.has(session)) {
      this.violations.push(`${event.kind} of session ${session}, which is not open`);
    }
    if (event.kind === 'closed') this.open.delete(session);
  }
}
