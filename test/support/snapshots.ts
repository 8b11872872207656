/**
 * Builders of the model's own values, for tests that start behind the conversion from API objects. Here an
 * endpoint may be on loopback, which no EndpointSlice may say.
 */
import { type IpAddress, familyOf, hostPortText } from '../../src/model/address.ts';
import type { Endpoint } from '../../src/model/endpoint.ts';
import type { SessionAffinity } from '../../src/model/service-policy.ts';
import type { ServicePort } from '../../src/model/service-port.ts';
import { type Protocol, type ServicePortKey, servicePortKey } from '../../src/model/service-port-name.ts';
import type { Snapshot } from '../../src/model/snapshot.ts';

export const NO_AFFINITY: SessionAffinity = { kind: 'None' };

export function clientIP(timeoutMs: number): SessionAffinity {
  return { kind: 'ClientIP', timeoutMs };
}

/** Ready, unless tweaked. */
export function makeEndpoint(address: string, port: number, tweak: Partial<Endpoint> = {}): Endpoint {
  return {
    key: hostPortText(address, port),
    address: address as IpAddress,
    family: familyOf(address as IpAddress),
    port,
    ready: true,
    serving: true,
    terminating: false,
    nodeName: '',
    zoneHints: [],
    nodeHints: [],
    ...tweak,
  };
}

/** Not ready any more, but still serving while it terminates. */
export const TERMINATING: Partial<Endpoint> = { ready: false, serving: true, terminating: true };

/** Listed, but neither ready nor serving. */
export const NOT_SERVING: Partial<Endpoint> = { ready: false, serving: false };

/** Endpoints `10.0.0.<last>:80`. */
export function makeEndpoints(...lasts: readonly number[]): Endpoint[] {
  return lasts.map((last) => makeEndpoint(`10.0.0.${last}`, 80));
}

export type ServicePortTweak = Omit<Partial<ServicePort>, 'name' | 'key' | 'families'>;

export interface ServicePortIdentity {
  readonly name: string;
  /** '' unless told. */
  readonly portName?: string;
  /** TCP unless told. */
  readonly protocol?: Protocol;
}

/** `default/<name>` at 10.96.0.10:80, unless told or tweaked; its families are those of its clusterIPs. */
export function makeServicePort(
  { name, portName = '', protocol = 'TCP' }: ServicePortIdentity,
  tweak: ServicePortTweak = {},
): ServicePort {
  const servicePortName = { namespace: 'default', name, port: portName, protocol };
  const clusterIPs = tweak.clusterIPs ?? (['10.96.0.10'] as readonly string[] as readonly IpAddress[]);
  return {
    key: servicePortKey(servicePortName),
    name: servicePortName,
    clusterIPs,
    externalIPs: [],
    loadBalancerIPs: [],
    loadBalancerSourceRanges: { IPv4: undefined, IPv6: undefined },
    port: 80,
    nodePort: 0,
    families: [...new Set(clusterIPs.map(familyOf))],
    sessionAffinity: NO_AFFINITY,
    internalTrafficPolicy: 'Cluster',
    externalTrafficPolicy: 'Cluster',
    healthCheckNodePort: 0,
    scheduler: undefined,
    proxyProtocol: undefined,
    createdAt: 0,
    ...tweak,
  };
}

export function addresses(...texts: readonly string[]): readonly IpAddress[] {
  return texts as readonly IpAddress[];
}

/** Every service port with its endpoints. */
export function makeSnapshot(
  ...entries: readonly (readonly [servicePort: ServicePort, endpoints: readonly Endpoint[]])[]
): Snapshot {
  return {
    servicePorts: new Map<ServicePortKey, ServicePort>(
      entries.map(([servicePort]) => [servicePort.key, servicePort]),
    ),
    endpoints: new Map<ServicePortKey, readonly Endpoint[]>(
      entries.map(([servicePort, endpoints]) => [servicePort.key, endpoints]),
    ),
    problems: [],
  };
}
