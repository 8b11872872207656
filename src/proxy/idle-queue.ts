/**
 * Sessions of one group in the order of their last use, as far as it is known: each stands where it was put, with its
 * last use at that time, and only when it comes to the front is it looked at again, and put where it belongs. That
 * spares the data path all bookkeeping.
 *
 * A list whose links are in its members: a Map would do, but a loop over it first steps over everything that was
 * deleted at its front, and at a cap every new session deletes one there.
 */
import type { MonotonicMs } from '../clock.ts';
import type { SessionId } from '../engine/engine.ts';

/** So many sessions that were used since they were queued are put back before the one then in front goes. */
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
    this.#link(place, this.#newest, undefined);
    this.#size += 1;
    return place;
  }

  /** `place` is in this queue. */
  remove(place: Place): void {
    this.#unlink(place);
    this.#size -= 1;
  }

  /** Whoever has been idle longest, as far as that can be told in so many looks. `lastUsed`: as `Engine.lastUsed`. */
  idlest(lastUsed: (session: SessionId) => MonotonicMs | undefined): SessionId | undefined {
    for (let looks = 0; looks < MAX_LOOKS; looks += 1) {
      const place = this.#oldest;
      if (place === undefined) return undefined;
      const used = lastUsed(place.session) ?? Number.NEGATIVE_INFINITY;
      // All others were used after they were put behind it, or later still.
      if (used <= place.queuedAt) return place.session;
      this.#unlink(place);
      place.queuedAt = used;
      this.#insert(place);
    }
    return this.#oldest?.session;
  }

  /** Where its last use puts it, from whichever end that is nearer: it was used just now, or just after it was queued. */
  #insert(place: Place): void {
    const { queuedAt } = place;
    let ahead = this.#oldest;
    let behind = this.#newest;
    for (;;) {
      if (behind === undefined || behind.queuedAt <= queuedAt) {
        this.#link(place, behind, behind === undefined ? this.#oldest : behind.newer);
        return;
      }
      if (ahead === undefined || ahead.queuedAt > queuedAt) {
        this.#link(place, ahead?.older, ahead);
        return;
      }
      ahead = ahead.newer;
      behind = behind.older;
    }
  }

  #link(place: Place, older: Place | undefined, newer: Place | undefined): void {
    place.older = older;
    place.newer = newer;
    if (older === undefined) this.#oldest = place;
    else older.newer = place;
    if (newer === undefined) this.#newest = place;
    else newer.older = place;
  }

  #unlink({ older, newer }: Place): void {
    if (older === undefined) this.#oldest = newer;
    else older.newer = newer;
    if (newer === undefined) this.#newest = older;
    else newer.older = older;
  }
}
