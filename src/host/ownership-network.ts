/**
 * The connections between this instance and others: the socket while we have its name, and the peers, whoever of the
 * two connected. Decides nothing about who owns what.
 */
import type { Server, Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { OwnershipPeer } from './ownership-peer.ts';
import { type OpenPort, type OwnershipMessage, portsWithout, unionOfPorts } from './ownership-protocol.ts';
import { connectTo, listenOn } from './ownership-socket.ts';

/** Whoever connects says at once what for. */
const FIRST_MESSAGE_MS = 5000;

/** What became of a question. `silent`: the peer is there and has not answered; `gone`: nobody is. */
export type Asked =
  | { readonly kind: 'yielded' | 'accepted' | 'silent'; readonly peer: OwnershipPeer }
  | { readonly kind: 'gone' };

export interface NetworkHandlers {
  readonly onMessage: (peer: OwnershipPeer, message: OwnershipMessage) => void;
  /** `ended`: ports that nobody else has told of. */
  readonly onEnd: (peer: OwnershipPeer, ended: readonly OpenPort[]) => void;
}

export class OwnershipNetwork {
  readonly #name: string;
  readonly #handlers: NetworkHandlers;
  readonly #peers = new Set<OwnershipPeer>();
  readonly #asked = new Map<OwnershipPeer, (kind: 'yielded' | 'accepted' | 'silent' | 'gone') => void>();
  readonly #closing = new AbortController();
  #server: Server | undefined;
  /** Of our ports, as all have been told of them. */
  #announcedVersion: number | undefined;

  constructor(name: string, handlers: NetworkHandlers) {
    this.#name = name;
    this.#handlers = handlers;
  }

  get isBound(): boolean {
    return this.#server !== undefined;
  }

  get peers(): readonly OwnershipPeer[] {
    return [...this.#peers];
  }

  /** What all of them have open. */
  get ports(): readonly OpenPort[] {
    return unionOfPorts(this.peers.map(({ ports }) => ports));
  }

  /** True when we have the name, from before or now; false: somebody else has it, or we are closed. */
  async bind(): Promise<boolean> {
    if (this.#server !== undefined) return true;
    const server = await listenOn(this.#name, (socket) => this.#accept(socket));
    if (server === undefined) return false;
    if (this.#closing.signal.aborted) server.close();
    else this.#server = server;
    return this.#server !== undefined;
  }

  /** Connections stay. */
  unbind(): void {
    this.#server?.close();
    this.#server = undefined;
  }

  /** Asks whoever has the name. The connection stays open unless the peer ends it. */
  async ask(message: OwnershipMessage, timeoutMs: number): Promise<Asked> {
    const connected = await connectTo(this.#name);
    if (connected.kind !== 'connected') return { kind: 'gone' };
    const peer = this.#add(connected.socket);
    const answer = Promise.withResolvers<'yielded' | 'accepted' | 'silent' | 'gone'>();
    this.#asked.set(peer, answer.resolve);
    peer.send(message);
    void this.pause(timeoutMs).then(() => answer.resolve('silent'));
    const kind = await answer.promise;
    this.#asked.delete(peer);
    return kind === 'gone' ? { kind } : { kind, peer };
  }

  /** Whether all have been told of a complete pass of this tenure. */
  get hasAnnounced(): boolean {
    return this.#announcedVersion !== undefined;
  }

  beginTenure(): void {
    this.#announcedVersion = undefined;
  }

  /** Tells all of the tenure's first complete pass, and of the ports whenever their version is another. */
  announce(version: number, openPorts: () => readonly OpenPort[]): void {
    if (version === this.#announcedVersion) return;
    this.broadcast({ type: 'ports', ports: openPorts() });
    if (!this.hasAnnounced) this.broadcast({ type: 'programmed' });
    this.#announcedVersion = version;
  }

  broadcast(message: OwnershipMessage): void {
    for (const peer of this.#peers) peer.send(message);
  }

  /** Ends early when we are closed. */
  async pause(ms: number): Promise<void> {
    await delay(ms, undefined, { signal: this.#closing.signal }).catch(() => undefined);
  }

  /** Ends every connection. Idempotent. */
  close(): void {
    this.#closing.abort();
    this.unbind();
    for (const peer of this.#peers) peer.close();
  }

  #accept(socket: Socket): void {
    const peer = this.#add(socket);
    void this.pause(FIRST_MESSAGE_MS).then(() => {
      if (!peer.hasSpoken) peer.close();
    });
  }

  #add(socket: Socket): OwnershipPeer {
    const peer: OwnershipPeer = new OwnershipPeer(socket, {
      onMessage: (message) => {
        this.#handlers.onMessage(peer, message);
        const { type } = message;
        if (type === 'yielded' || type === 'accepted') this.#asked.get(peer)?.(type);
        if (type === 'refused') this.#asked.get(peer)?.('silent');
      },
      onEnd: () => {
        this.#peers.delete(peer);
        this.#asked.get(peer)?.('gone');
        this.#handlers.onEnd(peer, portsWithout(peer.ports, this.ports));
      },
    });
    this.#peers.add(peer);
    return peer;
  }
}
