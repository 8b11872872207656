/**
 * A client of a real API server for the test process, which is in none of the lab's namespaces: HTTP over TLS over a
 * unix socket that an agent relays. It retries nothing, so that a test sees what the server said.
 */
import { Agent, type Dispatcher, request } from 'undici';
import type { KeyPair } from './cluster-certificates.ts';

/** The host name in every URL; the server's certificate has it. */
const ORIGIN = 'https://kubernetes.default.svc';
const REQUEST_DEADLINE_MS = 10_000;
const MAX_CONNECTIONS = 64;

/** What proves who asks: a bearer token, a client certificate, or nothing. */
export type Credentials = { readonly token: string } | KeyPair | Readonly<Record<string, never>>;

/** What the server adds to the metadata of every object it stores. Its times are text, whatever the types say. */
export interface StoredMetadata {
  name: string;
  /** Absent in objects that have none. */
  namespace: string;
  uid: string;
  resourceVersion: string;
}

/** An object as the server gives it back. */
export type Stored<T extends object = object> = T & { metadata: StoredMetadata };

/** Any object; its fields are to be checked by the test. */
export type ApiObject = Stored<{ [field: string]: unknown }>;

export interface ObjectList<T extends object = ApiObject> {
  readonly metadata: { readonly resourceVersion: string; readonly continue?: string };
  readonly items: readonly Stored<T>[];
}

export interface WatchEvent<T extends object = ApiObject> {
  /** With `ERROR` the object is a Status. */
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK' | 'ERROR';
  readonly object: Stored<T>;
}

export type Query = Readonly<Record<string, string | number | boolean>>;

export type PatchType = 'merge' | 'strategic-merge' | 'json';

/** An answer other than 2xx; the message has verb, path, status and the server's own words. */
export class ApiError extends Error {
  readonly status: number;
  /** Kubernetes' word for it, such as `NotFound`; empty when the answer was no Status object. */
  readonly reason: string;

  constructor(what: string, status: number, body: string) {
    const { reason, message } = parseStatus(body);
    super(`${what}: ${status} ${reason}: ${message}`);
    this.name = 'ApiError';
    this.status = status;
    this.reason = reason;
  }
}

export interface ApiClientOptions {
  readonly socketPath: string;
  /** The authority of the server's certificate, PEM. */
  readonly ca: string;
  readonly credentials: Credentials;
}

interface Call {
  readonly query?: Query;
  readonly body?: object;
  readonly contentType?: string;
  readonly signal?: AbortSignal;
}

export class ApiClient {
  readonly #agent: Agent;
  readonly #headers: Readonly<Record<string, string>>;

  constructor({ socketPath, ca, credentials }: ApiClientOptions) {
    const { key, cert } = credentials as Partial<KeyPair>;
    this.#agent = new Agent({
      allowH2: false,
      connections: MAX_CONNECTIONS,
      headersTimeout: 0,
      bodyTimeout: 0,
      connect: {
        socketPath,
        ca,
        ...(key === undefined || cert === undefined ? {} : { key, cert }),
      },
    });
    this.#headers = {
      'user-agent': 'cluster-test',
      ...('token' in credentials ? { authorization: `Bearer ${credentials.token}` } : {}),
    };
  }

  async get<T extends object = ApiObject>(path: string, query: Query = {}): Promise<Stored<T>> {
    return this.#object('GET', path, { query });
  }

  async list<T extends object = ApiObject>(path: string, query: Query = {}): Promise<ObjectList<T>> {
    return JSON.parse(await this.#text('GET', path, { query })) as ObjectList<T>;
  }

  /** POST to a collection, or to a subresource. */
  async create<T extends object = ApiObject>(path: string, object: object): Promise<Stored<T>> {
    return this.#object('POST', path, { body: object });
  }

  /** PUT to an object. With a resourceVersion in it, it is refused (409) when the object has changed since. */
  async update<T extends object = ApiObject>(path: string, object: object): Promise<Stored<T>> {
    return this.#object('PUT', path, { body: object });
  }

  /** PUT to the status of the object at that path. */
  async updateStatus<T extends object = ApiObject>(path: string, object: object): Promise<Stored<T>> {
    return this.update<T>(`${path}/status`, object);
  }

  async patch<T extends object = ApiObject>(
    path: string,
    patch: object,
    type: PatchType = 'merge',
  ): Promise<Stored<T>> {
    return this.#object('PATCH', path, { body: patch, contentType: `application/${type}-patch+json` });
  }

  /** Resolves when the server has taken it; what finalizers and grace periods delay goes later. */
  async delete(path: string, options: { readonly gracePeriodSeconds?: number } = {}): Promise<void> {
    await this.#text('DELETE', path, { body: { apiVersion: 'v1', kind: 'DeleteOptions', ...options } });
  }

  /** The text of a page such as /metrics or /readyz. */
  async text(path: string): Promise<string> {
    return this.#text('GET', path, {});
  }

  /**
   * The events of a watch on a collection, until the server ends it, the signal or the end of the loop. An `ERROR`
   * event is one of them. Throws an ApiError when the watch itself is refused.
   */
  async *watch<T extends object = ApiObject>(
    path: string,
    query: Query = {},
    signal?: AbortSignal,
  ): AsyncGenerator<WatchEvent<T>, void, undefined> {
    const { body } = await this.#send('GET', path, {
      query: { ...query, watch: true },
      ...(signal === undefined ? {} : { signal }),
    });
    let rest = '';
    try {
      for await (const text of body.setEncoding('utf8') as AsyncIterable<string>) {
        const lines = (rest + text).split('\n');
        rest = lines.pop() ?? '';
        for (const line of lines) yield JSON.parse(line) as WatchEvent<T>;
      }
    } catch (error: unknown) {
      if (signal?.aborted !== true) throw new Error(`watch ${path}: ${String(error)}`, { cause: error });
    }
  }

  /** Closes the connections; what is under way rejects. Idempotent. */
  async close(): Promise<void> {
    await this.#agent.destroy();
  }

  async #object<T extends object>(
    method: Dispatcher.HttpMethod,
    path: string,
    call: Call,
  ): Promise<Stored<T>> {
    return JSON.parse(await this.#text(method, path, call)) as Stored<T>;
  }

  async #text(method: Dispatcher.HttpMethod, path: string, call: Call): Promise<string> {
    const signal = AbortSignal.timeout(REQUEST_DEADLINE_MS);
    const { body } = await this.#send(method, path, { signal, ...call });
    return body.text();
  }

  async #send(method: Dispatcher.HttpMethod, path: string, call: Call): Promise<Dispatcher.ResponseData> {
    const { query = {}, body, contentType = 'application/json', signal } = call;
    const what = `${method} ${path}`;
    const response = await request(`${ORIGIN}${path}`, {
      method,
      query,
      dispatcher: this.#agent,
      headers: { ...this.#headers, ...(body === undefined ? {} : { 'content-type': contentType }) },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      ...(signal === undefined ? {} : { signal }),
    }).catch((error: unknown) => {
      throw new Error(`${what}: ${String(error)}`, { cause: error });
    });
    if (response.statusCode >= 300) throw new ApiError(what, response.statusCode, await response.body.text());
    return response;
  }
}

function parseStatus(body: string): { readonly reason: string; readonly message: string } {
  try {
    const { reason = '', message = body } = JSON.parse(body) as { reason?: string; message?: string };
    return { reason, message };
  } catch {
    return { reason: '', message: body.trim() };
  }
}
