/** Who gets which address and port: the claims of all Service ports, the conflicts decided. Pure. */
import type { Problem } from '../errors.ts';
import { type IpAddress, type IpFamily, familyOf, hostPortText } from '../model/address.ts';
import { compareText } from '../model/endpoint.ts';
import type { ServicePort } from '../model/service-port.ts';
import { type Protocol, type ServicePortKey, servicePortNameText } from '../model/service-port-name.ts';
import type { Snapshot } from '../model/snapshot.ts';
import type { AddressPortal, NodePortPortal } from './portal.ts';

/** A portal that does not know yet where its traffic goes. */
export type PortalClaim = Omit<AddressPortal, 'target'> | Omit<NodePortPortal, 'target'>;

export interface Claims {
  readonly won: ReadonlyMap<ServicePortKey, readonly PortalClaim[]>;
  readonly problems: readonly Problem[];
  /** Name of the service port that captures this address (or `node/<family>`), port and protocol. */
  ownerOf(address: string, port: number, protocol: Protocol): string | undefined;
}

/** A place that two Service ports claim goes to the older one (creation time, then key); the other is reported. */
export function claimPortals(servicePorts: Snapshot['servicePorts'], families: readonly IpFamily[]): Claims {
  const owners = new Map<string, ServicePort>();
  const won = new Map<ServicePortKey, PortalClaim[]>();
  const problems: Problem[] = [];
  const bySeniority = [...servicePorts.values()].sort(
    (a, b) => a.createdAt - b.createdAt || compareText(a.key, b.key),
  );
  for (const servicePort of bySeniority) {
    for (const claim of claimsOf(servicePort, families)) {
      const place = claim.kind === 'nodePort' ? `node/${claim.family}` : claim.address;
      const key = placeKey(place, claim.port, claim.protocol);
      const owner = owners.get(key);
      if (owner === undefined) {
        owners.set(key, servicePort);
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
    ownerOf: (place, port, protocol) => {
      const owner = owners.get(placeKey(place, port, protocol));
      return owner && servicePortNameText(owner.name);
    },
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
