/**
 * What Services ask for, read from the API objects by the rows of docs/behaviour.md and by nothing of `src/`: the half of
 * the oracle (`intent.ts`) that is about addresses and ports. It is simple where the product is fast.
 */
import { isIP } from 'node:net';
import type { V1Service, V1ServicePort } from '@kubernetes/client-node';
import type { NodeSettings } from '../../src/desired/node-view.ts';
import { addressNumber } from './netfilter-match.ts';

export type Family = 'IPv4' | 'IPv6';

/** One port of a Service that is carried. */
export interface IntendedPort {
  /** `default/web:http/TCP`: namespace, name, port name and protocol are its identity. */
  readonly id: string;
  readonly namespace: string;
  readonly service: string;
  readonly portName: string;
  readonly protocol: 'tcp' | 'udp';
  readonly families: readonly Family[];
  readonly isInternalLocal: boolean;
  readonly isExternalLocal: boolean;
  /** Must its listener know where the client connected to: PROXY protocol (TCP only), scheduler `dh`? */
  readonly needsDestination: boolean;
}

/** An address and port of a Service, or its NodePort (without address), in one family. */
export interface IntendedPortal {
  readonly kind: 'clusterIP' | 'loadBalancerIP' | 'externalIP' | 'nodePort';
  readonly owner: IntendedPort;
  readonly family: Family;
  readonly address: string | undefined;
  readonly port: number;
  /** Texts of the ranges from which it may be used; undefined: from everywhere. */
  readonly sourceRanges: readonly string[] | undefined;
}

/** Of what is known to be an address. */
export function familyOf(address: string): Family {
  return address.includes(':') ? 'IPv6' : 'IPv4';
}

/** Undefined where the text is no range. */
export function familyOfRange(text: string): Family | undefined {
  const [, address = '', length = ''] = /^([^/]+)\/(\d+)$/.exec(text) ?? [];
  const bits = { 0: -1, 4: 32, 6: 128 }[isIP(address)] ?? -1;
  return Number(length) <= bits && length !== '' ? familyOf(address) : undefined;
}

export function isInRange(address: string, range: string): boolean {
  if (familyOfRange(range) !== familyOf(address)) return false;
  const [first = '', length = ''] = range.split('/');
  const hostBits = BigInt((familyOf(address) === 'IPv4' ? 32 : 128) - Number(length));
  return addressNumber(address) >> hostBits === addressNumber(first) >> hostBits;
}

/**
 * The clusterIPs that are served (row "IPv4, IPv6, dual-stack"). Where an object lacks `clusterIPs` or `ipFamilies` they
 * are what an API server would have filled in: a file need not write them.
 */
function clusterIPsOf({ spec }: V1Service): readonly string[] {
  if (spec?.type === 'ExternalName' || spec?.clusterIP === undefined) return [];
  if (spec.clusterIP === '' || spec.clusterIP === 'None') return [];
  const listed = spec.clusterIPs ?? [spec.clusterIP];
  const families: readonly string[] = spec.ipFamilies ?? listed.map(familyOf);
  return listed.filter((address, index) => families[index] === familyOf(address));
}

function portOf(
  service: V1Service,
  { name, protocol = 'TCP' }: V1ServicePort,
  settings: NodeSettings,
): IntendedPort | undefined {
  if (protocol !== 'TCP' && protocol !== 'UDP') return undefined;
  const { metadata, spec } = service;
  const title = `${metadata?.namespace}/${metadata?.name}${name === undefined || name === '' ? '' : `:${name}`}`;
  const annotation = (own: string): string => metadata?.annotations?.[`userspace-proxy.io/${own}`] ?? '';
  const asked = annotation('scheduler');
  const known = ['rr', 'random', 'lc', 'sh', 'dh', 'sed', 'nq'];
  const scheduler = known.includes(asked) ? asked : settings.scheduler;
  const hasHeader = ['v1', 'v2'].includes(annotation('proxy-protocol')) && protocol === 'TCP';
  return {
    id: `${title}/${protocol}`,
    namespace: metadata?.namespace ?? '',
    service: metadata?.name ?? '',
    portName: name ?? '',
    protocol: protocol === 'TCP' ? 'tcp' : 'udp',
    families: clusterIPsOf(service).map(familyOf),
    isInternalLocal: spec?.internalTrafficPolicy === 'Local',
    isExternalLocal: spec?.externalTrafficPolicy === 'Local',
    needsDestination: hasHeader || scheduler === 'dh',
  };
}

