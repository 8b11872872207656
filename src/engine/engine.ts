/**
 * The interface between who decides (`proxy/`) and who moves bytes (an engine). An engine accepts, asks the
 * policy, dials where it is told, relays, and reports. It knows no Service, no balancing and no retry: every
 * engine that passes `test/contract/engine-contract.ts` behaves the same.
 *
 * A session is one TCP connection or one UDP client flow (client address and port on one local address).
 *
 * What every engine guarantees:
 * 1. Ids are never reused. `closed` comes exactly once for every `opened`, and nothing after it.
 * 2. Accepting never waits for a decision or a dial. Until a backend is up at most 128 KiB of a client's data
 *    are held (TCP: the rest stays in the kernel; UDP: the rest is dropped and counted).
 * 3. TCP: FIN is passed on as FIN in each direction by itself, RST as RST. Data in flight is bounded by
 *    back-pressure. A client that resets while a dial is under way ends the session at once, unless it has sent
 *    more than is held: then the reset stands behind data nobody reads yet, and shows when the dial has ended.
 * 4. UDP: whole datagrams to 65,507 bytes, in order, empty ones included; the reply leaves from the local
 *    address and port the client's datagrams arrived on.
 * 5. A fault of one session ends that session only.
 *
 * A policy may call `answer`, `reset` and `lastUsed` while it handles events; what comes of it is reported before the
 * call returns, or later. An engine that reports several events in one call may be ahead of its policy: of a dial that
 * the policy has abandoned it reports nothing all the same.
 */
import type { MonotonicMs } from '../clock.ts';

export type ListenerId = number & { readonly __brand: 'ListenerId' };
export type SessionId = number & { readonly __brand: 'SessionId' };

export type EngineProtocol = 'TCP' | 'UDP';
export type EngineFamily = 'IPv4' | 'IPv6';

export interface SocketAddress {
  readonly address: string;
  readonly port: number;
}

export interface ListenerSpec {
  readonly protocol: EngineProtocol;
  readonly family: EngineFamily;
  readonly port: number;
  /**
   * TCP: the one address to bind, usually the wildcard. UDP: every local address that redirected datagrams can
   * arrive on, never the wildcard: only what is sent to these is served. Of several, an engine may take the port
   * on all addresses of the node.
   */
  readonly addresses: readonly string[];
}

/**
 * Why a dial failed. `refused` and `unreachable` came at once from the network, `timeout` is the decision's own
 * time-out. The others are faults of this node, no endpoint is to blame: `noSourcePort` every local port is in use
 * towards that endpoint, and only towards that one (EADDRNOTAVAIL); `noDescriptor` (EMFILE, ENFILE); `local` any
 * other (no memory, no buffer).
 */
export type DialFailure = 'refused' | 'unreachable' | 'timeout' | 'noSourcePort' | 'noDescriptor' | 'local';

/**
 * How a session ended: `fin` both directions ended in order (UDP: never); `clientReset` / `backendReset` that
 * side reset, and so was the other; `idle` nothing came from either side for too long; `halfClose` nothing came from
 * the side that was still to end; `refused` the policy said so; `backendRefused` ICMP told a UDP session that nobody
 * listens; `evicted` and `stopped` by `reset()`, `stopped` also by `shutdown()`.
 */
export type CloseCause =
  | 'fin'
  | 'clientReset'
  | 'backendReset'
  | 'idle'
  | 'halfClose'
  | 'evicted'
  | 'refused'
  | 'backendRefused'
  | 'stopped';

export type EngineEvent =
  /** Wants a decision, at once or later through `answer`. */
  | {
      readonly kind: 'opened';
      readonly listener: ListenerId;
      readonly session: SessionId;
      readonly client: SocketAddress;
    }
  /** Wants a decision. `errno` is the system's word (`ECONNREFUSED`). */
  | {
      readonly kind: 'dialFailed';
      readonly session: SessionId;
      readonly failure: DialFailure;
      readonly errno: string;
    }
  | { readonly kind: 'established'; readonly session: SessionId }
  /** `bytesIn` from the client to the backend, without any preamble; `bytesOut` from the backend to the client. */
  | {
      readonly kind: 'closed';
      readonly session: SessionId;
      readonly cause: CloseCause;
      readonly bytesIn: number;
      readonly bytesOut: number;
    };

