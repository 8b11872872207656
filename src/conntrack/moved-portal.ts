/**
 * Portals that lead elsewhere than before, or nowhere any more, and which flows of theirs are stale: NAT is decided on
 * the first packet of a flow, and those that were decided before would go on the old way. Pure.
 */
import type { IpAddress, IpFamily } from '../model/address.ts';
import { type Cidr, LOOPBACK_RANGE, cidrContains } from '../model/cidr.ts';
import type { Protocol } from '../model/service-port-name.ts';
import type { Flow } from './flow.ts';

/** Where new flows are led now. */
export interface PortalRoute {
  /** Whoever is in none of them is not let in. Undefined: everybody is. */
  readonly allowedSources: readonly Cidr[] | undefined;
  /** The proxy port for everybody, or for pods of this node and the node itself. */
  readonly insidePort: number;
  /** For everybody else; undefined: they are not let in. The same as `insidePort` where it makes no difference. */
  readonly outsidePort: number | undefined;
}

/** What decides about a flow beside its portal; one object for all portals of a pass. */
export interface FlowSurroundings {
  /** Where listeners are and packets are led: the one that DNAT names, or those that REDIRECT can choose. */
  readonly listenAddresses: ReadonlySet<string>;
  /** Of the node, both families. */
  readonly localAddresses: ReadonlySet<string>;
  /** Those that it had before and has no more. */
  readonly goneAddresses: ReadonlySet<string>;
  /** Of the portal's family, as the next. */
  readonly nodePortRanges: readonly Cidr[];
  readonly localhostNodePorts: boolean;
  readonly podRanges: readonly Cidr[];
  /** Pods are told by the interface they come in by, of which conntrack knows nothing. */
  readonly hasPodInterfaces: boolean;
  /** Proxy ports of another living instance: it goes on serving the flows that lead there. Undefined: there is none. */
  readonly sparedPorts?: ReadonlySet<number>;
}

export interface MovedPortal {
  readonly family: IpFamily;
  readonly protocol: Protocol;
  /** Undefined: a NodePort, on whatever local address. */
  readonly address: IpAddress | undefined;
  readonly port: number;
  /** Proxy ports that it led to. */
  readonly formerPorts: readonly number[];
  /** Undefined: it is gone, or refuses everybody. */
  readonly route: PortalRoute | undefined;
  /** Not only ports are different, or nobody knows what was before: a flow that may be right may as well be wrong. */
  readonly isDoubtful: boolean;
  /** Addresses that have another portal on this port: their flows are not ours. Only for NodePorts. */
  readonly takenAddresses: ReadonlySet<string>;
  readonly surroundings: FlowSurroundings;
}

/**
 * Does the flow, which is to the portal's port and to its address (if it has one), lead elsewhere than a new one would?
 * Where the portal is not, or not any more, only those that lead to us: what others made of a flow is theirs.
 */
export function isStaleFlow(portal: MovedPortal, flow: Flow): boolean {
  const { route, formerPorts, isDoubtful, surroundings } = portal;
  const isDiverted = isDivertedFlow(flow);
  const leadsTo = (ports: readonly (number | undefined)[]): boolean =>
    isDiverted && ports.includes(flow.replySourcePort);
  if (route !== undefined && isDiverted && surroundings.sparedPorts?.has(flow.replySourcePort) === true)
    return false;
  const current = [route?.insidePort, route?.outsidePort];
  const place = placeOf(portal, flow.destination);
  // The kernel may know an address of its own that we do not: only what leads to the past is certainly wrong.
  if (place === 'unknown') return leadsTo(formerPorts) && !leadsTo(current);
  if (place === 'elsewhere' || route === undefined) return leadsTo([...current, ...formerPorts]);
  const ports = portsFor(portal, route, flow.source);
  if (ports.length > 1 && isDoubtful) return true;
  return !leadsTo(ports) || !isListenAddress(flow.replySource, surroundings);
}

/** Does it lead elsewhere than where it was sent? */
export function isDivertedFlow({
  destination,
  destinationPort,
  replySource,
  replySourcePort,
}: Flow): boolean {
  return replySource !== destination || replySourcePort !== destinationPort;
}

/** The newer word about a portal counts; where its flows may still lead is added up. */
export function mergeMoved(before: MovedPortal, now: MovedPortal): MovedPortal {
  const lost = before.surroundings.goneAddresses.union(now.surroundings.goneAddresses);
  const goneAddresses = lost.difference(now.surroundings.localAddresses);
  return {
    ...now,
    formerPorts: [...new Set([...before.formerPorts, ...portsOf(before.route), ...now.formerPorts])],
    isDoubtful: before.isDoubtful || now.isDoubtful,
    surroundings:
      goneAddresses.size === now.surroundings.goneAddresses.size
        ? now.surroundings
        : { ...now.surroundings, goneAddresses },
  };
}

function portsOf(route: PortalRoute | undefined): readonly number[] {
  return [route?.insidePort, route?.outsidePort].filter((port) => port !== undefined);
}

/** Is the portal served at an address that its rules match by number alone? */
function placeOf(portal: MovedPortal, destination: string): 'served' | 'elsewhere' | 'unknown' {
  if (portal.address !== undefined) return 'served';
  const { localAddresses, goneAddresses, nodePortRanges, localhostNodePorts } = portal.surroundings;
  const address = destination as IpAddress;
  const isLoopback = cidrContains(LOOPBACK_RANGE[portal.family], address);
  if (goneAddresses.has(destination)) return 'elsewhere';
  if (!isLoopback && !localAddresses.has(destination)) return 'unknown';
  const isServed = nodePortRanges.some((range) => cidrContains(range, address));
  return isServed && (localhostNodePorts || !isLoopback) ? 'served' : 'elsewhere';
}

/** Where a new flow of that client is led, undefined: it is not let in; two: by one of them, and it cannot be told which. */
function portsFor(
  { family, surroundings }: MovedPortal,
  route: PortalRoute,
  client: string,
): readonly (number | undefined)[] {
  const { allowedSources, insidePort, outsidePort } = route;
  const isIn = (ranges: readonly Cidr[]): boolean =>
    ranges.some((range) => cidrContains(range, client as IpAddress));
  if (allowedSources !== undefined && !isIn(allowedSources)) return [undefined];
  if (insidePort === outsidePort) return [insidePort];
  const { podRanges, localAddresses, hasPodInterfaces } = surroundings;
  if (localAddresses.has(client) || isIn([LOOPBACK_RANGE[family], ...podRanges])) return [insidePort];
  return hasPodInterfaces ? [insidePort, outsidePort] : [outsidePort];
}

/** An interface without another has a link-local address of IPv6, of which we are not told; REDIRECT takes it. */
function isListenAddress(address: string, { listenAddresses }: FlowSurroundings): boolean {
  return listenAddresses.has(address) || address.startsWith('fe80:');
}
