/**
 * One session from `opened` to `closed`, as the policy sees it: who it is of, which endpoint it is at, and what
 * becomes of it next. It tells the balancer where it is, each endpoint once when it comes and once when it goes.
 */
import type { MonotonicMs } from '../clock.ts';
import type { DialFailure, SocketAddress } from '../engine/engine.ts';
import type { BackendPool } from './backend-pool.ts';
import type { Seat } from './backend-pools.ts';
import { type Attempt, DialPlan } from './dial-plan.ts';
import { proxyProtocolHeader } from './proxy-protocol.ts';

export class Session {
  readonly pool: BackendPool;
  readonly openedAt: MonotonicMs;
  readonly #client: SocketAddress;
  /** Where the client connected to, if that is known; fixed when it did. */
  readonly #destination: SocketAddress | undefined;
  readonly #plan: DialPlan;
  #endpointKey = '';
  /** The balancer counts it at that endpoint. */
  #isCounted = false;
  #dialledAt: MonotonicMs;
  /** `endpoint: errno`, or ''. */
  lastFailure = '';
  isEstablished = false;

  constructor(
    { pool, destination }: Seat,
    client: SocketAddress,
    { dialTimeoutsMs, now }: { readonly dialTimeoutsMs: readonly number[]; readonly now: MonotonicMs },
  ) {
    this.pool = pool;
    this.openedAt = now;
    this.#client = client;
    this.#destination = destination;
    this.#plan = new DialPlan(dialTimeoutsMs, now);
    this.#dialledAt = now;
  }

  /** The client's address, by which it is tied to an endpoint. */
  get client(): string {
    return this.#client.address;
  }

  /** Of the last dial; '' before the first. */
  get endpointKey(): string {
    return this.#endpointKey;
  }

  get dialledAt(): MonotonicMs {
    return this.#dialledAt;
  }

  /** Leaves the endpoint it is at, if any, and goes to the next; or says why there is none. */
  next(now: MonotonicMs): Attempt {
    this.leaveEndpoint();
    const { balancer } = this.pool;
    const request = { client: this.client, destination: this.#destination?.address ?? '' };
    const attempt = this.#plan.next(
      {
        size: balancer.size,
        has: (key) => balancer.has(key),
        pick: (excluded) => balancer.pick(request, now, excluded),
      },
      now,
    );
    if (attempt.kind === 'giveUp') return attempt;
    this.#endpointKey = attempt.endpoint.key;
    this.#dialledAt = now;
    this.#isCounted = true;
    balancer.sessionBegan(this.#endpointKey);
    return attempt;
  }

  /** The dial to its endpoint failed that way; the plan remembers. */
  dialFailed(failure: DialFailure): void {
    this.#plan.failed(this.#endpointKey, failure);
  }

  /** It carries nothing to its endpoint any more, and is not about to. Idempotent. */
  leaveEndpoint(): void {
    if (!this.#isCounted) return;
    this.#isCounted = false;
    this.pool.balancer.sessionEnded(this.#endpointKey);
  }

  /** What its backend gets first: the PROXY header, where the Service asks for one and both ends are known. */
  preamble(): Uint8Array | undefined {
    const { proxyProtocol } = this.pool;
    if (proxyProtocol === undefined || this.#destination === undefined) return undefined;
    return proxyProtocolHeader(proxyProtocol, this.#client, this.#destination);
  }
}
