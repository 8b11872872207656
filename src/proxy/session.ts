/**
 * One session from `opened` to `closed`, as the policy sees it: who it is of, which endpoint it is at, and what
 * becomes of it next. It tells the balancer where it is, each endpoint once when it comes and once when it goes.
 */
import type { MonotonicMs } from '../clock.ts';
import type { DialFailure, SessionId, SocketAddress } from '../engine/engine.ts';
import type { BackendPool } from './backend-pool.ts';
import type { Seat } from './backend-pools.ts';
import { type Attempt, type DialBudget, DialPlan } from './dial-plan.ts';
import type { Arrival } from './entrance.ts';
import { proxyProtocolHeader } from './proxy-protocol.ts';

export class Session {
  readonly id: SessionId;
  readonly pool: BackendPool;
  readonly openedAt: MonotonicMs;
  /** The entrance has let it in. */
  isAdmitted = false;
  /** It has ended, or is about to: neither the entrance nor the statistics count it any more. */
  isCountedOut = false;
  /** This node, not an endpoint, was at fault when a dial failed. */
  hasLocalFault = false;
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
    of: { readonly id: SessionId; readonly client: SocketAddress },
    { pool, destination }: Seat,
    { budget, now }: { readonly budget: DialBudget; readonly now: MonotonicMs },
  ) {
    const { client } = of;
    this.id = of.id;
    this.pool = pool;
    this.openedAt = now;
    this.#client = client;
    this.#destination = destination;
    this.#plan = new DialPlan(budget, now);
    this.#dialledAt = now;
  }

  get arrival(): Arrival {
    const { isUdp, statistics: service } = this.pool;
    return { session: this.id, client: this.client, service, isUdp };
  }

  /** Let in, and neither dialled nor refused: others are dialled before it. */
  get isWaiting(): boolean {
    return this.isAdmitted && !this.isCountedOut && !this.isEstablished && !this.#isCounted;
  }

  /** By then a session that waits must have had its turn. */
  get deadline(): MonotonicMs {
    return this.#plan.deadline;
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
        isHopeless: balancer.isHopeless,
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
  dialFailed(failure: DialFailure, errno: string): void {
    this.lastFailure = `${this.#endpointKey}: ${errno}`;
    this.hasLocalFault ||= failure === 'noSourcePort' || failure === 'noDescriptor' || failure === 'local';
    this.#plan.failed(this.#endpointKey, failure);
  }

  /** It is at an endpoint, and there is another in use that it has not tried lately. */
  canMove(now: MonotonicMs): boolean {
    // Who is refused is not to be refused again.
    if (!this.#isCounted) return false;
    return this.pool.balancer.hasOther(now, { has: (key) => this.#plan.isSpent(key) });
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
