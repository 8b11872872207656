/**
 * All UDP sessions of the engine in the order of their last use, by stage, so that the idle ones are
 * found without a search.
 */
import type { MonotonicMs } from '../../clock.ts';
import type { UdpSession } from './udp-session.ts';

export interface UdpSessionsOptions {
  readonly unrepliedTimeoutMs: number;
  readonly repliedTimeoutMs: number;
}

export class UdpSessions {
  readonly #options: UdpSessionsOptions;
  /** Insertion order is order of last use: a touch deletes and re-inserts. */
  readonly #unreplied = new Set<UdpSession>();
  readonly #replied = new Set<UdpSession>();

  constructor(options: UdpSessionsOptions) {
    this.#options = options;
  }

  touch(session: UdpSession, now: MonotonicMs): void {
    this.remove(session);
    session.lastUsed = now;
    (session.hasReply ? this.#replied : this.#unreplied).add(session);
  }

  remove(session: UdpSession): void {
    this.#unreplied.delete(session);
    this.#replied.delete(session);
  }

  expired(now: MonotonicMs): UdpSession[] {
    const { unrepliedTimeoutMs, repliedTimeoutMs } = this.#options;
    return [
      ...idleSince(this.#unreplied, now - unrepliedTimeoutMs),
      ...idleSince(this.#replied, now - repliedTimeoutMs),
    ];
  }
}

function idleSince(sessions: Iterable<UdpSession>, deadline: MonotonicMs): UdpSession[] {
  const idle: UdpSession[] = [];
  for (const session of sessions) {
    if (session.lastUsed > deadline) break;
    idle.push(session);
  }
  return idle;
}
