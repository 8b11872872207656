/** A loopback port that refuses connections until it is opened, and can be closed again. */
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { type AddressInfo, type Server, type Socket, createServer } from 'node:net';
import { onTestFinished } from 'vitest';

export class GateServer {
  readonly url: URL;
  /** The ports of the peers of all connections taken so far, in order; undefined of one that was gone by then. */
  readonly peers: (number | undefined)[] = [];
  readonly #server: Server = createServer();
  readonly #address: string;
  readonly #port: number;
  readonly #sockets = new Set<Socket>();

  private constructor(address: string, port: number) {
    this.#address = address;
    this.#port = port;
    this.url = new URL(`https://${address}:${port}`);
    this.#server.on('connection', (socket) => {
      this.peers.push(socket.remotePort);
      this.#sockets.add(socket);
      socket.on('error', () => {});
      socket.once('close', () => this.#sockets.delete(socket));
    });
  }

  /** Closed, and nobody else listens there: all of 127.0.0.0/8 is this machine, and the address is of our own. */
  static async make(): Promise<GateServer> {
    const address = `127.${randomInt(1, 255)}.${randomInt(1, 255)}.${randomInt(1, 255)}`;
    const probe = createServer();
    probe.listen(0, address);
    await once(probe, 'listening');
    const { port } = probe.address() as AddressInfo;
    probe.close();
    await once(probe, 'close');
    const gate = new GateServer(address, port);
    onTestFinished(() => gate.close());
    return gate;
  }

  async open(): Promise<void> {
    this.#server.listen(this.#port, this.#address);
    await once(this.#server, 'listening');
  }

  /** Idempotent. */
  async close(): Promise<void> {
    if (!this.#server.listening) return;
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
    await once(this.#server, 'close');
  }

  /** Connections taken so far. */
  get connections(): number {
    return this.peers.length;
  }

  /** Connections that are open. */
  get openConnections(): number {
    return this.#sockets.size;
  }
}
