/**
 * What this node needs: the listeners to hold open with the endpoints each may use, and the portals (addresses
 * and NodePorts) that lead to them. Pure; sorted, so that equal inputs give equal outputs.
 */
import type { Problem } from '../errors.ts';
import { type IpAddress, type IpFamily, familyOf, hostPortText } from '../model/address.ts';
import { type Endpoint, compareText } from '../model/endpoint.ts';
import type { ServicePort } from '../model/service-port.ts';
import { type Protocol, type ServicePortKey, servicePortNameText } from '../model/service-port-name.ts';
import type { Snapshot } from '../model/snapshot.ts';
import { usableEndpoints } from './usable-endpoints.ts';

/** Identity of a listener: it survives every change of its Service that leaves this key alone. */
export type ListenerKey = string & { readonly __brand: 'ListenerKey' };

export interface DesiredListener {
  readonly key: ListenerKey;
  readonly family: IpFamily;
  readonly servicePort: ServicePort;
  /** Where its new connections may go, sorted by key; empty: nobody can take them. */
  readonly endpoints: readonly Endpoint[];
  /** Keys of all endpoints that still serve, usable or not: UDP flows to any other are cut. */
  readonly servingKeys: ReadonlySet<string>;
}

/** Where a portal's traffic goes: to a listener, or nowhere because the Service has no endpoints at all. */
export type PortalTarget =
  | { readonly kind: 'listener'; readonly listener: ListenerKey }
  | { readonly kind: 'reject' };

interface PortalCommon {
  /** `ns/name:port`, the comment of its rules. */
  readonly servicePortName: string;
  readonly family: IpFamily;
  readonly protocol: Protocol;
  readonly port: number;
  readonly target: PortalTarget;
}

/** An address and port of a Service whose traffic is captured. */
export interface AddressPortal extends PortalCommon {
  readonly kind: 'clusterIP' | 'externalIP';
  readonly address: IpAddress;
}

/** A port captured on every local address of the node. */
export interface NodePortPortal extends PortalCommon {
  readonly kind: 'nodePort';
}

export type Portal = AddressPortal | NodePortPortal;

export interface DesiredState {
  readonly listeners: ReadonlyMap<ListenerKey, DesiredListener>;
  readonly portals: readonly Portal[];
  readonly problems: readonly Problem[];
}

/** What the node brings to the decision. */
export interface NodeView {
  /** The families that can be captured here. */
  readonly families: readonly IpFamily[];
  /** Every local address, loopback included: an endpoint that is a NodePort on one of them is captured. */
  readonly addresses: ReadonlySet<IpAddress>;
}

/**
 * Decides for the whole snapshot. A portal that two Service ports claim goes to the older one (creation time,
 * then key); the other is reported and keeps its remaining portals.
 */
export function buildDesiredState(snapshot: Snapshot, node: NodeView): DesiredState {
  const claims = claimPortals(snapshot, node);
  const captured = (endpoint: Endpoint, protocol: Protocol): string | undefined =>
    claims.ownerOf(endpoint.address, endpoint.port, protocol) ??
    (node.addresses.has(endpoint.address)
      ? claims.ownerOf(`node/${endpoint.family}`, endpoint.port, protocol)
      : undefined);
  const listeners = new Map<ListenerKey, DesiredListener>();
  const portals: Portal[] = [];
  const problems: Problem[] = [...claims.problems];
  for (const [servicePortId, claimed] of claims.won) {
    const servicePort = snapshot.servicePorts.get(servicePortId);
    if (servicePort === undefined) continue;
    const known = snapshot.endpoints.get(servicePortId) ?? [];
    const reachable = withoutCaptured(known, { servicePort, captured, problems });
    const servingKeys = new Set(
      reachable.filter(({ ready, serving }) => ready || serving).map(({ key }) => key),
    );
    for (const family of new Set(claimed.map((claim) => claim.family))) {
      const key = listenerKey(servicePortId, family);
      const endpoints = usableEndpoints(reachable.filter((endpoint) => endpoint.family === family));
      listeners.set(key, { key, family, servicePort, endpoints, servingKeys });
    }
    for (const claim of claimed) {
      const key = listenerKey(servicePortId, claim.family);
      const isServed = (listeners.get(key)?.endpoints.length ?? 0) > 0;
      portals.push({ ...claim, target: isServed ? { kind: 'listener', listener: key } : { kind: 'reject' } });
    }
  }
  return { listeners, portals, problems };
}

