/**
 * Which failed request is whose: a backend that is killed takes along the requests that are under way on its own
 * connections, and nothing else. Pure.
 */
import type { CrashedConnection, CrashLog, RequestFailure } from './load-protocol.ts';

/** A client hears of a reset at once; so late it is another story. Generous, for machines that are busy. */
const HEARD_WITHIN_MS = 2_000;
/** An answer that was sent so shortly before the reset may meet it on the way. */
const ON_ITS_WAY_MS = 50;

/**
 * What a failed request was to the backend that was killed: `unanswered`, or `unread` and still on its way to it, on a
 * connection that the backend knew by its name; `answered`, the answer being on its way back; or `nameless`: the backend
 * had as many connections from which it had not read anything yet.
 */
export type Plight = 'unanswered' | 'unread' | 'answered' | 'nameless';

export interface AccountedFailure {
  readonly failure: RequestFailure;
  readonly crash: CrashLog;
  readonly plight: Plight;
}

export interface Accounting {
  readonly accounted: readonly AccountedFailure[];
  /** Failures that no crash explains. */
  readonly unaccounted: readonly RequestFailure[];
}

/** Each connection that a crash took along explains one failure at most: it carries one request at a time. */
export function accountFor(failures: readonly RequestFailure[], crashes: readonly CrashLog[]): Accounting {
  const ledgers = crashes.map((crash) => new Ledger(crash));
  const accounted: AccountedFailure[] = [];
  const unaccounted: RequestFailure[] = [];
  for (const failure of failures.toSorted((one, other) => one.endMs - other.endMs)) {
    const found = explain(failure, ledgers);
    if (found === undefined) unaccounted.push(failure);
    else accounted.push(found);
  }
  return { accounted, unaccounted };
}

function explain(failure: RequestFailure, ledgers: readonly Ledger[]): AccountedFailure | undefined {
  // A name is better evidence than a number, whichever crash comes first.
  for (const take of ['takeNamed', 'takeNameless'] as const) {
    for (const ledger of ledgers) {
      const plight = ledger[take](failure);
      if (plight !== undefined) return { failure, crash: ledger.crash, plight };
    }
  }
  return undefined;
}

/** What one crash took along and no failure has been found for yet. */
class Ledger {
  readonly crash: CrashLog;
  readonly #named: Map<string, CrashedConnection>;
  #nameless: number;

  constructor(crash: CrashLog) {
    this.crash = crash;
    this.#named = new Map(crash.connections.map((connection) => [connection.id, connection]));
    this.#nameless = crash.nameless;
  }

  takeNamed(failure: RequestFailure): Plight | undefined {
    const connection = this.#named.get(failure.connection);
    if (connection === undefined || !this.#couldBe(failure)) return undefined;
    const plight = plightOf(failure, connection);
    if (plight === 'answered' && this.crash.atMs - connection.answeredMs > ON_ITS_WAY_MS) return undefined;
    this.#named.delete(failure.connection);
    return plight;
  }

  /** From such a connection nothing was read, so nobody has answered on it, and it was begun before the crash. */
  takeNameless(failure: RequestFailure): Plight | undefined {
    const isNew = failure.backend === undefined && failure.sentMs <= this.crash.atMs;
    if (this.#nameless === 0 || !isNew || !this.#couldBe(failure)) return undefined;
    this.#nameless -= 1;
    return 'nameless';
  }

  /** The reset is what the client heard of it, soon after it was sent, and not from another backend. */
  #couldBe({ backend, endMs, errno }: RequestFailure): boolean {
    const { atMs, backend: dead } = this.crash;
    const isReset = errno !== 'TIMEOUT' && errno !== 'MISMATCH';
    return isReset && endMs >= atMs && endMs <= atMs + HEARD_WITHIN_MS && (backend ?? dead) === dead;
  }
}

function plightOf({ request }: RequestFailure, { read, answered }: CrashedConnection): Plight {
  if (request > read) return 'unread';
  return request > answered ? 'unanswered' : 'answered';
}