/** Row "LoadBalancer ingress IPs": those with an address whose `ipMode` is absent or `VIP`. */
function loadBalancerIPsOf({ status }: V1Service): readonly string[] {
  return (status?.loadBalancer?.ingress ?? [])
    .filter(({ ip = '', ipMode = 'VIP' }) => ip !== '' && ipMode === 'VIP')
    .map(({ ip = '' }) => ip);
}

/**
 * Row "loadBalancerSourceRanges", by family; decision 35: a range that cannot be read closes the family that is left
 * without one. Where the node may come, its requests from the load balancer's own addresses may too.
 */
function sourceRangesOf(
  service: V1Service,
  family: Family,
  nodeIPs: readonly string[],
): readonly string[] | undefined {
  const texts = (service.spec?.loadBalancerSourceRanges ?? []).map((text) => text.trim());
  const own = texts.filter((text) => familyOfRange(text) === family);
  const hasUnreadable = texts.some((text) => familyOfRange(text) === undefined);
  if (own.length === 0) return hasUnreadable ? [] : undefined;
  if (!own.some((range) => nodeIPs.some((nodeIP) => isInRange(nodeIP, range)))) return own;
  const addresses = loadBalancerIPsOf(service).filter((address) => familyOf(address) === family);
  return [...own, ...addresses.map((address) => `${address}/${family === 'IPv4' ? 32 : 128}`)];
}

/**
 * Of one Service, in the order of precedence: what is an external IP and the load balancer's is the load balancer's
 * (decision 35).
 */
function portalsOf(
  service: V1Service,
  settings: NodeSettings,
  nodeIPs: readonly string[],
): readonly IntendedPortal[] {
  const clusterIPs = clusterIPsOf(service);
  const externalIPs = settings.disableExternalIPs ? [] : (service.spec?.externalIPs ?? []);
  const addresses = [
    ...clusterIPs.map((address) => ({ kind: 'clusterIP' as const, address })),
    ...loadBalancerIPsOf(service).map((address) => ({ kind: 'loadBalancerIP' as const, address })),
    ...externalIPs.map((address) => ({ kind: 'externalIP' as const, address })),
  ];
  return (service.spec?.ports ?? []).flatMap((port): readonly IntendedPortal[] => {
    const owner = portOf(service, port, settings);
    if (owner === undefined) return [];
    const { nodePort = 0 } = port;
    const atAddresses = addresses
      .filter(({ address }) => isIP(address) !== 0 && owner.families.includes(familyOf(address)))
      .map(({ kind, address }): IntendedPortal => {
        const family = familyOf(address);
        const sourceRanges = kind === 'loadBalancerIP' ? sourceRangesOf(service, family, nodeIPs) : undefined;
        return { kind, owner, family, address, port: port.port, sourceRanges };
      });
    const atNode = (nodePort === 0 ? [] : owner.families).map((family): IntendedPortal => {
      return { kind: 'nodePort', owner, family, address: undefined, port: nodePort, sourceRanges: undefined };
    });
    return [...atAddresses, ...atNode];
  });
}

/** `10.96.0.10 80 tcp`, `node/IPv4 30080 udp`. */
export function placeText(where: string, port: number, protocol: 'tcp' | 'udp'): string {
  return `${where} ${port} ${protocol}`;
}

/** All portals by place. What several claim belongs to the oldest Service, then to the first by name and port. */
export function intendedPortals(
  services: readonly V1Service[],
  settings: NodeSettings,
  nodeIPs: readonly string[],
): ReadonlyMap<string, IntendedPortal> {
  const ageOf = ({ owner }: IntendedPortal): number => {
    const service = services.find(
      ({ metadata }) => metadata?.namespace === owner.namespace && metadata.name === owner.service,
    );
    return new Date(service?.metadata?.creationTimestamp ?? 0).getTime();
  };
  const nameOf = ({ owner }: IntendedPortal): string =>
    [owner.namespace, owner.service, owner.portName, owner.protocol].join(' ');
  const claims = services.flatMap((service) => portalsOf(service, settings, nodeIPs));
  claims.sort((a, b) => ageOf(a) - ageOf(b) || (nameOf(a) < nameOf(b) ? -1 : Number(nameOf(a) > nameOf(b))));
  const portals = new Map<string, IntendedPortal>();
  for (const claim of claims) {
    const place = placeText(claim.address ?? `node/${claim.family}`, claim.port, claim.owner.protocol);
    if (!portals.has(place)) portals.set(place, claim);
  }
  return portals;
}
