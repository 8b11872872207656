/**
 * What a test process may ask an agent in a namespace to do: one map from the name of a method to the types of its
 * parameters and result, from which both ends are typed.
 *
 * Outcomes that a test may expect of a network (refused, reset, late) are results. Only a request that makes no
 * sense, or a server or local socket that cannot be opened, rejects. Every time is in milliseconds, and every
 * request has a bound.
 */
import type {
  EndResult,
  FloodResult,
  HeldStatus,
  HeldUse,
  IdentifyResult,
  LoadReport,
  ProbeResult,
  ServerHandle,
  ServerReport,
  StallDrain,
  StallStatus,
  TcpExchangeResult,
  UdpExchangeResult,
  UdpIdentifyResult,
  UdpSequenceResult,
} from './agent-outcome.ts';

export type * from './agent-outcome.ts';

/** Where to connect or send to; `host` is an address of either family. */
export interface Target {
  readonly host: string;
  readonly port: number;
}

/** A deadline, and the local end of the socket where it matters; the system chooses what is left out. */
interface DialOptions {
  /** 5,000 unless told. */
  readonly timeoutMs?: number;
  readonly localAddress?: string;
  readonly localPort?: number;
}

/** How often: `concurrency` at a time (1 unless told), each followed by a pause (0 unless told). */
interface Pace {
  readonly concurrency?: number;
  readonly pauseMs?: number;
}

/**
 * - `identify`: sends its name and a newline upon the connection, and ends its side when the client has.
 * - `identify-echo`: sends its name and a newline, then is an `echo`.
 * - `echo`: sends back what it reads as it reads it, and ends after the client's FIN.
 * - `sink-then-echo`: reads until the client's FIN, and only then sends everything back and ends.
 * - `http`: HTTP/1.1 with keep-alive; answers every request 200 with its name and a newline, closes the connection
 *   when the request has `Connection: close` or the path is `/close`.
 * - `accept-reset`: resets every connection it accepts.
 * - `send-forever`: writes as fast as the client reads, until the connection ends.
 * - `hold`: stays silent, and ends its side when the client has.
 * - `accept-fin`: ends its side of every connection it accepts, without a word.
 * - `trickle`: sends one octet a second, until the connection ends.
 * - `send-octets`: sends `bytes` pseudo-random octets, the same to everybody, then ends its side.
 */
export type TcpMode =
  | 'identify'
  | 'identify-echo'
  | 'echo'
  | 'sink-then-echo'
  | 'http'
  | 'accept-reset'
  | 'send-forever'
  | 'hold'
  | 'accept-fin'
  | 'trickle'
  | 'send-octets';

/** `echo` sends the datagram back, `identify` the server's name, `sink` nothing. */
export type UdpMode = 'echo' | 'identify' | 'sink';

interface ServeOptions<Mode> {
  /** 0 lets the system choose. */
  readonly port: number;
  readonly mode: Mode;
  readonly name: string;
  /** Listens on the wildcard address of this family; on both families unless told. */
  readonly family?: 4 | 6;
  /** Listens on this address only. */
  readonly address?: string;
  /** What `send-octets` sends. */
  readonly bytes?: number;
}

/** A load in the background: it ends at `stopLoad`, or by itself after `maxDurationMs` (120,000 unless told). */
interface BackgroundLoad extends Target, Pace {
  readonly timeoutMs?: number;
  readonly maxDurationMs?: number;
  /** What counts as slow in the report; 250 unless told. */
  readonly slowMs?: number;
}

interface HttpOptions {
  /** `/` unless told. */
  readonly path?: string;
  /** On unless told. */
  readonly keepAlive?: boolean;
  readonly headers?: Readonly<Record<string, string>>;
}

interface UdpOptions extends DialOptions {
  /** A connected socket takes only replies from its target, and learns of ICMP errors; off unless told. */
  readonly connected?: boolean;
}

interface Id {
  readonly id: number;
}

interface Method<Params, Result> {
  readonly params: Params;
  readonly result: Result;
}

export interface AgentMethods {
  serveTcp: Method<ServeOptions<TcpMode>, ServerHandle>;
  serveUdp: Method<ServeOptions<UdpMode>, ServerHandle>;
  /** Stops listening and, unless `keep`, ends the open connections: by RST unless told. The report stays. */
  stopServer: Method<Id & { readonly connections?: 'keep' | 'fin' | 'reset' }, ServerReport>;
  serverReport: Method<Id, ServerReport>;

