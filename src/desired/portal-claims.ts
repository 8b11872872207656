/** Who gets which address and port: the claims of all Service ports, the conflicts decided. Pure. */
import type { Problem } from '../errors.ts';
import { type IpAddress, familyOf, hostPortText } from '../model/address.ts';
import { type Cidr, cidrContains, hostCidr } from '../model/cidr.ts';
import { compareText } from '../model/endpoint.ts';
import type { ServicePort } from '../model/service-port.ts';
import { type Protocol, type ServicePortKey, servicePortNameText } from '../model/service-port-name.ts';
import type { Snapshot } from '../model/snapshot.ts';
import { type NodeView, servesNodePorts } from './node-view.ts';
import type { AddressPortal, LoadBalancerPortal, NodePortPortal } from './portal.ts';

/** A portal that does not know yet where its traffic goes. */
export type PortalClaim =
  | Omit<AddressPortal, 'target'>
  | Omit<LoadBalancerPortal, 'target'>
  | Omit<NodePortPortal, 'target'>;

export interface Claims {
  readonly won: ReadonlyMap<ServicePortKey, readonly PortalClaim[]>;
  readonly problems: readonly Problem[];
  /** Name of the service port that captures what is sent to this address and port, or undefined. */
  ownerOf(address: IpAddress, port: number, protocol: Protocol): string | undefined;
}

/** A place that two Service ports claim goes to the older one (creation time, then key); the other is reported. */
export function claimPortals(servicePorts: Snapshot['servicePorts'], node: NodeView): Claims {
  const owners = new Map<string, ServicePort>();
  const won = new Map<ServicePortKey, PortalClaim[]>();
  const problems: Problem[] = [];
  const bySeniority = [...servicePorts.values()].sort(
    (a, b) => a.createdAt - b.createdAt || compareText(a.key, b.key),
  );
  for (const servicePort of bySeniority) {
    for (const claim of claimsOf(servicePort, node)) {
      const key = placeKey(placeOf(claim), claim.port, claim.protocol);
      const owner = owners.get(key);
      if (owner === undefined) {
        owners.set(key, servicePort);
        won.set(servicePort.key, [...(won.get(servicePort.key) ?? []), claim]);
      } else if (owner !== servicePort) {
        problems.push(conflictProblem(servicePort, claim, owner));
      }
    }
  }
  const sorted = new Map([...won].sort(([a], [b]) => compareText(a, b)));
  const captures = (place: string, port: number, protocol: Protocol): string | undefined => {
    const owner = owners.get(placeKey(place, port, protocol));
    return owner && servicePortNameText(owner.name);
  };
  return {
    won: sorted,
    problems,
    ownerOf(address, port, protocol) {
      const owner = captures(address, port, protocol);
      // To the kernel our private addresses are as local as any: a dial of theirs would come back too.
      const isLocal = node.addresses.has(address) || node.settings.privateAddresses.includes(address);
      const isNodePort = isLocal && servesNodePorts(node, address);
      if (owner !== undefined || !isNodePort) return owner;
      return captures(`node/${familyOf(address)}`, port, protocol);
    },
  };
}

/** Two claims to one place in one family meet; a NodePort is claimed as a whole, on whatever addresses it is served. */
function placeOf(claim: PortalClaim): string {
  return claim.kind === 'nodePort' ? `node/${claim.family}` : claim.address;
}

function placeKey(place: string, port: number, protocol: Protocol): string {
  return `${place}|${port}|${protocol}`;
}

/**
 * An address that is both external and of the load balancer is the latter: its source ranges hold. (kube-proxy's
 * rule for the external IP stands first and lets everybody in.)
 */
function claimsOf(servicePort: ServicePort, node: NodeView): PortalClaim[] {
  const { name, port, nodePort } = servicePort;
  const common = { servicePortName: servicePortNameText(name), protocol: name.protocol };
  const at = (address: IpAddress) => ({ ...common, family: familyOf(address), address, port });
  const externalIPs = node.settings.disableExternalIPs ? [] : servicePort.externalIPs;
  const claims: PortalClaim[] = [
    ...servicePort.clusterIPs.map((address) => ({ ...at(address), kind: 'clusterIP' as const })),
    ...servicePort.loadBalancerIPs.map((address) => ({
      ...at(address),
      kind: 'loadBalancerIP' as const,
      allowedSources: allowedSourcesOf(servicePort, address, node),
    })),
    ...externalIPs.map((address) => ({ ...at(address), kind: 'externalIP' as const })),
  ];
  if (nodePort !== 0) {
    for (const family of servicePort.families) {
      if (node.nodePortRanges[family].length === 0) continue;
      claims.push({ ...common, kind: 'nodePort', family, port: nodePort, address: undefined });
    }
  }
  return claims.filter((claim) => node.families.includes(claim.family));
}

/**
 * A load balancer's address is often local to the node too, and then a request of the node itself has it as its
 * source: where the node may come, so may its load balancer addresses (kube-proxy `syncProxyRules`, allowFromNode).
 */
function allowedSourcesOf(
  { loadBalancerIPs, loadBalancerSourceRanges }: ServicePort,
  address: IpAddress,
  { nodeIPs }: NodeView,
): readonly Cidr[] | undefined {
  const family = familyOf(address);
  const ranges = loadBalancerSourceRanges[family];
  if (ranges === undefined) return undefined;
  const letsNodeIn = ranges.some((range) => nodeIPs.some((nodeIP) => cidrContains(range, nodeIP)));
  const own = loadBalancerIPs.filter((other) => familyOf(other) === family).map(hostCidr);
  return letsNodeIn ? [...ranges, ...own] : ranges;
}

function conflictProblem(servicePort: ServicePort, claim: PortalClaim, owner: ServicePort): Problem {
  const place =
    claim.kind === 'nodePort'
      ? `nodePort ${claim.port}`
      : `${claim.kind} ${hostPortText(claim.address, claim.port)}`;
  const { namespace, name } = servicePort.name;
  const isOwn = owner.name.namespace === namespace && owner.name.name === name;
  const keeper = `${isOwn ? '' : 'the older '}${servicePortNameText(owner.name)}`;
  return {
    code: 'ERR_SERVICE_CONFLICT',
    object: `Service ${namespace}/${name}`,
    field: `port ${JSON.stringify(servicePort.name.port)}`,
    message: `${place}/${claim.protocol} (${claim.family}) is kept by ${keeper}`,
  };
}
