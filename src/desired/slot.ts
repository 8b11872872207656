/**
 * Slot: what one Service port contributes to the desired state. This is where it is decided which traffic goes where:
 *
 *     to                        policy    from                        goes to
 *     clusterIP                 Cluster   anybody                     the cluster's endpoints
 *     clusterIP                 Local     anybody                     those of this node, else DROP
 *     NodePort, LB, external    Cluster   anybody                     the cluster's endpoints
 *     NodePort, LB, external    Local     this node and its pods      the cluster's endpoints
 *                                         everybody else              those of this node, else DROP
 *     any                       any       anybody, nobody is usable   REJECT
 *
 * as kube-proxy's iptables mode has it (`pkg/proxy/iptables/proxier.go`, syncProxyRules). Pure.
 */
import type { Problem } from '../errors.ts';
import { type IpAddress, type IpFamily, type PerFamily, familyOf, hostPortText } from '../model/address.ts';
import { type Endpoint, compareText } from '../model/endpoint.ts';
import type { ServicePort } from '../model/service-port.ts';
import type { TrafficPolicy } from '../model/service-policy.ts';
import { type EndpointSets, type Place, endpointSetsOf, isLocal } from './endpoint-sets.ts';
import { type NodeView, servesNodePorts } from './node-view.ts';
import type { ListenerKey, Portal, PortalTarget } from './portal.ts';
import type { Claims, PortalClaim } from './portal-claims.ts';

export interface SocketAddress {
  readonly address: IpAddress;
  readonly port: number;
}

export interface DesiredListener {
  readonly key: ListenerKey;
  /** Listeners with the same pool share endpoints, affinity and counts. */
  readonly pool: string;
  readonly family: IpFamily;
  readonly servicePort: ServicePort;
  /** Where its new connections may go, sorted by key; empty: nobody can take them. */
  readonly endpoints: readonly Endpoint[];
  /** Keys of all endpoints that still serve, usable or not: UDP flows to any other are cut. */
  readonly servingKeys: ReadonlySet<string>;
  /** What its clients connected to; undefined where several portals lead to it. */
  readonly destination: SocketAddress | undefined;
}

/** Policy Local, endpoints somewhere, none here: how many of the two policies of a Service port are in that state. */
export interface NoLocalEndpoints {
  readonly internal: number;
  readonly external: number;
}

export interface Slot {
  /** The endpoints it was decided from. */
  readonly known: readonly Endpoint[];
  readonly listeners: readonly DesiredListener[];
  readonly portals: readonly Portal[];
  readonly noLocalEndpoints: PerFamily<NoLocalEndpoints>;
  /** Of ready endpoints on this node. */
  readonly localReady: readonly IpAddress[];
  readonly problems: readonly Problem[];
}

export interface SlotInput {
  readonly servicePort: ServicePort;
  /** The places that it has, all families. */
  readonly claimed: readonly PortalClaim[];
  /** All its endpoints. */
  readonly known: readonly Endpoint[];
}

export function buildSlot(
  { servicePort, claimed, known }: SlotInput,
  { claims, node }: { readonly claims: Claims; readonly node: NodeView },
): Slot {
  const { reachable, problems } = withoutCaptured(known, servicePort, claims);
  const place: Place = { nodeName: node.settings.nodeName, zone: node.zone };
  const servingKeys = new Set(
    reachable.filter(({ ready, serving }) => ready || serving).map(({ key }) => key),
  );
  const listeners = new Map<ListenerKey, DesiredListener>();
  const portals: Portal[] = [];
  const noLocalEndpoints = { IPv4: NOWHERE, IPv6: NOWHERE };
  for (const family of new Set(claimed.map((claim) => claim.family))) {
    const ofFamily = reachable.filter((endpoint) => endpoint.family === family);
    const sets = endpointSetsOf(ofFamily, place);
    const own = spreadNodePorts(claimed, { servicePort, family, node });
    noLocalEndpoints[family] = noLocalEndpointsOf(own, servicePort, sets);
    for (const claim of own) {
      const portalListeners = listenersOf(claim, { servicePort, sets, servingKeys, node });
      for (const listener of portalListeners.values()) listeners.set(listener.key, listener);
      portals.push({ ...claim, target: targetOf(claim, { servicePort, sets, node, portalListeners }) });
    }
  }
  const localReady = reachable
    .filter((endpoint) => endpoint.ready && isLocal(endpoint, place))
    .map(({ address }) => address);
  return { known, listeners: [...listeners.values()], portals, noLocalEndpoints, localReady, problems };
}

const NOWHERE: NoLocalEndpoints = { internal: 0, external: 0 };

type PortalListeners = ReadonlyMap<TrafficPolicy, DesiredListener>;

interface Decision {
  readonly servicePort: ServicePort;
  readonly sets: EndpointSets;
  readonly node: NodeView;
}

