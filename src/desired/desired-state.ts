/**
 * What this node needs: the listeners to hold open with the endpoints each may use, the portals (addresses and
 * NodePorts) that lead to them, and the health checks of load balancers. Pure; sorted, so that equal inputs give equal
 * outputs.
 */
import type { Problem } from '../errors.ts';
import { type IpAddress, type IpFamily, IP_FAMILIES, type PerFamily, familyOf } from '../model/address.ts';
import { type Cidr, isWholeFamily } from '../model/cidr.ts';
import { compareText } from '../model/endpoint.ts';
import type { HealthCheck } from '../model/health-check.ts';
import { namespacedNameText } from '../model/object.ts';
import type { ServicePort } from '../model/service-port.ts';
import type { ServicePortKey } from '../model/service-port-name.ts';
import type { Snapshot } from '../model/snapshot.ts';
import { type NodeView, type PodSource, servesNodePorts } from './node-view.ts';
import type { ListenerKey, Portal } from './portal.ts';
import { type Claims, claimPortals } from './portal-claims.ts';
import { type DesiredListener, type NoLocalEndpoints, type Slot, buildSlot } from './slot.ts';

export type { DesiredListener } from './slot.ts';

/** A port of this node that load balancers ask for the health of a Service. */
export interface HealthCheckPort {
  readonly family: IpFamily;
  readonly port: number;
  /** `ns/name`, the comment of its rule. */
  readonly serviceName: string;
}

/** Everything that rules are made of; the same object as long as none of it is different. */
export interface Capture {
  readonly portals: readonly Portal[];
  readonly healthCheckPorts: readonly HealthCheckPort[];
  readonly nodePortRanges: PerFamily<readonly Cidr[]>;
  /** False: NodePorts are not served on loopback addresses, whatever the ranges say. */
  readonly localhostNodePorts: boolean;
  readonly podSources: PerFamily<readonly PodSource[]>;
}

export interface DesiredState {
  readonly listeners: ReadonlyMap<ListenerKey, DesiredListener>;
  readonly capture: Capture;
  readonly healthChecks: readonly HealthCheck[];
  /** Policies Local that are without an endpoint here. */
  readonly noLocalEndpoints: PerFamily<NoLocalEndpoints>;
  readonly problems: readonly Problem[];
}

const NOBODY: readonly never[] = [];

export const EMPTY_DESIRED_STATE: DesiredState = {
  listeners: new Map(),
  capture: {
    portals: [],
    healthCheckPorts: [],
    nodePortRanges: { IPv4: NOBODY, IPv6: NOBODY },
    localhostNodePorts: true,
    podSources: { IPv4: NOBODY, IPv6: NOBODY },
  },
  healthChecks: [],
  noLocalEndpoints: { IPv4: { internal: 0, external: 0 }, IPv6: { internal: 0, external: 0 } },
  problems: [],
};

/**
 * Decides for the whole snapshot. A portal that two Service ports claim goes to the older one (creation time,
 * then key); the other is reported and keeps its remaining portals.
 */
export function buildDesiredState(snapshot: Snapshot, node: NodeView): DesiredState {
  return new DesiredStateBuilder().build(snapshot, node);
}

/**
 * As `buildDesiredState`, for snapshots that differ little from one to the next: a listener whose Service port and
 * endpoints are the same is the same object again, and so is `capture` while nothing that rules are made of differs.
 * That is what makes an endpoint change cheap: it ends at the balancer of its own listener.
 */
export class DesiredStateBuilder {
  #last: Derivation | undefined;

