/**
 * The listeners that are open, by key, with their proxy ports, from the first guard rule to the end of the
 * grace period. Whoever calls decides which are wanted; here is how they come and go without losing anyone:
 *
 *     opening ──► open ──► draining (accepts on, nothing points here) ──► closed
 *        ▲  └─ clash: another port     └─ wanted again: open
 */
import type { Clock } from '../clock.ts';
import type { Engine, ListenerId } from '../engine/engine.ts';
import { type ProxyError, errnoOf, errorText, isProxyError } from '../errors.ts';
import type { Logger } from '../log.ts';
import type { IpFamily } from '../model/address.ts';
import type { Protocol } from '../model/service-port-name.ts';
import type { PortSpace, ProxyPorts } from './proxy-ports.ts';

/** A port that somebody else holds is given up for another this many times before the listener fails. */
const MAX_CLASHES = 8;

export interface WantedListener {
  readonly key: string;
  readonly servicePortName: string;
  readonly protocol: Protocol;
  readonly family: IpFamily;
  /** As `ListenerSpec.addresses`. */
  readonly addresses: readonly string[];
}

interface Entry {
  readonly wanted: WantedListener;
  readonly port: number;
  addresses: readonly string[];
  id: ListenerId | undefined;
  drain: NodeJS.Timeout | undefined;
}

export interface ListenerPort {
  readonly family: IpFamily;
  readonly protocol: Protocol;
  readonly port: number;
  readonly servicePortName: string;
}

export interface ListenerSetDeps {
  readonly engine: Pick<Engine, 'open' | 'close' | 'setAddresses'>;
  /** Told which key a listener's sessions belong to before it accepts the first one it will serve. */
  readonly binding: { bindListener(id: ListenerId, key: string): void; unbindListener(id: ListenerId): void };
  readonly ports: ProxyPorts;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Something changed that the rules must follow: a drained port closed, or a listener died. */
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
  readonly #draining = new Set<Entry>();

  constructor(deps: ListenerSetDeps, options: ListenerSetOptions) {
    this.#deps = deps;
    this.#options = options;
  }

