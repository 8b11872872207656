/** How the fake API server answers: from its store, unless a fault was scripted. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { type BodyShape, FakeBody } from './fake-api-body.ts';
import type { FakeConnections } from './fake-api-connections.ts';
import type { Fault, FaultScript } from './fake-api-fault.ts';
import { type JsonObject, KINDS, type StatusFields, listedObject, statusObject } from './fake-api-objects.ts';
import type { FakeApiRecord } from './fake-api-record.ts';
import { type FakeApiRequest, type Question, questionFrom, recordedFrom } from './fake-api-request.ts';
import type { FakeStore } from './fake-api-store.ts';
import { FakeWatch } from './fake-api-watch.ts';

/** Who is let in; everybody else gets 401. */
export type FakeApiAccept =
  | { readonly tokens: ReadonlySet<string> }
  /** SHA-256, as `AB:CD:…`. */
  | { readonly certificateFingerprints: ReadonlySet<string> };

/** Every field may be changed at any time, and counts for the requests from then on. */
export interface FakeApiBehaviour {
  /** The versions of discovery.k8s.io that are served; `v1` unless told. */
  discovery: 'v1' | 'v1beta1' | 'both';
  /** How a watch learns that its version is too old; a watch cache sends an event, which is what is done here. */
  goneAs: 'status' | 'event';
  /** The 404 for a version that is not served: a Status, unless told, or plain text as from a real server. */
  notServedAs: 'status' | 'text';
  /** No bookmark leaves the server. */
  withholdBookmarks: boolean;
  /** `undefined`: everybody. */
  accept: FakeApiAccept | undefined;
}

interface Exchange {
  readonly request: FakeApiRequest;
  readonly response: ServerResponse;
  readonly reset: () => void;
}

export interface AnswersDeps {
  readonly behaviour: FakeApiBehaviour;
  readonly store: FakeStore;
  readonly record: FakeApiRecord;
  readonly script: FaultScript;
  readonly connections: FakeConnections;
}

const JSON_TYPE = { 'content-type': 'application/json' };
const HUGE_PIECE_BYTES = 1024 * 1024;

export class FakeApiAnswers {
  readonly #deps: AnswersDeps;
  #isStalled = false;
  #waiting: Exchange[] = [];
  readonly #bodies = new Set<FakeBody>();

  constructor(deps: AnswersDeps) {
    this.#deps = deps;
  }

  take(message: IncomingMessage, response: ServerResponse): void {
    const { connections, record } = this.#deps;
    const request = recordedFrom(message, connections.ordinalOf(message));
    record.requests.push(request);
    // What is sent along is thrown away; left unread it would keep the connection from ending.
    message.resume();
    message.on('error', () => {});
    response.on('error', () => {});
    const exchange = { request, response, reset: connections.resetterOf(message) };
    if (this.#isStalled) this.#waiting.push(exchange);
    else this.#answer(exchange);
  }

  stallAll(): void {
    this.#isStalled = true;
    for (const body of this.#bodies) body.hold();
  }

  resume(): void {
    this.#isStalled = false;
    for (const body of this.#bodies) body.resume();
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const exchange of waiting) if (!exchange.response.destroyed) this.#answer(exchange);
  }

  #answer(exchange: Exchange): void {
    const { behaviour, record, script } = this.#deps;
    const { request } = exchange;
    const question = questionFrom(request);
    if ('why' in question) {
      record.unexpected.push(
        `${request.method} ${request.path}?${request.query.toString()}: ${question.why}`,
      );
      sendStatus(exchange, { code: question.code, message: question.why });
      return;
    }
    const fault = script.take(request);
    if (fault !== undefined && this.#failed(exchange, fault)) return;
    if (!this.#isAccepted(request)) {
      sendStatus(exchange, { code: 401, message: 'Unauthorized' });
      return;
    }
    const { discovery } = question.path;
    if (discovery !== undefined && behaviour.discovery !== 'both' && behaviour.discovery !== discovery) {
      this.#sendNotServed(exchange);
      return;
    }
    if (question.operation === 'list') this.#list(exchange, question, fault);
    else this.#watch(exchange, question, fault);
  }

  /** Whether the fault was the whole answer. */
  #failed(exchange: Exchange, fault: Fault): boolean {
    if (fault.kind === 'status') sendStatus(exchange, fault.status);
    else if (fault.kind === 'reset') exchange.reset();
    else if (fault.kind === 'text') {
      exchange.response.writeHead(fault.status, { ...JSON_TYPE, ...fault.headers });
      exchange.response.end(fault.text);
    } else return fault.kind === 'stall';
    return true;
  }

  #isAccepted({ authorization, clientCertificate }: FakeApiRequest): boolean {
    const { accept } = this.#deps.behaviour;
    if (accept === undefined) return true;
    if ('tokens' in accept) {
      return authorization?.startsWith('Bearer ') === true && accept.tokens.has(authorization.slice(7));
    }
    return (
      clientCertificate !== undefined && accept.certificateFingerprints.has(clientCertificate.fingerprint)
    );
  }

