/**
 * What a load process in a pod is told, and what it tells: backends that know which requests they hold when they are
 * killed, and clients that know of every request what became of it, so that each failure can be accounted for. Apart
 * from the agents of the other tests, which count and keep the first few, these keep everything.
 *
 * A request is the line `<connection> <number> <keep or close>`, its answer `<backend> <connection> <number>`. Both ends
 * so know the connection by the name that the client gave it, and the client knows who carries it once it was answered.
 */

/** CLOCK_MONOTONIC in milliseconds with their fractions, which all processes of a machine share. */
export function monotonicMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

export interface ServeOptions {
  readonly name: string;
  readonly port: number;
  /** How long an answer takes: with it there are always requests that a kill finds under way. */
  readonly serviceMs: number;
}

/** What a backend held when it was killed. */
export interface CrashLog {
  readonly backend: string;
  /** Before the first of its connections was reset. */
  readonly atMs: number;
  /** Its open connections on which a request had been read. */
  readonly connections: readonly CrashedConnection[];
  /** Its open connections on which none had been read yet, those included that only the kernel had accepted. */
  readonly nameless: number;
}

export interface CrashedConnection {
  /** What the client calls it. */
  readonly id: string;
  /** The number of the last request that was read from it. */
  readonly read: number;
  /** Of the last that was answered, 0 for none, and when. */
  readonly answered: number;
  readonly answeredMs: number;
}

export interface RequestLoadOptions {
  readonly host: string;
  readonly port: number;
  /** How many are begun in a second, however long each takes: an open loop. */
  readonly perSecond: number;
  readonly seconds: number;
  /** Connections that are kept from request to request; 0: each request has one of its own. */
  readonly keptConnections: number;
  /** After this time without an answer a request has failed. */
  readonly timeoutMs: number;
  /** What the names of its connections begin with; no blanks. */
  readonly prefix: string;
}

/** Times are those of `monotonicMs`. */
export interface RequestFailure {
  readonly connection: string;
  /** The request's number. */
  readonly request: number;
  /** Who had answered on this connection before; undefined when nobody had. */
  readonly backend: string | undefined;
  /** The system's name of the error, `EOF`, `TIMEOUT`, or `MISMATCH` when another answer came. */
  readonly errno: string;
  /** When it was written to its connection, or that was begun for it. */
  readonly sentMs: number;
  readonly endMs: number;
}

/**
 * `startMs` and `latencyMs` are of the requests that were answered, in the order of the answers. A latency counts from
 * the moment at which the pace wanted the request, also where the client itself was late or had no connection free.
 */
export interface RequestReport {
  readonly requests: number;
  readonly startMs: readonly number[];
  readonly latencyMs: readonly number[];
  readonly failures: readonly RequestFailure[];
  /** Answers by the name of who gave them. */
  readonly byBackend: Readonly<Record<string, number>>;
  readonly connectionsOpened: number;
  /** Connections that ended while they carried no request: nobody's failure. */
  readonly endedIdle: number;
  /** How late the client was at worst to begin a request. */
  readonly latestMs: number;
}

interface Method<Params, Result> {
  readonly params: Params;
  readonly result: Result;
}

export interface LoadMethods {
  /** Resolves when it listens. */
  serve: Method<ServeOptions, void>;
  /** Resets what is open, answers with what that was, and ends the process with SIGKILL. */
  crash: Method<void, CrashLog>;
  /** Resolves when the load is over and each of its requests has ended. */
  request: Method<RequestLoadOptions, RequestReport>;
}

export type LoadMethod = keyof LoadMethods;
export type LoadParams<M extends LoadMethod> = LoadMethods[M]['params'];
export type LoadResult<M extends LoadMethod> = LoadMethods[M]['result'];
export type LoadFunctions = {
  readonly [M in LoadMethod]: (params: LoadParams<M>) => Promise<LoadResult<M>>;
};

export interface LoadOrder {
  readonly id: number;
  readonly method: LoadMethod;
  readonly params: unknown;
}

/** With id 0: the process is there. */
export type LoadReply =
  | { readonly id: number; readonly ok: true; readonly result: unknown }
  | { readonly id: number; readonly ok: false; readonly message: string };
