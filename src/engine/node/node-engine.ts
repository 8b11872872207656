/** The engine that always works: Node's own sockets and streams. */
import type { Socket } from 'node:net';
import type { Clock, MonotonicMs } from '../../clock.ts';
import type {
  Decision,
  Engine,
  EngineOptions,
  EngineTotals,
  ListenerId,
  ListenerSpec,
  Policy,
  SessionBytes,
  SessionId,
  SocketAddress,
} from '../engine.ts';
import { addressesFault, openFault } from '../errno.ts';
import { type MutableTotals, type NodeSession, Reporter } from './reporter.ts';
import { TcpListener } from './tcp-listener.ts';
import { TcpSession } from './tcp-session.ts';
import { UdpListener, type UdpLocalSocket } from './udp-listener.ts';
import { UdpSession } from './udp-session.ts';
import { UdpSessions } from './udp-sessions.ts';

/** Idle UDP sessions are looked for this many times within the shorter time-out. */
const SWEEPS_PER_TIMEOUT = 10;
const MAX_SWEEP_INTERVAL_MS = 1000;

export interface NodeEngineDeps {
  readonly clock: Clock;
  readonly policy: Policy;
}

export class NodeEngine implements Engine {
  readonly #options: EngineOptions;
  readonly #reporter: Reporter;
  readonly #totals: MutableTotals = {
    datagramsIn: 0,
    datagramsOut: 0,
    datagramsDropped: 0,
    flowControlPauses: 0,
    listenerErrors: 0,
  };
  readonly #sessions = new Map<SessionId, NodeSession>();
  readonly #listeners = new Map<ListenerId, TcpListener | UdpListener>();
  readonly #udpSessions: UdpSessions;
  readonly #sweep: NodeJS.Timeout;

  constructor(deps: NodeEngineDeps, options: EngineOptions) {
    this.#options = options;
    this.#reporter = new Reporter(deps);
    this.#udpSessions = new UdpSessions({
      unrepliedTimeoutMs: options.udpUnrepliedTimeoutMs,
      repliedTimeoutMs: options.udpRepliedTimeoutMs,
    });
    const shortest = Math.min(options.udpUnrepliedTimeoutMs, options.udpRepliedTimeoutMs);
    const interval = Math.min(MAX_SWEEP_INTERVAL_MS, Math.ceil(shortest / SWEEPS_PER_TIMEOUT));
    this.#sweep = setInterval(() => this.#endIdleUdpSessions(), interval);
    this.#sweep.unref();
  }

  async open(spec: ListenerSpec): Promise<ListenerId> {
    const id = this.#reporter.nextId() as ListenerId;
    try {
      this.#listeners.set(
        id,
        spec.protocol === 'TCP' ? await this.#openTcp(id, spec) : await this.#openUdp(id, spec),
      );
    } catch (error) {
      throw openFault(spec, error);
    }
    return id;
  }

  async setAddresses(id: ListenerId, addresses: readonly string[]): Promise<void> {
    const listener = this.#listeners.get(id);
    if (!(listener instanceof UdpListener)) return;
    try {
      await listener.setAddresses(addresses);
    } catch (error) {
      throw addressesFault(addresses, error);
    }
  }

  /** One on each address of UDP, see udp-listener.ts. */
  socketsFor({ protocol, addresses }: Pick<ListenerSpec, 'protocol' | 'addresses'>): number {
    return protocol === 'TCP' ? 1 : addresses.length;
  }

  async close(id: ListenerId): Promise<void> {
    const listener = this.#listeners.get(id);
    this.#listeners.delete(id);
    await listener?.close();
  }

  answer(session: SessionId, decision: Decision): void {
    this.#sessions.get(session)?.answer(decision);
  }

  reset(sessions: Iterable<SessionId>, cause: 'stopped' | 'evicted' = 'stopped'): void {
    for (const session of sessions) this.#sessions.get(session)?.reset(cause);
  }

  lastUsed(session: SessionId): MonotonicMs | undefined {
    return this.#sessions.get(session)?.lastUsed;
  }

  *sessionBytes(): Iterable<SessionBytes> {
    for (const { id, bytesIn, bytesOut } of this.#sessions.values()) yield { session: id, bytesIn, bytesOut };
  }

  totals(): EngineTotals {
    return { ...this.#totals };
  }

  async shutdown(): Promise<void> {
    clearInterval(this.#sweep);
    await Promise.all([...this.#listeners.keys()].map(async (id) => this.close(id)));
    this.reset([...this.#sessions.keys()]);
  }

  async #openTcp(id: ListenerId, { addresses, port, family }: ListenerSpec): Promise<TcpListener> {
    const [address = family === 'IPv6' ? '::' : '0.0.0.0'] = addresses;
    return TcpListener.open(
      { address, port, isIPv6: family === 'IPv6' },
      {
        onConnection: (socket) => this.#accept(id, socket),
        onError: () => {
          this.#totals.listenerErrors += 1;
        },
      },
    );
  }

  #accept(listener: ListenerId, socket: Socket): void {
    const { remoteAddress: address, remotePort: port } = socket;
    // The client reset before we got to it: there is nobody to serve and nothing was opened.
    if (address === undefined || port === undefined) {
      socket.destroy();
      return;
    }
    const session = new TcpSession(socket, {
      reporter: this.#reporter,
      totals: this.#totals,
      idleTimeoutMs: this.#options.tcpIdleTimeoutMs,
      halfCloseTimeoutMs: this.#options.halfCloseTimeoutMs,
      onClosed: ({ id }) => this.#sessions.delete(id),
    });
    this.#sessions.set(session.id, session);
    const client = { address, port };
    const decision = this.#reporter.report({ kind: 'opened', listener, session: session.id, client });
    if (decision !== undefined) session.answer(decision);
  }

  async #openUdp(id: ListenerId, { addresses, port, family }: ListenerSpec): Promise<UdpListener> {
    const listener = new UdpListener(
      { port, isIPv6: family === 'IPv6' },
      {
        openSession: (client, local) => this.#openUdpSession(id, client, local),
        onError: () => {
          this.#totals.listenerErrors += 1;
        },
      },
    );
    try {
      await listener.setAddresses(addresses);
    } catch (error) {
      listener.close();
      throw error;
    }
    return listener;
  }

  #openUdpSession(
    listener: ListenerId,
    { address, port }: SocketAddress,
    local: UdpLocalSocket,
  ): UdpSession | undefined {
    // Legal on the wire and impossible to answer: Node throws when it is asked to send to port 0.
    if (port === 0) {
      this.#totals.datagramsDropped += 1;
      return undefined;
    }
    const session = new UdpSession(
      { address, port },
      {
        reporter: this.#reporter,
        totals: this.#totals,
        onUsed: (used) => this.#udpSessions.touch(used, this.#reporter.clock.now()),
        onClosed: (closed) => {
          this.#udpSessions.remove(closed);
          local.remove(closed);
          this.#sessions.delete(closed.id);
        },
        reply: (datagram, client) => this.#reply(local, datagram, client),
      },
    );
    this.#sessions.set(session.id, session);
    local.add(session);
    this.#udpSessions.touch(session, this.#reporter.clock.now());
    const decision = this.#reporter.report({
      kind: 'opened',
      listener,
      session: session.id,
      client: session.client,
    });
    if (decision !== undefined) session.answer(decision);
    return session;
  }

  #reply(local: UdpLocalSocket, datagram: Buffer, client: SocketAddress): void {
    local.socket.send(datagram, client.port, client.address, (error) => {
      if (error !== null) this.#totals.datagramsDropped += 1;
    });
  }

  #endIdleUdpSessions(): void {
    for (const session of this.#udpSessions.expired(this.#reporter.clock.now())) session.end('idle');
  }
}
