/**
 * The store of the fake API server: objects of all resources under one resource version, the recent changes for
 * watches that resume, and the snapshots from which lists are paged. No I/O.
 */
import {
  type FakeResource,
  type JsonObject,
  type Selection,
  type StoredObject,
  atVersion,
  storedFrom,
  versionOf,
} from './fake-api-objects.ts';

export interface StoreEvent {
  readonly resourceVersion: number;
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED';
  readonly resource: FakeResource;
  /** Of DELETED: the last content, at the resource version of the deletion. */
  readonly object: StoredObject;
  readonly previous: StoredObject | undefined;
}

export interface Page {
  readonly outcome: 'page';
  readonly resourceVersion: number;
  readonly items: readonly StoredObject[];
  readonly continueToken: string | undefined;
  readonly remaining: number;
}

/** `expired`: the snapshot is gone; `restart` continues from the same place in what is there by then. */
export type PageOutcome =
  | Page
  | { readonly outcome: 'expired'; readonly restart: string }
  | { readonly outcome: 'invalid' };

interface Token {
  /** -1: any. */
  readonly rv: number;
  /** The key of the last object that was listed. */
  readonly start: string;
}

export class FakeStore {
  #resourceVersion: number;
  readonly #capacity: number;
  readonly #objects: Readonly<Record<FakeResource, Map<string, StoredObject>>> = {
    services: new Map(),
    endpointslices: new Map(),
    nodes: new Map(),
  };
  #events: StoreEvent[] = [];
  /** A watch from here or later misses nothing. */
  #floor: number;
  readonly #snapshots = new Map<string, readonly StoredObject[]>();
  #uids = 0;

  /** `capacity`: how many changes are remembered. */
  constructor(options: { readonly resourceVersion: number; readonly capacity: number }) {
    this.#resourceVersion = options.resourceVersion;
    this.#floor = options.resourceVersion;
    this.#capacity = options.capacity;
  }

  get resourceVersion(): number {
    return this.#resourceVersion;
  }

  /** The oldest resource version from which a watch can resume. */
  get floor(): number {
    return this.#floor;
  }

  put(resource: FakeResource, object: object): StoreEvent {
    const stored = storedFrom(resource, object, this.#resourceVersion + 1);
    const previous = this.#objects[resource].get(stored.key);
    const metadata = { uid: this.#uidOf(previous), ...(stored.json['metadata'] as JsonObject) };
    const kept = { ...stored, json: { ...stored.json, metadata } };
    this.#objects[resource].set(kept.key, kept);
    return this.#remember(resource, previous === undefined ? 'ADDED' : 'MODIFIED', kept, previous);
  }

  remove(resource: FakeResource, key: string): StoreEvent {
    const previous = this.#objects[resource].get(key);
    if (previous === undefined) throw new Error(`there is no ${key} in ${resource}`);
    this.#objects[resource].delete(key);
    return this.#remember(resource, 'DELETED', atVersion(previous, this.#resourceVersion + 1), previous);
  }

  /** Changes of resources that nobody here asks for. */
  advance(count: number): void {
    this.#resourceVersion += count;
  }

  /** Forgets all changes and all snapshots, as a compaction of etcd does. */
  compact(): void {
    this.#events = [];
    this.#floor = this.#resourceVersion;
    this.#snapshots.clear();
  }

  /** As after a restore of etcd: nothing is remembered, and no object is newer than the store. */
  setResourceVersion(resourceVersion: number): void {
    this.#resourceVersion = resourceVersion;
    this.compact();
    for (const objects of Object.values(this.#objects)) {
      for (const [key, object] of objects) {
        if (versionOf(object) > resourceVersion) objects.set(key, atVersion(object, resourceVersion));
      }
    }
  }

  /** In the order of their keys, as etcd has them. */
  all(resource: FakeResource): readonly StoredObject[] {
    return [...this.#objects[resource].values()].sort((a, b) => (a.key < b.key ? -1 : 1));
  }

  /** The changes after that resource version, or `undefined` when some of them are forgotten. */
  eventsAfter(resource: FakeResource, resourceVersion: number): readonly StoreEvent[] | undefined {
    if (resourceVersion < this.#floor) return undefined;
    return this.#events.filter(
      (event) => event.resource === resource && event.resourceVersion > resourceVersion,
    );
  }

  /** One page of what is there now, or of the snapshot that the token belongs to. `limit` 0: no limit. */
  page(
    resource: FakeResource,
    selects: Selection,
    options: { readonly limit: number; readonly token: string | undefined },
  ): PageOutcome {
    const token = options.token === undefined ? { rv: -1, start: '' } : tokenFromText(options.token);
    if (token === undefined) return { outcome: 'invalid' };
    const resourceVersion = token.rv === -1 ? this.#resourceVersion : token.rv;
    const snapshot =
      token.rv === -1 ? this.all(resource) : this.#snapshots.get(`${resource}@${resourceVersion}`);
    if (snapshot === undefined) {
      return { outcome: 'expired', restart: textFromToken({ rv: -1, start: token.start }) };
    }
    const wanted = snapshot.filter((object) => object.key > token.start && selects(object));
    const items = options.limit === 0 ? wanted : wanted.slice(0, options.limit);
    const last = items.at(-1);
    const remaining = wanted.length - items.length;
    const base = { outcome: 'page', resourceVersion, items, remaining } as const;
    if (last === undefined || remaining === 0) return { ...base, continueToken: undefined };
    this.#snapshots.set(`${resource}@${resourceVersion}`, snapshot);
    return { ...base, continueToken: textFromToken({ rv: resourceVersion, start: last.key }) };
  }

  /** A token of a snapshot of this moment, from its beginning. */
  tokenFromStart(resource: FakeResource): string {
    this.#snapshots.set(`${resource}@${this.#resourceVersion}`, this.all(resource));
    return textFromToken({ rv: this.#resourceVersion, start: '' });
  }

  expireContinueTokens(): void {
    this.#snapshots.clear();
  }

  #uidOf(previous: StoredObject | undefined): unknown {
    if (previous !== undefined) return (previous.json['metadata'] as JsonObject)['uid'];
    this.#uids += 1;
    return `00000000-0000-4000-8000-${String(this.#uids).padStart(12, '0')}`;
  }

  #remember(
    resource: FakeResource,
    type: StoreEvent['type'],
    object: StoredObject,
    previous: StoredObject | undefined,
  ): StoreEvent {
    this.#resourceVersion += 1;
    const event = { resourceVersion: this.#resourceVersion, type, resource, object, previous };
    this.#events.push(event);
    while (this.#events.length > this.#capacity) {
      this.#floor = this.#events.shift()?.resourceVersion ?? this.#floor;
    }
    return event;
  }
}

/**
 * The event as a watch with that selector sees it: who comes to match was added, who no longer does was deleted,
 * with the content that matched (apiserver `storage/cacher`, `convertToWatchEvent`).
 */
export function eventFor(
  selects: Selection,
  { type, object, previous, resourceVersion }: StoreEvent,
): { readonly type: StoreEvent['type']; readonly object: StoredObject } | undefined {
  const didMatch = previous !== undefined && selects(previous);
  const matches = type !== 'DELETED' && selects(object);
  if (matches) return { type: didMatch ? 'MODIFIED' : 'ADDED', object };
  return didMatch ? { type: 'DELETED', object: atVersion(previous, resourceVersion) } : undefined;
}

function textFromToken(token: Token): string {
  return Buffer.from(JSON.stringify({ v: 'meta.k8s.io/v1', ...token })).toString('base64url');
}

function tokenFromText(text: string): Token | undefined {
  try {
    const token = JSON.parse(Buffer.from(text, 'base64url').toString()) as Partial<Token>;
    return typeof token.rv === 'number' && typeof token.start === 'string'
      ? { rv: token.rv, start: token.start }
      : undefined;
  } catch {
    return undefined;
  }
}
