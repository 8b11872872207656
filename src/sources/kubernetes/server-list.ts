/**
 * The API servers, one of which is in use until it fails: then the next one is, and stays (client connections are
 * long; nothing is gained by going back). And the question, while none can be reached, when one can be again.
 */
import { type Socket, connect } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';

/** One bare TCP connection per server and second is nothing to a server, and makes an outage end when it ends. */
const PROBE_INTERVAL_MS = 1000;
/** A server behind a packet filter says nothing at all; the others must not wait for it. */
const PROBE_TIMEOUT_MS = 1000;

export class ServerList {
  readonly #urls: readonly URL[];
  readonly #random: () => number;
  #inUse = 0;
  #reachable: Promise<void> | undefined;
  #waiting = 0;

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
   * the probes, which go on until none waits any more. Rejects when `signal` is aborted.
   */
  async whenReachable(signal: AbortSignal): Promise<void> {
    const { promise: aborted, reject } = Promise.withResolvers<never>();
    const onAbort = (): void => reject(new Error('nobody waits any more'));
    signal.throwIfAborted();
    signal.addEventListener('abort', onAbort, { once: true });
    this.#waiting += 1;
    try {
      this.#reachable ??= this.#probe().finally(() => {
        this.#reachable = undefined;
      });
      await Promise.race([this.#reachable, aborted]);
    } finally {
      this.#waiting -= 1;
      signal.removeEventListener('abort', onAbort);
    }
  }

  async #probe(): Promise<void> {
    while (this.#waiting > 0) {
      await delay(PROBE_INTERVAL_MS * (0.5 + this.#random()), undefined, { ref: false });
      if (this.#waiting === 0) return;
      // The one in use first: where it works by now, nobody is to be led away from it.
      const inOrder = this.#urls.map((_, offset) => (this.#inUse + offset) % this.#urls.length);
      const accepts = await Promise.all(
        inOrder.map(async (index) => ({ index, isThere: await acceptsConnection(this.#urls[index]) })),
      );
      const found = accepts.find(({ isThere }) => isThere);
      if (found === undefined) continue;
      this.#inUse = found.index;
      return;
    }
  }
}

async function acceptsConnection(url: URL | undefined): Promise<boolean> {
  if (url === undefined) return false;
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const port = Number(url.port === '' ? (url.protocol === 'http:' ? 80 : 443) : url.port);
  const socket: Socket = connect({ host: url.hostname.replace(/^\[|\]$/g, ''), port });
  socket.setTimeout(PROBE_TIMEOUT_MS, () => resolve(false));
  socket.once('connect', () => resolve(true));
  // Refused or unreachable: whatever it is, it is no connection.
  socket.once('error', () => resolve(false));
  const isAccepted = await promise;
  socket.destroy();
  return isAccepted;
}
