/** A listening TCP socket that accepts at once and hands every connection on, paused. */
import { setImmediate as afterPoll } from 'node:timers/promises';
import { type Server, type Socket, createServer } from 'node:net';
import { KEEP_ALIVE_DELAY_MS } from './tcp-session.ts';

/** A burst waits in the kernel; the kernel cuts this to net.core.somaxconn. */
const BACKLOG = 4096;

export interface TcpListenerHandlers {
  readonly onConnection: (socket: Socket) => void;
  /** A connection could not be accepted; the socket goes on listening. */
  readonly onError: () => void;
}

export class TcpListener {
  readonly #server: Server;
  #accepted = 0;

  private constructor(server: Server) {
    this.#server = server;
    server.on('connection', () => {
      this.#accepted += 1;
    });
  }

  /** Accepting when resolved; rejects with the system's error. */
  static async open(
    { address, port, isIPv6 }: { readonly address: string; readonly port: number; readonly isIPv6: boolean },
    { onConnection, onError }: TcpListenerHandlers,
  ): Promise<TcpListener> {
    const server = createServer({
      allowHalfOpen: true,
      pauseOnConnect: true,
      noDelay: true,
      keepAlive: true,
      keepAliveInitialDelay: KEEP_ALIVE_DELAY_MS,
    });
    server.on('connection', onConnection);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    server.once('error', reject);
    server.listen({ host: address, port, backlog: BACKLOG, ipv6Only: isIPv6, exclusive: true }, resolve);
    await promise;
    server.off('error', reject);
    server.on('error', onError);
    return new TcpListener(server);
  }

  /** Accepts what the kernel has queued, then closes. The accepted connections are not ours and live on. */
  async close(): Promise<void> {
    // libuv accepts one connection in each turn of the loop (since 1.45), and the turn we are in may be past its
    // poll: the queue is empty once two turns brought none. Under a flood, what was queued at the call is through
    // after a whole queue's length.
    const enough = this.#accepted + BACKLOG;
    let quietTurns = 0;
    while (quietTurns < 2 && this.#accepted <= enough) {
      const before = this.#accepted;
      await afterPoll();
      quietTurns = this.#accepted === before ? quietTurns + 1 : 0;
    }
    this.#server.close();
  }
}
