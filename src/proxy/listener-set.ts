/**
 * The listeners by key, with their proxy ports, from the first guard rule to the last accepted connection.
 * Whoever calls decides which are wanted; here is how they come and go without losing anyone:
 *
 *     opening ──► open ──► draining (accepts on, nothing points here) ──► closing ──► gone
 *        ▲  └─ clash: another port     └─ wanted again: open
 *
 * A listener that lost its port on a new address is replaced: it accepts on until the rules point at its
 * successor, and drains then. Until it is gone a port stays guarded.
 */
import type { Clock } from '../clock.ts';
import type { Engine, ListenerId } from '../engine/engine.ts';
import { ProxyError, isProxyError } from '../errors.ts';
import type { Logger } from '../log.ts';
import type { IpFamily } from '../model/address.ts';
import type { ProxyPorts } from './proxy-ports.ts';
import {
  type ListenerPort,
  type WantedListener,
  faultOf,
  isClash,
  isSame,
  spaceOf,
} from './wanted-listener.ts';

/** A port that somebody else holds is given up for another this many times before the listener fails. */
const MAX_CLASHES = 8;

interface Entry {
  readonly wanted: WantedListener;
  readonly port: number;
  addresses: readonly string[];
  /** Undefined while it is opening. */
  id: ListenerId | undefined;
}

/** An entry that left its key. */
type Leaving =
  | { readonly kind: 'replaced'; readonly entry: Entry }
  | {
      readonly kind: 'draining';
      readonly entry: Entry;
      readonly timer: NodeJS.Timeout;
      /** False when it was replaced: its port is lost on some address. */
      readonly canReturn: boolean;
    }
  | { readonly kind: 'closing'; readonly entry: Entry };

export interface ListenerSetDeps {
  readonly engine: Pick<Engine, 'open' | 'close' | 'setAddresses' | 'socketsFor'>;
  /** Told which key a listener's sessions belong to before it accepts the first one it will serve. */
  readonly binding: { bindListener(id: ListenerId, key: string): void; unbindListener(id: ListenerId): void };
  readonly ports: ProxyPorts;
  /** Is there room for so many more listening sockets? */
  readonly hasRoomToListen: (sockets: number) => boolean;
  readonly clock: Clock;
  readonly logger: Logger;
  /** A port has closed after draining, or was given up before it opened: its guard is to go. */
  readonly onChange: () => void;
}

export interface ListenerSetOptions {
  /** How long a listener that nothing points at any more still accepts. */
  readonly gracePeriodMs: number;
}

export class ListenerSet {
  readonly #deps: ListenerSetDeps;
  readonly #options: ListenerSetOptions;
  readonly #entryByKey = new Map<string, Entry>();
  readonly #leaving = new Map<Entry, Leaving>();
  #version = 0;
  /** Undefined: to be counted anew. */
  #sockets: number | undefined;

  constructor(deps: ListenerSetDeps, options: ListenerSetOptions) {
    this.#deps = deps;
    this.#options = options;
  }

  get openCount(): number {
    return this.proxyPorts().size;
  }

  get drainingCount(): number {
    return this.#leaving.size;
  }

