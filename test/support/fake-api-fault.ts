/** What can be made to go wrong in the fake API server, and the script of it. */
import type { FakeResource, JsonObject, StatusFields } from './fake-api-objects.ts';
import type { FakeApiRequest, FakeOperation } from './fake-api-request.ts';

/**
 * How a body stops: with a TCP reset, with a FIN in the middle of the chunked encoding, with a proper end as if it
 * were complete, or not at all, in silence.
 */
export type CutEnd = 'reset' | 'close' | 'end' | 'stall';

export type Fault =
  /** An HTTP status with its Status object. */
  | { readonly kind: 'status'; readonly status: StatusFields }
  /** A TCP reset instead of an answer. */
  | { readonly kind: 'reset' }
  /** No answer, ever. */
  | { readonly kind: 'stall' }
  /** This text instead of the answer's. */
  | {
      readonly kind: 'text';
      readonly text: string;
      readonly status: number;
      readonly headers: Readonly<Record<string, string>>;
    }
  /** The usual answer until so many bytes of its body are sent; a list that is shorter stops after its last. */
  | { readonly kind: 'cut'; readonly afterBytes: number; readonly how: CutEnd }
  /** The usual answer, in pieces of so many bytes. */
  | { readonly kind: 'drip'; readonly bytes: number; readonly everyMs: number }
  /** The usual answer with other headers. */
  | { readonly kind: 'headers'; readonly headers: Readonly<Record<string, string>> }
  /** The usual list, changed. */
  | { readonly kind: 'list'; readonly change: (list: JsonObject) => unknown }
  /** The usual list, whose `continue` is the token that was asked for, so that it never ends. */
  | { readonly kind: 'same-continue' }
  /** A watch that begins with this text, and then ends or goes on as usual. */
  | { readonly kind: 'watch-text'; readonly text: string; readonly thenEnd: boolean }
  /** A watch that begins with an event of so many bytes, whose line never ends, and falls silent. */
  | { readonly kind: 'huge-line'; readonly bytes: number };

const OPERATION_OF: Partial<Record<Fault['kind'], FakeOperation>> = {
  list: 'list',
  'same-continue': 'list',
  'watch-text': 'watch',
  'huge-line': 'watch',
};

function watchLine(event: unknown, thenEnd: boolean): Fault {
  return { kind: 'watch-text', text: `${JSON.stringify(event)}\n`, thenEnd };
}

function metadataOf(list: JsonObject): JsonObject {
  return list['metadata'] as JsonObject;
}

