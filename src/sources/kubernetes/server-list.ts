/**
 * The API servers, one of which is in use until it fails: then the next one is, and stays (client connections are
 * long; nothing is gained by going back). And the question, while none can be reached, when one can be again.
 */
import { type Socket, connect } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';

/** One bare TCP connection per server and second is nothing to a server, and makes an outage end when it ends. */
const PROBE_INTERVAL_MS = 1000;
const PROBE_TIMEOUT_MS = 10_000;

export class ServerList {
  readonly #urls: readonly URL[];
  readonly #random: () => number;
  #inUse = 0;
  #reachable: Promise<void> | undefined;

  /** `urls`: one or more origins. `random` spreads the probes of many nodes. */
  constructor(deps: { readonly random: () => number }, urls: readonly URL[]) {
    this.#urls = urls;
    this.#random = deps.random;
  }

  get size(): number {
    return this.#urls.length;
  }

  get current(): URL {
    const url = this.#urls[this.#inUse];
    if (url === undefined) throw new Error('no API server was given');
    return url;
  }

  /** That server failed. When it was the one in use, the next one is. */
  failed(url: URL): void {
    if (url === this.current) this.#inUse = (this.#inUse + 1) % this.#urls.length;
  }

  /**
   * Resolves once one of the servers takes a TCP connection, and makes that one the one in use. All who wait share
   * the probes. Rejects when `signal` is aborted.
   */
  async whenReachable(signal: AbortSignal): Promise<void> {
    this.#reachable ??= this.#probe(signal).finally(() => {
      this.#reachable = undefined;
    });
    return this.#reachable;
  }

  async #probe(signal: AbortSignal): Promise<void> {
    for (;;) {
      await delay(PROBE_INTERVAL_MS * (0.5 + this.#random()), undefined, { signal });
      // The one in use first: where it works by now, nobody is to be led away from it.
      for (let offset = 0; offset < this.#urls.length; offset += 1) {
        const index = (this.#inUse + offset) % this.#urls.length;
        const url = this.#urls[index];
        if (url !== undefined && (await acceptsConnection(url, signal))) {
          this.#inUse = index;
          return;
        }
      }
      signal.throwIfAborted();
    }
  }
}

async function acceptsConnection(url: URL, signal: AbortSignal): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const port = Number(url.port === '' ? (url.protocol === 'http:' ? 80 : 443) : url.port);
  const socket: Socket = connect({ host: url.hostname.replace(/^\[|\]$/g, ''), port, signal });
  socket.setTimeout(PROBE_TIMEOUT_MS, () => resolve(false));
  socket.once('connect', () => resolve(true));
  // Refused, unreachable or aborted: whatever it is, it is no connection.
  socket.once('error', () => resolve(false));
  const isAccepted = await promise;
  socket.destroy();
  return isAccepted;
}