  #sendNotServed(exchange: Exchange): void {
    if (this.#deps.behaviour.notServedAs === 'status') {
      sendStatus(exchange, { code: 404, message: 'the server could not find the requested resource' });
      return;
    }
    exchange.response.writeHead(404, { 'content-type': 'text/plain; charset=utf-8' });
    exchange.response.end('404 page not found\n');
  }

  #list(
    exchange: Exchange,
    question: Extract<Question, { operation: 'list' }>,
    fault: Fault | undefined,
  ): void {
    const { store } = this.#deps;
    const { resourceVersion, path } = question;
    if (resourceVersion !== undefined && resourceVersion > store.resourceVersion) {
      const message = `Too large resource version: ${resourceVersion}, current: ${store.resourceVersion}`;
      const causes = [{ reason: 'ResourceVersionTooLarge', message: 'Too large resource version' }];
      sendStatus(exchange, { code: 504, message, causes, retryAfterSeconds: 1 });
      return;
    }
    const page = store.page(path.resource, question.selects, question);
    if (page.outcome === 'invalid') {
      sendStatus(exchange, { code: 400, message: 'continue key is not valid' });
      return;
    }
    if (page.outcome === 'expired') {
      const message = 'The provided continue parameter is too old to display a consistent list result.';
      sendStatus(exchange, { code: 410, message, continueToken: page.restart });
      return;
    }
    const hasMore = page.continueToken !== undefined;
    let list: unknown = {
      kind: `${KINDS[path.resource].kind}List`,
      apiVersion: path.apiVersion,
      metadata: {
        resourceVersion: String(page.resourceVersion),
        ...(hasMore ? { continue: page.continueToken } : {}),
        // A real server does not count what a selector leaves.
        ...(hasMore && !question.hasSelector ? { remainingItemCount: page.remaining } : {}),
      },
      items: page.items.map(listedObject),
    };
    if (fault?.kind === 'list') list = fault.change(list as JsonObject);
    if (fault?.kind === 'same-continue') {
      const token = question.token ?? page.continueToken ?? store.tokenFromStart(path.resource);
      list = withContinue(list as JsonObject, token);
    }
    const body = this.#open(exchange, fault);
    void body.write(JSON.stringify(list));
    body.finish();
  }

  #watch(
    exchange: Exchange,
    question: Extract<Question, { operation: 'watch' }>,
    fault: Fault | undefined,
  ): void {
    const { behaviour, store, record } = this.#deps;
    const missed = store.eventsAfter(question.path.resource, question.resourceVersion);
    const gone: StatusFields = {
      code: 410,
      message: `too old resource version: ${question.resourceVersion} (${store.floor})`,
    };
    if (missed === undefined && behaviour.goneAs === 'status') {
      sendStatus(exchange, gone);
      return;
    }
    const closed = Promise.withResolvers<void>();
    const timer = setTimeout(() => body.finish(), question.timeoutSeconds * 1000);
    exchange.response.once('close', () => {
      clearTimeout(timer);
      closed.resolve();
    });
    const body = this.#open(exchange, fault);
    const watch = new FakeWatch({ request: exchange.request, question, body, closed: closed.promise });
    record.watches.push(watch);
    if (missed === undefined) {
      void watch.event('ERROR', statusObject(gone));
      body.finish();
      return;
    }
    if (fault?.kind === 'huge-line') this.#sendHugeLine(body, fault.bytes);
    if (fault?.kind === 'watch-text') {
      void watch.send(fault.text);
      if (fault.thenEnd) watch.end();
    }
    for (const event of missed) watch.deliver(event);
  }

  #sendHugeLine(body: FakeBody, bytes: number): void {
    void body.write('{"type":"ADDED","object":{"metadata":{"name":"');
    const piece = Buffer.alloc(HUGE_PIECE_BYTES, 'x');
    for (let left = bytes; left > 0; left -= piece.length) void body.write(piece.subarray(0, left));
    body.stop('stall');
  }

  #open({ response, reset }: Exchange, fault: Fault | undefined): FakeBody {
    const shape: BodyShape =
      fault?.kind === 'cut' ? { cut: fault } : fault?.kind === 'drip' ? { drip: fault } : {};
    const headers = fault?.kind === 'headers' ? { ...JSON_TYPE, ...fault.headers } : JSON_TYPE;
    const body = new FakeBody({ response, reset }, shape, headers);
    this.#bodies.add(body);
    response.once('close', () => this.#bodies.delete(body));
    return body;
  }
}

function withContinue(list: JsonObject, token: string): JsonObject {
  return { ...list, metadata: { ...(list['metadata'] as JsonObject), continue: token } };
}

function sendStatus({ response }: Exchange, status: StatusFields): void {
  const { retryAfterSeconds } = status;
  response.writeHead(status.code, {
    ...JSON_TYPE,
    ...(retryAfterSeconds === undefined ? {} : { 'retry-after': String(retryAfterSeconds) }),
  });
  response.end(JSON.stringify(statusObject(status)));
}
