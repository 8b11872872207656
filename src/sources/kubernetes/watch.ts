/**
 * One watch: from a resource version until the server ends it or something breaks. It hands over every event with
 * its resource version and reports how it ended; what to do about that is the reflector's decision.
 */
import { setImmediate as afterPoll } from 'node:timers/promises';
import type { Clock } from '../../clock.ts';
import { isJsonMap, valueText } from '../objects/field-reader.ts';
import type { ApiClient } from './api-client.ts';
import { ApiError, apiErrorFromEvent } from './api-error.ts';
import type { EventType } from './api-statistics.ts';
import { LineSplitter } from './line-splitter.ts';
import type { Endpoint } from './resource.ts';

/** How long a server that does not end the watch by itself is given beyond the time that was asked for. */
const OVERTIME_MS = 30_000;
/** How long events are read before others have their turn. */
const MAX_TURN_MS = 5;

export interface WatchEvent {
  readonly type: Exclude<EventType, 'ERROR'>;
  readonly object: unknown;
  readonly resourceVersion: string;
}

export interface WatchRequest {
  readonly endpoint: Endpoint;
  readonly query: Readonly<Record<string, string>>;
  readonly resourceVersion: string;
  /** The server is asked to end the watch after this. */
  readonly timeoutSeconds: number;
  /** Longest silence; bookmarks, about one a minute, make sure that a sound watch is never silent for long. */
  readonly silenceTimeoutMs: number;
  readonly signal: AbortSignal;
}

export interface WatchHandler {
  /** The server has granted the watch. */
  established(): void;
  /** An ERROR event is counted here too, before the watch rejects with it. */
  received(type: EventType): void;
  event(event: WatchEvent): void;
}

/** Resolves when the server ends the watch in peace; rejects with an ApiError otherwise. */
export async function watchObjects(
  { client, clock }: { readonly client: Pick<ApiClient, 'get'>; readonly clock: Clock },
  wanted: WatchRequest,
  handler: WatchHandler,
): Promise<void> {
  const { endpoint, query, resourceVersion, timeoutSeconds, silenceTimeoutMs } = wanted;
  const overtime = AbortSignal.timeout(timeoutSeconds * 1000 + OVERTIME_MS);
  const body = await client.get({
    path: endpoint.path,
    query: {
      ...query,
      watch: '1',
      allowWatchBookmarks: 'true',
      resourceVersion,
      timeoutSeconds: String(timeoutSeconds),
    },
    silenceTimeoutMs,
    signal: AbortSignal.any([wanted.signal, overtime]),
  });
  handler.established();
  const lines = new LineSplitter();
  let turnStartedAt = clock.now();
  for await (const chunk of body) {
    for (const line of lines.push(chunk)) handleLine(line, handler);
    // While the socket has data this loop never leaves the turn: in a storm of events connections would starve.
    if (clock.now() - turnStartedAt < MAX_TURN_MS) continue;
    await afterPoll();
    turnStartedAt = clock.now();
  }
  if (lines.pendingBytes > 0) {
    throw new ApiError('ERR_API_CONNECTION', 'the watch ended in the middle of an event');
  }
}

function handleLine(line: string, handler: WatchHandler): void {
  const { type, object } = parseEvent(line);
  switch (type) {
    case 'ADDED':
    case 'MODIFIED':
    case 'DELETED':
    case 'BOOKMARK':
      handler.received(type);
      takeIn({ type, object, resourceVersion: versionOf(object) }, handler);
      return;
    case 'ERROR':
      handler.received(type);
      throw apiErrorFromEvent(object);
    default:
      throw new ApiError('ERR_API_RESPONSE', `a watch event has the type ${valueText(type)}`);
  }
}

/** A fault of ours in taking it in must not pass for one of the connection, and loses the event all the same. */
function takeIn(event: WatchEvent, handler: WatchHandler): void {
  try {
    handler.event(event);
  } catch (error) {
    if (error instanceof ApiError) throw error;
    throw new ApiError('ERR_API_RESPONSE', 'a watch event could not be taken in', { cause: error });
  }
}

function parseEvent(line: string): { readonly type: unknown; readonly object: unknown } {
  let event: unknown;
  try {
    event = JSON.parse(line);
  } catch (error) {
    throw new ApiError('ERR_API_RESPONSE', 'a line of a watch is no JSON', { cause: error });
  }
  if (!isJsonMap(event)) throw new ApiError('ERR_API_RESPONSE', `a watch event is ${valueText(event)}`);
  return { type: event['type'], object: event['object'] };
}

function versionOf(object: unknown): string {
  const metadata = isJsonMap(object) ? object['metadata'] : undefined;
  const version = isJsonMap(metadata) ? metadata['resourceVersion'] : undefined;
  if (typeof version === 'string' && version !== '') return version;
  throw new ApiError(
    'ERR_API_RESPONSE',
    `the object of a watch event has the metadata.resourceVersion ${valueText(version)}`,
  );
}