  /** Fresh connections to an `identify` server, one result for each. */
  tcpIdentify: Method<
    Target & DialOptions & { count: number; concurrency?: number },
    readonly IdentifyResult[]
  >;
  /** Sends pseudo-random octets and reads them back to EOF; with `halfClose` FIN follows the last octet sent. */
  tcpExchange: Method<
    Target & DialOptions & { bytes: number; halfClose: boolean; seed?: number },
    TcpExchangeResult
  >;
  /** Connects and closes at once. */
  tcpProbe: Method<Target & DialOptions, ProbeResult>;
  /** Connects, sends `sendBytes` octets (0 unless told), and waits for the peer's FIN or RST. */
  tcpEnd: Method<Target & DialOptions & { sendBytes?: number }, EndResult>;

  /** Opens idle connections; with `named` each first reads the name of an `identify` or `identify-echo` server. */
  tcpHold: Method<
    Target & DialOptions & { count: number; named?: boolean; concurrency?: number },
    HeldStatus & Id
  >;
  /** Sends a line over every connection of the group and waits for its echo. */
  heldUse: Method<Id & { timeoutMs?: number }, HeldUse>;
  heldStatus: Method<Id, HeldStatus>;
  /** Ends all that are open, and resolves with how things stood when each had closed or the deadline had passed. */
  heldClose: Method<Id & { how: 'fin' | 'reset'; timeoutMs?: number }, HeldStatus>;

  /** Opens connections and reads nothing from them, beyond what a socket buffers by itself. */
  tcpStall: Method<Target & DialOptions & { count: number; concurrency?: number }, StallStatus & Id>;
  /** Reads all connections of the group to their end; `bytes` of a `send-octets` server are due on each. */
  stallDrain: Method<Id & { bytes: number; timeoutMs?: number }, StallDrain>;

  /** Requests until `count` or for `durationMs`, whichever is given; both means whichever comes first. */
  httpRequests: Method<
    Target & Pace & HttpOptions & { timeoutMs?: number; count?: number; durationMs?: number },
    LoadReport
  >;
  /** One GET with its answer; rejects when there is none within the deadline. */
  httpGet: Method<Target & { path: string; timeoutMs?: number }, HttpAnswer>;
  startHttpLoad: Method<BackgroundLoad & HttpOptions, Id>;
  /** Fresh connections to an `identify` server. */
  startConnectLoad: Method<BackgroundLoad, Id>;
  /** One unconnected socket per `concurrency`, each asking an `identify` server over and over. */
  startUdpLoad: Method<BackgroundLoad, Id>;
  loadReport: Method<Id, LoadReport>;
  /** Lets the requests in flight end, and reports. */
  stopLoad: Method<Id, LoadReport>;

  /** One datagram of pseudo-random octets, 65,507 at most, to an `echo` server. */
  udpExchange: Method<Target & UdpOptions & { payloadBytes: number; seed?: number }, UdpExchangeResult>;
  /** Asks an `identify` server `count` times, one after the other, from one socket or from a new one each time. */
  udpIdentify: Method<
    Target & UdpOptions & { count: number; sameSocket: boolean; pauseMs?: number },
    readonly UdpIdentifyResult[]
  >;
  /**
   * Sends `datagrams` from each of `sockets`; then, unless told otherwise, waits until as many came back or the
   * deadline has passed.
   */
  udpFlood: Method<
    Target & {
      sockets: number;
      datagrams: number;
      payloadBytes?: number;
      timeoutMs?: number;
      awaitReplies?: boolean;
      /** How long to wait for the replies to a burst before the next one is sent; 20 ms unless told. */
      patienceMs?: number;
      /** The sockets take this port and the ones after it. Without it the kernel chooses, and may choose a port again. */
      firstLocalPort?: number;
    },
    FloodResult
  >;

  /** Sends numbered datagrams to an `echo` server from one socket, `window` ahead of the replies (16 unless told). */
  udpSequence: Method<Target & UdpOptions & { count: number; window?: number }, UdpSequenceResult>;

  /**
   * Makes a unix socket of that path and relays its connections to the target, octets and FINs in both ways, until
   * the agent ends. A connection that the target refuses ends at once.
   */
  openRelay: Method<Target & { path: string }, void>;
}

export type AgentMethod = keyof AgentMethods;
export type Params<M extends AgentMethod> = AgentMethods[M]['params'];
export type Result<M extends AgentMethod> = AgentMethods[M]['result'];

export interface HttpAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | readonly string[] | undefined>>;
  readonly body: string;
}

/** One function for each method named: what the agent implements and what its client offers. */
export type AgentFunctions<M extends AgentMethod = AgentMethod> = {
  readonly [Name in M]: (params: Params<Name>) => Promise<Result<Name>>;
};

export interface AgentRequest {
  readonly id: number;
  readonly method: string;
  readonly params: unknown;
}

export type AgentReply =
  | { readonly id: number; readonly ok: true; readonly result: unknown }
  | { readonly id: number; readonly ok: false; readonly message: string; readonly code?: string };

export const DEFAULT_TIMEOUT_MS = 5_000;
export const DEFAULT_LOAD_DURATION_MS = 120_000;
