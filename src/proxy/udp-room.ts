/**
 * Which UDP session makes room for a new one. UDP cannot refuse a client so that it would hear it, so at the cap the
 * session that has been idle longest goes: of the client, or the Service, that holds most if that is more than its share, so that a flood of one of them costs the others nothing. Pure bookkeeping; who is idle the engine knows.
 */
import type { MonotonicMs } from '../clock.ts';
import type { SessionId } from '../engine/engine.ts';
import type { Parties } from './admission.ts';

/** Who holds more than this part of all sessions gives up its own first. */
const SHARE_PART = 4;
/** So many sessions of a group that were used since they were queued are put back before the idlest of them goes. */
const MAX_LOOKS = 64;

export interface UdpRoomOptions {
  /** Of one service port and family; 0: no limit. */
  readonly maxPerService: number;
  /** In all, at least 1; asked for each session. */
  readonly capacity: () => number;
  /** As `Engine.lastUsed`. */
  readonly lastUsed: (session: SessionId) => MonotonicMs | undefined;
}

/**
 * Sessions of one group, about in the order of their last use: each stands where it was put, with its last use at that
 * time, and only when it comes to the front is it looked at again. That spares the data path all bookkeeping.
 */
class Group {
  readonly #queuedAt = new Map<SessionId, MonotonicMs>();

  get size(): number {
    return this.#queuedAt.size;
  }

  add(session: SessionId, now: MonotonicMs): void {
    this.#queuedAt.set(session, now);
  }

  remove(session: SessionId): void {
    this.#queuedAt.delete(session);
  }

  idlest(lastUsed: UdpRoomOptions['lastUsed']): SessionId | undefined {
    let idlest: SessionId | undefined;
    let idlestUse = Number.POSITIVE_INFINITY;
    let looks = 0;
    for (const [session, queuedAt] of this.#queuedAt) {
      const used = lastUsed(session) ?? Number.NEGATIVE_INFINITY;
      if (used < idlestUse) [idlest, idlestUse] = [session, used];
      // Those behind it were used later, but not always those before it, which were put back.
      if (used <= queuedAt) return idlest;
      looks += 1;
      if (looks === MAX_LOOKS) break;
      this.#queuedAt.delete(session);
      this.#queuedAt.set(session, used);
    }
    return idlest;
  }
}

/** The groups of one kind. */
class Groups<Key> {
  readonly #byKey = new Map<Key, Group>();
  /** Those that held more than their share when they grew last. Few: all together hold no more than there is. */
  readonly #greedy = new Set<Group>();

  get(key: Key): Group | undefined {
    return this.#byKey.get(key);
  }

  add(key: Key, session: SessionId, at: { readonly now: MonotonicMs; readonly share: number }): void {
    const group = this.#byKey.get(key) ?? new Group();
    this.#byKey.set(key, group);
    group.add(session, at.now);
    if (group.size > at.share) this.#greedy.add(group);
  }

  remove(key: Key, session: SessionId): void {
    const group = this.#byKey.get(key);
    if (group === undefined) return;
    group.remove(session);
    if (group.size > 0) return;
    this.#byKey.delete(key);
    this.#greedy.delete(group);
  }

  /** The one that holds most, if that is more than `share`; that of `key` where several do. */
  greediest(key: Key, share: number): Group | undefined {
    let greediest = this.#byKey.get(key);
    for (const group of this.#greedy) {
      if (group.size <= share) this.#greedy.delete(group);
      else if (group.size > (greediest?.size ?? 0)) greediest = group;
    }
    return greediest !== undefined && greediest.size > share ? greediest : undefined;
  }
}

export class UdpRoom {
  readonly #options: UdpRoomOptions;
  readonly #all = new Group();
  readonly #services = new Groups<object>();
  readonly #clients = new Groups<string>();

  constructor(options: UdpRoomOptions) {
    this.#options = options;
  }

  /** Sessions that are open. */
  get size(): number {
    return this.#all.size;
  }

  add(session: SessionId, { service, client }: Parties, now: MonotonicMs): void {
    const share = shareOf(this.#options.capacity());
    this.#all.add(session, now);
    this.#services.add(service, session, { now, share });
    this.#clients.add(client, session, { now, share });
  }

  remove(session: SessionId, { service, client }: Parties): void {
    this.#all.remove(session);
    this.#services.remove(service, session);
    this.#clients.remove(client, session);
  }

  /** The session to be given up before one more of this Service and client is added; undefined: there is room. */
  victimFor({ service, client }: Parties): SessionId | undefined {
    const { maxPerService, capacity, lastUsed } = this.#options;
    const ofService = this.#services.get(service);
    if (maxPerService > 0 && ofService !== undefined && ofService.size >= maxPerService) {
      return ofService.idlest(lastUsed);
    }
    const most = capacity();
    if (this.#all.size < most) return undefined;
    const share = shareOf(most);
    const greedy = this.#clients.greediest(client, share) ?? this.#services.greediest(service, share);
    return (greedy ?? this.#all).idlest(lastUsed);
  }
}

/** One session is never too many. */
function shareOf(capacity: number): number {
  return Math.max(1, capacity / SHARE_PART);
}