export function listenerKey(servicePort: ServicePortKey, family: IpFamily): ListenerKey {
  return `${servicePort}/${family}/cluster` as ListenerKey;
}

type PortalClaim = Omit<AddressPortal, 'target'> | Omit<NodePortPortal, 'target'>;

interface Claims {
  readonly won: ReadonlyMap<ServicePortKey, readonly PortalClaim[]>;
  readonly problems: readonly Problem[];
  /** Name of the service port that captures this address (or `node/<family>`), port and protocol. */
  ownerOf(address: string, port: number, protocol: Protocol): string | undefined;
}

function claimPortals(snapshot: Snapshot, node: NodeView): Claims {
  const owners = new Map<string, string>();
  const won = new Map<ServicePortKey, PortalClaim[]>();
  const problems: Problem[] = [];
  const bySeniority = [...snapshot.servicePorts.values()].sort(
    (a, b) => a.createdAt - b.createdAt || compareText(a.key, b.key),
  );
  for (const servicePort of bySeniority) {
    for (const claim of claimsOf(servicePort, node.families)) {
      const place = claim.kind === 'nodePort' ? `node/${claim.family}` : claim.address;
      const key = placeKey(place, claim.port, claim.protocol);
      const owner = owners.get(key);
      if (owner === undefined) {
        owners.set(key, claim.servicePortName);
        won.set(servicePort.key, [...(won.get(servicePort.key) ?? []), claim]);
      } else {
        problems.push(conflictProblem(servicePort, claim, owner));
      }
    }
  }
  const sorted = new Map([...won].sort(([a], [b]) => compareText(a, b)));
  return {
    won: sorted,
    problems,
    ownerOf: (place, port, protocol) => owners.get(placeKey(place, port, protocol)),
  };
}

function placeKey(place: string, port: number, protocol: Protocol): string {
  return `${place}|${port}|${protocol}`;
}

function claimsOf(servicePort: ServicePort, families: readonly IpFamily[]): PortalClaim[] {
  const { name, port, nodePort } = servicePort;
  const common = { servicePortName: servicePortNameText(name), protocol: name.protocol };
  const atAddress = (kind: AddressPortal['kind']) => (address: IpAddress) =>
    ({ ...common, kind, family: familyOf(address), address, port }) as const;
  const claims: PortalClaim[] = [
    ...servicePort.clusterIPs.map(atAddress('clusterIP')),
    ...servicePort.externalIPs.map(atAddress('externalIP')),
  ];
  if (nodePort !== 0) {
    for (const family of servicePort.families)
      claims.push({ ...common, kind: 'nodePort', family, port: nodePort });
  }
  return claims.filter((claim) => families.includes(claim.family));
}

function conflictProblem(servicePort: ServicePort, claim: PortalClaim, owner: string): Problem {
  const place =
    claim.kind === 'nodePort'
      ? `nodePort ${claim.port}`
      : `${claim.kind} ${hostPortText(claim.address, claim.port)}`;
  const owning =
    owner === claim.servicePortName ? 'claimed twice by this Service' : `kept by the older ${owner}`;
  return {
    code: 'ERR_SERVICE_CONFLICT',
    object: `Service ${servicePort.name.namespace}/${servicePort.name.name}`,
    field: `port ${JSON.stringify(servicePort.name.port)}`,
    message: `${place}/${claim.protocol} (${claim.family}) is ${owning}`,
  };
}

/** Without the endpoints that are portals themselves: our own dial would be captured again, without end. */
function withoutCaptured(
  endpoints: readonly Endpoint[],
  context: {
    readonly servicePort: ServicePort;
    readonly captured: (endpoint: Endpoint, protocol: Protocol) => string | undefined;
    readonly problems: Problem[];
  },
): readonly Endpoint[] {
  const { name } = context.servicePort;
  return endpoints.filter((endpoint) => {
    const owner = context.captured(endpoint, name.protocol);
    if (owner === undefined) return true;
    context.problems.push({
      code: 'ERR_ENDPOINT_CAPTURED',
      object: `Service ${name.namespace}/${name.name}`,
      field: `endpoint ${endpoint.key}`,
      message: `is itself a captured Service address (of ${owner}): dialling it would never leave this node's proxy`,
    });
    return false;
  });
}
