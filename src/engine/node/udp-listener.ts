/**
 * A UDP proxy port: one socket for each local address on which redirected datagrams can arrive, because a
 * socket answers from the address it is bound to, and from a wildcard socket the kernel would choose another
 * one as soon as the node has several. Binds are exclusive: no wildcard socket stands beside them, so no
 * address reuse is needed and a port that is taken is noticed.
 */
import { type RemoteInfo, type Socket, createSocket } from 'node:dgram';
import type { SocketAddress } from '../engine.ts';
import { literalLookup } from './literal-lookup.ts';
import type { UdpSession } from './udp-session.ts';

export interface UdpListenerHandlers {
  /** The first datagram of a client on that socket; undefined when it is to be dropped. */
  readonly openSession: (client: SocketAddress, socket: UdpLocalSocket) => UdpSession | undefined;
  /** The socket met a fault and goes on. */
  readonly onError: () => void;
}

/** One bound socket with the sessions that came in by it. */
export class UdpLocalSocket {
  readonly socket: Socket;
  readonly #sessionByClient = new Map<string, UdpSession>();

  constructor(socket: Socket) {
    this.socket = socket;
  }

  get sessions(): Iterable<UdpSession> {
    return this.#sessionByClient.values();
  }

  sessionOf(client: SocketAddress): UdpSession | undefined {
    return this.#sessionByClient.get(clientKey(client));
  }

  add(session: UdpSession): void {
    this.#sessionByClient.set(clientKey(session.client), session);
  }

  remove(session: UdpSession): void {
    if (this.sessionOf(session.client) === session) this.#sessionByClient.delete(clientKey(session.client));
  }
}

function clientKey({ address, port }: SocketAddress): string {
  return `${port}|${address}`;
}

export class UdpListener {
  readonly #port: number;
  readonly #type: 'udp4' | 'udp6';
  readonly #handlers: UdpListenerHandlers;
  readonly #socketByAddress = new Map<string, UdpLocalSocket>();

  constructor(at: { readonly port: number; readonly isIPv6: boolean }, handlers: UdpListenerHandlers) {
    this.#port = at.port;
    this.#type = at.isIPv6 ? 'udp6' : 'udp4';
    this.#handlers = handlers;
  }

  /** Binds what is new, closes what is gone. Rejects with the first system error once all binds have ended. */
  async setAddresses(addresses: readonly string[]): Promise<void> {
    for (const [address, local] of this.#socketByAddress) {
      if (!addresses.includes(address)) this.#closeSocket(address, local);
    }
    const missing = addresses.filter((address) => !this.#socketByAddress.has(address));
    const results = await Promise.allSettled(missing.map(async (address) => this.#bind(address)));
    const failed = results.find((result) => result.status === 'rejected');
    if (failed !== undefined) throw failed.reason;
  }

  close(): void {
    for (const [address, local] of this.#socketByAddress) this.#closeSocket(address, local);
  }

  async #bind(address: string): Promise<void> {
    const socket = createSocket({ type: this.#type, ipv6Only: this.#type === 'udp6', lookup: literalLookup });
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    socket.once('error', reject);
    socket.bind({ address, port: this.#port, exclusive: true }, resolve);
    try {
      await promise;
    } catch (error) {
      socket.close();
      throw error;
    }
    socket.off('error', reject);
    socket.on('error', () => this.#handlers.onError());
    const local = new UdpLocalSocket(socket);
    socket.on('message', (datagram, client) => this.#receive(local, datagram, client));
    this.#socketByAddress.set(address, local);
  }

  #receive(local: UdpLocalSocket, datagram: Buffer, client: RemoteInfo): void {
    const session = local.sessionOf(client) ?? this.#handlers.openSession(client, local);
    session?.receive(datagram);
  }

  #closeSocket(address: string, local: UdpLocalSocket): void {
    this.#socketByAddress.delete(address);
    for (const session of local.sessions) session.reset();
    local.socket.close();
  }
}
