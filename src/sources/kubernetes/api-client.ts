/**
 * GET requests to the API servers: with fresh credentials each, over connections that are kept while the TLS
 * material stays the same, with every fault as an ApiError. HTTP/1.1: a watch has a connection of its own.
 */
import { Agent, request } from 'undici';
import type { Logger } from '../../log.ts';
import { ApiError, apiErrorFromAnswer, apiErrorFromFault } from './api-error.ts';
import { type ApiStatistics, RESOURCE_NAMES } from './api-statistics.ts';
import type { Credentials, RequestCredentials } from './credentials.ts';
import type { ServerList } from './server-list.ts';

/** Until the server has sent the head of its answer; a list of ten thousand objects takes it a second or two. */
const HEADERS_TIMEOUT_MS = 30_000;
/** TCP and TLS. */
const CONNECT_TIMEOUT_MS = 10_000;
/** A dead peer is noticed after this and ten unanswered probes, one a second. */
const KEEP_ALIVE_MS = 30_000;
/** Longest answer that is taken apart as an error. */
const MAX_ERROR_BYTES = 65_536;
/** More than any list: a string cannot be longer than 512 MiB. */
const MAX_BODY_BYTES = 400 * 1024 * 1024;

export interface ApiRequest {
  readonly path: string;
  readonly query: Readonly<Record<string, string>>;
  /** Longest silence between two chunks of the answer, and before its head (there 30 s at most). */
  readonly silenceTimeoutMs: number;
  readonly signal: AbortSignal;
}

/** Of a 200 answer. Whoever begins to read it reads it to the end or leaves the loop; it fails with an ApiError. */
export type ApiBody = AsyncGenerator<Uint8Array, void, undefined>;

export interface ApiClientDeps {
  readonly credentials: Credentials;
  readonly servers: ServerList;
  readonly statistics: ApiStatistics;
  readonly logger: Logger;
}

export class ApiClient {
  readonly #deps: ApiClientDeps;
  readonly #userAgent: string;
  #connections: { readonly tlsKey: string; readonly agent: Agent } | undefined;
  /** Agents of earlier TLS material that still carry a request. */
  readonly #retired = new Set<Agent>();

  constructor(deps: ApiClientDeps, options: { readonly version: string }) {
    this.#deps = deps;
    this.#userAgent = `kube-userspace-proxy/${options.version} (${process.platform}/${process.arch})`;
  }

  /** The body of a 200 answer. Rejects with an ApiError for everything else. */
  async get(wanted: ApiRequest): Promise<ApiBody> {
    const { credentials, servers } = this.#deps;
    // Who gives up here must not go on: undici would notice once it is connected, where `close` does not look.
    const secrets = await unlessAborted(async () => credentials.current(), wanted.signal);
    const server = servers.current;
    try {
      return await this.#request(server, secrets, wanted);
    } catch (fault) {
      const error = this.#failed(fault, server, wanted.signal);
      if (error.status === undefined) this.#deps.statistics.requestEnded(server.host, '<error>');
      if (error.status === 401) credentials.refused();
      throw error;
    }
  }

  /** The whole body of a 200 answer as parsed JSON. */
  async getJson(wanted: ApiRequest): Promise<unknown> {
    const text = await readText(await this.get(wanted), MAX_BODY_BYTES);
    try {
      return JSON.parse(text) as unknown;
    } catch (error) {
      throw new ApiError('ERR_API_RESPONSE', 'the API server answered with something else than JSON', {
        cause: error,
      });
    }
  }

  /** Ends every request; none may follow. */
  async close(): Promise<void> {
    const agents = [...this.#retired, ...(this.#connections === undefined ? [] : [this.#connections.agent])];
    this.#retired.clear();
    this.#connections = undefined;
    await Promise.all(agents.map((agent) => agent.destroy()));
  }

  async #request(server: URL, secrets: RequestCredentials, wanted: ApiRequest): Promise<ApiBody> {
    const { statusCode, headers, body } = await request(new URL(wanted.path, server), {
      dispatcher: this.#agentFor(secrets),
      query: wanted.query,
      headers: { ...secrets.headers, accept: 'application/json', 'user-agent': this.#userAgent },
      headersTimeout: Math.min(HEADERS_TIMEOUT_MS, wanted.silenceTimeoutMs),
      bodyTimeout: wanted.silenceTimeoutMs,
      signal: wanted.signal,
    });
    this.#deps.statistics.requestEnded(server.host, String(statusCode));
    if (statusCode === 200) return this.#read(body, server, wanted.signal);
    const text = await readText(body, MAX_ERROR_BYTES).catch(() => '');
    const retryAfter = headers['retry-after'];
    throw apiErrorFromAnswer({
      status: statusCode,
      body: parseOrText(text),
      retryAfter: typeof retryAfter === 'string' ? retryAfter : undefined,
    });
  }

  /** Leaving it early destroys `body`, and with it the connection. */
  async *#read(body: AsyncIterable<Uint8Array>, server: URL, signal: AbortSignal): ApiBody {
    try {
      yield* body;
    } catch (fault) {
      throw this.#failed(fault, server, signal);
    }
  }

  /** Takes note that the server may not be the one to go on with. */
  #failed(fault: unknown, server: URL, signal: AbortSignal): ApiError {
    const error = apiErrorFromFault(fault);
    // A deadline aborts the signal too, and is the server's fault; who gives up blames nobody.
    const isBlamed = !signal.aborted || error.code === 'ERR_API_STALLED';
    if (error.isServerFault && isBlamed) this.#deps.servers.failed(server);
    return error;
  }

  #agentFor({ tls, tlsKey }: RequestCredentials): Agent {
    if (this.#connections?.tlsKey === tlsKey) return this.#connections.agent;
    if (this.#connections !== undefined) this.#retire(this.#connections.agent);
    const agent = new Agent({
      allowH2: false,
      // So a watch is renewed over the connection it had: with a spare one they would take turns, and turn cold.
      connections: RESOURCE_NAMES.length,
      connect: {
        ...tls,
        timeout: CONNECT_TIMEOUT_MS,
        keepAlive: true,
        keepAliveInitialDelay: KEEP_ALIVE_MS,
      },
    });
    this.#connections = { tlsKey, agent };
    return agent;
  }

  /** What it carries goes on: an established watch was granted to the old certificate. */
  #retire(agent: Agent): void {
    this.#retired.add(agent);
    agent
      .close()
      .catch((error: unknown) => this.#deps.logger.debug({ error }, 'Closing old connections failed'))
      .finally(() => this.#retired.delete(agent));
  }
}

/** What `ask` gives, unless `signal` is aborted first: an exec plugin may hang. Rejects with an ApiError then. */
async function unlessAborted<T>(ask: () => Promise<T>, signal: AbortSignal): Promise<T> {
  if (signal.aborted) throw apiErrorFromFault(signal.reason);
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => reject(apiErrorFromFault(signal.reason));
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    return await Promise.race([ask(), aborted]);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}

async function readText(body: AsyncIterable<Uint8Array>, maxBytes: number): Promise<string> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of body) {
    size += chunk.length;
    if (size > maxBytes)
      throw new ApiError('ERR_API_RESPONSE', `the answer is longer than ${maxBytes} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks, size).toString('utf8');
}

function parseOrText(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return { message: text.trim() };
  }
}
