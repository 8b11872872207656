/** `random`: every allowed endpoint is as likely as every other. No memory, nothing to keep over a change. */
import type { Endpoint } from '../model/endpoint.ts';
import type { Random } from './round-robin.ts';
import type { PickRequest, Scheduler } from './scheduler.ts';

export class RandomChoice implements Scheduler {
  readonly #random: Random;
  #endpoints: readonly Endpoint[] = [];

  constructor(random: Random) {
    this.#random = random;
  }

  setEndpoints(endpoints: readonly Endpoint[]): void {
    this.#endpoints = endpoints;
  }

  /**
   * One draw from all, and only when that one is refused a second draw from those that are not. Both are even
   * over the allowed, so the choice is; to take the next one after the refused would favour its neighbour.
   */
  pick(_request: PickRequest, isAllowed: (endpoint: Endpoint) => boolean): Endpoint | undefined {
    const drawn = this.#endpoints[Math.floor(this.#random() * this.#endpoints.length)];
    if (drawn === undefined || isAllowed(drawn)) return drawn;
    let allowed = 0;
    for (const endpoint of this.#endpoints) if (isAllowed(endpoint)) allowed += 1;
    let skip = Math.floor(this.#random() * allowed);
    for (const endpoint of this.#endpoints) {
      if (!isAllowed(endpoint)) continue;
      if (skip === 0) return endpoint;
      skip -= 1;
    }
    return undefined;
  }
}
