/** Real UDP peers on loopback. What is opened here is closed when the test has finished. */
import { type RemoteInfo, createSocket } from 'node:dgram';
import { once } from 'node:events';
import { onTestFinished } from 'vitest';
import type { SocketAddress } from '../../src/engine/engine.ts';
import { waitFor } from './wait.ts';

const OBSERVED_WITHIN_MS = 10_000;

export interface Datagram {
  readonly data: Buffer;
  readonly from: SocketAddress;
}

/** A bound socket with everything that reached it. */
export class UdpPeer implements SocketAddress {
  readonly #socket;
  readonly datagrams: Datagram[] = [];
  /** Answers to every datagram, when set. */
  serve: ((data: Buffer, from: SocketAddress) => void) | undefined;

  constructor(address: string) {
    this.#socket = createSocket({ type: address.includes(':') ? 'udp6' : 'udp4' });
    this.#socket.on('message', (data: Buffer, from: RemoteInfo) => {
      this.datagrams.push({ data, from: { address: from.address, port: from.port } });
      this.serve?.(data, from);
    });
    onTestFinished(() => this.close());
  }

  get address(): string {
    return this.#socket.address().address;
  }

  get port(): number {
    return this.#socket.address().port;
  }

  get texts(): readonly string[] {
    return this.datagrams.map(({ data }) => data.toString());
  }

  async bind(address: string, port = 0): Promise<void> {
    this.#socket.bind({ address, port, exclusive: true });
    await once(this.#socket, 'listening');
  }

  /** Resolves when the kernel has taken it. */
  async send(data: string | Buffer, to: SocketAddress): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#socket.send(data, to.port, to.address, (error) => (error === null ? resolve() : reject(error)));
    await promise;
  }

  /** The nth datagram, once it is there. */
  async datagram(index = 0): Promise<Datagram> {
    return waitFor(() => this.datagrams[index], {
      timeoutMs: OBSERVED_WITHIN_MS,
      what: `datagram ${index}`,
    });
  }

  /** Hears only that one from here on. */
  async connect({ address, port }: SocketAddress): Promise<void> {
    this.#socket.connect(port, address);
    await once(this.#socket, 'connect');
  }

  close(): void {
    try {
      this.#socket.close();
    } catch {
      // It was closed by the test.
    }
  }
}

export async function openUdpPeer(address = '127.0.0.1', port = 0): Promise<UdpPeer> {
  const peer = new UdpPeer(address);
  await peer.bind(address, port);
  return peer;
}

/** Sends one datagram to an echo and awaits the client's `count`th in all. */
export async function exchange(client: UdpPeer, to: SocketAddress, count: number): Promise<void> {
  await client.send(`datagram ${count}`, to);
  await client.datagram(count - 1);
}

/** Sends back what it gets, `prefix` first. */
export async function openUdpEcho(address = '127.0.0.1', prefix = ''): Promise<UdpPeer> {
  const peer = await openUdpPeer(address);
  peer.serve = (data, from) => void peer.send(Buffer.concat([Buffer.from(prefix), data]), from);
  return peer;
}

/**
 * A loopback port on which nobody listens: datagrams are answered by ICMP. It is held by a socket that is
 * connected to somebody else, so that nobody else can bind it.
 */
export async function closedUdpPort(address = '127.0.0.1'): Promise<SocketAddress> {
  const peer = await openUdpPeer(address);
  await peer.connect(await openUdpPeer(address));
  return { address, port: peer.port };
}
