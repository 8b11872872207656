/**
 * Which endpoints new connections may use, for each traffic policy (kube-proxy `pkg/proxy/topology.go`,
 * CategorizeEndpoints). Pure; order is kept.
 */
import type { Endpoint } from '../model/endpoint.ts';

export interface EndpointSets {
  /** For policy Cluster: the ready ones, near ones where the hints say so; else those that serve while they terminate. */
  readonly cluster: readonly Endpoint[];
  /** For policy Local: the same choice among the endpoints of this node, made by itself, without hints. */
  readonly local: readonly Endpoint[];
}

export interface Place {
  readonly nodeName: string;
  /** '' : not known. */
  readonly zone: string;
}

/**
 * `ready` is not second-guessed: publishNotReadyAddresses has already been applied by the controller. `cluster` is
 * empty exactly when nobody anywhere is usable.
 */
export function endpointSetsOf(endpoints: readonly Endpoint[], place: Place): EndpointSets {
  return {
    cluster: usable(endpoints, nearest(endpoints, place)),
    local: usable(
      endpoints.filter((endpoint) => isLocal(endpoint, place)),
      () => true,
    ),
  };
}

/** Does it run on this node? Nowhere is everything local: a slice without nodeName names no node. */
export function isLocal({ nodeName }: Endpoint, place: Place): boolean {
  return nodeName !== '' && nodeName === place.nodeName;
}

type IsNear = (endpoint: Endpoint) => boolean;

/** The fallback looks at no hints: it is there to lose no connection. */
function usable(endpoints: readonly Endpoint[], isNear: IsNear): readonly Endpoint[] {
  const ready = endpoints.filter((endpoint) => endpoint.ready && isNear(endpoint));
  return ready.length > 0 ? ready : endpoints.filter((endpoint) => endpoint.serving && endpoint.terminating);
}

/**
 * Hints count only when every ready endpoint has them and one of them means us, first those for Nodes, then those for
 * zones (KEP-3015, KEP-4444): a part of the endpoints without hints, or a Node that no hint names, means that the
 * controller knows less than we do.
 */
function nearest(endpoints: readonly Endpoint[], { nodeName, zone }: Place): IsNear {
  const ready = endpoints.filter((endpoint) => endpoint.ready);
  const isForNode: IsNear = ({ nodeHints }) => nodeHints.includes(nodeName);
  const isForZone: IsNear = ({ zoneHints }) => zoneHints.includes(zone);
  if (ready.every(({ nodeHints }) => nodeHints.length > 0) && ready.some(isForNode)) return isForNode;
  const hasZone = zone !== '' && ready.every(({ zoneHints }) => zoneHints.length > 0);
  return hasZone && ready.some(isForZone) ? isForZone : () => true;
}
