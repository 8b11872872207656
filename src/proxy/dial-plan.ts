/**
 * In which order, and for how long each, one connection tries the endpoints. Pure: time is passed in, and the
 * balancer is asked for endpoints through `pick`.
 *
 * 1. Each attempt goes to another endpoint. When all were tried a new pass begins, with the next time-out.
 * 2. An endpoint that refused, or to which this node has no source port left, is not tried again. When all have refused, that is the end, at once.
 * 3. Passes repeat until the budget, the sum of the time-outs, is spent; then one last attempt is made at an
 *    endpoint that was never tried, if there is one: it may just have appeared.
 * 4. Where everybody has failed lately, and nobody answered since, a few endpoints are tried, not all: every client
 *    would else dial every endpoint of a large Service that is down. Others try those that come after these.
 * 5. The only endpoint left is dialled for the whole rest of the budget: giving it up early to dial it again
 *    would only lose the place in its accept queue.
 */
import type { MonotonicMs } from '../clock.ts';
import type { DialFailure } from '../engine/engine.ts';
import { MAX_HOPELESS_DIALS } from '../balancer/ejection.ts';
import type { EndpointKeys } from '../balancer/round-robin.ts';
import type { Endpoint } from '../model/endpoint.ts';

/** What the plan needs of a balancer. */
export interface EndpointChoice {
  /** Everybody failed lately, and nobody has answered since. */
  readonly isHopeless: boolean;
  /** How many endpoints there are. */
  readonly size: number;
  readonly has: (endpointKey: string) => boolean;
  /** One outside `excluded`, or undefined. */
  pick(excluded: EndpointKeys): Endpoint | undefined;
}

export type Attempt =
  | { readonly kind: 'dial'; readonly endpoint: Endpoint; readonly timeoutMs: number }
  /** `no_endpoints`: there is nobody to dial; `exhausted`: everybody was tried. */
  | { readonly kind: 'giveUp'; readonly reason: 'no_endpoints' | 'exhausted' };

/** The time-outs of all passes, worked out once for all plans. */
export interface DialBudget {
  /** One for each pass, at least one; the last one holds for all further passes. */
  readonly timeoutsMs: readonly number[];
  /** Their sum. */
  readonly totalMs: number;
}

export function dialBudget(timeoutsMs: readonly number[]): DialBudget {
  return { timeoutsMs, totalMs: timeoutsMs.reduce((sum, timeout) => sum + timeout, 0) };
}

const NOTHING: EndpointKeys = { has: () => false };

export class DialPlan {
  readonly #budget: DialBudget;
  readonly #deadline: MonotonicMs;
  /** Most connections have one dial and no more: the sets are for those that have a second. */
  #first: string | undefined;
  #tried: Set<string> | undefined;
  #triedInPass: Set<string> | undefined;
  #refused: Set<string> | undefined;
  #pass = 0;
  #dials = 0;
  #isOverBudget = false;

  constructor(budget: DialBudget, startedAt: MonotonicMs) {
    this.#budget = budget;
    this.#deadline = startedAt + budget.totalMs;
  }

  next(choice: EndpointChoice, now: MonotonicMs): Attempt {
    if (choice.size === 0) return { kind: 'giveUp', reason: 'no_endpoints' };
    if (choice.isHopeless && this.#dials >= MAX_HOPELESS_DIALS)
      return { kind: 'giveUp', reason: 'exhausted' };
    const remainingMs = this.#deadline - now;
    const endpoint = remainingMs > 0 ? this.#pickInPass(choice) : this.#pickLast(choice);
    if (endpoint === undefined) return { kind: 'giveUp', reason: 'exhausted' };
    const allowedMs = this.#timeoutFor(choice, remainingMs);
    // The first attempt at an endpoint is a whole one, however little of the budget is left.
    const timeoutMs = this.#wasTried(endpoint.key) ? allowedMs : Math.max(allowedMs, this.#passTimeoutMs);
    this.#remember(endpoint.key);
    this.#dials += 1;
    return { kind: 'dial', endpoint, timeoutMs };
  }

  failed(endpointKey: string, failure: DialFailure): void {
    if (failure !== 'timeout') (this.#refused ??= new Set()).add(endpointKey);
  }

  /** Endpoints that it would not try next: it has lately, or they refused. */
  isSpent(endpointKey: string): boolean {
    const inPass = this.#triedInPass?.has(endpointKey) ?? endpointKey === this.#first;
    return inPass || this.#refused?.has(endpointKey) === true;
  }

  /** When its budget is spent. */
  get deadline(): MonotonicMs {
    return this.#deadline;
  }

  #wasTried(endpointKey: string): boolean {
    return this.#tried?.has(endpointKey) ?? endpointKey === this.#first;
  }

  #remember(endpointKey: string): void {
    if (this.#first === undefined) {
      this.#first = endpointKey;
      return;
    }
    (this.#tried ??= new Set([this.#first])).add(endpointKey);
    (this.#triedInPass ??= new Set([this.#first])).add(endpointKey);
  }

  #pickInPass(choice: EndpointChoice): Endpoint | undefined {
    if (this.#first === undefined) return choice.pick(NOTHING);
    const inPass = choice.pick({ has: (key) => this.isSpent(key) });
    if (inPass !== undefined || this.#triedInPass?.size === 0) return inPass;
    this.#pass += 1;
    this.#triedInPass = new Set();
    return choice.pick(this.#refused ?? NOTHING);
  }

  #pickLast(choice: EndpointChoice): Endpoint | undefined {
    if (this.#isOverBudget) return undefined;
    this.#isOverBudget = true;
    return choice.pick({ has: (key) => this.#wasTried(key) });
  }

  #timeoutFor(choice: EndpointChoice, remainingMs: number): number {
    if (remainingMs <= 0) return this.#passTimeoutMs;
    return this.#isOnlyOneLeft(choice) ? remainingMs : Math.min(this.#passTimeoutMs, remainingMs);
  }

  #isOnlyOneLeft({ size, has }: EndpointChoice): boolean {
    const refused = this.#refused;
    if (refused === undefined) return size <= 1;
    if (size - refused.size > 1) return false;
    return size - [...refused].filter((key) => has(key)).length <= 1;
  }

  get #passTimeoutMs(): number {
    const { timeoutsMs } = this.#budget;
    return timeoutsMs[Math.min(this.#pass, timeoutsMs.length - 1)] ?? 0;
  }
}
