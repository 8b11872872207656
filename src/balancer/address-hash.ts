/**
 * `sh` and `dh`: an address always gets the same endpoint (IPVS `ip_vs_sh.c`: the client's; `ip_vs_dh.c`: the one
 * the client asked for). By rendezvous hashing: address and endpoint together give a score, and the highest
 * score has it. That gives every address its own order of all endpoints, on every node the same:
 *
 * 1. When an endpoint goes, only its addresses move, each to the next in its own order, and so evenly; when one
 *    comes, it takes an even share from all, and nobody else moves. IPVS deals its 256 buckets anew in both
 *    cases, and most of its clients move.
 * 2. A refused endpoint is treated as one that is gone. IPVS rejects such a client, unless told `sh-fallback`.
 *
 * Like affinity it holds per service port: two ports of a Service may lead one client to two pods.
 */
import type { Endpoint } from '../model/endpoint.ts';
import type { PickRequest, Scheduler } from './scheduler.ts';
import { hashText, mix32 } from './text-hash.ts';

/** Any three that differ. To change one moves every client of every node. */
const ADDRESS_SEED = 1;
const OFFSET_SEED = 2;
const FACTOR_SEED = 3;

/**
 * An endpoint with what turns an address's hash into its score. Two hashes, because two endpoints may share a
 * single one of 32 bits (among 250 once in 140,000 sets), and then one of them would get nothing.
 */
interface Candidate {
  readonly endpoint: Endpoint;
  readonly offset: number;
  /** Odd, so that multiplying by it loses nothing. */
  readonly factor: number;
}

export class AddressHash implements Scheduler {
  readonly #addressOf: (request: PickRequest) => string;
  #candidates: readonly Candidate[] = [];

  constructor(addressOf: (request: PickRequest) => string) {
    this.#addressOf = addressOf;
  }

  setEndpoints(endpoints: readonly Endpoint[]): void {
    this.#candidates = endpoints.map((endpoint) => ({
      endpoint,
      offset: hashText(endpoint.key, OFFSET_SEED),
      factor: hashText(endpoint.key, FACTOR_SEED) | 1,
    }));
  }

  pick(request: PickRequest, isAllowed: (endpoint: Endpoint) => boolean): Endpoint | undefined {
    const hash = hashText(this.#addressOf(request), ADDRESS_SEED);
    let best: Endpoint | undefined;
    let bestScore = -1;
    for (const { endpoint, offset, factor } of this.#candidates) {
      const score = mix32(Math.imul(hash ^ offset, factor));
      if (score <= bestScore || !isAllowed(endpoint)) continue;
      best = endpoint;
      bestScore = score;
    }
    return best;
  }
}
