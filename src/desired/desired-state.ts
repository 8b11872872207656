/**
 * What this node needs: the listeners to hold open with the endpoints each may use, and the portals (addresses
 * and NodePorts) that lead to them. Pure; sorted, so that equal inputs give equal outputs.
 */
import type { Problem } from '../errors.ts';
import type { IpAddress, IpFamily } from '../model/address.ts';
import type { Endpoint } from '../model/endpoint.ts';
import type { ServicePort } from '../model/service-port.ts';
import type { ServicePortKey } from '../model/service-port-name.ts';
import type { Snapshot } from '../model/snapshot.ts';
import type { ListenerKey, Portal } from './portal.ts';
import { type Claims, type PortalClaim, claimPortals } from './portal-claims.ts';
import { usableEndpoints } from './usable-endpoints.ts';

export interface DesiredListener {
  readonly key: ListenerKey;
  readonly family: IpFamily;
  readonly servicePort: ServicePort;
  /** Where its new connections may go, sorted by key; empty: nobody can take them. */
  readonly endpoints: readonly Endpoint[];
  /** Keys of all endpoints that still serve, usable or not: UDP flows to any other are cut. */
  readonly servingKeys: ReadonlySet<string>;
}

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
  return new DesiredStateBuilder().build(snapshot, node);
}

/**
 * As `buildDesiredState`, for snapshots that differ little from one to the next: a listener whose Service port and
 * endpoints are the same is the same object again, and `portals` is the same list while no portal is different.
 * That is what makes an endpoint change cheap: it ends at the balancer of its own listener.
 */
export class DesiredStateBuilder {
  #last: Derivation | undefined;

  build(snapshot: Snapshot, node: NodeView): DesiredState {
    const { servicePorts } = snapshot;
    const last =
      this.#last?.servicePorts === servicePorts && this.#last.node === node ? this.#last : undefined;
    const claims = last?.claims ?? claimPortals(servicePorts, node.families);
    const slots = new Map<ServicePortKey, Slot>();
    let hasSamePortals = last !== undefined;
    for (const [key, claimed] of claims.won) {
      const servicePort = servicePorts.get(key);
      if (servicePort === undefined) continue;
      const before = last?.slots.get(key);
      const known = snapshot.endpoints.get(key) ?? NO_ENDPOINTS;
      const slot =
        before?.known === known
          ? before
          : buildSlot({ servicePort, claimed, known }, { claims, node, before });
      hasSamePortals &&= slot.portals === before?.portals;
      slots.set(key, slot);
    }
    const all = [...slots.values()];
    const state: DesiredState = {
      listeners: new Map(all.flatMap((slot) => slot.listeners.map((listener) => [listener.key, listener]))),
      portals:
        last !== undefined && hasSamePortals ? last.state.portals : all.flatMap((slot) => slot.portals),
      problems: [...claims.problems, ...all.flatMap((slot) => slot.problems)],
    };
    this.#last = { servicePorts, node, claims, slots, state };
    return state;
  }
}

interface Derivation {
  readonly servicePorts: Snapshot['servicePorts'];
  readonly node: NodeView;
  readonly claims: Claims;
  readonly slots: ReadonlyMap<ServicePortKey, Slot>;
  readonly state: DesiredState;
}

/** What one Service port contributes. */
interface Slot {
  /** The endpoints it was decided from. */
  readonly known: readonly Endpoint[];
  readonly listeners: readonly DesiredListener[];
  readonly portals: readonly Portal[];
  readonly problems: readonly Problem[];
}

const NO_ENDPOINTS: readonly Endpoint[] = [];

function buildSlot(
  {
    servicePort,
    claimed,
    known,
  }: { servicePort: ServicePort; claimed: readonly PortalClaim[]; known: readonly Endpoint[] },
  { claims, node, before }: { claims: Claims; node: NodeView; before: Slot | undefined },
): Slot {
  const problems: Problem[] = [];
  const captured = (endpoint: Endpoint): string | undefined =>
    ownerOfEndpoint(endpoint, servicePort, { claims, node });
  const reachable = withoutCaptured(known, { servicePort, captured, problems });
  const servingKeys = new Set(
    reachable.filter(({ ready, serving }) => ready || serving).map(({ key }) => key),
  );
  const families = [...new Set(claimed.map((claim) => claim.family))];
  const listeners = families.map((family) => ({
    key: listenerKey(servicePort.key, family),
    family,
    servicePort,
    endpoints: usableEndpoints(reachable.filter((endpoint) => endpoint.family === family)),
    servingKeys,
  }));
  const served = new Set(listeners.filter(({ endpoints }) => endpoints.length > 0).map(({ key }) => key));
  const portals = claimed.map((claim): Portal => {
    const listener = listenerKey(servicePort.key, claim.family);
    return { ...claim, target: served.has(listener) ? { kind: 'listener', listener } : { kind: 'reject' } };
  });
  const hasSameTargets = before?.portals.every(
    ({ target }, index) => target.kind === portals[index]?.target.kind,
  );
  return {
    known,
    listeners,
    portals: before !== undefined && hasSameTargets ? before.portals : portals,
    problems,
  };
}

/** The Service port that captures what is sent to this endpoint, or undefined. */
function ownerOfEndpoint(
  { address, family, port }: Endpoint,
  { name: { protocol } }: ServicePort,
  { claims, node }: { readonly claims: Claims; readonly node: NodeView },
): string | undefined {
  const owner = claims.ownerOf(address, port, protocol);
  if (owner !== undefined || !node.addresses.has(address)) return owner;
  return claims.ownerOf(`node/${family}`, port, protocol);
}

function listenerKey(servicePort: ServicePortKey, family: IpFamily): ListenerKey {
  return `${servicePort}/${family}/cluster` as ListenerKey;
}

/** Without the endpoints that are portals themselves: our own dial would be captured again, without end. */
function withoutCaptured(
  endpoints: readonly Endpoint[],
  context: {
    readonly servicePort: ServicePort;
    readonly captured: (endpoint: Endpoint) => string | undefined;
    readonly problems: Problem[];
  },
): readonly Endpoint[] {
  const { name } = context.servicePort;
  return endpoints.filter((endpoint) => {
    const owner = context.captured(endpoint);
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