function policyOf({ kind }: PortalClaim, servicePort: ServicePort): TrafficPolicy {
  return kind === 'clusterIP' ? servicePort.internalTrafficPolicy : servicePort.externalTrafficPolicy;
}

/** External traffic under policy Local needs both: for this node and its pods it is as if it came from a load balancer. */
function listenersOf(
  claim: PortalClaim,
  { servicePort, sets, servingKeys, node }: Decision & { readonly servingKeys: ReadonlySet<string> },
): PortalListeners {
  const policy = policyOf(claim, servicePort);
  const isSplit = policy === 'Local' && claim.kind !== 'clusterIP';
  const destination = needsDestination(servicePort, node) ? destinationOf(claim) : undefined;
  const listener = (own: TrafficPolicy): DesiredListener => {
    const pool = `${servicePort.key}/${claim.family}/${own.toLowerCase()}`;
    const suffix = destination === undefined ? '' : `/${hostPortText(destination.address, destination.port)}`;
    return {
      key: `${pool}${suffix}` as ListenerKey,
      pool,
      family: claim.family,
      servicePort,
      endpoints: own === 'Local' ? sets.local : sets.cluster,
      servingKeys,
      destination,
    };
  };
  const policies: readonly TrafficPolicy[] = isSplit ? ['Cluster', 'Local'] : [policy];
  return new Map(policies.map((own) => [own, listener(own)]));
}

function targetOf(
  claim: PortalClaim,
  { servicePort, sets, node, portalListeners }: Decision & { readonly portalListeners: PortalListeners },
): PortalTarget {
  if (sets.cluster.length === 0) return { kind: 'reject' };
  const cluster = portalListeners.get('Cluster');
  const local = sets.local.length === 0 ? undefined : portalListeners.get('Local');
  if (claim.kind !== 'clusterIP' && policyOf(claim, servicePort) === 'Local' && cluster !== undefined) {
    return { kind: 'split', inside: cluster.key, outside: local?.key };
  }
  const only = policyOf(claim, servicePort) === 'Local' ? local : cluster;
  if (only === undefined) return { kind: 'drop' };
  // Where nobody is known to be a pod, everybody would be outside.
  const knowsPods = node.podSources[claim.family].length > 0;
  if (claim.kind === 'clusterIP' && !node.settings.externalClusterIP && knowsPods) {
    return { kind: 'split', inside: only.key, outside: undefined };
  }
  return { kind: 'listener', listener: only.key };
}

/** Who must know where its client connected to gets a listener for each portal (decision 26). */
function needsDestination({ name, proxyProtocol, scheduler }: ServicePort, { settings }: NodeView): boolean {
  const hasHeader = proxyProtocol !== undefined && name.protocol === 'TCP';
  return hasHeader || (scheduler ?? settings.scheduler) === 'dh';
}

function destinationOf({ address, port }: PortalClaim): SocketAddress | undefined {
  return address === undefined ? undefined : { address, port };
}

/** The claims of the family, a NodePort as one for each address where the destination must be known. */
function spreadNodePorts(
  claimed: readonly PortalClaim[],
  { servicePort, family, node }: { servicePort: ServicePort; family: IpFamily; node: NodeView },
): readonly PortalClaim[] {
  const own = claimed.filter((claim) => claim.family === family);
  if (!needsDestination(servicePort, node)) return own;
  const addresses = [...node.addresses]
    .filter((address) => familyOf(address) === family && servesNodePorts(node, address))
    .sort(compareText);
  return own.flatMap((claim): readonly PortalClaim[] =>
    claim.kind === 'nodePort' ? addresses.map((address) => ({ ...claim, address })) : [claim],
  );
}

function noLocalEndpointsOf(
  claims: readonly PortalClaim[],
  { internalTrafficPolicy, externalTrafficPolicy }: ServicePort,
  { cluster, local }: EndpointSets,
): NoLocalEndpoints {
  if (cluster.length === 0 || local.length > 0) return NOWHERE;
  const isExternal = claims.some(({ kind }) => kind !== 'clusterIP');
  return {
    internal: internalTrafficPolicy === 'Local' ? 1 : 0,
    external: externalTrafficPolicy === 'Local' && isExternal ? 1 : 0,
  };
}

/** Without the endpoints that are portals themselves: our own dial would be captured again, without end. */
function withoutCaptured(
  endpoints: readonly Endpoint[],
  { name }: ServicePort,
  claims: Claims,
): { readonly reachable: readonly Endpoint[]; readonly problems: readonly Problem[] } {
  const problems: Problem[] = [];
  const reachable = endpoints.filter(({ key, address, port }) => {
    const owner = claims.ownerOf(address, port, name.protocol);
    if (owner === undefined) return true;
    problems.push({
      code: 'ERR_ENDPOINT_CAPTURED',
      object: `Service ${name.namespace}/${name.name}`,
      field: `endpoint ${key}`,
      message: `is itself a captured Service address (of ${owner}): dialling it would never leave this node's proxy`,
    });
    return false;
  });
  return { reachable, problems };
}
