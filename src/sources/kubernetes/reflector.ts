/**
 * Keeps one resource's store as the API server has it, for as long as it runs (client-go `tools/cache/reflector.go`).
 *
 * ```text
 *        ┌──────────── list ◄────────────────────────────┐ 410, version too large, an event that may be lost,
 *        │ store := list, version := of the list         │ a watch that is refused, or granted and silent
 *        ▼                                               │
 *      watch from version ── event ─► store, version ────┤
 *        ▲                                               │ time is up: at once │ broken: after a pause
 *        └───────────────────────────────────────────────┘
 * ```
 *
 * It never stops, never acts on a part of a list, and never forgets: until the next complete list or event the
 * store stays as it was.
 */
import type { Clock, MonotonicMs } from '../../clock.ts';
import { type ApiErrorCode, isProxyError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import type { ApiClient } from './api-client.ts';
import { ApiError, apiErrorFromFault } from './api-error.ts';
import type { ListReason, ResourceStatistics } from './api-statistics.ts';
import { increment } from './api-statistics.ts';
import { type Freshness, listObjects } from './list.ts';
import { type Endpoint, type Resource, objectKey } from './resource.ts';
import { isOlder } from './resource-version.ts';
import type { RetryPause } from './retry-pause.ts';
import type { ServerList } from './server-list.ts';
import { type WatchEvent, watchObjects } from './watch.ts';
import { type WatchEnd, WatchLiveness } from './watch-liveness.ts';

/** A watch that lived for so long was a success. */
const STEADY_MS = 1000;
/** But one that the server ended with an error, or with nonsense, must have been good for longer than it took to break. */
const STEADY_BEFORE_FAULT_MS = 60_000;
/** After so many failures a watch that is forbidden is one that we lack the right to: lists must do, if they may. */
const FORBIDDEN_IN_EARNEST = 3;

/** Where the objects go. */
export interface ObjectSink {
  replace(raws: readonly unknown[]): void;
  set(raw: unknown): void;
  remove(raw: unknown): void;
}

export interface ReflectorDeps {
  readonly client: Pick<ApiClient, 'get' | 'getJson'>;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly random: () => number;
  readonly pause: RetryPause;
  readonly servers: Pick<ServerList, 'current' | 'failed'>;
  readonly statistics: ResourceStatistics;
  readonly sink: ObjectSink;
  /** The sink holds something else than before, for all it knows. Must not throw. */
  readonly onChange: () => void;
}

export interface ReflectorOptions {
  readonly resource: Pick<Resource<never>, 'name' | 'endpoints' | 'query'>;
  /** Longest silence of a watch. */
  readonly stallTimeoutMs: number;
}

export class Reflector {
  readonly #deps: ReflectorDeps;
  readonly #resource: ReflectorOptions['resource'];
  readonly #stallTimeoutMs: number;
  /** Which of the resource's endpoints the server has, as far as we know. */
  #endpointIndex = 0;
  /** Of the last list, event or bookmark; undefined before the first list. */
  #resourceVersion: string | undefined;
  /** Why the next step is a list; undefined: it is a watch. */
  #listReason: ListReason | undefined = 'initial';
  readonly #liveness: WatchLiveness;
  /** Of the step under way: a watch that was granted, and ended in a way that needs no pause. */
  #isRoutineEnd = false;
  #downFrom: MonotonicMs | undefined;

  constructor(deps: ReflectorDeps, options: ReflectorOptions) {
    this.#deps = deps;
    this.#resource = options.resource;
    this.#stallTimeoutMs = options.stallTimeoutMs;
    this.#liveness = new WatchLiveness(deps, options);
  }

  /** Runs until `signal` is aborted; never rejects. */
  async run(signal: AbortSignal): Promise<void> {
    const { servers } = this.#deps;
    while (!signal.aborted) {
      const server = servers.current;
      this.#isRoutineEnd = false;
      try {
        if (this.#listReason === undefined) await this.#watch(signal);
        else await this.#list(this.#listReason, signal);
      } catch (fault) {
        if (signal.aborted) return;
        const error = apiErrorFromFault(fault);
        // Also one that answers, but with nothing that can be used. What broke before that the client has reported.
        if (error.isServerFault) servers.failed(server);
        await this.#recover(error, signal);
      }
    }
  }

  async #list(reason: ListReason, signal: AbortSignal): Promise<void> {
    const { clock, logger, pause, sink, statistics } = this.#deps;
    const startedAt = clock.now();
    increment(statistics.lists, reason);
    const { items, resourceVersion } = await listObjects(this.#deps.client, {
      endpoint: this.#endpoint(),
      query: this.#resource.query,
      freshness: this.#freshness(reason),
      signal,
    });
    pause.answered();
    sink.replace(items.map((item) => this.#adapted(item)));
    this.#resourceVersion = resourceVersion;
    this.#listReason = undefined;
    statistics.isSynced = true;
    statistics.lastContactAt = clock.wallTime();
    const durationMs = Math.round(clock.now() - startedAt);
    const fields = {
      resource: this.#resource.name,
      objects: items.length,
      resourceVersion,
      reason,
      durationMs,
    };
    logger.debug(fields, 'Listed');
    this.#deps.onChange();
  }

  #freshness(reason: ListReason): Freshness {
    const resourceVersion = this.#resourceVersion;
    if (resourceVersion === undefined) return reason === 'initial' ? { kind: 'any' } : { kind: 'consistent' };
    // What the server has at hand may be as old as what it just refused to go on from.
    if (reason === 'expired' || reason === 'restored') return { kind: 'consistent' };
    return { kind: 'notOlderThan', resourceVersion };
  }

  async #watch(signal: AbortSignal): Promise<void> {
    const { client, clock, pause, statistics } = this.#deps;
    let establishedAt: MonotonicMs | undefined;
    const heard = { bookmarks: 0, events: 0 };
    const request = {
      endpoint: this.#endpoint(),
      query: this.#resource.query,
      resourceVersion: this.#resourceVersion ?? '',
      timeoutSeconds: this.#liveness.timeoutSeconds(),
      silenceTimeoutMs: this.#stallTimeoutMs,
      signal,
    };
    const watching = watchObjects({ client, clock }, request, {
      established: () => {
        establishedAt = clock.now();
        pause.answered();
        statistics.watches += 1;
        this.#up();
      },
      received: (type) => {
        increment(statistics.events, type);
        statistics.lastContactAt = clock.wallTime();
        if (type === 'BOOKMARK') heard.bookmarks += 1;
        else if (type !== 'ERROR') heard.events += 1;
      },
      event: (event) => this.#take(event),
    });
    let how: WatchEnd['how'] = 'other';
    let steadyMs = STEADY_MS;
    try {
      await watching;
      how = 'peace';
      statistics.lastContactAt = clock.wallTime();
    } catch (error) {
      if (isProxyError(error, 'ERR_API_STALLED')) how = 'stall';
      if (error instanceof ApiError && error.isAnswer) steadyMs = STEADY_BEFORE_FAULT_MS;
      throw error;
    } finally {
      statistics.isWatching = false;
      if (establishedAt !== undefined) {
        this.#ended({ how, livedMs: clock.now() - establishedAt, ...heard }, steadyMs);
      }
    }
    if (establishedAt !== undefined && clock.now() - establishedAt < STEADY_MS) {
      throw new ApiError(
        'ERR_API_CONNECTION',
        `the watch ended at once, less than ${STEADY_MS} ms after it began`,
      );
    }
    if (this.#liveness.takeListDue()) this.#listReason = 'silent';
  }

  #ended(end: WatchEnd, steadyMs: number): void {
    if (end.livedMs >= steadyMs) this.#deps.pause.succeeded();
    this.#isRoutineEnd = this.#liveness.watchEnded(end).isRoutine;
  }

  #take({ type, object, resourceVersion }: WatchEvent): void {
    if (type !== 'BOOKMARK' && objectKey(object) === undefined) {
      throw new ApiError('ERR_API_RESPONSE', 'the object of a watch event has no name');
    }
    if (isOlder(resourceVersion, this.#resourceVersion)) {
      throw new ApiError(
        'ERR_API_STATUS',
        `resource version ${resourceVersion} came after ${this.#resourceVersion}: the server's data was restored`,
        { isVersionTooLarge: true },
      );
    }
    if (type === 'DELETED') this.#deps.sink.remove(object);
    else if (type !== 'BOOKMARK') this.#deps.sink.set(this.#adapted(object));
    this.#resourceVersion = resourceVersion;
    if (type !== 'BOOKMARK') this.#deps.onChange();
  }

  /** In the words of the version of the API that we read. */
  #adapted(object: unknown): unknown {
    return this.#endpoint().adapt?.(object) ?? object;
  }

  #endpoint(): Endpoint {
    const { endpoints } = this.#resource;
    return endpoints[this.#endpointIndex % endpoints.length] ?? endpoints[0];
  }

  #up(): void {
    const { clock, logger, statistics } = this.#deps;
    statistics.isWatching = true;
    statistics.downSince = 0;
    if (this.#downFrom === undefined) return;
    const downMs = Math.round(clock.now() - this.#downFrom);
    this.#downFrom = undefined;
    logger.info({ resource: this.#resource.name, downMs }, 'Watching the API server again');
  }

  /** Decides what the next step is, and when. */
  async #recover(error: ApiError, signal: AbortSignal): Promise<void> {
    const { statistics } = this.#deps;
    const wasListing = this.#listReason !== undefined;
    this.#listReason = this.#reasonToList(error);
    if (wasListing && error.status === 404 && this.#tryNextEndpoint()) return;
    increment(statistics.failures, error.code as ApiErrorCode);
    // An old version is no fault of the server, and nothing is known until the list is read.
    const isHarmless = (error.isExpired && !wasListing) || (this.#isRoutineEnd && !error.isAnswer);
    const isRoutine = isHarmless && this.#deps.pause.failures === 0;
    const waitMs = this.#deps.pause.failed(error, { isRoutine });
    if (isRoutine) {
      this.#deps.logger.debug(
        { resource: this.#resource.name, error },
        'The watch was cut, silent or too far behind, renewing it',
      );
      return;
    }
    this.#down();
    this.#report(error, { wasListing, waitMs });
    await this.#deps.pause.wait(waitMs, signal);
  }

  #reasonToList(error: ApiError): ListReason | undefined {
    if (error.isExpired) return 'expired';
    if (error.isVersionTooLarge) return 'restored';
    if (this.#listReason !== undefined) return this.#listReason;
    if (error.code === 'ERR_API_RESPONSE') return 'corrupt';
    const { status } = error;
    if (status === 403 && this.#deps.pause.failures >= FORBIDDEN_IN_EARNEST) return 'refused';
    const isRefused = status !== undefined && status >= 400 && status < 500;
    if (isRefused && status !== 401 && status !== 403 && status !== 429) return 'refused';
    return this.#liveness.takeListDue() ? 'silent' : undefined;
  }

  /** True when there is one that has not been tried since the last success. */
  #tryNextEndpoint(): boolean {
    this.#endpointIndex += 1;
    const endpoint = this.#endpoint();
    const isAnother = this.#endpointIndex % this.#resource.endpoints.length !== 0;
    if (isAnother) this.#deps.logger.info({ path: endpoint.path }, 'Asking for another version of the API');
    return isAnother;
  }

  #down(): void {
    const { clock, statistics } = this.#deps;
    if (statistics.downSince === 0) statistics.downSince = statistics.lastContactAt || clock.wallTime();
    this.#downFrom ??= clock.now();
  }

  #report(error: ApiError, { wasListing, waitMs }: { wasListing: boolean; waitMs: number }): void {
    const { logger, pause, statistics } = this.#deps;
    const fields = {
      resource: this.#resource.name,
      operation: wasListing ? 'list' : 'watch',
      error,
      since: new Date(statistics.downSince).toISOString(),
      retryMs: Math.round(waitMs),
      failures: pause.failures,
    };
    if (statistics.isSynced) logger.warn(fields, 'The API server cannot be watched, serving what was known');
    else logger.warn(fields, 'The API server cannot be listed, waiting for it');
  }
}
