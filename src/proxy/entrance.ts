/**
 * Who may come in: the caps of both protocols and the descriptors behind them, as one question to be asked of each new
 * session. TCP is refused, UDP displaces somebody.
 */
import type { MonotonicMs } from '../clock.ts';
import type { SessionId } from '../engine/engine.ts';
import { Admission, type Parties } from './admission.ts';
import { Descriptors } from './descriptors.ts';
import { UdpRoom } from './udp-room.ts';

export interface EntranceOptions {
  /** Descriptors that the process may have (RLIMIT_NOFILE); Infinity where there is no limit. */
  readonly descriptorLimit: number;
  /** Of those, kept for everything that is not traffic. */
  readonly descriptorReserve: number;
  /** In all; 0: as many as there are descriptors for. */
  readonly maxConnections: number;
  /** Of one service port and family, as the next but one; 0: no limit of its own. */
  readonly maxConnectionsPerService: number;
  /** In all, at least 1. */
  readonly maxUdpSessions: number;
  readonly maxUdpSessionsPerService: number;
}

/** What only others know. */
export interface EntranceDeps {
  /** Descriptors of listening sockets, open or about to be, and of what else comes and goes. */
  readonly listeningSockets: () => number;
  /** As `Engine.lastUsed`. */
  readonly lastUsed: (session: SessionId) => MonotonicMs | undefined;
}

export interface Arrival extends Parties {
  readonly session: SessionId;
  readonly isUdp: boolean;
}

/** `evicted` has to end before the new session needs its descriptor. */
export type Admittance =
  | { readonly kind: 'admitted'; readonly evicted: SessionId | undefined }
  | { readonly kind: 'refused'; readonly why: string };

const ADMITTED: Admittance = { kind: 'admitted', evicted: undefined };

export class Entrance {
  readonly #descriptors: Descriptors;
  readonly #tcp: Admission;
  readonly #udp: UdpRoom;

  constructor(options: EntranceOptions, deps: EntranceDeps) {
    this.#descriptors = new Descriptors({
      limit: options.descriptorLimit,
      reserve: options.descriptorReserve,
      maxConnections: options.maxConnections,
      maxUdpSessions: options.maxUdpSessions,
      use: () => ({
        listeningSockets: deps.listeningSockets(),
        tcpConnections: this.#tcp.open,
        udpSessions: this.#udp.size,
      }),
    });
    this.#tcp = new Admission({
      maxPerService: options.maxConnectionsPerService,
      capacity: () => this.#descriptors.tcpCapacity(),
    });
    this.#udp = new UdpRoom({
      maxPerService: options.maxUdpSessionsPerService,
      capacity: () => this.#descriptors.udpCapacity(),
      lastUsed: deps.lastUsed,
    });
  }

  /** TCP connections that may be open now, those that are included. */
  get maxConnections(): number {
    return this.#descriptors.tcpCapacity();
  }

  /** UDP sessions, likewise. */
  get maxUdpSessions(): number {
    return this.#descriptors.udpCapacity();
  }

  /** Is there room for so many more listening sockets? */
  hasRoomToListen(sockets: number): boolean {
    return this.#descriptors.hasRoomToListen(sockets);
  }

  /** Whoever is admitted is counted until `left`. */
  admit(arrival: Arrival, now: MonotonicMs): Admittance {
    if (arrival.isUdp) {
      const evicted = this.#udp.victimFor(arrival);
      this.#udp.add(arrival.session, arrival, now);
      return evicted === undefined ? ADMITTED : { kind: 'admitted', evicted };
    }
    const why = this.#tcp.refusalOf(arrival);
    if (why !== undefined) return { kind: 'refused', why };
    this.#tcp.opened(arrival);
    return ADMITTED;
  }

  /** Once for each session that was admitted. */
  left(arrival: Arrival): void {
    if (arrival.isUdp) this.#udp.remove(arrival.session, arrival);
    else this.#tcp.closed(arrival);
  }
}
