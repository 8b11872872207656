/**
 * Which portals lead elsewhere than before, so that conntrack has to forget some of their flows: NAT is decided on a
 * flow's first packet, and a client that keeps its source port would go on as if nothing had changed. Pure bookkeeping;
 * which flows those are is judged one by one (conntrack/moved-portal.ts).
 */
import type { FlowSurroundings, MovedPortal, PortalRoute } from '../conntrack/moved-portal.ts';
import type { PodSource } from '../desired/node-view.ts';
import type { Portal } from '../desired/portal.ts';
import { type IpAddress, familyOf } from '../model/address.ts';
import type { Cidr } from '../model/cidr.ts';

/** What decides about a packet beside the portal itself. */
export interface Surroundings {
  /** Of one family, as the next: the addresses that packets are led to. */
  readonly listenAddresses: readonly string[];
  readonly podSources: readonly PodSource[];
  readonly nodePortRanges: readonly Cidr[];
  readonly localhostNodePorts: boolean;
  /** Of the node, both families: a NodePort is wherever it has an address. */
  readonly localAddresses: readonly string[];
  /** As `FlowSurroundings.sparedPorts`, all protocols. */
  readonly sparedPorts?: ReadonlySet<number>;
}

/** A portal that diverts somebody. */
interface Diverting {
  readonly portal: Portal;
  readonly route: PortalRoute;
  /** Who may come, who is inside, and where it is served. */
  readonly circumstances: string;
  /** The rules may have been away since: flows went past us. */
  readonly isDoubtful: boolean;
}

const NO_ADDRESSES: ReadonlySet<string> = new Set();
const NO_PORTS: ReadonlySet<number> = new Set();

export class PortalFlows {
  /** Undefined: nobody has asked yet, and what an earlier instance did is not known. */
  #before: ReadonlyMap<string, Diverting> | undefined;
  #addressesBefore: Addresses = { local: NO_ADDRESSES, listen: NO_ADDRESSES };

  /**
   * To be asked after the rules are in, with the portals of one family: those that did not divert before or do not any
   * more, or to other ports, or for other senders; and those whose flows may be at an address that came or went.
   */
  moved(
    portals: readonly Portal[],
    proxyPorts: ReadonlyMap<string, number>,
    surroundings: Surroundings,
  ): readonly MovedPortal[] {
    const before = this.#before;
    const now = divertingPortals(portals, proxyPorts, surroundings);
    this.#before = now;
    const addresses = addressesOf(surroundings);
    const addressesBefore = this.#addressesBefore;
    this.#addressesBefore = addresses;
    const isTouched = addressChangeTouches(addressesBefore, addresses);
    const gone = [...(before ?? [])].filter(([key]) => !now.has(key)).map(([, portal]) => portal);
    const changed = [...now].filter(
      ([key, diverting]) => !hasSameFlows(diverting, before?.get(key)) || isTouched(diverting.portal),
    );
    const context: Context = {
      flowSurroundings: flowSurroundings(surroundings, addressesBefore.local.difference(addresses.local)),
      takenAddresses: takenAddresses(portals, [...gone, ...changed.map(([, diverting]) => diverting)]),
    };
    return [
      ...gone.map((diverting) => movedPortal({ ...diverting, route: undefined }, diverting, context)),
      ...changed
        .filter(([, { portal }]) => !isShadowed(portal, context))
        .map(([key, diverting]) => movedPortal(diverting, before?.get(key), context)),
    ];
  }

