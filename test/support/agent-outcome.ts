/**
 * What an agent reports. An `errno` is the system's name of an error (`ECONNREFUSED`), or `TIMEOUT` when the request's
 * own deadline passed, `EOF` when the peer closed too early, `MISMATCH` when other octets came than were due.
 */

export interface Address {
  readonly address: string;
  readonly port: number;
}

export interface ServerHandle {
  readonly id: number;
  readonly port: number;
}

/** How a connection ended: by the peer's FIN or RST, by this side alone, or not yet. */
export type ConnectionEnd = 'open' | 'fin' | 'reset' | 'local';

export interface ServerConnection {
  readonly remote: Address;
  readonly bytesReceived: number;
  readonly bytesSent: number;
  readonly end: ConnectionEnd;
  /** The first octets received, 256 at most, in latin1: a PROXY protocol header for example; empty for `http`. */
  readonly head: string;
}

/** What a server has seen so far. Clients may be ahead: the kernel completes a connection before it is accepted. */
export interface ServerReport {
  readonly name: string;
  readonly port: number;
  readonly accepted: number;
  readonly open: number;
  readonly bytesReceived: number;
  readonly bytesSent: number;
  readonly endedByFin: number;
  readonly endedByReset: number;
  readonly endedHere: number;
  readonly httpRequests: number;
  readonly datagrams: number;
  /** The different addresses seen, without ports, sorted; IPv4 ones in dotted form. */
  readonly remotes: readonly string[];
  /** The latest 100 connections, oldest first. */
  readonly connections: readonly ServerConnection[];
  /** The latest 100 senders of datagrams, oldest first. */
  readonly senders: readonly Address[];
}

export interface IdentifyResult {
  /** A whole name came, and the connection closed in good order. */
  readonly ok: boolean;
  readonly name?: string;
  readonly errno?: string;
  /** Until the name, or until the failure. */
  readonly elapsedMs: number;
}

export interface TcpExchangeResult {
  /** All came back unchanged, then FIN. */
  readonly ok: boolean;
  readonly sent: number;
  readonly received: number;
  readonly identical: boolean;
  readonly errno?: string;
  readonly elapsedMs: number;
}

export type ProbeOutcome = 'connected' | 'refused' | 'reset' | 'timeout' | 'unreachable';

export interface ProbeResult {
  readonly outcome: ProbeOutcome;
  readonly errno?: string;
  readonly elapsedMs: number;
}

export interface EndResult {
  /** How the connection ended; `refused` and `unreachable` when there was none, `timeout` when it still lives. */
  readonly outcome: 'fin' | 'reset' | 'refused' | 'unreachable' | 'timeout';
  /** A reset right after the handshake may be all that the client hears of the connection: false, then. */
  readonly connected: boolean;
  readonly received: number;
  readonly errno?: string;
  readonly elapsedMs: number;
}

export interface Failure {
  readonly errno: string;
  /** Milliseconds after the start of the load or of the use. */
  readonly atMs: number;
}

export interface SlowRequest {
  /** When it was answered, in milliseconds after the start of the load. */
  readonly atMs: number;
  readonly elapsedMs: number;
}

export interface LoadReport {
  /** Those that have ended, failed ones included. */
  readonly requests: number;
  readonly failed: number;
  /** The first 20. */
  readonly failures: readonly Failure[];
  /** Successful ones by the name of who answered. */
  readonly byName: Readonly<Record<string, number>>;
  /** Of the successful ones. */
  readonly latencyMs: { readonly p50: number; readonly p99: number; readonly max: number };
  /** Successful ones that took longer than `slowMs`, the first 100. */
  readonly slow: readonly SlowRequest[];
  readonly elapsedMs: number;
}

export interface HeldSocket {
  readonly local: Address;
  readonly end: ConnectionEnd;
  readonly name?: string;
  readonly errno?: string;
}

export interface HeldStatus {
  /** Connections that were established. */
  readonly opened: number;
  readonly open: number;
  readonly endedByFin: number;
  readonly endedByReset: number;
  /** Failures to connect, the first 20. */
  readonly failures: readonly Failure[];
  /** Established ones by the name they got, when `named`. */
  readonly byName: Readonly<Record<string, number>>;
  /** The first 100. */
  readonly sockets: readonly HeldSocket[];
}

export interface HeldUse {
  readonly ok: number;
  readonly failed: number;
  /** The first 20; `CLOSED` is a connection that had ended before. */
  readonly failures: readonly Failure[];
}

export interface StallStatus {
  readonly opened: number;
  /** Failures to connect, the first 20. */
  readonly failures: readonly Failure[];
}

export interface StallDrain {
  /** Connections that brought every octet unchanged, then FIN. */
  readonly whole: number;
  /** Octets of all connections. */
  readonly bytes: number;
  /** How the others ended, the first 20. */
  readonly failures: readonly Failure[];
}

export interface UdpSequenceResult {
  readonly sent: number;
  readonly received: number;
  /** Each reply had a higher number than the one before. */
  readonly inOrder: boolean;
  readonly localPort: number;
}

export interface UdpExchangeResult {
  readonly ok: boolean;
  /** Octets of the reply. */
  readonly received: number;
  readonly identical: boolean;
  /** Where the reply came from. */
  readonly from?: Address;
  readonly localPort: number;
  readonly errno?: string;
  readonly elapsedMs: number;
}

export interface UdpIdentifyResult {
  readonly ok: boolean;
  readonly name?: string;
  readonly from?: Address;
  readonly localPort: number;
  readonly errno?: string;
  readonly elapsedMs: number;
}

export interface FloodResult {
  readonly sent: number;
  readonly received: number;
  readonly failures: readonly Failure[];
  readonly elapsedMs: number;
}
