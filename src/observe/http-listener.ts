/**
 * One HTTP server on one address. An address that cannot be bound is told once and tried again until it can: a
 * predecessor may still hold the port, and traffic must not wait for a health page. Whatever a client or a route
 * does harms that one request only.
 */
import { type IncomingMessage, type Server, type ServerResponse, createServer } from 'node:http';
import { isIP } from 'node:net';
import { ProxyError, errorText } from '../errors.ts';
import type { Logger } from '../log.ts';
import { hostPortText } from '../model/address.ts';
import { INTERNAL_ERROR, type Routes, answerTo } from './http-routes.ts';

/** kube-proxy's pause between two attempts to bind. */
export const BIND_RETRY_MS = 5000;

/** Clients are probes and scrapers; nobody else may hold our descriptors through these ports. */
const SERVER_LIMITS = {
  headersTimeout: 5000,
  requestTimeout: 10_000,
  connectionsCheckingInterval: 5000,
  maxHeaderSize: 8192,
};
const MAX_CONNECTIONS = 256;

export interface BindAddress {
  readonly host: string;
  readonly port: number;
}

export interface HttpListenerOptions {
  /** `0.0.0.0:10256`, `[::]:10256`; port 0 lets the kernel choose. */
  readonly address: string;
  /** The flag that sets the address, for whoever has to mend it. */
  readonly flag: string;
  /** True: a failed bind ends the start instead of being retried. */
  readonly isHardFail: boolean;
}

export class HttpListener {
  readonly #log: Logger;
  readonly #routes: Routes;
  readonly #options: HttpListenerOptions;
  readonly #address: BindAddress;
  readonly #server: Server;
  #attempt: Promise<void> = Promise.resolve();
  #retry: NodeJS.Timeout | undefined;
  #closing: Promise<void> | undefined;

  /** @throws ProxyError `ERR_FLAG_VALUE` when the address is not `IP:port`. */
  constructor(deps: { readonly log: Logger; readonly routes: Routes }, options: HttpListenerOptions) {
    this.#log = deps.log;
    this.#routes = deps.routes;
    this.#options = options;
    this.#address = parseBindAddress(options.address, options.flag);
    this.#server = createServer(SERVER_LIMITS, (request, response) => {
      void this.#serve(request, response);
    });
    this.#server.maxConnections = MAX_CONNECTIONS;
  }

  /** `address:port` as it is bound, with the kernel's choice for port 0; undefined while it is not. */
  get boundAddress(): string | undefined {
    const bound = this.#server.address();
    return bound === null || typeof bound === 'string' ? undefined : hostPortText(bound.address, bound.port);
  }

  /**
   * Resolves after the first attempt to bind, whether or not it went well.
   * @throws ProxyError `ERR_HTTP_BIND` when it did not and `isHardFail` is set.
   */
  async start(): Promise<void> {
    const fault = await this.#tryToBind();
    if (fault === undefined) return;
    if (this.#options.isHardFail) throw fault;
    const { flag } = this.#options;
    this.#log.error(
      { error: fault, flag, address: this.#options.address, retryMs: BIND_RETRY_MS },
      'Cannot bind HTTP server, will try again',
    );
    this.#scheduleRetry();
  }

  /** Stops retrying and listening, and ends every connection. Idempotent; never rejects. */
  async close(): Promise<void> {
    this.#closing ??= this.#closeOnce();
    return this.#closing;
  }

  async #closeOnce(): Promise<void> {
    clearTimeout(this.#retry);
    await this.#attempt;
    if (!this.#server.listening) return;
    const closed = Promise.withResolvers<void>();
    this.#server.close(() => closed.resolve());
    // close() alone waits for keep-alive connections and for clients that never finish their request.
    this.#server.closeAllConnections();
    await closed.promise;
  }

  #scheduleRetry(): void {
    if (this.#closing !== undefined) return;
    this.#retry = setTimeout(() => {
      void this.#retryToBind();
    }, BIND_RETRY_MS);
  }

  async #retryToBind(): Promise<void> {
    const fault = await this.#tryToBind();
    if (fault === undefined) return;
    this.#log.debug({ error: fault, flag: this.#options.flag }, 'Still cannot bind HTTP server');
    this.#scheduleRetry();
  }

  /** The fault, or undefined when the server listens now or is being closed. */
  async #tryToBind(): Promise<ProxyError | undefined> {
    if (this.#closing !== undefined) return undefined;
    const listening = this.#listen();
    this.#attempt = listening.catch(() => {});
    try {
      await listening;
    } catch (error: unknown) {
      const { address, flag } = this.#options;
      const message = `cannot serve on ${address} (${flag}): ${errorText(error)}`;
      return new ProxyError('ERR_HTTP_BIND', message, { cause: error });
    }
    this.#log.info({ address: this.boundAddress, flag: this.#options.flag }, 'HTTP server listening');
    return undefined;
  }

  #listen(): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const server = this.#server;
    const failed = (error: Error): void => {
      server.off('listening', listening);
      reject(error);
    };
    const listening = (): void => {
      server.off('error', failed);
      // From now on an `error` is a failed accept (EMFILE): the kernel keeps the client queued, we keep serving.
      server.on('error', (error) =>
        this.#log.warn({ error, flag: this.#options.flag }, 'HTTP server cannot accept'),
      );
      resolve();
    };
    server.once('error', failed);
    server.once('listening', listening);
    server.listen(this.#address);
    return promise;
  }

  /** Never rejects. A client that has gone in the meantime makes the writes below do nothing. */
  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method = '', url = '' } = request;
    let answer = INTERNAL_ERROR;
    try {
      answer = await answerTo(this.#routes, method, url);
    } catch (error: unknown) {
      this.#log.error({ error, path: url, flag: this.#options.flag }, 'Cannot answer HTTP request');
    }
    response.writeHead(answer.status, {
      ...answer.headers,
      'Content-Length': Buffer.byteLength(answer.body),
    });
    response.end(answer.body);
  }
}

/**
 * `IP:port`, an IPv6 address in brackets, port 0 to 65535.
 * @throws ProxyError `ERR_FLAG_VALUE` that names the flag and the text.
 */
export function parseBindAddress(text: string, flag: string): BindAddress {
  const match = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(text);
  const [, bracketed, plain, digits] = match ?? [];
  const port = Number(digits);
  const isValid = bracketed === undefined ? isIP(plain ?? '') === 4 : isIP(bracketed) === 6;
  if (!isValid || port > 65_535) {
    throw new ProxyError('ERR_FLAG_VALUE', `${flag}: ${JSON.stringify(text)} is not an IP address and port`);
  }
  return { host: bracketed ?? plain ?? '', port };
}
