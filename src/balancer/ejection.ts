/**
 * Endpoints that did not answer are left out for a while, so that one dead pod does not tax every connection whose turn
 * it is (passive outlier ejection). Pure; time is passed in.
 *
 *     in use ──failed──► ejected for `timeMs` ──time is up──► on trial: one connection ──answered, or no fault──► in use
 *                           ▲                                        │
 *                           └──────── twice as long, 30 s at most ───┘ failed
 *
 * Two things keep this from making a bad hour worse:
 *
 * 1. The last endpoint in use is never ejected.
 * 2. When a connection has tried everybody in vain, it is not the endpoints that are told apart by their faults: all
 *    are in use again, and nobody is ejected until somebody answers. So when a network comes back, or a whole
 *    Deployment, all of it is used at once, and not one endpoint for as long as the others are left out. Until then
 *    connections take turns where there are more endpoints than one of them tries: who failed comes after those that
 *    were not tried since, whatever the scheduler says; or one that hashes would show a client the same few for ever.
 */
import type { MonotonicMs } from '../clock.ts';

/** An ejection never lasts longer. */
export const MAX_EJECTION_MS = 30_000;
/** While everybody fails one connection tries so many endpoints, not all. */
export const MAX_HOPELESS_DIALS = 8;

export interface EjectionOptions {
  /** Of a first ejection; 0: nobody is ever ejected. */
  readonly timeMs: number;
  /**
   * While an endpoint is on trial nobody else is sent there; it has passed when this time brought no fault. Longer than
   * any dial takes to fail.
   */
  readonly trialMs: number;
}

interface Ejection {
  /** Of the ejection that began last. */
  readonly timeMs: number;
  readonly state: 'ejected' | 'trial';
  /** End of that state. */
  readonly until: MonotonicMs;
}

export class Ejections {
  readonly #timeMs: number;
  readonly #trialMs: number;
  readonly #byKey = new Map<string, Ejection>();
  /** While suspended, who was tried in vain; nobody again once that was everybody. */
  readonly #triedInVain = new Set<string>();
  #total = 0;
  #isSuspended = false;

  constructor({ timeMs, trialMs }: EjectionOptions) {
    this.#timeMs = Math.min(timeMs, MAX_EJECTION_MS);
    this.#trialMs = trialMs;
  }

  /** Ejections so far, repeated ones included. */
  get total(): number {
    return this.#total;
  }

  /** True when nobody is left out: the usual case, asked before each choice. */
  get isEmpty(): boolean {
    return this.#byKey.size + this.#triedInVain.size === 0;
  }

  /** Everybody failed, and nobody has answered since. */
  get isSuspended(): boolean {
    return this.#isSuspended;
  }

  /** Endpoints that are left out now; one on trial still is, one whose trial is due is not. */
  countAt(now: MonotonicMs): number {
    let count = 0;
    for (const { until } of this.#byKey.values()) if (until > now) count += 1;
    return count;
  }

  /** Is it to be left out of a choice? Not when its trial is due: then it may be chosen. */
  isOut(endpointKey: string, now: MonotonicMs): boolean {
    if (this.#triedInVain.has(endpointKey)) return true;
    const ejection = this.#byKey.get(endpointKey);
    if (ejection === undefined) return false;
    if (ejection.until > now) return true;
    if (ejection.state === 'trial') this.#byKey.delete(endpointKey);
    return false;
  }

  /** A connection is sent there; if its ejection is over, that is its trial. */
  chosen(endpointKey: string, now: MonotonicMs): void {
    const ejection = this.#byKey.get(endpointKey);
    if (ejection === undefined || ejection.state === 'trial' || ejection.until > now) return;
    this.#byKey.set(endpointKey, { ...ejection, state: 'trial', until: now + this.#trialMs });
  }

  /**
   * It did not answer. True when that ejects it; faults of connections that were under way before count no more than
   * the first. `endpoints`: how many there are in all.
   */
  failed(endpointKey: string, now: MonotonicMs, endpoints: number): boolean {
    if (this.#isSuspended) this.#inVain(endpointKey, endpoints);
    if (this.#timeMs === 0 || this.#isSuspended) return false;
    const before = this.#byKey.get(endpointKey);
    if (before?.state === 'ejected' && before.until > now) return false;
    if (endpoints - this.#othersOut(endpointKey, now) <= 1) return false;
    // A trial without a fault was passed, so this is a fault of its own.
    const isRepeated = before !== undefined && !(before.state === 'trial' && before.until <= now);
    const timeMs = isRepeated ? Math.min(before.timeMs * 2, MAX_EJECTION_MS) : this.#timeMs;
    this.#byKey.set(endpointKey, { timeMs, state: 'ejected', until: now + timeMs });
    this.#total += 1;
    return true;
  }

  /** It answered: all is forgotten. */
  succeeded(endpointKey: string): void {
    this.#byKey.delete(endpointKey);
    this.resume();
  }

  /** Endpoints can be reached again, whether or not they answer: faults tell them apart from here on. */
  resume(): void {
    this.#isSuspended = false;
    this.#triedInVain.clear();
  }

  /** A connection has tried everybody in vain. */
  suspend(): void {
    this.#byKey.clear();
    this.#isSuspended = true;
  }

  /** Who leaves the set comes back without a past. */
  retainEndpoints(endpointKeys: Pick<ReadonlyMap<string, unknown>, 'has'>): void {
    for (const key of this.#byKey.keys()) if (!endpointKeys.has(key)) this.#byKey.delete(key);
    for (const key of this.#triedInVain) if (!endpointKeys.has(key)) this.#triedInVain.delete(key);
  }

  #inVain(endpointKey: string, endpoints: number): void {
    if (endpoints > MAX_HOPELESS_DIALS) this.#triedInVain.add(endpointKey);
    if (this.#triedInVain.size >= endpoints) this.#triedInVain.clear();
  }

  /** One whose trial is due counts too: nothing says that it answers. */
  #othersOut(endpointKey: string, now: MonotonicMs): number {
    let count = 0;
    for (const [key, { state, until }] of this.#byKey) {
      if (key !== endpointKey && (state === 'ejected' || until > now)) count += 1;
    }
    return count;
  }
}
