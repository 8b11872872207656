/**
 * The records in which the addon and TypeScript talk, byte by byte as native/engine.h lays them out: events come in
 * batches in one buffer, commands go out in another. Nothing is allocated but the events themselves.
 */
import { getSystemErrorName } from 'node:util';
import type { CloseCause, Decision, EngineEvent, ListenerId, SessionId } from '../engine.ts';
import { dialFailureFromErrno } from '../errno.ts';

/** `EventKind` of engine.h. */
export const EVENT_KIND = { opened: 1, dialFailed: 2, established: 3, closed: 4, listenerClosed: 5 } as const;

/** `CommandKind` of engine.h. */
export const COMMAND_KIND = { refuse: 0, dial: 1, stopped: 2, evicted: 3 } as const;

/** In the order of `CloseCause` of engine.h. */
const CAUSES: readonly CloseCause[] = [
  'fin',
  'clientReset',
  'backendReset',
  'idle',
  'halfClose',
  'evicted',
  'refused',
  'backendRefused',
  'stopped',
];

export const EVENT_BYTES = 104;
const EVENT_DOUBLES = EVENT_BYTES / 8;
const EVENT_INTS = EVENT_BYTES / 4;
/** Places of the fields of an event, in units of their type. */
const EVENT = {
  session: 0,
  bytesIn: 1,
  bytesOut: 2,
  kind: 6,
  epoch: 7,
  listener: 8,
  error: 9,
  cause: 10,
  port: 11,
  addressLength: 12,
  address: 52,
} as const;

export const COMMAND_BYTES = 80;
const COMMAND_DOUBLES = COMMAND_BYTES / 8;
const COMMAND_INTS = COMMAND_BYTES / 4;
const COMMAND = {
  session: 0,
  kind: 2,
  epoch: 3,
  timeoutMs: 4,
  preambleLength: 5,
  port: 6,
  addressLength: 7,
  address: 32,
} as const;
/** INET6_ADDRSTRLEN. The longest literal is one shorter, so what was cut to this is none. */
const MAX_ADDRESS_BYTES = 46;
const MAX_UINT32 = 0xffff_ffff;

const NO_BYTES = new Uint8Array();

/** The name of a number of errno.h, as Node's own errors have it (`ECONNREFUSED`). */
export function errnoName(errno: number): string {
  const name = getSystemErrorName(-errno);
  return name.startsWith('E') ? name : 'UNKNOWN';
}

/** Up to `capacity` events, which the addon writes and this reads. */
export class EventBatch {
  /** For the addon. */
  readonly buffer: ArrayBuffer;
  readonly #doubles: Float64Array;
  readonly #ints: Int32Array;
  readonly #bytes: Buffer;

  constructor(capacity: number) {
    this.buffer = new ArrayBuffer(capacity * EVENT_BYTES);
    this.#doubles = new Float64Array(this.buffer);
    this.#ints = new Int32Array(this.buffer);
    this.#bytes = Buffer.from(this.buffer);
  }

  /** One of `EVENT_KIND`. */
  kind(at: number): number {
    return this.#int(at, EVENT.kind);
  }

  session(at: number): SessionId {
    return this.#double(at, EVENT.session) as SessionId;
  }

  /** How many answers outside of the batches the session had got when this happened. */
  epoch(at: number): number {
    return this.#int(at, EVENT.epoch);
  }

  listener(at: number): ListenerId {
    return this.#int(at, EVENT.listener) as ListenerId;
  }

