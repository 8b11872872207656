/** What the agent's clients and servers share: dialling, names of errors, pseudo-random octets, bounded loops. */
import { createCipheriv } from 'node:crypto';
import { connect, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { DEFAULT_TIMEOUT_MS, type Failure, type Target } from './agent-protocol.ts';

const MAX_FAILURES = 20;

export interface DialParams extends Target {
  readonly timeoutMs?: number;
  readonly localAddress?: string;
  readonly localPort?: number;
}

/** A half-close aware socket on its way to the target. The caller attaches `error` before anything is awaited. */
export function openSocket(params: DialParams): Socket {
  const { host, port, localAddress, localPort } = params;
  const socket = connect({
    host,
    port,
    allowHalfOpen: true,
    noDelay: true,
    ...(localAddress === undefined ? {} : { localAddress }),
    ...(localPort === undefined ? {} : { localPort }),
  });
  return socket;
}

/** The system's name of an error, or its message when it has none. */
export function errnoOf(error: unknown): string {
  return error instanceof Error ? ((error as NodeJS.ErrnoException).code ?? error.message) : String(error);
}

/** Whether an error means that the peer sent RST (EPIPE: it did, and the write came later). */
export function isReset(errno: string): boolean {
  return errno === 'ECONNRESET' || errno === 'EPIPE';
}

export function isUnreachable(errno: string): boolean {
  return errno === 'EHOSTUNREACH' || errno === 'ENETUNREACH' || errno === 'EACCES' || errno === 'EPERM';
}

/** An IPv4 address that an IPv6 socket shows in its mapped form, in its own form; any other as it is. */
export function unmapAddress(address: string | undefined): string {
  return (address ?? '').replace(/^::ffff:(?=\d+\.)/, '');
}

/**
 * Runs `body` with a `finish` that settles the result once and a deadline that calls `late`. `elapsedMs` is the
 * time since the start.
 */
export async function settleWithin<T>(
  timeoutMs: number | undefined,
  late: (elapsedMs: number) => T,
  body: (finish: (result: T) => void, elapsedMs: () => number) => void,
): Promise<T> {
  const start = performance.now();
  const elapsedMs = (): number => performance.now() - start;
  return new Promise<T>((resolve) => {
    const timer = setTimeout(() => resolve(late(elapsedMs())), timeoutMs ?? DEFAULT_TIMEOUT_MS);
    body((result) => {
      clearTimeout(timer);
      resolve(result);
    }, elapsedMs);
  });
}

/** A stream of octets that depends on the seed alone. */
export class OctetSource {
  readonly #cipher;
  readonly #zeros = Buffer.alloc(65_536);

  constructor(seed: number) {
    const key = Buffer.alloc(16);
    key.writeDoubleBE(seed);
    this.#cipher = createCipheriv('aes-128-ctr', key, Buffer.alloc(16));
  }

  /** The next octets, 65,536 at most. */
  next(bytes: number): Buffer {
    return this.#cipher.update(this.#zeros.subarray(0, bytes));
  }
}

/** Counts failures and keeps the first 20. */
export class FailureLog {
  readonly first: Failure[] = [];
  count = 0;
  readonly #start = performance.now();

  add(errno: string): void {
    this.count += 1;
    if (this.first.length < MAX_FAILURES)
      this.first.push({ errno, atMs: Math.round(performance.now() - this.#start) });
  }
}

export interface LoopOptions {
  readonly concurrency?: number | undefined;
  readonly pauseMs?: number | undefined;
  /** How many in all; without a bound unless told. */
  readonly count?: number | undefined;
  /** Nothing is begun after this. */
  readonly signal?: AbortSignal;
}

/** Calls `once` over and over, `concurrency` at a time, until `count` or the signal; resolves when all have ended. */
export async function repeat(options: LoopOptions, once: (worker: number) => Promise<void>): Promise<void> {
  const { concurrency = 1, pauseMs = 0, count = Number.POSITIVE_INFINITY, signal } = options;
  let begun = 0;
  const work = async (worker: number): Promise<void> => {
    while (begun < count) {
      if (signal?.aborted === true) return;
      begun += 1;
      await once(worker);
      // The pause ends early, by an error that says nothing, when the load is stopped.
      if (pauseMs > 0)
        await delay(pauseMs, undefined, signal === undefined ? {} : { signal }).catch(() => undefined);
    }
  };
  await Promise.all(Array.from({ length: Math.min(concurrency, count) }, async (_, worker) => work(worker)));
}
