/**
 * One HTTP server on one address, with bounds on what its clients may cost. When to bind, and what to do when that
 * fails, is for whoever owns it. Whatever a client or an answer does harms that one request only.
 */
import { type IncomingMessage, type Server, type ServerResponse, createServer } from 'node:http';
import type { Socket } from 'node:net';
import type { LogFields, Logger } from '../log.ts';
import { hostPortText } from '../model/address.ts';
import { type Answer, INTERNAL_ERROR } from './http-routes.ts';

/** Clients are probes and scrapers; nobody else may hold our descriptors through these ports. */
const SERVER_LIMITS = {
  headersTimeout: 5000,
  requestTimeout: 10_000,
  connectionsCheckingInterval: 5000,
  maxHeaderSize: 8192,
};
const MAX_REQUESTS_PER_CONNECTION = 100;

export interface BindAddress {
  /** An IP address. */
  readonly host: string;
  /** 0 lets the kernel choose. */
  readonly port: number;
  /** True: `::` leaves IPv4 to others. By default it takes both. */
  readonly ipv6Only?: boolean;
}

/**
 * So many connections at a time, of one server or of several together. Who comes where there is no room displaces the one
 * that has been there longest: probes take milliseconds, and whoever holds connections to keep them out holds none.
 */
export class ConnectionRoom {
  readonly #max: number;
  /** In the order in which they came. */
  readonly #open = new Set<Socket>();

  constructor(max: number) {
    this.#max = max;
  }

  admit(socket: Socket): void {
    this.#open.add(socket);
    socket.once('close', () => this.#open.delete(socket));
    const [oldest] = this.#open;
    if (this.#open.size <= this.#max || oldest === undefined) return;
    this.#open.delete(oldest);
    oldest.destroy();
  }
}

export interface HttpSocketDeps {
  readonly log: Logger;
  /** The answer to one request, by its method and target. One that rejects becomes a 500. */
  readonly answer: (method: string, target: string) => Answer | Promise<Answer>;
}

export interface HttpSocketOptions {
  readonly address: BindAddress;
  /** So that its clients cost no descriptor that traffic needs. */
  readonly room: ConnectionRoom;
  /** What tells this server from the others in the log. */
  readonly fields: LogFields;
}

export class HttpSocket {
  readonly #deps: HttpSocketDeps;
  readonly #options: HttpSocketOptions;
  readonly #server: Server;
  #attempt: Promise<void> = Promise.resolve();
  #closing: Promise<void> | undefined;

  constructor(deps: HttpSocketDeps, options: HttpSocketOptions) {
    this.#deps = deps;
    this.#options = options;
    this.#server = createServer(SERVER_LIMITS, (request, response) => {
      void this.#serve(request, response);
    });
    // One that sends requests and reads no answer would have them all held for it.
    this.#server.maxRequestsPerSocket = MAX_REQUESTS_PER_CONNECTION;
    this.#server.on('connection', (socket: Socket) => options.room.admit(socket));
  }

  /** `address:port` as it is bound, with the kernel's choice for port 0; undefined while it is not. */
  get boundAddress(): string | undefined {
    const bound = this.#server.address();
    return bound === null || typeof bound === 'string' ? undefined : hostPortText(bound.address, bound.port);
  }

  /**
   * Resolves when the address is bound, or when `close` was called before. Rejects with the system error; it may be
   * called again then.
   */
  async open(): Promise<void> {
    if (this.#closing !== undefined) return;
    const listening = this.#listen();
    this.#attempt = listening.catch(() => {});
    await listening;
  }

  /**
   * While it is bound, no connection is accepted and none is served from this call on. Resolves when all are gone.
   * Idempotent; never rejects.
   */
  async close(): Promise<void> {
    this.#closing ??= this.#closeOnce();
    return this.#closing;
  }

  async #closeOnce(): Promise<void> {
    if (!this.#server.listening) await this.#attempt;
    if (!this.#server.listening) return;
    const closed = Promise.withResolvers<void>();
    this.#server.close(() => closed.resolve());
    // close() alone waits for keep-alive connections and for clients that never finish their request.
    this.#server.closeAllConnections();
    await closed.promise;
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
        this.#deps.log.warn({ error, ...this.#options.fields }, 'HTTP server cannot accept'),
      );
      resolve();
    };
    server.once('error', failed);
    server.once('listening', listening);
    server.listen(this.#options.address);
    return promise;
  }

  /** Never rejects. A client that has gone in the meantime makes the writes below do nothing. */
  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method = '', url = '' } = request;
    let answer = INTERNAL_ERROR;
    try {
      answer = await this.#deps.answer(method, url);
    } catch (error: unknown) {
      this.#deps.log.error({ error, path: url, ...this.#options.fields }, 'Cannot answer HTTP request');
    }
    response.writeHead(answer.status, {
      ...answer.headers,
      'Content-Length': Buffer.byteLength(answer.body),
    });
    response.end(answer.body);
  }
}
