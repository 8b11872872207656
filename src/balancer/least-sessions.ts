/**
 * `lc`, `sed` and `nq`: the endpoint with the fewest sessions. In IPVS (`net/netfilter/ipvs/ip_vs_{lc,sed,nq}.c`)
 * the three differ:
 *
 *     lc    fewest connections, those that are closing counted too, as 1/256 of an open one
 *     sed   least (connections + 1) / weight: the shortest expected delay
 *     nq    an idle endpoint if there is one, whatever its weight; else as sed
 *
 * With all weights 1, and sessions that are either open or gone, nothing of that is left: who has the fewest
 * sessions also has the shortest expected delay, and an idle endpoint always has the fewest. So the three names
 * choose alike here; they are there for those who bring them along from IPVS.
 *
 * Of several with the fewest the next one in turn is taken, from a random start. IPVS takes the first in its
 * list; after a start, when nobody has sessions, every node would send its clients to the same endpoint, and a
 * Service whose sessions are short and rare would hardly use another one.
 */
import type { Endpoint } from '../model/endpoint.ts';
import { type Random, Rotation } from './round-robin.ts';
import type { PickRequest, Scheduler } from './scheduler.ts';

/** How many sessions an endpoint has now, by its key. */
export type SessionsOf = (endpointKey: string) => number;

export class LeastSessions implements Scheduler {
  readonly #sessionsOf: SessionsOf;
  readonly #rotation: Rotation;

  constructor({ random, sessionsOf }: { readonly random: Random; readonly sessionsOf: SessionsOf }) {
    this.#sessionsOf = sessionsOf;
    this.#rotation = new Rotation(random);
  }

  setEndpoints(endpoints: readonly Endpoint[]): void {
    this.#rotation.setEndpoints(endpoints);
  }

  /** Looks at every endpoint, until one is idle. Moves past the one picked. */
  pick(_request: PickRequest, isAllowed: (endpoint: Endpoint) => boolean): Endpoint | undefined {
    let best: Endpoint | undefined;
    let bestStep = 0;
    let fewest = Number.POSITIVE_INFINITY;
    for (let step = 0; step < this.#rotation.size && fewest > 0; step += 1) {
      const endpoint = this.#rotation.at(step);
      if (endpoint === undefined) continue;
      const sessions = this.#sessionsOf(endpoint.key);
      if (sessions >= fewest || !isAllowed(endpoint)) continue;
      best = endpoint;
      bestStep = step;
      fewest = sessions;
    }
    if (best !== undefined) this.#rotation.moveBehind(bestStep);
    return best;
  }
}
