/**
 * A server on the address of a flag. An address that cannot be bound is told once and tried again until it can: a
 * predecessor may still hold the port, and traffic must not wait for a health page.
 */
import { isIP } from 'node:net';
import { ProxyError, errorText } from '../errors.ts';
import type { Logger } from '../log.ts';
import { type Routes, answerTo } from './http-routes.ts';
import { type BindAddress, ConnectionRoom, HttpSocket } from './http-socket.ts';

/** kube-proxy's pause between two attempts to bind. */
export const BIND_RETRY_MS = 5000;

export interface HttpListenerOptions {
  /** `0.0.0.0:10256`, `[::]:10256`; port 0 lets the kernel choose. */
  readonly address: string;
  /** The flag that sets the address, for whoever has to mend it. */
  readonly flag: string;
  /** True: a failed bind ends the start instead of being retried. */
  readonly isHardFail: boolean;
  /** At a time; those above displace the oldest. */
  readonly maxConnections: number;
}

export class HttpListener {
  readonly #log: Logger;
  readonly #options: HttpListenerOptions;
  readonly #socket: HttpSocket;
  #retry: NodeJS.Timeout | undefined;
  #closing: Promise<void> | undefined;

  /** @throws ProxyError `ERR_FLAG_VALUE` when the address is not `IP:port`. */
  constructor(deps: { readonly log: Logger; readonly routes: Routes }, options: HttpListenerOptions) {
    const { log, routes } = deps;
    this.#log = log;
    this.#options = options;
    this.#socket = new HttpSocket(
      { log, answer: async (method, target) => answerTo(routes, method, target) },
      {
        address: parseBindAddress(options.address, options.flag),
        room: new ConnectionRoom(options.maxConnections),
        fields: { flag: options.flag },
      },
    );
  }

  /** `address:port` as it is bound, with the kernel's choice for port 0; undefined while it is not. */
  get boundAddress(): string | undefined {
    return this.#socket.boundAddress;
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
    clearTimeout(this.#retry);
    this.#closing ??= this.#socket.close();
    return this.#closing;
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
    try {
      await this.#socket.open();
    } catch (error: unknown) {
      const { address, flag } = this.#options;
      const message = `cannot serve on ${address} (${flag}): ${errorText(error)}`;
      return new ProxyError('ERR_HTTP_BIND', message, { cause: error });
    }
    this.#log.info({ address: this.boundAddress, flag: this.#options.flag }, 'HTTP server listening');
    return undefined;
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
