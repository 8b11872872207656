/**
 * One UDP client flow: the datagrams of one client address and port on one local address, and a connected
 * socket to the backend, so that the kernel delivers only the backend's replies and its ICMP refusals.
 */
import { type Socket, createSocket } from 'node:dgram';
import type { MonotonicMs } from '../../clock.ts';
import type { CloseCause, Decision, SessionId, SocketAddress } from '../engine.ts';
import { dialFailureFromErrno, errnoText } from '../errno.ts';
import { literalLookup } from './literal-lookup.ts';
import type { MutableTotals, NodeSession, Reporter } from './reporter.ts';

/** What a client may have sent before its backend is up; two datagrams of the largest size. */
const MAX_PENDING_BYTES = 131_072;

export interface UdpSessionDeps {
  readonly reporter: Reporter;
  readonly totals: MutableTotals;
  /** The client's datagrams and the backend's renew the session. */
  readonly onUsed: (session: UdpSession) => void;
  readonly onClosed: (session: UdpSession) => void;
  /** Sends to the client from the local address its datagrams arrived on. */
  readonly reply: (datagram: Buffer, client: SocketAddress) => void;
}

type State =
  | { readonly kind: 'deciding' }
  | { readonly kind: 'dialling' | 'relaying'; readonly backend: Socket }
  | { readonly kind: 'closed' };

export class UdpSession implements NodeSession {
  readonly id: SessionId;
  readonly client: SocketAddress;
  /** Set by `UdpSessions` alone. */
  lastUsed: MonotonicMs = 0;
  hasReply = false;
  bytesIn = 0;
  bytesOut = 0;
  readonly #deps: UdpSessionDeps;
  #state: State = { kind: 'deciding' };
  #pending: Buffer[] = [];
  #pendingBytes = 0;

  constructor(client: SocketAddress, deps: UdpSessionDeps) {
    this.id = deps.reporter.nextSessionId();
    this.client = client;
    this.#deps = deps;
  }

  /** A datagram from the client. */
  receive(datagram: Buffer): void {
    if (this.#state.kind === 'closed') {
      this.#deps.totals.datagramsDropped += 1;
      return;
    }
    this.#deps.totals.datagramsIn += 1;
    this.#deps.onUsed(this);
    if (this.#state.kind === 'relaying') {
      this.#send(this.#state.backend, datagram);
    } else if (this.#pendingBytes + datagram.length <= MAX_PENDING_BYTES) {
      this.#pending.push(datagram);
      this.#pendingBytes += datagram.length;
    } else {
      this.#deps.totals.datagramsDropped += 1;
    }
  }

  answer(decision: Decision): void {
    if (this.#state.kind === 'relaying' || this.#state.kind === 'closed') return;
    this.#abandonDial();
    if (decision.kind === 'refuse') this.end('refused');
    else this.#dial(decision.to);
  }

  reset(cause: 'stopped' | 'evicted' = 'stopped'): void {
    this.end(cause);
  }

  /** Every path ends here, once. */
  end(cause: CloseCause): void {
    if (this.#state.kind === 'closed') return;
    if (this.#state.kind !== 'deciding') closeQuietly(this.#state.backend);
    this.#state = { kind: 'closed' };
    this.#deps.totals.datagramsDropped += this.#pending.length;
    this.#pending = [];
    const { id, bytesIn, bytesOut } = this;
    this.#deps.reporter.report({ kind: 'closed', session: id, cause, bytesIn, bytesOut });
    this.#deps.onClosed(this);
  }

  #dial(to: SocketAddress): void {
    const backend = createSocket({ type: to.address.includes(':') ? 'udp6' : 'udp4', lookup: literalLookup });
    this.#state = { kind: 'dialling', backend };
    backend.on('error', (error) => this.#backendFailed(backend, errnoText(error)));
    backend.on('message', (datagram) => this.#forward(datagram));
    backend.once('connect', () => this.#established(backend));
    // Without a callback: one would be called with the error too, in place of the event.
    backend.connect(to.port, to.address);
  }

  #established(backend: Socket): void {
    if (this.#state.kind !== 'dialling' || this.#state.backend !== backend) return;
    this.#state = { kind: 'relaying', backend };
    this.#deps.reporter.report({ kind: 'established', session: this.id });
    const pending = this.#pending;
    this.#pending = [];
    this.#pendingBytes = 0;
    for (const datagram of pending) this.#send(backend, datagram);
  }

  #send(backend: Socket, datagram: Buffer): void {
    this.bytesIn += datagram.length;
    backend.send(datagram, this.#onSent);
  }

  #backendFailed(backend: Socket, errno: string): void {
    if (this.#state.kind === 'relaying') {
      this.#relayFailed(errno);
    } else if (this.#state.kind === 'dialling' && this.#state.backend === backend) {
      this.#abandonDial();
      const failure = dialFailureFromErrno(errno);
      const decision = this.#deps.reporter.report({ kind: 'dialFailed', session: this.id, failure, errno });
      if (decision !== undefined) this.answer(decision);
    }
  }

  /** A refusal ends the flow, so that the client's next datagram finds another endpoint; all else is one datagram lost. */
  #relayFailed(errno: string): void {
    if (errno === 'ECONNREFUSED') this.end('backendRefused');
    else this.#deps.totals.datagramsDropped += 1;
  }

  readonly #onSent = (error: Error | null): void => {
    if (error !== null && this.#state.kind === 'relaying') this.#relayFailed(errnoText(error));
  };

  #forward(datagram: Buffer): void {
    if (this.#state.kind !== 'relaying') return;
    this.hasReply = true;
    this.bytesOut += datagram.length;
    this.#deps.totals.datagramsOut += 1;
    this.#deps.onUsed(this);
    this.#deps.reply(datagram, this.client);
  }

  #abandonDial(): void {
    if (this.#state.kind !== 'dialling') return;
    closeQuietly(this.#state.backend);
    this.#state = { kind: 'deciding' };
  }
}

/** `close` throws on a socket that failed to bind. */
function closeQuietly(socket: Socket): void {
  socket.removeAllListeners();
  socket.on('error', () => {});
  try {
    socket.close();
  } catch {
    // It has no handle any more: there is nothing left to close.
  }
}
