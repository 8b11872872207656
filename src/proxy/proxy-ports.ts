/**
 * Which port a listener gets: the one it had before if that is possible, else a random one that nobody had
 * lately. Pure bookkeeping; whether a port is really free shows when it is opened.
 *
 * A port that was given back rests before anybody else gets it: conntrack still sends the flows of its former
 * Service there.
 */
import type { MonotonicMs } from '../clock.ts';
import { ProxyError } from '../errors.ts';
import type { Random } from '../balancer/round-robin.ts';

/** Inclusive. */
export interface PortRange {
  readonly first: number;
  readonly last: number;
}

/** Longer than conntrack keeps an idle UDP stream (nf_conntrack_udp_timeout_stream, 120 s). */
export const PORT_REST_MS = 180_000;

export interface ProxyPortsOptions {
  readonly range: PortRange;
  /** Never handed out: other programs' ephemeral ports and the NodePorts. */
  readonly excluded: readonly PortRange[];
  readonly random: Random;
  /** Ports of an earlier instance by listener key. */
  readonly remembered: ReadonlyMap<string, number>;
}

/** Ports of the two protocols and families do not meet: each `space` is a numbering of its own. */
export type PortSpace = `${'TCP' | 'UDP'}/${'IPv4' | 'IPv6'}`;

export class ProxyPorts {
  readonly #candidates: readonly number[];
  readonly #candidateSet: ReadonlySet<number>;
  readonly #random: Random;
  readonly #remembered: Map<string, number>;
  /** Ports of the earlier instance, whose flows conntrack still sends there: nobody else gets them if possible. */
  readonly #inherited: ReadonlySet<number>;
  readonly #taken = new Map<string, string>();
  /** Who had a port last; only they may remember it. Keeps what is remembered within the number of ports. */
  readonly #lastKey = new Map<string, string>();
  readonly #restingUntil = new Map<string, MonotonicMs>();
  /** Of other instances on this node, by space. */
  #foreign: ReadonlySet<string> = new Set();

  /** Throws `ERR_PROXY_PORTS_EXHAUSTED` when nothing of the range is left. */
  constructor({ range, excluded, random, remembered }: ProxyPortsOptions) {
    const isCandidate = (port: number): boolean =>
      contains(range, port) && !excluded.some((other) => contains(other, port));
    this.#candidates = portsOf(range).filter(isCandidate);
    this.#candidateSet = new Set(this.#candidates);
    this.#random = random;
    this.#remembered = new Map([...remembered].filter(([, port]) => isCandidate(port)));
    this.#inherited = new Set(this.#remembered.values());
    if (this.#candidates.length > 0) return;
    const taken = excluded.map(({ first, last }) => `${first}-${last}`).join(' and ');
    throw new ProxyError(
      'ERR_PROXY_PORTS_EXHAUSTED',
      `--proxy-port-range ${range.first}-${range.last} lies within ${taken}`,
    );
  }

  /** Takes a port for the listener. Throws `ERR_PROXY_PORTS_EXHAUSTED` when all are taken. */
  take(key: string, space: PortSpace, now: MonotonicMs): number {
    const remembered = this.#remembered.get(key);
    const isFree =
      remembered !== undefined &&
      !this.#taken.has(`${space}/${remembered}`) &&
      !this.#foreign.has(`${space}/${remembered}`);
    const port = isFree ? remembered : this.#choose(space, now);
    if (port === undefined) {
      throw new ProxyError(
        'ERR_PROXY_PORTS_EXHAUSTED',
        `all ${this.#candidates.length} ${space} proxy ports are taken`,
      );
    }
    this.#taken.set(`${space}/${port}`, key);
    this.#remember(key, space, port);
    return port;
  }

  /** Gives a port back. It stays remembered for this listener and rests for everybody else. */
  release(space: PortSpace, port: number, now: MonotonicMs): void {
    this.#taken.delete(`${space}/${port}`);
    this.#restingUntil.set(`${space}/${port}`, now + PORT_REST_MS);
  }

  /** Ports that another instance has open, each as `space/port`, instead of those told before, which rest from now on. */
  setForeign(ports: ReadonlySet<string>, now: MonotonicMs): void {
    for (const gone of this.#foreign.difference(ports)) this.#restingUntil.set(gone, now + PORT_REST_MS);
    this.#foreign = ports;
  }

  /** The listener's next port is another one than it has now. */
  forget(key: string): void {
    this.#remembered.delete(key);
  }

  /** The port turned out to be somebody else's: it is given back and this listener gets another one. */
  clash(key: string, space: PortSpace, port: number, now: MonotonicMs): void {
    this.forget(key);
    this.release(space, port, now);
  }

  /** Whether a port is one of those that a listener may get. */
  isCandidate(port: number): boolean {
    return this.#candidateSet.has(port);
  }

  get takenCount(): number {
    return this.#taken.size;
  }

  /** Whoever had the port before has lost it: coming back, they would take it from those flows that it rests for. */
  #remember(key: string, space: PortSpace, port: number): void {
    const last = this.#lastKey.get(`${space}/${port}`);
    if (last !== undefined && last !== key && this.#remembered.get(last) === port) this.forget(last);
    this.#lastKey.set(`${space}/${port}`, key);
    this.#remembered.set(key, port);
  }

  /** From a random place on, the first port that is free and rested; else the one that has rested longest. */
  #choose(space: PortSpace, now: MonotonicMs): number | undefined {
    const start = Math.floor(this.#random() * this.#candidates.length);
    let fallback: { readonly port: number; readonly restingUntil: MonotonicMs } | undefined;
    for (let step = 0; step < this.#candidates.length; step += 1) {
      const port = this.#candidates[(start + step) % this.#candidates.length];
      if (port === undefined || this.#taken.has(`${space}/${port}`)) continue;
      // What another instance says is no reason to have no port at all: if it is true, a clash will show.
      const restingUntil =
        this.#inherited.has(port) || this.#foreign.has(`${space}/${port}`)
          ? Number.POSITIVE_INFINITY
          : (this.#restingUntil.get(`${space}/${port}`) ?? 0);
      if (restingUntil <= now) return port;
      if (fallback === undefined || restingUntil < fallback.restingUntil) fallback = { port, restingUntil };
    }
    return fallback?.port;
  }
}

function contains({ first, last }: PortRange, port: number): boolean {
  return port >= first && port <= last;
}

function portsOf({ first, last }: PortRange): number[] {
  return Array.from({ length: last - first + 1 }, (_, index) => first + index);
}
