/**
 * Round robin over a set of endpoints that changes. Pure: randomness is passed in.
 *
 * 1. It starts at a random endpoint, so that many nodes do not all begin with the same one.
 * 2. Over a change it goes on with the endpoint that would have been next, or, when that is gone, with the
 *    first of those after it that are left: a set that flaps does not send everything to its first member.
 */
import type { Endpoint } from '../model/endpoint.ts';
import type { PickRequest, Scheduler } from './scheduler.ts';

/** A number in [0, 1), as `Math.random`. */
export type Random = () => number;

/** A set of endpoint keys, as far as a choice needs it. */
export type EndpointKeys = Pick<ReadonlySet<string>, 'has'>;

/** Endpoints in a circle, and a position in it that survives changes. For those who take turns. */
export class Rotation {
  readonly #random: Random;
  #endpoints: readonly Endpoint[] = [];
  #next = 0;

  constructor(random: Random) {
    this.#random = random;
  }

  get size(): number {
    return this.#endpoints.length;
  }

  setEndpoints(endpoints: readonly Endpoint[]): void {
    const previous = this.#endpoints;
    const inTurn = [...previous.slice(this.#next), ...previous.slice(0, this.#next)];
    const indexByKey = new Map(endpoints.map((endpoint, index) => [endpoint.key, index]));
    const survivor = inTurn.find((endpoint) => indexByKey.has(endpoint.key));
    this.#endpoints = endpoints;
    this.#next =
      (survivor === undefined ? undefined : indexByKey.get(survivor.key)) ??
      Math.floor(this.#random() * endpoints.length);
  }

  /** The endpoint `step` places after the position, round and round; undefined only in an empty circle. */
  at(step: number): Endpoint | undefined {
    return this.#endpoints[(this.#next + step) % this.#endpoints.length];
  }

  /** Puts the position behind the endpoint that is `step` places after it. */
  moveBehind(step: number): void {
    this.#next = (this.#next + step + 1) % this.#endpoints.length;
  }
}

/** `rr`. */
export class RoundRobin implements Scheduler {
  readonly #rotation: Rotation;

  constructor(random: Random) {
    this.#rotation = new Rotation(random);
  }

  setEndpoints(endpoints: readonly Endpoint[]): void {
    this.#rotation.setEndpoints(endpoints);
  }

  /** The next endpoint that `isAllowed` accepts, or undefined when it accepts none. Moves past it. */
  pick(_request: PickRequest, isAllowed: (endpoint: Endpoint) => boolean): Endpoint | undefined {
    for (let step = 0; step < this.#rotation.size; step += 1) {
      const endpoint = this.#rotation.at(step);
      if (endpoint === undefined || !isAllowed(endpoint)) continue;
      this.#rotation.moveBehind(step);
      return endpoint;
    }
    return undefined;
  }
}
