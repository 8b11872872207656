/**
 * The addon without a thread: the test says what happens, and reads what it was told. It fails closed: what the real
 * one only asserts throws.
 */
import type { NativeAddon, NativeHandle, NativeOptions } from '../../src/engine/native/addon.ts';
import type { ListenerId, SessionId } from '../../src/engine/engine.ts';
import { type NativeEvent, commandTexts, drainInto } from './native-records.ts';

const HANDLE = {} as NativeHandle;

type State = 'fresh' | 'running' | 'stopped' | 'released';

export class FakeNativeAddon implements NativeAddon {
  readonly protocol = 1;
  readonly queue: NativeEvent[] = [];
  /** What was asked of it but for draining and figures, in order: `open -1 TCP 80 0.0.0.0`, `stop`, `release` ... */
  readonly calls: string[] = [];
  /** The commands, one list for each `submit`. */
  readonly submitted: (readonly string[])[] = [];
  options: NativeOptions | undefined;
  nowMs = 1_000_000;
  startErrno = 0;
  /** What `open` and `setAddresses` return. */
  errno = 0;
  /** By session. */
  readonly usedAt = new Map<number, number>();
  bytes: readonly number[] = [];
  counts: readonly number[] = [0, 0, 0, 0, 0];
  drains = 0;
  /** What happens when it is stopped. */
  onStop: () => void = () => {};
  #state: State = 'fresh';
  #wake: () => void = () => {};
  readonly #open = new Set<ListenerId>();

  /** These happen, and the engine is told. */
  happen(...events: readonly NativeEvent[]): void {
    this.queue.push(...events);
    this.#wake();
  }

  now(): number {
    return this.nowMs;
  }

  start(options: NativeOptions, wake: () => void): NativeHandle | number {
    if (this.startErrno !== 0) return this.startErrno;
    this.#move('fresh', 'running');
    this.options = options;
    this.#wake = wake;
    return HANDLE;
  }

  setKeepsAlive(handle: NativeHandle, keepsAlive: boolean): void {
    this.#check(handle, 'running', 'stopped');
    this.calls.push(keepsAlive ? 'keep alive' : 'let go');
  }

  open(handle: NativeHandle, listener: ListenerId, protocol: 0 | 1, port: number, addresses: string): number {
    this.#check(handle, 'running');
    this.calls.push(`open ${listener} ${protocol === 0 ? 'TCP' : 'UDP'} ${port} ${addresses}`);
    if (this.errno === 0) this.#open.add(listener);
    return this.errno;
  }

  setAddresses(handle: NativeHandle, listener: ListenerId, port: number, addresses: string): number {
    this.#check(handle, 'running');
    if (!this.#open.has(listener)) throw new Error(`listener ${listener} is not open`);
    this.calls.push(`addresses ${listener} ${port} ${addresses}`);
    return this.errno;
  }

  close(handle: NativeHandle, listener: ListenerId): boolean {
    this.#check(handle, 'running');
    if (!this.#open.delete(listener)) throw new Error(`listener ${listener} is not open`);
    this.calls.push(`close ${listener}`);
    return true;
  }

  submit(handle: NativeHandle, commands: ArrayBuffer, count: number, preambles: Uint8Array): void {
    this.#check(handle, 'running');
    if (count === 0) throw new Error('a batch of nothing');
    this.submitted.push(commandTexts(commands, count, preambles));
  }

  drain(handle: NativeHandle, events: ArrayBuffer): number {
    this.#check(handle, 'running', 'stopped');
    this.drains += 1;
    return drainInto(events, this.queue);
  }

  lastUsed(handle: NativeHandle, session: SessionId): number | undefined {
    this.#check(handle, 'running');
    return this.usedAt.get(session);
  }

  sessionBytes(handle: NativeHandle): Float64Array {
    this.#check(handle, 'running');
    return Float64Array.from(this.bytes);
  }

  totals(handle: NativeHandle): Float64Array {
    this.#check(handle, 'running', 'stopped');
    return Float64Array.from(this.counts);
  }

  stop(handle: NativeHandle): void {
    this.#check(handle, 'running');
    this.calls.push('stop');
    this.#move('running', 'stopped');
    this.onStop();
  }

  release(handle: NativeHandle): void {
    this.#check(handle, 'stopped');
    if (this.queue.length > 0) throw new Error(`${this.queue.length} events are lost`);
    this.calls.push('release');
    this.#move('stopped', 'released');
  }

  #check(handle: NativeHandle, ...states: readonly State[]): void {
    if (handle !== HANDLE) throw new Error('a handle of somebody else');
    if (!states.includes(this.#state)) throw new Error(`it is ${this.#state}, not ${states.join(' or ')}`);
  }

  #move(from: State, to: State): void {
    if (this.#state !== from) throw new Error(`it is ${this.#state}, not ${from}`);
    this.#state = to;
  }
}
