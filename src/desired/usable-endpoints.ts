/** Which endpoints new connections may use (kube-proxy `pkg/proxy/topology.go`, CategorizeEndpoints). Pure. */
import type { Endpoint } from '../model/endpoint.ts';

/**
 * The ready endpoints; where there is none, those that still serve while they terminate. Order is kept.
 * `ready` is not second-guessed: publishNotReadyAddresses has already been applied by the controller.
 */
export function usableEndpoints(endpoints: readonly Endpoint[]): readonly Endpoint[] {
  const ready = endpoints.filter((endpoint) => endpoint.ready);
  return ready.length > 0 ? ready : endpoints.filter((endpoint) => endpoint.serving && endpoint.terminating);
}
