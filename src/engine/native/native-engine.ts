/**
 * The engine in C++: one thread that accepts, dials and moves bytes (native/), while the policy decides here, in
 * batches. As a net.Server does, it keeps the process alive as long as a listener or a session is open.
 */
import { setImmediate } from 'node:timers';
import type { Clock, MonotonicMs } from '../../clock.ts';
import { ProxyError } from '../../errors.ts';
import type {
  Decision,
  Engine,
  EngineOptions,
  EngineTotals,
  ListenerId,
  ListenerSpec,
  Policy,
  SessionBytes,
  SessionId,
} from '../engine.ts';
import { addressesFault, openFault } from '../errno.ts';
import type { NativeAddon, NativeHandle, NativeOptions } from './addon.ts';
import { Exchange } from './exchange.ts';
import { listenError, systemError } from './system-error.ts';

const WILDCARD = { IPv4: '0.0.0.0', IPv6: '::' } as const;
const PROTOCOL = { TCP: 0, UDP: 1 } as const;
/** Batches in one turn of the event loop; the rest of the program has its share too. */
const BATCHES_PER_TURN = 16;

export interface NativeEngineDeps {
  readonly clock: Clock;
  readonly policy: Policy;
}

/** As `NativeOptions`, where what is absent has a default. */
export type NativeEngineOptions = EngineOptions & Partial<NativeOptions>;

interface Listener {
  readonly spec: ListenerSpec;
  readonly closed: PromiseWithResolvers<void>;
  isClosing: boolean;
}

export class NativeEngine implements Engine {
  readonly #addon: NativeAddon;
  readonly #handle: NativeHandle;
  readonly #exchange: Exchange;
  /** What the engine's clock is behind ours. */
  readonly #clockOffset: MonotonicMs;
  readonly #listeners = new Map<ListenerId, Listener>();
  /** Downward from -1, while sessions are numbered upward from 1: no two are alike, and all are small integers. */
  #lastListener = 0;
  #keepsAlive = false;
  #isStopped = false;
  /** Once it has stopped. */
  #lastTotals: EngineTotals | undefined;

  /** Starts its thread; `shutdown` ends it. Throws a ProxyError `ERR_ENGINE_UNAVAILABLE` when there can be none. */
  constructor({ clock, policy }: NativeEngineDeps, options: NativeEngineOptions, addon: NativeAddon) {
    this.#addon = addon;
    const handle = addon.start({ maxUnreported: 32, maxPipes: 32, ...options }, () => this.#report());
    if (typeof handle === 'number') {
      const cause = systemError(handle, 'epoll');
      throw new ProxyError('ERR_ENGINE_UNAVAILABLE', 'the native engine cannot start its thread', { cause });
    }
    this.#handle = handle;
    this.#clockOffset = clock.now() - addon.now();
    this.#exchange = new Exchange({
      clock,
      policy,
      drain: (events) => addon.drain(handle, events),
      submit: (commands, count, preambles) => {
        if (!this.#isStopped) addon.submit(handle, commands, count, preambles);
      },
      onListenerClosed: (listener) => this.#forget(listener),
    });
  }

  async open(spec: ListenerSpec): Promise<ListenerId> {
    if (this.#isStopped) throw openFault(spec, new Error('the engine has been shut down'));
    const { protocol, family, port } = spec;
    const addresses = protocol === 'TCP' ? [spec.addresses[0] ?? WILDCARD[family]] : spec.addresses;
    this.#lastListener -= 1;
    const id = this.#lastListener as ListenerId;
    const errno = this.#addon.open(this.#handle, id, PROTOCOL[protocol], port, addresses.join());
    if (errno !== 0) throw openFault(spec, listenError(errno, { protocol, port, addresses }));
    this.#listeners.set(id, { spec, closed: Promise.withResolvers(), isClosing: false });
    this.#updateKeepsAlive();
    return id;
  }

  async setAddresses(id: ListenerId, addresses: readonly string[]): Promise<void> {
    const listener = this.#listeners.get(id);
    if (listener?.spec.protocol !== 'UDP' || listener.isClosing) return;
    const { protocol, port } = listener.spec;
    const errno = this.#addon.setAddresses(this.#handle, id, port, addresses.join());
    if (errno !== 0) throw addressesFault(addresses, listenError(errno, { protocol, port, addresses }));
  }

  /** One for all addresses, see native/udp_socket.h. */
  socketsFor({ protocol, addresses }: Pick<ListenerSpec, 'protocol' | 'addresses'>): number {
    return protocol === 'TCP' ? 1 : Math.min(1, addresses.length);
  }

  async close(id: ListenerId): Promise<void> {
    const listener = this.#listeners.get(id);
    if (listener === undefined) return;
    if (!listener.isClosing) this.#addon.close(this.#handle, id);
    listener.isClosing = true;
    await listener.closed.promise;
  }

  answer(session: SessionId, decision: Decision): void {
    this.#exchange.answer(session, decision);
  }

  reset(sessions: Iterable<SessionId>, cause: 'stopped' | 'evicted' = 'stopped'): void {
    this.#exchange.reset(sessions, cause);
  }

  lastUsed(session: SessionId): MonotonicMs | undefined {
    if (this.#isStopped) return undefined;
    const at = this.#addon.lastUsed(this.#handle, session);
    return at === undefined ? undefined : at + this.#clockOffset;
  }

  *sessionBytes(): Iterable<SessionBytes> {
    if (this.#isStopped) return;
    const numbers = this.#addon.sessionBytes(this.#handle);
    for (let at = 0; at < numbers.length; at += 3) {
      const [session = 0, bytesIn = 0, bytesOut = 0] = numbers.subarray(at, at + 3);
      yield { session: session as SessionId, bytesIn, bytesOut };
    }
  }

  totals(): EngineTotals {
    if (this.#lastTotals !== undefined) return { ...this.#lastTotals };
    const [
      datagramsIn = 0,
      datagramsOut = 0,
      datagramsDropped = 0,
      flowControlPauses = 0,
      listenerErrors = 0,
    ] = this.#addon.totals(this.#handle);
    return { datagramsIn, datagramsOut, datagramsDropped, flowControlPauses, listenerErrors };
  }

  async shutdown(): Promise<void> {
    if (this.#isStopped) return;
    this.#isStopped = true;
    this.#addon.stop(this.#handle);
    // Else the report that is under way goes on to the last event.
    if (!this.#exchange.isReporting) this.#finish();
  }

  #report = (): void => {
    if (this.#lastTotals !== undefined) return;
    const isDone = this.#exchange.report(BATCHES_PER_TURN);
    if (this.#isStopped) this.#finish();
    else if (!isDone) setImmediate(this.#report);
    this.#updateKeepsAlive();
  };

  /** The thread has ended: its last events, and the end of everything. */
  #finish(): void {
    this.#exchange.report(Number.POSITIVE_INFINITY);
    for (const id of this.#listeners.keys()) this.#forget(id);
    this.#lastTotals = this.totals();
    this.#addon.release(this.#handle);
  }

  #forget(id: ListenerId): void {
    this.#listeners.get(id)?.closed.resolve();
    this.#listeners.delete(id);
  }

  #updateKeepsAlive(): void {
    if (this.#lastTotals !== undefined) return;
    const keepsAlive = this.#listeners.size > 0 || this.#exchange.sessionCount > 0;
    if (keepsAlive === this.#keepsAlive) return;
    this.#keepsAlive = keepsAlive;
    this.#addon.setKeepsAlive(this.#handle, keepsAlive);
  }
}
