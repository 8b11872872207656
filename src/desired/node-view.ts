/**
 * What the node brings to the decision: its name and place, its addresses, and the settings of this proxy that say
 * which traffic is ours. Pure.
 */
import {
  type IpAddress,
  type IpFamily,
  IP_FAMILIES,
  type PerFamily,
  familyOf,
  parseIpAddress,
} from '../model/address.ts';
import { type Cidr, LOOPBACK_RANGE, WHOLE_FAMILY, cidrContains, hostCidr } from '../model/cidr.ts';
import type { LocalDetection } from '../model/local-detection.ts';
import type { NodeInfo } from '../model/node.ts';
import type { SchedulerName } from '../model/service-policy.ts';

/** What the operator decided about capturing. */
export interface NodeSettings {
  /** This node's name, as EndpointSlices have it. */
  readonly nodeName: string;
  /** Where NodePorts are served: on the Node's primary addresses, or on the local addresses in these ranges. */
  readonly nodePortAddresses: 'primary' | readonly Cidr[];
  readonly localhostNodePorts: boolean;
  readonly disableExternalIPs: boolean;
  /** May clients outside the cluster use clusterIPs? */
  readonly externalClusterIP: boolean;
  readonly localDetection: LocalDetection;
  /** Of Services that name none. */
  readonly scheduler: SchedulerName;
  /** Addresses that this proxy itself has put on the node: nobody is to find them. */
  readonly privateAddresses: readonly string[];
}

/** How the packets of this node's pods are told from others. */
export type PodSource =
  | { readonly kind: 'cidr'; readonly cidr: Cidr }
  /** An interface name, or a prefix with `+`, as iptables writes it. */
  | { readonly kind: 'interface'; readonly name: string };

export interface NodeView {
  readonly settings: NodeSettings;
  /** The families that can be captured here. */
  readonly families: readonly IpFamily[];
  /** Every local address, loopback included. */
  readonly addresses: ReadonlySet<IpAddress>;
  /** `topology.kubernetes.io/zone` of the own Node; '' while it is not known. */
  readonly zone: string;
  /** The Node's own addresses; those of its interfaces while the Node is not known. */
  readonly nodeIPs: readonly IpAddress[];
  /** The ranges of local addresses on which NodePorts are served; none: nowhere. */
  readonly nodePortRanges: PerFamily<readonly Cidr[]>;
  readonly podSources: PerFamily<readonly PodSource[]>;
}

/** core/v1 `LabelTopologyZone`. */
const ZONE_LABEL = 'topology.kubernetes.io/zone';

export interface NodeFacts {
  readonly families: readonly IpFamily[];
  readonly addresses: readonly string[];
  /** Undefined: no Node object is known. */
  readonly node: NodeInfo | undefined;
}

export function buildNodeView(settings: NodeSettings, { families, addresses, node }: NodeFacts): NodeView {
  const local = addresses
    .map(parseIpAddress)
    .filter((address) => address !== undefined)
    .filter((address) => !settings.privateAddresses.includes(address));
  const ofInterfaces = local.filter((address) => !isLoopback(address));
  return {
    settings,
    families,
    addresses: new Set(local),
    zone: node?.labels[ZONE_LABEL] ?? '',
    nodeIPs: node !== undefined && node.internalIPs.length > 0 ? node.internalIPs : ofInterfaces,
    nodePortRanges: perFamily((family) => nodePortRangesOf(settings, node, family)),
    podSources: perFamily((family) => podSourcesOf(settings.localDetection, node, family)),
  };
}

/** Is this local address one on which NodePorts are served? */
export function servesNodePorts({ nodePortRanges, settings }: NodeView, address: IpAddress): boolean {
  if (!settings.localhostNodePorts && isLoopback(address)) return false;
  return nodePortRanges[familyOf(address)].some((range) => cidrContains(range, address));
}

function isLoopback(address: IpAddress): boolean {
  return cidrContains(LOOPBACK_RANGE[familyOf(address)], address);
}

/** A family without a range of its own is not limited (kube-proxy `pkg/proxy/util/nodeport_addresses.go`). */
function nodePortRangesOf(
  { nodePortAddresses }: NodeSettings,
  node: NodeInfo | undefined,
  family: IpFamily,
): readonly Cidr[] {
  if (nodePortAddresses === 'primary') {
    const primary = node?.internalIPs.find((address) => familyOf(address) === family);
    return primary === undefined ? [] : [hostCidr(primary)];
  }
  const own = nodePortAddresses.filter((range) => range.family === family);
  return own.length > 0 ? own : [WHOLE_FAMILY[family]];
}

function podSourcesOf(
  detection: LocalDetection,
  node: NodeInfo | undefined,
  family: IpFamily,
): readonly PodSource[] {
  const from = (cidrs: readonly Cidr[]): readonly PodSource[] =>
    cidrs.filter((cidr) => cidr.family === family).map((cidr) => ({ kind: 'cidr', cidr }));
  switch (detection.kind) {
    case 'none':
      return [];
    case 'cidrs':
      return from(detection.cidrs);
    case 'nodeCIDR':
      return from(node?.podCIDRs ?? []);
    case 'interface':
      return [detection];
  }
}

function perFamily<T>(valueOf: (family: IpFamily) => T): PerFamily<T> {
  const [IPv4, IPv6] = IP_FAMILIES;
  return { IPv4: valueOf(IPv4), IPv6: valueOf(IPv6) };
}