  /** Sockets that listen or are about to. Asked for each new connection. */
  get socketCount(): number {
    this.#sockets ??= [...this.#entryByKey.values(), ...this.#leaving.keys()].reduce(
      (sum, { wanted, addresses }) => sum + this.#deps.engine.socketsFor({ ...wanted, addresses }),
      0,
    );
    return this.#sockets;
  }

  /** Counts up with every change of the ports below. */
  get version(): number {
    return this.#version;
  }

  /** Where rules may point: the ports of the listeners that accept. */
  proxyPorts(): ReadonlyMap<string, number> {
    const open = [...this.#entryByKey].filter(([, entry]) => entry.id !== undefined);
    return new Map(open.map(([key, entry]) => [key, entry.port]));
  }

  /** Those and the ports of the listeners that are about to open. */
  plannedPorts(): ReadonlyMap<string, number> {
    return new Map([...this.#entryByKey].map(([key, entry]) => [key, entry.port]));
  }

  /** Every port that is open, about to be, or not closed yet. */
  guardedPorts(): readonly ListenerPort[] {
    return [...this.#entryByKey.values(), ...this.#leaving.keys()].map(({ wanted, port }) => ({
      family: wanted.family,
      protocol: wanted.protocol,
      port,
      servicePortName: wanted.servicePortName,
    }));
  }

  /**
   * Opens what is missing and follows changed addresses. `guard` is called before any new port opens, with the
   * port already among `guardedPorts`. Faults of single listeners are returned; a fault of `guard` is thrown,
   * and the next call goes on from there.
   */
  async ensureOpen(
    wanted: readonly WantedListener[],
    guard: () => Promise<void>,
  ): Promise<readonly ProxyError[]> {
    this.#revive(wanted);
    const faults = await this.#followAddresses(wanted);
    for (let clashes = 0; clashes <= MAX_CLASHES; clashes += 1) {
      const exhausted = this.#takePorts(wanted);
      const opening = wanted
        .map(({ key }) => this.#entryByKey.get(key))
        .filter((entry) => entry !== undefined)
        .filter(({ id }) => id === undefined);
      if (opening.length > 0) await guard();
      const opened = await Promise.all(opening.map(async (entry) => this.#open(entry)));
      const failed = opened.filter((fault) => fault !== undefined);
      const isLast = clashes === MAX_CLASHES || !failed.some(isClash);
      faults.push(...failed.filter((fault) => isLast || !isClash(fault)));
      if (isLast) return [...faults, ...exhausted];
    }
    return faults;
  }

  /**
   * To be called once no rule points at them: every listener of the family outside `keys`, and every replaced one,
   * accepts for the grace period, then closes.
   */
  retainKeys(family: IpFamily, keys: ReadonlySet<string>): void {
    for (const [key, entry] of this.#entryByKey) {
      if (entry.wanted.family !== family || keys.has(key)) continue;
      this.#entryByKey.delete(key);
      if (entry.id === undefined) {
        // It never opened, and is guarded all the same.
        this.#release(entry);
        this.#deps.onChange();
      } else {
        this.#drain(entry, { canReturn: true });
      }
    }
    for (const { kind, entry } of this.#leaving.values()) {
      if (kind === 'replaced' && entry.wanted.family === family) this.#drain(entry, { canReturn: false });
    }
  }

  /** Ends every grace period; the sockets themselves belong to the engine. Idempotent. */
  close(): void {
    for (const leaving of this.#leaving.values()) {
      if (leaving.kind === 'draining') clearTimeout(leaving.timer);
    }
    this.#leaving.clear();
  }

  #changed(sockets?: number): void {
    this.#version += 1;
    this.#sockets = sockets;
  }

  #revive(wanted: readonly WantedListener[]): void {
    const keys = new Set(wanted.map(({ key }) => key));
    for (const leaving of this.#leaving.values()) {
      const { kind, entry } = leaving;
      const { key } = entry.wanted;
      if (kind !== 'draining' || !leaving.canReturn || !keys.has(key) || this.#entryByKey.has(key)) continue;
      clearTimeout(leaving.timer);
      this.#leaving.delete(entry);
      this.#entryByKey.set(key, entry);
      this.#changed();
      if (entry.id !== undefined) this.#deps.binding.bindListener(entry.id, key);
    }
  }

  #takePorts(wanted: readonly WantedListener[]): ProxyError[] {
    const faults: ProxyError[] = [];
    for (const listener of wanted) {
      if (this.#entryByKey.has(listener.key)) continue;
      try {
        const sockets = this.#deps.engine.socketsFor(listener);
        if (!this.#deps.hasRoomToListen(sockets)) throw noRoom(sockets);
        const port = this.#deps.ports.take(listener.key, spaceOf(listener), this.#deps.clock.now());
        const { addresses } = listener;
        // Before the entry is there: it would be counted twice.
        this.#changed(this.socketCount + sockets);
        this.#entryByKey.set(listener.key, { wanted: listener, port, addresses, id: undefined });
      } catch (error) {
        if (!isProxyError(error)) throw error;
        faults.push(faultOf(listener, error));
      }
    }
    return faults;
  }

  async #open(entry: Entry): Promise<ProxyError | undefined> {
    const { wanted, port, addresses } = entry;
    const { protocol, family, key } = wanted;
    try {
      const id = await this.#deps.engine.open({ protocol, family, port, addresses });
      this.#deps.binding.bindListener(id, key);
      entry.id = id;
      this.#changed();
      return undefined;
    } catch (error) {
      if (!isProxyError(error)) throw error;
      this.#entryByKey.delete(key);
      this.#changed();
      const now = this.#deps.clock.now();
      if (isClash(error)) this.#deps.ports.clash(key, spaceOf(wanted), port, now);
      else this.#deps.ports.release(spaceOf(wanted), port, now);
      return faultOf(wanted, error);
    }
  }

  async #followAddresses(wanted: readonly WantedListener[]): Promise<ProxyError[]> {
    const faults: ProxyError[] = [];
    for (const listener of wanted) {
      const { key, protocol, addresses } = listener;
      const entry = this.#entryByKey.get(key);
      if (protocol !== 'UDP' || entry === undefined || isSame(entry.addresses, addresses)) continue;
      try {
        if (entry.id !== undefined) await this.#deps.engine.setAddresses(entry.id, addresses);
        entry.addresses = addresses;
        this.#sockets = undefined;
      } catch (error) {
        if (!isProxyError(error)) throw error;
        // Somebody else holds the port on the new address: only this listener moves to another port.
        if (isClash(error)) this.#replace(entry);
        else faults.push(faultOf(listener, error));
      }
    }
    return faults;
  }

  #replace(entry: Entry): void {
    const { key } = entry.wanted;
    if (this.#entryByKey.get(key) !== entry) return;
    this.#entryByKey.delete(key);
    this.#deps.ports.forget(key);
    this.#leaving.set(entry, { kind: 'replaced', entry });
    this.#changed();
  }

  #drain(entry: Entry, { canReturn }: { readonly canReturn: boolean }): void {
    const timer = setTimeout(() => void this.#closeDrained(entry), this.#options.gracePeriodMs);
    this.#leaving.set(entry, { kind: 'draining', entry, timer, canReturn });
    this.#changed();
  }

  async #closeDrained(entry: Entry): Promise<void> {
    const { id } = entry;
    if (id === undefined) return;
    this.#leaving.set(entry, { kind: 'closing', entry });
    try {
      await this.#deps.engine.close(id);
    } catch (error) {
      this.#deps.logger.error({ port: entry.port, error }, 'Closing of a listener failed');
    }
    this.#leaving.delete(entry);
    this.#deps.binding.unbindListener(id);
    this.#release(entry);
    this.#deps.onChange();
  }

  #release({ wanted, port }: Entry): void {
    this.#deps.ports.release(spaceOf(wanted), port, this.#deps.clock.now());
    this.#changed();
  }
}

function noRoom(sockets: number): ProxyError {
  return new ProxyError(
    'ERR_DESCRIPTORS_EXHAUSTED',
    `no room for ${sockets} more listening sockets: the limit of open files is too low for that many Services`,
  );
}
