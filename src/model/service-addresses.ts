/**
 * The addresses of a Service, checked and in canonical form: what it is reached at, and who may. Pure; what is wrong
 * with one address is reported and costs that address only.
 */
import type { V1Service } from '@kubernetes/client-node';
import {
  IP_FAMILIES,
  type IpAddress,
  type IpFamily,
  type PerFamily,
  familyOf,
  parseSloppyIpAddress,
  specialRangeOf,
} from './address.ts';
import { type Cidr, parseCidr } from './cidr.ts';
import { type Report, quoted } from './object.ts';

export interface ServiceAddresses {
  /** At most one of each family; none: nothing of this Service is carried. */
  readonly clusterIPs: readonly IpAddress[];
  /** The families of `clusterIPs`: where its other addresses, its NodePorts and its listeners exist. */
  readonly families: readonly IpFamily[];
  readonly externalIPs: readonly IpAddress[];
  /** Ingress addresses that are to be captured here; not those of a load balancer that wants to see the traffic. */
  readonly loadBalancerIPs: readonly IpAddress[];
  /** Who may use `loadBalancerIPs`. Undefined: everybody; an empty list: nobody. */
  readonly loadBalancerSourceRanges: PerFamily<readonly Cidr[] | undefined>;
}

export function serviceAddressesOf(service: V1Service, report: Report): ServiceAddresses {
  const clusterIPs = clusterIPsOf(service, report);
  const families = clusterIPs.map(familyOf);
  const isServed = (address: IpAddress): boolean => families.includes(familyOf(address));
  return {
    clusterIPs,
    families,
    externalIPs: externalIPsOf(service, report).filter(isServed),
    loadBalancerIPs: loadBalancerIPsOf(service, report).filter(isServed),
    loadBalancerSourceRanges: sourceRangesOf(service, report),
  };
}

/** A family that `spec.ipFamilies` leaves out is not served (kube-proxy `GetClusterIPByFamily`). */
function clusterIPsOf({ spec }: V1Service, report: Report): IpAddress[] {
  const ipFamilies: readonly string[] = spec?.ipFamilies ?? [];
  const listed = spec?.clusterIPs ?? [];
  const texts = listed.length > 0 ? listed : [spec?.clusterIP ?? ''];
  const addresses: IpAddress[] = [];
  for (const [index, text] of texts.entries()) {
    const path = listed.length > 0 ? `spec.clusterIPs[${index}]` : 'spec.clusterIP';
    const address = checkedAddress(text, path, report);
    if (address === undefined) continue;
    const family = familyOf(address);
    if (ipFamilies.length > 0 && !ipFamilies.includes(family)) {
      report(path, `${quoted(text)} is of ${family}, which is not among spec.ipFamilies`);
    } else if (addresses.some((other) => familyOf(other) === family)) {
      report(path, `${quoted(text)} is a second ${family} address`);
    } else {
      addresses.push(address);
    }
  }
  return addresses;
}

function externalIPsOf({ spec }: V1Service, report: Report): IpAddress[] {
  const addresses = (spec?.externalIPs ?? [])
    .map((text, index) => ({ text: text.trim(), path: `spec.externalIPs[${index}]` }))
    .filter(({ text }) => text !== '')
    .map(({ text, path }) => checkedAddress(text, path, report))
    .filter((address) => address !== undefined);
  return [...new Set(addresses)];
}

/**
 * Where `ipMode` is not given it is VIP, the packets keep the address and we stand in for the load balancer (KEP-1860).
 * "Proxy" load balancers terminate connections themselves: their addresses are left alone, as host names are.
 */
function loadBalancerIPsOf({ status }: V1Service, report: Report): IpAddress[] {
  const addresses: IpAddress[] = [];
  for (const [index, ingress] of (status?.loadBalancer?.ingress ?? []).entries()) {
    const path = `status.loadBalancer.ingress[${index}]`;
    const text = ingress.ip?.trim() ?? '';
    if (text === '') continue;
    const ipMode = ingress.ipMode ?? 'VIP';
    if (ipMode !== 'VIP' && ipMode !== 'Proxy') {
      report(`${path}.ipMode`, `${quoted(ipMode)} is neither "VIP" nor "Proxy"; the address is not captured`);
    }
    if (ipMode !== 'VIP') continue;
    const address = checkedAddress(text, `${path}.ip`, report);
    if (address !== undefined) addresses.push(address);
  }
  return [...new Set(addresses)];
}

/**
 * A family without a range is not restricted (kube-proxy `newBaseServiceInfo`). But a range that cannot be read may
 * have been meant for it: then a family that no other range names is closed, not opened.
 */
function sourceRangesOf({ spec }: V1Service, report: Report): PerFamily<readonly Cidr[] | undefined> {
  const ranges: Cidr[] = [];
  let hasUnreadable = false;
  for (const [index, text] of (spec?.loadBalancerSourceRanges ?? []).entries()) {
    if (text.trim() === '') continue;
    const range = parseCidr(text);
    if (range === undefined) {
      hasUnreadable = true;
      report(
        `spec.loadBalancerSourceRanges[${index}]`,
        `${quoted(text)} is no range of addresses; nobody is let in by it`,
      );
    } else if (!ranges.some((other) => other.text === range.text)) {
      ranges.push(range);
    }
  }
  const [IPv4, IPv6] = IP_FAMILIES.map((family) => {
    const own = ranges.filter((range) => range.family === family);
    return own.length > 0 || hasUnreadable ? own : undefined;
  });
  return { IPv4, IPv6 };
}

function checkedAddress(text: string, path: string, report: Report): IpAddress | undefined {
  const address = parseSloppyIpAddress(text);
  if (address === undefined) {
    report(path, `${quoted(text)} is no IP address`);
    return undefined;
  }
  const special = specialRangeOf(address);
  if (special === undefined) return address;
  report(path, `${quoted(text)} is ${special}: no Service may have it`);
  return undefined;
}
