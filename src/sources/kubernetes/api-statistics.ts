/** What the client of the API server counts, as plain numbers that whoever watches us reads. */
import { API_ERROR_CODES, type ApiErrorCode } from '../../errors.ts';

export const RESOURCE_NAMES = ['services', 'endpointslices', 'nodes'] as const;
export type ResourceName = (typeof RESOURCE_NAMES)[number];

/**
 * Why everything was listed: `initial` at the start; `expired` after a 410; `restored`: the server's resource
 * versions went back; `corrupt`: an event could not be read and may be lost; `silent`: watches were granted but
 * told nothing; `refused`: the server would not watch from what it had listed.
 */
export const LIST_REASONS = ['initial', 'expired', 'restored', 'corrupt', 'silent', 'refused'] as const;
export type ListReason = (typeof LIST_REASONS)[number];

export const EVENT_TYPES = ['ADDED', 'MODIFIED', 'DELETED', 'BOOKMARK', 'ERROR'] as const;
export type EventType = (typeof EVENT_TYPES)[number];

/** Of one resource. Times are milliseconds since the epoch, 0: never. */
export class ResourceStatistics {
  /** The first list is complete. */
  isSynced = false;
  /** A watch is established: changes reach us as they happen, unless the server has fallen silent since. */
  isWatching = false;
  /** Of the last list, event or bookmark, or of a watch that the server ended in peace. */
  lastContactAt = 0;
  /** Since when changes may be unknown to us; 0 while a watch is established. */
  downSince = 0;
  watches = 0;
  readonly lists = new Map<ListReason, number>(LIST_REASONS.map((reason) => [reason, 0]));
  readonly events = new Map<EventType, number>(EVENT_TYPES.map((type) => [type, 0]));
  readonly failures = new Map<ApiErrorCode, number>(API_ERROR_CODES.map((code) => [code, 0]));
}

/** Requests to one server that ended in one way; `code` is the HTTP status or `<error>` (client-go). */
export interface RequestCount {
  readonly host: string;
  readonly code: string;
  count: number;
}

export class ApiStatistics {
  readonly resources: ReadonlyMap<ResourceName, ResourceStatistics> = new Map(
    RESOURCE_NAMES.map((name) => [name, new ResourceStatistics()]),
  );
  readonly #requests = new Map<string, RequestCount>();

  of(resource: ResourceName): ResourceStatistics {
    const statistics = this.resources.get(resource);
    if (statistics === undefined) throw new Error(`no statistics for ${resource}`);
    return statistics;
  }

  get requests(): readonly RequestCount[] {
    return [...this.#requests.values()];
  }

  requestEnded(host: string, code: string): void {
    const key = `${host} ${code}`;
    const known = this.#requests.get(key);
    if (known === undefined) this.#requests.set(key, { host, code, count: 1 });
    else known.count += 1;
  }
}

export function increment<K>(counts: Map<K, number>, key: K): void {
  counts.set(key, (counts.get(key) ?? 0) + 1);
}