  opened(at: number): EngineEvent {
    const from = at * EVENT_BYTES + EVENT.address;
    const address = this.#bytes.toString('latin1', from, from + this.#int(at, EVENT.addressLength));
    return {
      kind: 'opened',
      listener: this.listener(at),
      session: this.session(at),
      client: { address, port: this.#int(at, EVENT.port) },
    };
  }

  dialFailed(at: number): EngineEvent {
    const errno = errnoName(this.#int(at, EVENT.error));
    return { kind: 'dialFailed', session: this.session(at), failure: dialFailureFromErrno(errno), errno };
  }

  established(at: number): EngineEvent {
    return { kind: 'established', session: this.session(at) };
  }

  closed(at: number): EngineEvent {
    return {
      kind: 'closed',
      session: this.session(at),
      cause: CAUSES[this.#int(at, EVENT.cause)] as CloseCause,
      bytesIn: this.#double(at, EVENT.bytesIn),
      bytesOut: this.#double(at, EVENT.bytesOut),
    };
  }

  #int(at: number, field: number): number {
    return this.#ints[at * EVENT_INTS + field] as number;
  }

  #double(at: number, field: number): number {
    return this.#doubles[at * EVENT_DOUBLES + field] as number;
  }
}

/** `count` commands are in the buffer; their preambles, one after the other, in `preambles`. */
export type Submit = (commands: ArrayBuffer, count: number, preambles: Uint8Array) => void;

/** Commands on their way to the addon, in the order of the calls. They go when `flush` says so, or when there is no room. */
export class CommandBatch {
  readonly #submit: Submit;
  readonly #capacity: number;
  readonly #buffer: ArrayBuffer;
  readonly #doubles: Float64Array;
  readonly #ints: Int32Array;
  readonly #bytes: Uint8Array;
  readonly #preambles: Uint8Array;
  #count = 0;
  #preambleBytes = 0;

  constructor(submit: Submit, room: { readonly commands: number; readonly preambleBytes: number }) {
    this.#submit = submit;
    this.#capacity = room.commands;
    this.#buffer = new ArrayBuffer(room.commands * COMMAND_BYTES);
    this.#doubles = new Float64Array(this.#buffer);
    this.#ints = new Int32Array(this.#buffer);
    this.#bytes = new Uint8Array(this.#buffer);
    this.#preambles = new Uint8Array(room.preambleBytes);
  }

  /** `epoch`: how many answers outside of the batches the session has got, this one included. */
  answer(session: SessionId, decision: Decision, epoch: number): void {
    if (decision.kind === 'refuse') {
      this.#add(session, COMMAND_KIND.refuse, epoch);
      return;
    }
    const { to, timeoutMs, preamble = NO_BYTES } = decision;
    if (preamble.length > this.#preambles.length - this.#preambleBytes) this.flush();
    const base = this.#add(session, COMMAND_KIND.dial, epoch) * COMMAND_INTS;
    this.#ints[base + COMMAND.timeoutMs] = Math.min(MAX_UINT32, Math.ceil(timeoutMs));
    this.#ints[base + COMMAND.port] = to.port;
    this.#ints[base + COMMAND.preambleLength] = preamble.length;
    this.#writeAddress(base, to.address);
    if (preamble.length > 0) this.#takePreamble(preamble);
  }

  reset(session: SessionId, cause: 'stopped' | 'evicted'): void {
    this.#add(session, COMMAND_KIND[cause], 0);
  }

  flush(): void {
    if (this.#count > 0) this.#submit(this.#buffer, this.#count, this.#preambles);
    this.clear();
  }

  /** Nobody is to get them. */
  clear(): void {
    this.#count = 0;
    this.#preambleBytes = 0;
  }

  /** Returns its place. */
  #add(session: SessionId, kind: number, epoch: number): number {
    if (this.#count === this.#capacity) this.flush();
    const at = this.#count;
    const base = at * COMMAND_INTS;
    this.#doubles[at * COMMAND_DOUBLES + COMMAND.session] = session;
    this.#ints[base + COMMAND.kind] = kind;
    this.#ints[base + COMMAND.epoch] = epoch;
    this.#ints[base + COMMAND.preambleLength] = 0;
    this.#count = at + 1;
    return at;
  }

  #writeAddress(base: number, address: string): void {
    const length = Math.min(address.length, MAX_ADDRESS_BYTES);
    const from = base * 4 + COMMAND.address;
    this.#ints[base + COMMAND.addressLength] = length;
    for (let index = 0; index < length; index += 1) this.#bytes[from + index] = address.charCodeAt(index);
  }

  #takePreamble(preamble: Uint8Array): void {
    if (preamble.length > this.#preambles.length) {
      // Its command is the only one, see `answer`: it goes at once, and nothing so large is kept or copied here.
      this.#submit(this.#buffer, this.#count, preamble);
      this.clear();
      return;
    }
    this.#preambles.set(preamble, this.#preambleBytes);
    this.#preambleBytes += preamble.length;
  }
}
