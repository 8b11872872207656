/**
 * Sessions of one group, about in the order of their last use: each stands where it was put, with its last use at that
 * time, and only when it comes to the front is it looked at again. That spares the data path all bookkeeping.
 *
 * A list whose links are in its members: a Map would do, but a loop over it first steps over everything that was
 * deleted at its front, and at a cap every new session deletes one there.
 */
import type { MonotonicMs } from '../clock.ts';
import type { SessionId } from '../engine/engine.ts';

/** So many sessions that were used since they were queued are put back before the idlest of them goes. */
const MAX_LOOKS = 64;

/** One session's place in one queue. */
export class Place {
  readonly session: SessionId;
  queuedAt: MonotonicMs;
  /** Of the queue alone, as the next. */
  older: Place | undefined;
  newer: Place | undefined;

  constructor(session: SessionId, now: MonotonicMs) {
    this.session = session;
    this.queuedAt = now;
  }
}

export class IdleQueue {
  #oldest: Place | undefined;
  #newest: Place | undefined;
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** At the end, where those stand that were used last. */
  add(session: SessionId, now: MonotonicMs): Place {
    const place = new Place(session, now);
    this.#append(place);
    this.#size += 1;
    return place;
  }

  /** `place` is in this queue. */
  remove(place: Place): void {
    this.#unlink(place);
    this.#size -= 1;
  }

  /** Whoever has been idle longest, as far as that can be told without looking at all. `lastUsed`: as `Engine.lastUsed`. */
  idlest(lastUsed: (session: SessionId) => MonotonicMs | undefined): SessionId | undefined {
    let idlest: SessionId | undefined;
    let idlestUse = Number.POSITIVE_INFINITY;
    for (let looks = 0; looks < MAX_LOOKS; looks += 1) {
      const place = this.#oldest;
      if (place === undefined) break;
      const { session, queuedAt } = place;
      const used = lastUsed(session) ?? Number.NEGATIVE_INFINITY;
      if (used < idlestUse) [idlest, idlestUse] = [session, used];
      // Those behind it were used later, but not always those before it, which were put back.
      if (used <= queuedAt) return idlest;
      this.#unlink(place);
      place.queuedAt = used;
      this.#append(place);
    }
    return idlest;
  }

  #append(place: Place): void {
    place.older = this.#newest;
    place.newer = undefined;
    if (this.#newest === undefined) this.#oldest = place;
    else this.#newest.newer = place;
    this.#newest = place;
  }

  #unlink({ older, newer }: Place): void {
    if (older === undefined) this.#oldest = newer;
    else older.newer = newer;
    if (newer === undefined) this.#newest = older;
    else newer.older = older;
  }
}
