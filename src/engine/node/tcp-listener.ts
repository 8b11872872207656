/** A listening TCP socket that accepts at once and hands every connection on, paused. */
import { setImmediate as afterPoll } from 'node:timers/promises';
import { type Server, type Socket, createServer } from 'node:net';
import { errnoText } from './errno.ts';
import { KEEP_ALIVE_DELAY_MS } from './tcp-session.ts';

/** A burst waits in the kernel; the kernel cuts this to net.core.somaxconn. */
const BACKLOG = 4096;

export interface TcpListenerHandlers {
  readonly onConnection: (socket: Socket) => void;
  readonly onFault: (errno: string) => void;
}

export class TcpListener {
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
  }

  /** Accepting when resolved; rejects with the system's error. */
  static async open(
    { address, port, isIPv6 }: { readonly address: string; readonly port: number; readonly isIPv6: boolean },
    { onConnection, onFault }: TcpListenerHandlers,
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
    server.on('error', (error) => onFault(errnoText(error)));
    return new TcpListener(server);
  }

  /** Accepts what the kernel has queued, then closes. The accepted connections are not ours and live on. */
  async close(): Promise<void> {
    // libuv accepts until the queue is empty whenever the loop polls: after one poll it is.
    await afterPoll();
    this.#server.close();
  }
}