/** One for each way to fail. */
export const faults = {
  status: (code: number, fields: Omit<StatusFields, 'code'> = {}): Fault => ({
    kind: 'status',
    status: { code, ...fields },
  }),
  /** 410 as the HTTP status: of a watch, or (with `continued: true`) of a page. */
  expired: (): Fault => ({ kind: 'status', status: { code: 410, message: 'too old' } }),
  tooManyRequests: (retryAfterSeconds?: number): Fault => ({
    kind: 'status',
    status: { code: 429, ...(retryAfterSeconds === undefined ? {} : { retryAfterSeconds }) },
  }),
  reset: (): Fault => ({ kind: 'reset' }),
  stall: (): Fault => ({ kind: 'stall' }),
  /** A 200 with nothing in it: of a watch, one that ends at once. */
  empty: (): Fault => ({ kind: 'text', text: '', status: 200, headers: {} }),
  text: (
    text: string,
    options: { status?: number; headers?: Readonly<Record<string, string>> } = {},
  ): Fault => ({
    kind: 'text',
    text,
    status: options.status ?? 200,
    headers: options.headers ?? {},
  }),
  badJson: (): Fault => ({ kind: 'text', text: '{"kind":"ServiceList",,\n', status: 200, headers: {} }),
  html: (status = 200): Fault => ({
    kind: 'text',
    text: '<!doctype html>\n<html><body><h1>Sign in</h1></body></html>\n',
    status,
    headers: { 'content-type': 'text/html' },
  }),
  resetAfter: (afterBytes: number): Fault => ({ kind: 'cut', afterBytes, how: 'reset' }),
  stallAfter: (afterBytes: number): Fault => ({ kind: 'cut', afterBytes, how: 'stall' }),
  closeAfter: (afterBytes: number): Fault => ({ kind: 'cut', afterBytes, how: 'close' }),
  truncateAfter: (afterBytes: number): Fault => ({ kind: 'cut', afterBytes, how: 'end' }),
  drip: (bytes: number, everyMs: number): Fault => ({ kind: 'drip', bytes, everyMs }),
  contentType: (contentType: string): Fault => ({
    kind: 'headers',
    headers: { 'content-type': contentType },
  }),
  list: (change: (list: JsonObject) => unknown): Fault => ({ kind: 'list', change }),
  wrongListKind: (kind = 'PodList'): Fault => ({ kind: 'list', change: (list) => ({ ...list, kind }) }),
  wrongItems: (items: unknown = {}): Fault => ({ kind: 'list', change: (list) => ({ ...list, items }) }),
  /** Of another resource version than the one before it, when used with `continued: true`. */
  otherVersion: (resourceVersion: string): Fault => ({
    kind: 'list',
    change: (list) => ({ ...list, metadata: { ...metadataOf(list), resourceVersion } }),
  }),
  sameContinue: (): Fault => ({ kind: 'same-continue' }),
  /** Text at the beginning of a watch; a newline is up to you. */
  watchText: (text: string): Fault => ({ kind: 'watch-text', text, thenEnd: false }),
  badWatchLine: (): Fault => ({
    kind: 'watch-text',
    text: '{"type":"ADDED","object":{,}}\n',
    thenEnd: false,
  }),
  /** The watch ends after it, as a real one does. */
  errorEvent: (status: JsonObject): Fault => watchLine({ type: 'ERROR', object: status }, true),
  unknownEvent: (type = 'RENAMED'): Fault => watchLine({ type, object: { metadata: {} } }, false),
  malformedEvent: (event: unknown = { type: 'MODIFIED', object: 'none' }): Fault => watchLine(event, false),
  hugeLine: (bytes: number): Fault => ({ kind: 'huge-line', bytes }),
} as const;

export interface FaultRule {
  readonly resource?: FakeResource;
  readonly operation?: FakeOperation;
  /** Only requests with (`true`) or without (`false`) a `continue` token. */
  readonly continued?: boolean;
  /** 1 unless told; Infinity: until it is cleared. */
  readonly times?: number;
  readonly with: Fault;
}

export interface ScriptedFault {
  /** How many requests it has met. */
  readonly hits: number;
  /** It meets no more. */
  clear(): void;
}

class ScriptEntry implements ScriptedFault {
  readonly rule: FaultRule;
  hits = 0;
  #isCleared = false;

  constructor(rule: FaultRule) {
    this.rule = rule;
  }

  clear(): void {
    this.#isCleared = true;
  }

  meets({ resource, operation, query }: FakeApiRequest): boolean {
    const { rule } = this;
    const wanted = rule.operation ?? OPERATION_OF[rule.with.kind] ?? operation;
    return (
      !this.#isCleared &&
      this.hits < (rule.times ?? 1) &&
      resource === (rule.resource ?? resource) &&
      operation === wanted &&
      query.has('continue') === (rule.continued ?? query.has('continue'))
    );
  }
}

/** The faults to come. The first that fits a request meets it. */
export class FaultScript {
  #entries: ScriptEntry[] = [];

  /** Throws for a fault that could never happen to that operation. */
  add(rule: FaultRule): ScriptedFault {
    const only = OPERATION_OF[rule.with.kind];
    if (only !== undefined && rule.operation !== undefined && rule.operation !== only) {
      throw new Error(`the fault ${rule.with.kind} is for a ${only}`);
    }
    const entry = new ScriptEntry(rule);
    this.#entries.push(entry);
    return entry;
  }

  clear(): void {
    for (const entry of this.#entries) entry.clear();
    this.#entries = [];
  }

  take(request: FakeApiRequest): Fault | undefined {
    const entry = this.#entries.find((entry) => entry.meets(request));
    if (entry === undefined) return undefined;
    entry.hits += 1;
    return entry.rule.with;
  }
}
