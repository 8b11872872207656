/** A bare HTTP or HTTPS server on loopback that answers as a test says, and the real client to ask it with. */
import { once } from 'node:events';
import {
  type IncomingHttpHeaders,
  type IncomingMessage,
  type RequestListener,
  type ServerResponse,
  createServer,
} from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import { TLSSocket } from 'node:tls';
import { inspect } from 'node:util';
import { onTestFinished } from 'vitest';
import { ApiClient, type ApiClientDeps, type ApiRequest } from '../../src/sources/kubernetes/api-client.ts';
import { ApiError } from '../../src/sources/kubernetes/api-error.ts';
import { ApiStatistics } from '../../src/sources/kubernetes/api-statistics.ts';
import {
  AnonymousCredentials,
  type Credentials,
  type RequestCredentials,
} from '../../src/sources/kubernetes/credentials.ts';
import { ServerList } from '../../src/sources/kubernetes/server-list.ts';
import { closedTcpPort } from './loopback-tcp.ts';
import { RecordingLogger } from './recording-logger.ts';

export interface SeenRequest {
  readonly method: string;
  /** Path and query. */
  readonly url: string;
  readonly headers: IncomingHttpHeaders;
  /** The ordinal of its TCP connection, from 1. */
  readonly connection: number;
  /** The common name of the client's certificate, which is not verified. */
  readonly clientName: string | undefined;
}

export type Answer = (response: ServerResponse, request: SeenRequest) => void;

export interface LoopbackTls {
  readonly cert: string;
  readonly key: string;
}

export class LoopbackApi {
  readonly url: URL;
  readonly requests: SeenRequest[] = [];
  /** TCP connections accepted so far. */
  connectionCount = 0;
  readonly #close: (how: 'close' | 'reset') => Promise<void>;

  constructor(url: URL, close: (how: 'close' | 'reset') => Promise<void>) {
    this.url = url;
    this.#close = close;
  }

  /** Ends all connections and refuses new ones. Idempotent. */
  async close(how: 'close' | 'reset' = 'close'): Promise<void> {
    await this.#close(how);
  }
}

/** 200 with that as JSON. */
export function json(value: unknown): Answer {
  return (response) => {
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(value));
  };
}

export function status(code: number, body = '', headers: Readonly<Record<string, string>> = {}): Answer {
  return (response) => {
    response.writeHead(code, headers).end(body);
  };
}

/** Answers every request; closed when the test has finished. */
export async function openLoopbackApi(answer: Answer, tls?: LoopbackTls): Promise<LoopbackApi> {
  const sockets = new Map<number, { readonly ordinal: number; readonly socket: Socket }>();
  const listener: RequestListener = (message, response) => {
    const request = seenFrom(message, sockets.get(message.socket.remotePort ?? 0)?.ordinal ?? 0);
    api.requests.push(request);
    response.on('error', () => {});
    answer(response, request);
  };
  const server =
    tls === undefined
      ? createServer(listener)
      : createTlsServer({ ...tls, requestCert: true, rejectUnauthorized: false }, listener);
  server.keepAliveTimeout = 0;
  server.on('tlsClientError', () => {});
  server.on('connection', (socket: Socket) => {
    api.connectionCount += 1;
    const port = socket.remotePort ?? 0;
    sockets.set(port, { ordinal: api.connectionCount, socket });
    socket.on('error', () => {});
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const url = new URL(`${tls === undefined ? 'http' : 'https'}://127.0.0.1:${port}`);
  const api = new LoopbackApi(url, async (how) => {
    if (!server.listening) return;
    server.close();
    for (const { socket } of sockets.values()) {
      if (how === 'reset') socket.resetAndDestroy();
      else socket.destroy();
    }
    await once(server, 'close');
  });
  onTestFinished(() => api.close());
  return api;
}

function seenFrom(message: IncomingMessage, connection: number): SeenRequest {
  const { socket } = message;
  const certificate = socket instanceof TLSSocket ? socket.getPeerX509Certificate() : undefined;
  return {
    method: message.method ?? '',
    url: message.url ?? '',
    headers: message.headers,
    connection,
    clientName: /^CN=(.*)$/m.exec(certificate?.subject ?? '')?.[1],
  };
}

/** What a test says they are, and how often they were refused. */
export class FakeCredentials implements Credentials {
  now: RequestCredentials = { headers: {}, tls: {}, tlsKey: '' };
  refusals = 0;
  onRefused = (): void => {};

  async current(): Promise<RequestCredentials> {
    return this.now;
  }

  refused(): void {
    this.refusals += 1;
    this.onRefused();
  }
}

/** Where connections are refused. */
export async function urlOfNobody(): Promise<URL> {
  return new URL(`http://127.0.0.1:${(await closedTcpPort()).port}`);
}

export interface TestClient {
  readonly client: ApiClient;
  readonly servers: ServerList;
  readonly statistics: ApiStatistics;
  readonly logger: RecordingLogger;
}

/** A client of nobody, unless told; closed when the test has finished. */
export function makeClient(
  urls: readonly URL[],
  deps: Partial<Pick<ApiClientDeps, 'credentials'>> = {},
): TestClient {
  const logger = new RecordingLogger();
  const servers = new ServerList({ random: () => 0.5 }, urls);
  const statistics = new ApiStatistics();
  const client = new ApiClient(
    { credentials: new AnonymousCredentials(), ...deps, logger, servers, statistics },
    { version: '1.2.3' },
  );
  onTestFinished(() => client.close());
  return { client, servers, statistics, logger };
}

/** A request for `/version`, unless tweaked, that nobody gives up. */
export function apiRequest(tweak: Partial<ApiRequest> = {}): ApiRequest {
  return {
    path: '/version',
    query: {},
    silenceTimeoutMs: 10_000,
    signal: new AbortController().signal,
    ...tweak,
  };
}

/** The ApiError that the promise rejects with; everything else fails the test. */
export async function faultOf(promise: Promise<unknown>): Promise<ApiError> {
  const outcome = await promise.then(
    (value) => ({ value }),
    (error: unknown) => ({ error }),
  );
  if ('error' in outcome && outcome.error instanceof ApiError) return outcome.error;
  throw new Error(`expected an ApiError, got ${inspect(outcome)}`);
}

/** All that can come to light of an error: message, stack, causes and every field, or of anything else. */
export function everythingIn(value: unknown): string {
  return inspect(value, { depth: 20, showHidden: true, maxStringLength: null, maxArrayLength: null });
}