  build(snapshot: Snapshot, node: NodeView): DesiredState {
    const { servicePorts } = snapshot;
    const last =
      this.#last?.servicePorts === servicePorts && this.#last.node === node ? this.#last : undefined;
    const claims = last?.claims ?? claimPortals(servicePorts, node);
    const slots = new Map<ServicePortKey, Slot>();
    let hasSamePortals = last !== undefined;
    for (const [key, claimed] of claims.won) {
      const servicePort = servicePorts.get(key);
      if (servicePort === undefined) continue;
      const before = last?.slots.get(key);
      const known = snapshot.endpoints.get(key) ?? NOBODY;
      const slot =
        before?.known === known ? before : buildSlot({ servicePort, claimed, known }, { claims, node });
      hasSamePortals &&= before !== undefined && hasSameTargets(slot, before);
      slots.set(key, slot);
    }
    const isSame = last !== undefined && hasSamePortals;
    const state = stateOf({ servicePorts, slots, claims, node }, isSame ? last.state.capture : undefined);
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

/** Of slots that were made from the same claims: do their portals lead to the same places? */
function hasSameTargets(slot: Slot, before: Slot): boolean {
  return (
    slot.portals === before.portals ||
    (slot.portals.length === before.portals.length &&
      slot.portals.every(({ target }, index) => {
        const other = before.portals[index]?.target;
        if (target.kind !== other?.kind) return false;
        // Which listeners there are follows from the claims alone, except whether anybody is left outside.
        return target.kind !== 'split' || other.kind !== 'split' || target.outside === other.outside;
      }))
  );
}

function stateOf(
  { servicePorts, slots, claims, node }: Omit<Derivation, 'state'>,
  sameCapture: Capture | undefined,
): DesiredState {
  const all = [...slots.values()];
  const healthChecks = healthChecksOf({ servicePorts, slots, node });
  const capture = sameCapture ?? {
    portals: all.flatMap((slot) => slot.portals),
    healthCheckPorts: healthChecks.map((check) => ({
      family: check.family,
      port: check.port,
      serviceName: namespacedNameText(check),
    })),
    nodePortRanges: node.nodePortRanges,
    localhostNodePorts: node.settings.localhostNodePorts,
    podSources: node.podSources,
  };
  return {
    listeners: new Map(all.flatMap((slot) => slot.listeners.map((listener) => [listener.key, listener]))),
    capture,
    healthChecks,
    noLocalEndpoints: { IPv4: noLocalEndpointsOf(all, 'IPv4'), IPv6: noLocalEndpointsOf(all, 'IPv6') },
    problems: [
      ...claims.problems,
      ...nodeProblems(servicePorts, node),
      ...all.flatMap((slot) => slot.problems),
    ],
  };
}

function noLocalEndpointsOf(slots: readonly Slot[], family: IpFamily): NoLocalEndpoints {
  let internal = 0;
  let external = 0;
  for (const { noLocalEndpoints } of slots) {
    internal += noLocalEndpoints[family].internal;
    external += noLocalEndpoints[family].external;
  }
  return { internal, external };
}

/** One for each Service and family, sorted by name; its ports share it. */
function healthChecksOf({
  servicePorts,
  slots,
  node,
}: Pick<Derivation, 'servicePorts' | 'slots' | 'node'>): readonly HealthCheck[] {
  const checked = new Map<string, { readonly servicePort: ServicePort; readonly local: Set<IpAddress> }>();
  for (const [key, { localReady }] of slots) {
    const servicePort = servicePorts.get(key);
    if (servicePort === undefined || servicePort.healthCheckNodePort === 0) continue;
    const name = namespacedNameText(servicePort.name);
    const one = checked.get(name) ?? { servicePort, local: new Set<IpAddress>() };
    for (const address of localReady) one.local.add(address);
    checked.set(name, one);
  }
  return [...checked]
    .sort(([a], [b]) => compareText(a, b))
    .flatMap(([, { servicePort, local }]) =>
      node.families
        .filter((family) => servicePort.families.includes(family))
        .map((family) => ({
          namespace: servicePort.name.namespace,
          name: servicePort.name.name,
          family,
          port: servicePort.healthCheckNodePort,
          addresses: healthCheckAddresses(node, family),
          localEndpoints: [...local].filter((address) => familyOf(address) === family).length,
        })),
    );
}

const WILDCARD: PerFamily<string> = { IPv4: '0.0.0.0', IPv6: '::' };

function healthCheckAddresses(node: NodeView, family: IpFamily): readonly string[] {
  if (node.nodePortRanges[family].some(isWholeFamily)) return [WILDCARD[family]];
  return [...node.addresses].filter(
    (address) => familyOf(address) === family && servesNodePorts(node, address),
  );
}

/** "primary", and nobody knows which address that is. */
function nodeProblems(servicePorts: Snapshot['servicePorts'], node: NodeView): readonly Problem[] {
  const { settings, families, nodePortRanges } = node;
  if (settings.nodePortAddresses !== 'primary') return [];
  return IP_FAMILIES.filter(
    (family) =>
      families.includes(family) &&
      nodePortRanges[family].length === 0 &&
      [...servicePorts.values()].some((port) => port.nodePort !== 0 && port.families.includes(family)),
  ).map((family) => ({
    code: 'ERR_NODE_ADDRESS',
    object: `Node ${settings.nodeName}`,
    field: 'status.addresses',
    message: `no InternalIP of ${family} is known, which --nodeport-addresses primary asks for: no NodePort is served in that family`,
  }));
}