  get openCount(): number {
    return [...this.#entryByKey.values()].filter((entry) => entry.id !== undefined).length;
  }

  get drainingCount(): number {
    return this.#draining.size;
  }

  /** Where rules may point: the ports of the listeners that accept. */
  proxyPorts(): ReadonlyMap<string, number> {
    const open = [...this.#entryByKey].filter(([, entry]) => entry.id !== undefined);
    return new Map(open.map(([key, entry]) => [key, entry.port]));
  }

  /** Every port that is open, about to be, or draining. */
  guardedPorts(): readonly ListenerPort[] {
    return [...this.#entryByKey.values(), ...this.#draining].map(({ wanted, port }) => ({
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
      faults.push(...this.#takePorts(wanted));
      const opening = wanted
        .map(({ key }) => this.#entryByKey.get(key))
        .filter((entry) => entry !== undefined)
        .filter(({ id }) => id === undefined);
      if (opening.length === 0) break;
      await guard();
      const opened = await Promise.all(opening.map(async (entry) => this.#open(entry)));
      const failed = opened.filter((fault) => fault !== undefined);
      faults.push(...failed.filter((fault) => !isClash(fault) || clashes === MAX_CLASHES));
      if (!failed.some(isClash)) break;
    }
    return faults;
  }

  /** Lets every listener of the family outside `keys` go: it accepts for the grace period, then closes. */
  retainKeys(family: IpFamily, keys: ReadonlySet<string>): void {
    for (const [key, entry] of this.#entryByKey) {
      if (entry.wanted.family === family && !keys.has(key)) this.#startDrain(entry);
    }
  }

  /** A listener that stopped by itself: closed, and to be opened again by the next `ensureOpen`. */
  listenerFailed(id: ListenerId, errno: string): void {
    const entry = [...this.#entryByKey.values()].find((candidate) => candidate.id === id);
    if (entry === undefined) return;
    const { servicePortName, protocol, family } = entry.wanted;
    this.#deps.logger.error(
      { servicePort: servicePortName, protocol, family, port: entry.port, errno },
      'Listener failed',
    );
    this.#entryByKey.delete(entry.wanted.key);
    void this.#close(entry);
  }

  /** Ends every grace period; the sockets themselves belong to the engine. Idempotent. */
  close(): void {
    for (const { drain } of this.#draining) clearTimeout(drain);
    this.#draining.clear();
  }

  /** Before addresses are followed: one that drains because it lost its port on an address must not come back. */
  #revive(wanted: readonly WantedListener[]): void {
    const drainingByKey = new Map([...this.#draining].map((entry) => [entry.wanted.key, entry]));
    for (const { key } of wanted) {
      const revived = drainingByKey.get(key);
      if (revived === undefined || this.#entryByKey.has(key)) continue;
      clearTimeout(revived.drain);
      this.#draining.delete(revived);
      this.#entryByKey.set(key, revived);
      if (revived.id !== undefined) this.#deps.binding.bindListener(revived.id, key);
    }
  }

  #takePorts(wanted: readonly WantedListener[]): ProxyError[] {
    const faults: ProxyError[] = [];
    for (const listener of wanted) {
      if (this.#entryByKey.has(listener.key)) continue;
      try {
        const port = this.#deps.ports.take(listener.key, spaceOf(listener), this.#deps.clock.now());
        const { addresses } = listener;
        this.#entryByKey.set(listener.key, {
          wanted: listener,
          port,
          addresses,
          id: undefined,
          drain: undefined,
        });
      } catch (error) {
        if (!isProxyError(error)) throw error;
        faults.push(error);
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
      return undefined;
    } catch (error) {
      if (!isProxyError(error)) throw error;
      this.#entryByKey.delete(key);
      const now = this.#deps.clock.now();
      if (isClash(error)) this.#deps.ports.clash(key, spaceOf(wanted), port, now);
      else this.#deps.ports.release(spaceOf(wanted), port, now);
      return error;
    }
  }

  async #followAddresses(wanted: readonly WantedListener[]): Promise<ProxyError[]> {
    const faults: ProxyError[] = [];
    for (const { key, protocol, addresses } of wanted) {
      const entry = this.#entryByKey.get(key);
      if (protocol !== 'UDP' || entry === undefined || isSame(entry.addresses, addresses)) continue;
      try {
        if (entry.id !== undefined) await this.#deps.engine.setAddresses(entry.id, addresses);
        entry.addresses = addresses;
      } catch (error) {
        if (!isProxyError(error)) throw error;
        // Somebody else holds the port on the new address: only this listener moves to another port.
        if (isClash(error)) this.#startDrain(entry, { isPortLost: true });
        else faults.push(error);
      }
    }
    return faults;
  }

  #startDrain(entry: Entry, { isPortLost = false } = {}): void {
    this.#entryByKey.delete(entry.wanted.key);
    if (entry.id === undefined) {
      this.#deps.ports.release(spaceOf(entry.wanted), entry.port, this.#deps.clock.now());
      return;
    }
    if (isPortLost) this.#deps.ports.forget(entry.wanted.key);
    this.#draining.add(entry);
    entry.drain = setTimeout(() => {
      this.#draining.delete(entry);
      void this.#close(entry).then(this.#deps.onChange);
    }, this.#options.gracePeriodMs);
  }

  async #close(entry: Entry): Promise<void> {
    if (entry.id === undefined) return;
    try {
      await this.#deps.engine.close(entry.id);
    } catch (error) {
      this.#deps.logger.error({ port: entry.port, error: errorText(error) }, 'Closing of a listener failed');
    }
    this.#deps.binding.unbindListener(entry.id);
    this.#deps.ports.release(spaceOf(entry.wanted), entry.port, this.#deps.clock.now());
  }
}

function spaceOf({ protocol, family }: WantedListener): PortSpace {
  return `${protocol}/${family}`;
}

function isClash(error: ProxyError): boolean {
  return errnoOf(error.cause) === 'EADDRINUSE';
}

function isSame(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((value, index) => value === b[index]);
}