  /** Somebody else had changed the rules: each portal, one that goes now too, counts as moved when asked about next. */
  reset(): void {
    const doubted = [...(this.#before ?? [])].map(
      ([key, diverting]) => [key, { ...diverting, isDoubtful: true }] as const,
    );
    this.#before = this.#before && new Map(doubted);
  }
}

function divertingPortals(
  portals: readonly Portal[],
  proxyPorts: ReadonlyMap<string, number>,
  surroundings: Surroundings,
): ReadonlyMap<string, Diverting> {
  const diverting = new Map<string, Diverting>();
  for (const portal of portals) {
    const route = routeOf(portal, proxyPorts);
    if (route === undefined) continue;
    // An external address may be local, and its port that of a NodePort: both portals are there.
    const place = portal.kind === 'nodePort' ? `node ${portal.address ?? 'everywhere'}` : portal.address;
    const circumstances = circumstancesOf(portal, surroundings).join();
    diverting.set(`${portal.protocol}|${place}|${portal.port}`, {
      portal,
      route,
      circumstances,
      isDoubtful: false,
    });
  }
  return diverting;
}

/** Undefined: nobody is diverted, as the rules have it (iptables/ruleset.ts). */
function routeOf(portal: Portal, proxyPorts: ReadonlyMap<string, number>): PortalRoute | undefined {
  const { target } = portal;
  if (target.kind === 'drop' || target.kind === 'reject') return undefined;
  const inside = target.kind === 'split' ? target.inside : target.listener;
  const outside = target.kind === 'split' ? target.outside : target.listener;
  const insidePort = proxyPorts.get(inside);
  const outsidePort = outside === undefined ? undefined : proxyPorts.get(outside);
  if (insidePort === undefined || (outside !== undefined && outsidePort === undefined)) return undefined;
  const allowedSources = portal.kind === 'loadBalancerIP' ? portal.allowedSources : undefined;
  return { allowedSources, insidePort, outsidePort };
}

function hasSameFlows(now: Diverting, before: Diverting | undefined): boolean {
  return (
    before !== undefined &&
    !before.isDoubtful &&
    before.circumstances === now.circumstances &&
    before.route.insidePort === now.route.insidePort &&
    before.route.outsidePort === now.route.outsidePort
  );
}

interface Addresses {
  readonly local: ReadonlySet<string>;
  readonly listen: ReadonlySet<string>;
}

function addressesOf({ localAddresses, listenAddresses }: Surroundings): Addresses {
  return { local: new Set(localAddresses), listen: new Set(listenAddresses) };
}

/**
 * NodePorts are wherever the node has an address; and at an address that REDIRECT chooses no more, no UDP listener is
 * left for those who were led there.
 */
function addressChangeTouches(before: Addresses, now: Addresses): (portal: Portal) => boolean {
  const changes = [...before.local.symmetricDifference(now.local)];
  const changed = new Set(changes.map((address) => familyOf(address as IpAddress)));
  const isListenerLost = before.listen.difference(now.listen).size > 0;
  return ({ kind, address, protocol, family }) =>
    (kind === 'nodePort' && address === undefined && changed.has(family)) ||
    (protocol === 'UDP' && isListenerLost);
}

interface Context {
  readonly flowSurroundings: FlowSurroundings;
  /** By protocol and port of a NodePort. */
  readonly takenAddresses: ReadonlyMap<string, ReadonlySet<string>>;
}

function flowSurroundings(
  {
    listenAddresses,
    podSources,
    nodePortRanges,
    localhostNodePorts,
    localAddresses,
    sparedPorts = NO_PORTS,
  }: Surroundings,
  goneAddresses: ReadonlySet<string>,
): FlowSurroundings {
  return {
    listenAddresses: new Set(listenAddresses),
    localAddresses: new Set(localAddresses),
    goneAddresses,
    nodePortRanges,
    localhostNodePorts,
    podRanges: podSources.flatMap((source) => (source.kind === 'cidr' ? [source.cidr] : [])),
    hasPodInterfaces: podSources.some(({ kind }) => kind === 'interface'),
    sparedPorts,
  };
}

/** Addresses of other portals, which come before NodePorts in the rules, on the ports of these NodePorts. */
function takenAddresses(
  portals: readonly Portal[],
  moved: readonly Diverting[],
): ReadonlyMap<string, ReadonlySet<string>> {
  const taken = new Map<string, Set<string>>();
  for (const { portal } of moved) if (portal.kind === 'nodePort') taken.set(portKey(portal), new Set());
  if (taken.size === 0) return taken;
  for (const portal of portals) {
    if (portal.kind !== 'nodePort') taken.get(portKey(portal))?.add(portal.address);
  }
  return taken;
}

/** A NodePort at one address, where another portal is. */
function isShadowed(portal: Portal, { takenAddresses: taken }: Context): boolean {
  if (portal.kind !== 'nodePort' || portal.address === undefined) return false;
  return taken.get(portKey(portal))?.has(portal.address) === true;
}

function portKey({ protocol, port }: Portal): string {
  return `${protocol} ${port}`;
}

function movedPortal(
  { portal, route, circumstances }: Omit<Diverting, 'route'> & { readonly route: PortalRoute | undefined },
  before: Diverting | undefined,
  { flowSurroundings: surroundings, takenAddresses: taken }: Context,
): MovedPortal {
  const { family, protocol, address, port } = portal;
  return {
    family,
    protocol,
    address,
    port,
    route,
    formerPorts: [before?.route.insidePort, before?.route.outsidePort].filter((one) => one !== undefined),
    isDoubtful: before === undefined || before.isDoubtful || before.circumstances !== circumstances,
    takenAddresses: (portal.kind === 'nodePort' ? taken.get(portKey(portal)) : undefined) ?? NO_ADDRESSES,
    surroundings,
  };
}

/** The target's kind too: who is outside and may not come is in no port. */
function circumstancesOf(portal: Portal, { podSources, nodePortRanges }: Surroundings): readonly string[] {
  const allowed = portal.kind === 'loadBalancerIP' ? portal.allowedSources : undefined;
  const pods = podSources.map((source) => (source.kind === 'cidr' ? source.cidr.text : source.name));
  return [
    portal.target.kind,
    // Everybody may come, or nobody: not the same.
    ...(allowed === undefined ? ['all'] : allowed.map(({ text }) => text)),
    ...(portal.target.kind === 'split' ? pods : []),
    ...(portal.kind === 'nodePort' ? nodePortRanges.map(({ text }) => text) : []),
  ];
}
