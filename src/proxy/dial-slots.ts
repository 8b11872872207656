/**
 * How many connections of one Service port are dialled at the same time: a Service whose endpoints do not answer
 * must not hold a descriptor for each of its clients' dials, and a burst must not overflow the accept queues of
 * endpoints that do. The others wait, in the order they came. Pure bookkeeping.
 */
import type { MonotonicMs } from '../clock.ts';
import type { SessionId } from '../engine/engine.ts';

/** A service port of a family, by identity. */
export type Service = object;

interface Queue {
  readonly dialling: Set<SessionId>;
  /** With the time by which each must have had its turn. */
  readonly waiting: Map<SessionId, MonotonicMs>;
}

export class DialSlots {
  readonly #maxPerService: number;
  readonly #byService = new Map<Service, Queue>();
  #waiting = 0;

  /** `maxPerService`: at least 1. */
  constructor(maxPerService: number) {
    this.#maxPerService = maxPerService;
  }

  /** Sessions that wait for their turn, whichever Service's. */
  get waiting(): number {
    return this.#waiting;
  }

  /** Sessions that have a slot, in no order that means anything. */
  dialling(service: Service): Iterable<SessionId> {
    return this.#byService.get(service)?.dialling ?? [];
  }

  /** True: it may dial, and has a slot until `leave`. False: it waits until `next` names it. Idempotent. */
  enter(service: Service, session: SessionId, deadline: MonotonicMs): boolean {
    const queue = this.#byService.get(service) ?? { dialling: new Set(), waiting: new Map() };
    this.#byService.set(service, queue);
    if (queue.dialling.has(session)) return true;
    if (queue.dialling.size < this.#maxPerService) {
      queue.dialling.add(session);
      return true;
    }
    if (!queue.waiting.has(session)) this.#waiting += 1;
    queue.waiting.set(session, deadline);
    return false;
  }

  /** It dials no more, and waits for nothing. Idempotent. */
  leave(service: Service, session: SessionId): void {
    const queue = this.#byService.get(service);
    if (queue === undefined) return;
    queue.dialling.delete(session);
    if (queue.waiting.delete(session)) this.#waiting -= 1;
    if (queue.dialling.size + queue.waiting.size === 0) this.#byService.delete(service);
  }

  /**
   * Who is next, or undefined when nobody waits or no slot is free: `late` when its time is up, and then it waits no
   * more; else it has a slot from now on.
   */
  next(
    service: Service,
    now: MonotonicMs,
  ): { readonly session: SessionId; readonly isLate: boolean } | undefined {
    const queue = this.#byService.get(service);
    const [first] = queue?.waiting ?? [];
    if (queue === undefined || first === undefined) return undefined;
    const [session, deadline] = first;
    const isLate = deadline < now;
    if (!isLate && queue.dialling.size >= this.#maxPerService) return undefined;
    queue.waiting.delete(session);
    this.#waiting -= 1;
    if (!isLate) queue.dialling.add(session);
    return { session, isLate };
  }
}
