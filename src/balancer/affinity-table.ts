/**
 * ClientIP affinity of one service port and family: which endpoint a client address is tied to. Pure: time is
 * passed in. Bounded: above the cap the client that has been away longest is forgotten.
 *
 * A client is tied for `timeoutMs` from its last connection that was established; strictly after that it is
 * free. A long-lived connection does not renew by itself.
 */
import type { MonotonicMs } from '../clock.ts';

interface Entry {
  readonly endpointKey: string;
  readonly lastUsed: MonotonicMs;
}

/** One client's entry, as it is handed out and taken back: a restart carries it over. */
export interface AffinityTie extends Entry {
  readonly client: string;
}

export class AffinityTable {
  readonly #capacity: number;
  /** In the order of `lastUsed`, because every write deletes and re-inserts. */
  readonly #entryByClient = new Map<string, Entry>();
  #timeoutMs: number;
  #evictions = 0;
  #changes = 0;

  constructor({ timeoutMs, capacity }: { readonly timeoutMs: number; readonly capacity: number }) {
    this.#timeoutMs = timeoutMs;
    this.#capacity = capacity;
  }

  /** Clients remembered; one whose time is up counts until it comes back or anybody is tied. */
  get size(): number {
    return this.#entryByClient.size;
  }

  /** Clients forgotten for want of room, since the start. */
  get evictions(): number {
    return this.#evictions;
  }

  /** Grows whenever a client is tied, tied again or freed: as long as it is the same, the ties are. Expiry does not count. */
  get changes(): number {
    return this.#changes;
  }

  /**
   * Those in force at `now`, the longest unused first, as often as one likes. Live: who walks over them in several steps
   * sees a client twice that is tied meanwhile, the later one last.
   */
  ties(now: MonotonicMs): Iterable<AffinityTie> {
    return { [Symbol.iterator]: () => this.#walk(now) };
  }

  /**
   * Takes up ties of another table, each with the time that is left of it. Of two ties of one client the one counts that
   * was used last, and what is above the capacity goes, the longest unused first.
   */
  restore(ties: Iterable<AffinityTie>, now: MonotonicMs): void {
    let restored = 0;
    for (const { client, endpointKey, lastUsed } of ties) {
      const known = this.#entryByClient.get(client)?.lastUsed ?? Number.NEGATIVE_INFINITY;
      if (now - lastUsed > this.#timeoutMs || known >= lastUsed) continue;
      this.#entryByClient.set(client, { endpointKey, lastUsed });
      restored += 1;
    }
    if (restored === 0) return;
    const inOrder = [...this.#entryByClient].sort(([, a], [, b]) => a.lastUsed - b.lastUsed);
    const surplus = Math.max(0, inOrder.length - this.#capacity);
    this.#entryByClient.clear();
    for (const [client, entry] of inOrder.slice(surplus)) this.#entryByClient.set(client, entry);
    this.#evictions += surplus;
    this.#changes += restored;
  }

  /**
   * Holds for the entries that exist, too: what counts is the time-out at the moment a client comes back. A tie
   * that ran out, but was not looked at since, therefore holds again when the time-out is lengthened.
   */
  setTimeoutMs(timeoutMs: number): void {
    this.#timeoutMs = timeoutMs;
  }

  /** The endpoint the client is tied to, or undefined. */
  endpointOf(client: string, now: MonotonicMs): string | undefined {
    const entry = this.#entryByClient.get(client);
    if (entry === undefined) return undefined;
    if (now - entry.lastUsed <= this.#timeoutMs) return entry.endpointKey;
    this.#entryByClient.delete(client);
    return undefined;
  }

  /** Ties the client to the endpoint from `now` on. */
  bind(client: string, endpointKey: string, now: MonotonicMs): void {
    this.#entryByClient.delete(client);
    this.#entryByClient.set(client, { endpointKey, lastUsed: now });
    this.#changes += 1;
    this.#dropExpired(now);
    const [oldest] = this.#entryByClient.keys();
    if (this.#entryByClient.size <= this.#capacity || oldest === undefined) return;
    this.#entryByClient.delete(oldest);
    this.#evictions += 1;
  }

  /** Frees the client if it is tied to this endpoint: the endpoint failed it. */
  release(client: string, endpointKey: string): void {
    if (this.#entryByClient.get(client)?.endpointKey !== endpointKey) return;
    this.#entryByClient.delete(client);
    this.#changes += 1;
  }

  /** Frees the clients of every other endpoint. */
  retainEndpoints(endpointKeys: ReadonlySet<string>): void {
    for (const [client, entry] of this.#entryByClient) {
      if (endpointKeys.has(entry.endpointKey)) continue;
      this.#entryByClient.delete(client);
      this.#changes += 1;
    }
  }

  *#walk(now: MonotonicMs): Generator<AffinityTie> {
    for (const [client, entry] of this.#entryByClient) {
      if (now - entry.lastUsed <= this.#timeoutMs) yield { client, ...entry };
    }
  }

  #dropExpired(now: MonotonicMs): void {
    for (const [client, entry] of this.#entryByClient) {
      if (now - entry.lastUsed <= this.#timeoutMs) return;
      this.#entryByClient.delete(client);
    }
  }
}
