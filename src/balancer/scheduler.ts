/**
 * The contract of every scheduler: which endpoint is next, once affinity has had its say. Each balancer has one,
 * which `build-scheduler.ts` makes from its name.
 */
import type { Endpoint } from '../model/endpoint.ts';

/** What a choice may depend on. */
export interface PickRequest {
  /** The client's address as the kernel writes it, without its port. */
  readonly client: string;
  /** The address the client asked for, written likewise; '' where a listener serves several addresses. */
  readonly destination: string;
}

export interface Scheduler {
  /** Sorted by key, every key once. What was learned of endpoints that stay holds on. Called on every change. */
  setEndpoints(endpoints: readonly Endpoint[]): void;
  /** An endpoint of the set that `isAllowed` accepts, or undefined when it accepts none. */
  pick(request: PickRequest, isAllowed: (endpoint: Endpoint) => boolean): Endpoint | undefined;
}
