/** The sockets of the fake API server: HTTP or HTTPS on loopback, at one port for all its life. */
import { once } from 'node:events';
import { type IncomingMessage, type ServerResponse, createServer } from 'node:http';
import { Server as TlsServer, createServer as createTlsServer } from 'node:https';
import type { AddressInfo, Server, Socket } from 'node:net';

const ADDRESS = '127.0.0.1';

/** PEM. */
export interface FakeTls {
  readonly cert: string;
  readonly key: string;
}

export interface ConnectionHandlers {
  readonly onRequest: (message: IncomingMessage, response: ServerResponse) => void;
  /** Bytes that are no HTTP. */
  readonly onMalformed: (error: Error) => void;
}

interface Connection {
  readonly ordinal: number;
  /** TCP, also under TLS. */
  readonly socket: Socket;
}

export class FakeConnections {
  readonly #server: Server;
  readonly #scheme: 'http' | 'https';
  readonly #byRemotePort = new Map<number, Connection>();
  #port = 0;
  #closed: Promise<unknown> | undefined;
  /** Accepted so far. */
  count = 0;

  constructor(tls: FakeTls | undefined, handlers: ConnectionHandlers) {
    this.#scheme = tls === undefined ? 'http' : 'https';
    const server =
      tls === undefined
        ? createServer(handlers.onRequest)
        : createTlsServer({ ...tls, requestCert: true, rejectUnauthorized: false }, handlers.onRequest);
    // No timer of Node's may end what a test keeps open.
    server.keepAliveTimeout = 0;
    server.requestTimeout = 0;
    server.headersTimeout = 0;
    server.on('clientError', (error: NodeJS.ErrnoException, socket) => {
      if (error.code?.startsWith('HPE_')) handlers.onMalformed(error);
      socket.destroy();
    });
    server.on('connection', (socket: Socket) => this.#accepted(socket));
    this.#server = server;
  }

  get port(): number {
    if (this.#port === 0) throw new Error('the fake API server has never listened');
    return this.#port;
  }

  get url(): URL {
    return new URL(`${this.#scheme}://${ADDRESS}:${this.port}`);
  }

  /** From 1. */
  ordinalOf({ socket }: IncomingMessage): number {
    return this.#byRemotePort.get(socket.remotePort ?? 0)?.ordinal ?? 0;
  }

  /** A function that resets the TCP connection of that request, unless it is gone. */
  resetterOf({ socket }: IncomingMessage): () => void {
    const connection = this.#byRemotePort.get(socket.remotePort ?? 0);
    return () => connection?.socket.resetAndDestroy();
  }

  useTls(tls: FakeTls): void {
    if (!(this.#server instanceof TlsServer)) throw new Error('the fake API server does not speak TLS');
    this.#server.setSecureContext(tls);
  }

  async listen(): Promise<void> {
    if (this.#server.listening) return;
    this.#server.listen({ host: ADDRESS, port: this.#port });
    await once(this.#server, 'listening');
    this.#port = (this.#server.address() as AddressInfo).port;
  }

  /** Resolves when every connection is gone. */
  async close(how: 'close' | 'reset'): Promise<void> {
    if (this.#server.listening) {
      this.#closed = once(this.#server, 'close');
      this.#server.close();
      for (const { socket } of this.#byRemotePort.values()) {
        if (how === 'reset') socket.resetAndDestroy();
        else socket.destroy();
      }
    }
    await this.#closed;
  }

  #accepted(socket: Socket): void {
    this.count += 1;
    const port = socket.remotePort;
    // Gone before it was accepted, as a probe can be.
    if (port === undefined) return;
    const connection = { ordinal: this.count, socket };
    this.#byRemotePort.set(port, connection);
    // Small pieces are to leave as such.
    socket.setNoDelay(true);
    socket.on('error', () => {});
    socket.once('close', () => {
      if (this.#byRemotePort.get(port) === connection) this.#byRemotePort.delete(port);
    });
  }
}
