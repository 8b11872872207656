/** Real TCP peers on loopback. What is opened here is destroyed when the test has finished. */
import { once } from 'node:events';
import { type AddressInfo, type Socket, connect, createServer } from 'node:net';
import { Worker } from 'node:worker_threads';
import { onTestFinished } from 'vitest';
import type { SocketAddress } from '../../src/engine/engine.ts';
import { errnoOf } from '../../src/errors.ts';
import { waitFor } from './wait.ts';

const OBSERVED_WITHIN_MS = 10_000;

/** One end of a connection, with everything that reached it. Reads unless `hold` was called. */
export class TcpPeer {
  readonly socket: Socket;
  readonly #chunks: Buffer[] = [];
  /** The other side has ended in order. */
  hasEnded = false;
  /** `ECONNRESET` when the other side has reset. */
  errno: string | undefined;

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', (chunk) => this.#chunks.push(chunk));
    socket.once('end', () => {
      this.hasEnded = true;
    });
    socket.on('error', (error) => {
      this.errno ??= errnoOf(error) ?? error.message;
    });
    onTestFinished(() => {
      socket.destroy();
    });
  }

  get address(): SocketAddress {
    const { address, port } = this.socket.address() as AddressInfo;
    return { address, port };
  }

  get received(): Buffer {
    return Buffer.concat(this.#chunks);
  }

  get receivedBytes(): number {
    return this.#chunks.reduce((sum, chunk) => sum + chunk.length, 0);
  }

  /** Bytes that have left this process for the kernel. */
  get acceptedBytes(): number {
    return this.socket.bytesWritten - this.socket.writableLength;
  }

  send(data: string | Buffer): void {
    this.socket.write(data);
  }

  /** Ends this side's direction; the other stays open. */
  end(): void {
    this.socket.end();
  }

  reset(): void {
    this.socket.resetAndDestroy();
  }

  hold(): void {
    this.socket.pause();
  }

  readOn(): void {
    this.socket.resume();
  }

  async text(expected: string): Promise<void> {
    await waitFor(() => this.received.toString() === expected, {
      timeoutMs: OBSERVED_WITHIN_MS,
      what: `the text ${JSON.stringify(expected)}, not ${JSON.stringify(this.received.toString())}`,
    });
  }

  async bytes(count: number): Promise<void> {
    await waitFor(() => this.receivedBytes >= count, { timeoutMs: 30_000, what: `${count} bytes` });
  }

  async ended(): Promise<void> {
    await waitFor(() => this.hasEnded, { timeoutMs: OBSERVED_WITHIN_MS, what: 'the end of a connection' });
  }

  /** Resolves with the errno; a connection that ended in order rejects. */
  async failed(): Promise<string> {
    return waitFor(
      () => {
        if (this.errno === undefined && this.hasEnded) throw new Error('it ended in order');
        return this.errno;
      },
      { timeoutMs: OBSERVED_WITHIN_MS, what: 'the fault of a connection' },
    );
  }
}

/** Connects; rejects when that fails. Half-open connections stay open. */
export async function connectTcp({ address, port }: SocketAddress): Promise<TcpPeer> {
  const socket = connect({ host: address, port, allowHalfOpen: true, autoSelectFamily: false });
  const peer = new TcpPeer(socket);
  await once(socket, 'connect');
  return peer;
}

export class TcpBackend implements SocketAddress {
  readonly address: string;
  readonly port: number;
  /** Every connection so far, in order. */
  readonly peers: TcpPeer[] = [];

  constructor({ address, port }: SocketAddress) {
    this.address = address;
    this.port = port;
  }

  /** The nth connection, once it is there. */
  async peer(index = 0): Promise<TcpPeer> {
    return waitFor(() => this.peers[index], {
      timeoutMs: OBSERVED_WITHIN_MS,
      what: `connection ${index} of a backend`,
    });
  }
}

/** A server on loopback; `serve` gets every connection. */
export async function openTcpBackend(
  address = '127.0.0.1',
  serve: (peer: TcpPeer) => void = () => {},
): Promise<TcpBackend> {
  const server = createServer({ allowHalfOpen: true });
  server.listen({ host: address, port: 0, backlog: 4096 });
  await once(server, 'listening');
  onTestFinished(() => {
    server.close();
  });
  const backend = new TcpBackend({ address, port: (server.address() as AddressInfo).port });
  server.on('connection', (socket) => {
    const peer = new TcpPeer(socket);
    backend.peers.push(peer);
    serve(peer);
  });
  return backend;
}

/** Sends back what it gets, and ends when the client has ended. */
export function echo({ socket }: TcpPeer): void {
  socket.pipe(socket);
}

/** Says who it is, and ends. */
export function sayName(name: string): (peer: TcpPeer) => void {
  return ({ socket }) => {
    socket.end(name);
  };
}

/**
 * A loopback port on which nobody listens: connections are refused. It is the client's end of a connection that
 * is held, so that nobody else can listen there either.
 */
export async function closedTcpPort(address = '127.0.0.1'): Promise<SocketAddress> {
  const holder = await connectTcp(await openTcpBackend(address));
  return holder.address;
}

/** Its loop stands still from the moment it listens, so nothing is ever accepted. */
const BLACK_HOLE = `
  const { parentPort, workerData } = require('node:worker_threads');
  const server = require('node:net').createServer();
  server.listen({ host: workerData.address, port: 0, backlog: 1 }, () => {
    parentPort.postMessage(server.address().port);
    Atomics.wait(new Int32Array(workerData.gate), 0, 0);
    process.exit();
  });
`;

/** An address that answers no SYN: a listener whose accept queue is full and is never emptied. */
export async function openBlackHole(address = '127.0.0.1'): Promise<SocketAddress> {
  const gate = new SharedArrayBuffer(4);
  const worker = new Worker(BLACK_HOLE, { eval: true, workerData: { address, gate } });
  onTestFinished(async () => {
    Atomics.store(new Int32Array(gate), 0, 1);
    Atomics.notify(new Int32Array(gate), 0);
    await worker.terminate();
  });
  const [port] = (await once(worker, 'message')) as [number];
  // A queue of length 1 takes two; the kernel drops the SYNs after that.
  await connectTcp({ address, port });
  await connectTcp({ address, port });
  return { address, port };
}