export type Decision =
  | {
      readonly kind: 'dial';
      readonly to: SocketAddress;
      readonly timeoutMs: number;
      /**
       * TCP: what the backend gets before anything of the client, once this dial is established and whether the
       * client ever sends or not; absent: nothing. It belongs to this dial: another one brings its own. The engine
       * keeps it until it is sent, so nobody may change it. UDP ignores it: a flow has no beginning to stand at.
       */
      readonly preamble?: Uint8Array;
    }
  /** TCP: reset the client. UDP: drop what it sent; its next datagram opens a new session. */
  | { readonly kind: 'refuse' };

export interface Policy {
  /**
   * One answer for each event, `undefined` where none is wanted or where it comes through `Engine.answer`, later or
   * within the call: one of the two, not both. Synchronous; never throws.
   *
   * What has happened while the policy was busy comes in one call, the events of a session in their order. A
   * `dialFailed` comes alone: whoever is moved because of it may have a dial of his own that has ended by now, and is
   * not to be told of that any more.
   */
  handle(events: readonly EngineEvent[], now: MonotonicMs): readonly (Decision | undefined)[];
}

export interface SessionBytes {
  readonly session: SessionId;
  readonly bytesIn: number;
  readonly bytesOut: number;
}

/** Counts since start, over all sessions, that no event carries. */
export interface EngineTotals {
  readonly datagramsIn: number;
  readonly datagramsOut: number;
  /** Datagrams from clients dropped: sent before their backend was up, to no address served, or refused by the kernel. */
  readonly datagramsDropped: number;
  /** How often one side of a TCP session was paused because the other did not drain. */
  readonly flowControlPauses: number;
  /** Faults that listening sockets met (no descriptor for the next connection); they go on listening. */
  readonly listenerErrors: number;
}

export interface EngineOptions {
  /** TCP: how long both directions may stay silent. 0: for ever. */
  readonly tcpIdleTimeoutMs: number;
  /** TCP: how long one direction may stay silent after the other has ended. 0: for ever. */
  readonly halfCloseTimeoutMs: number;
  /** UDP: idle time until the first reply. */
  readonly udpUnrepliedTimeoutMs: number;
  /** UDP: idle time once both directions have been seen. */
  readonly udpRepliedTimeoutMs: number;
}

export interface Engine {
  /**
   * Accepting when resolved. Rejects with a ProxyError `ERR_LISTENER_OPEN` whose cause carries the errno
   * (`EADDRINUSE`: the port is somebody's), having closed whatever it had opened.
   */
  open(spec: ListenerSpec): Promise<ListenerId>;
  /**
   * UDP: serves these addresses from now on. Sessions on those that are gone end with `stopped`, the others live
   * on. Rejects like `open`: then what stood in the list before and stands in it now is still served; of what is
   * new or gone, nothing is promised.
   */
  setAddresses(listener: ListenerId, addresses: readonly string[]): Promise<void>;
  /** Listening sockets, one descriptor each, that such a listener takes. */
  socketsFor(spec: Pick<ListenerSpec, 'protocol' | 'addresses'>): number;
  /** Accepts what the kernel has queued, then closes. Its TCP sessions live on, its UDP sessions end. */
  close(listener: ListenerId): Promise<void>;
  /**
   * The decision for an `opened` or `dialFailed` that was not answered at once, or a new one for a dial that is
   * under way, which is then abandoned without an event. Ignored when the session is established or gone.
   */
  answer(session: SessionId, decision: Decision): void;
  /** TCP: resets both sides. UDP: forgets the flow. The cause is what `closed` will say; `stopped` unless told. */
  reset(sessions: Iterable<SessionId>, cause?: 'stopped' | 'evicted'): void;
  /** UDP: when the session last carried a datagram, by the engine's clock; undefined when it is gone, or TCP. */
  lastUsed(session: SessionId): MonotonicMs | undefined;
  /** The bytes of the sessions that are open now, so that long-lived ones show in the metrics. */
  sessionBytes(): Iterable<SessionBytes>;
  totals(): EngineTotals;
  /** Closes every listener and resets every session. Idempotent. */
  shutdown(): Promise<void>;
}
