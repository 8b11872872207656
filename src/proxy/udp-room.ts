/**
 * Which UDP session makes room for a new one. UDP cannot refuse a client so that it would hear it, so at the cap the
 * session that has been idle longest goes: of the client, or the Service, that holds most if that is more than its share, so that a flood of one of them costs the others nothing. Pure bookkeeping; who is idle the engine knows.
 */
import type { MonotonicMs } from '../clock.ts';
import type { SessionId } from '../engine/engine.ts';
import type { Parties } from './admission.ts';
import { IdleQueue, type Place } from './idle-queue.ts';

/** Who holds more than this part of all sessions gives up its own first. */
const SHARE_PART = 4;

export interface UdpRoomOptions {
  /** Of one service port and family; 0: no limit. */
  readonly maxPerService: number;
  /** In all, at least 1; asked for each session. */
  readonly capacity: () => number;
  /** As `Engine.lastUsed`. */
  readonly lastUsed: (session: SessionId) => MonotonicMs | undefined;
}

/** The groups of one kind. */
class Groups<Key> {
  readonly #byKey = new Map<Key, IdleQueue>();
  /** Those that held more than their share when they grew last. Few: all together hold no more than there is. */
  readonly #greedy = new Set<IdleQueue>();

  get(key: Key): IdleQueue | undefined {
    return this.#byKey.get(key);
  }

  add(key: Key, session: SessionId, at: { readonly now: MonotonicMs; readonly share: number }): Place {
    let group = this.#byKey.get(key);
    if (group === undefined) {
      group = new IdleQueue();
      this.#byKey.set(key, group);
    }
    const place = group.add(session, at.now);
    if (group.size > at.share) this.#greedy.add(group);
    return place;
  }

  remove(key: Key, place: Place): void {
    const group = this.#byKey.get(key);
    if (group === undefined) return;
    group.remove(place);
    if (group.size > 0) return;
    this.#byKey.delete(key);
    this.#greedy.delete(group);
  }

  /** The one that holds most, if that is more than `share`; that of `key` where several do. */
  greediest(key: Key, share: number): IdleQueue | undefined {
    let greediest = this.#byKey.get(key);
    for (const group of this.#greedy) {
      if (group.size <= share) this.#greedy.delete(group);
      else if (group.size > (greediest?.size ?? 0)) greediest = group;
    }
    return greediest !== undefined && greediest.size > share ? greediest : undefined;
  }
}

/** Where a session stands in each of the queues it is in. */
interface Places {
  readonly all: Place;
  readonly ofService: Place;
  readonly ofClient: Place;
}

export class UdpRoom {
  readonly #options: UdpRoomOptions;
  readonly #all = new IdleQueue();
  readonly #services = new Groups<object>();
  readonly #clients = new Groups<string>();
  readonly #placesOf = new Map<SessionId, Places>();

  constructor(options: UdpRoomOptions) {
    this.#options = options;
  }

  /** Sessions that are open. */
  get size(): number {
    return this.#all.size;
  }

  add(session: SessionId, { service, client }: Parties, now: MonotonicMs): void {
    const at = { now, share: shareOf(this.#options.capacity()) };
    this.#placesOf.set(session, {
      all: this.#all.add(session, now),
      ofService: this.#services.add(service, session, at),
      ofClient: this.#clients.add(client, session, at),
    });
  }

  /** Idempotent. */
  remove(session: SessionId, { service, client }: Parties): void {
    const places = this.#placesOf.get(session);
    if (places === undefined) return;
    this.#placesOf.delete(session);
    this.#all.remove(places.all);
    this.#services.remove(service, places.ofService);
    this.#clients.remove(client, places.ofClient);
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
