/**
 * The client of a load process: requests at a steady pace, begun whether or not those before have ended, so that a slow
 * one hides none of those that it would have held up (no coordinated omission).
 */
import { connect, type Socket } from 'node:net';
import {
  monotonicMs,
  type RequestFailure,
  type RequestLoadOptions,
  type RequestReport,
} from './load-protocol.ts';

const TICK_MS = 1;

interface Request {
  readonly number: number;
  /** When the pace wanted it. */
  readonly startMs: number;
}

interface ConnectionEvents {
  readonly onAnswer: (request: Request, backend: string) => void;
  readonly onFailure: (failure: RequestFailure) => void;
  /** It has ended without this side having asked for that, and carried nothing. */
  readonly onEndedIdle: () => void;
}

type LoadTarget = Pick<RequestLoadOptions, 'host' | 'port' | 'timeoutMs'>;

/** One connection, with at most one request on it. */
class ClientConnection {
  readonly #id: string;
  readonly #timeoutMs: number;
  readonly #socket: Socket;
  readonly #events: ConnectionEvents;
  #backend: string | undefined;
  #text = '';
  #isEnding = false;
  #asked: { readonly request: Request; readonly sentMs: number; readonly timer: NodeJS.Timeout } | undefined;

  constructor(id: string, target: LoadTarget, events: ConnectionEvents) {
    this.#id = id;
    this.#timeoutMs = target.timeoutMs;
    this.#events = events;
    this.#socket = connect({ host: target.host, port: target.port, noDelay: true });
    let errno = 'EOF';
    this.#socket.setEncoding('latin1');
    this.#socket.on('data', (chunk: string) => this.#read(chunk));
    this.#socket.on('error', (error: NodeJS.ErrnoException) => {
      errno = error.code ?? error.message;
    });
    this.#socket.on('close', () => {
      if (this.#asked !== undefined) this.#fail(errno);
      else if (!this.#isEnding) this.#events.onEndedIdle();
    });
  }

  /** False when it has ended, or is about to, as far as this side knows. */
  get isUsable(): boolean {
    return this.#socket.writable && !this.#socket.readableEnded;
  }

  ask(request: Request, mode: 'keep' | 'close'): void {
    const timer = setTimeout(() => this.#giveUp('TIMEOUT'), this.#timeoutMs);
    this.#asked = { request, sentMs: monotonicMs(), timer };
    this.#socket.write(`${this.#id} ${request.number} ${mode}\n`);
  }

  end(): void {
    this.#isEnding = true;
    this.#socket.end();
  }

  #read(chunk: string): void {
    this.#text += chunk;
    const length = this.#text.indexOf('\n');
    if (length < 0) return;
    const [backend = '', id, number] = this.#text.slice(0, length).split(' ');
    this.#text = this.#text.slice(length + 1);
    const asked = this.#asked;
    if (asked === undefined || id !== this.#id || Number(number) !== asked.request.number) {
      this.#giveUp('MISMATCH');
      return;
    }
    clearTimeout(asked.timer);
    this.#asked = undefined;
    this.#backend = backend;
    this.#events.onAnswer(asked.request, backend);
  }

  #giveUp(errno: string): void {
    this.#isEnding = true;
    this.#fail(errno);
    this.#socket.destroy();
  }

  #fail(errno: string): void {
    if (this.#asked === undefined) return;
    const { request, sentMs, timer } = this.#asked;
    clearTimeout(timer);
    this.#asked = undefined;
    this.#events.onFailure({
      connection: this.#id,
      request: request.number,
      backend: this.#backend,
      errno,
      sentMs,
      endMs: monotonicMs(),
    });
  }
}

/** The place of a kept connection: empty before its first request, and after the connection has ended. */
interface Slot {
  connection: ClientConnection | undefined;
}

/** Runs once. */
export class RequestLoad {
  readonly #options: RequestLoadOptions;
  readonly #total: number;
  readonly #idle: Slot[];
  readonly #waiting: Request[] = [];
  readonly #done = Promise.withResolvers<void>();
  readonly #startMs: number[] = [];
  readonly #latencyMs: number[] = [];
  readonly #failures: RequestFailure[] = [];
  readonly #byBackend: Record<string, number> = {};
  #begun = 0;
  #opened = 0;
  #endedIdle = 0;
  #latestMs = 0;

  constructor(options: RequestLoadOptions) {
    this.#options = options;
    this.#total = Math.round(options.perSecond * options.seconds);
    this.#idle = Array.from({ length: options.keptConnections }, () => ({ connection: undefined }));
  }

  /** Bounded: each request ends within its time-out, and no more than `perSecond * seconds` are begun. */
  async run(): Promise<RequestReport> {
    const firstMs = monotonicMs();
    const timer = setInterval(() => this.#begin(firstMs), TICK_MS);
    await this.#done.promise;
    clearInterval(timer);
    for (const { connection } of this.#idle) connection?.end();
    return {
      requests: this.#begun,
      startMs: this.#startMs,
      latencyMs: this.#latencyMs,
      failures: this.#failures,
      byBackend: this.#byBackend,
      connectionsOpened: this.#opened,
      endedIdle: this.#endedIdle,
      latestMs: this.#latestMs,
    };
  }

  /** All that are due. */
  #begin(firstMs: number): void {
    const now = monotonicMs();
    for (;;) {
      const startMs = firstMs + (this.#begun * 1_000) / this.#options.perSecond;
      if (startMs > now || this.#begun === this.#total) return;
      this.#latestMs = Math.max(this.#latestMs, now - startMs);
      this.#begun += 1;
      this.#send({ number: this.#begun, startMs });
    }
  }

  #send(request: Request): void {
    if (this.#options.keptConnections === 0) {
      const connection = this.#open(
        () => connection.end(),
        () => undefined,
      );
      connection.ask(request, 'close');
      return;
    }
    const slot = this.#idle.shift();
    if (slot === undefined) this.#waiting.push(request);
    else this.#sendOver(slot, request);
  }

  #sendOver(slot: Slot, request: Request): void {
    if (slot.connection?.isUsable !== true) {
      const free = (): void => this.#free(slot);
      slot.connection = this.#open(free, free);
    }
    slot.connection.ask(request, 'keep');
  }

  #free(slot: Slot): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#idle.push(slot);
    else this.#sendOver(slot, next);
  }

  #open(onAnswer: () => void, onFailure: () => void): ClientConnection {
    this.#opened += 1;
    return new ClientConnection(`${this.#options.prefix}${this.#opened}`, this.#options, {
      onAnswer: ({ startMs }, backend) => {
        this.#startMs.push(startMs);
        this.#latencyMs.push(monotonicMs() - startMs);
        this.#byBackend[backend] = (this.#byBackend[backend] ?? 0) + 1;
        onAnswer();
        this.#countEnd();
      },
      onFailure: (failure) => {
        this.#failures.push(failure);
        onFailure();
        this.#countEnd();
      },
      onEndedIdle: () => {
        this.#endedIdle += 1;
      },
    });
  }

  #countEnd(): void {
    if (this.#latencyMs.length + this.#failures.length === this.#total) this.#done.resolve();
  }
}
