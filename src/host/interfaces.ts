/**
 * The node's network interfaces as REDIRECT sees them: which local address it would choose on each
 * (`net/netfilter/nf_nat_redirect.c`), and on which it would drop because there is none. Pure parsing of
 * `ip -j address`; the shell that runs it is `address-monitor.ts`.
 */
import { ProxyError } from '../errors.ts';

export type HostFamily = 'IPv4' | 'IPv6';

export interface NetworkInterface {
  readonly name: string;
  readonly isUp: boolean;
  readonly isLoopback: boolean;
  /** Port of a bridge or bond: packets enter through its master, not through it. */
  readonly hasMaster: boolean;
  /** In the kernel's own order, without link-local IPv6 and without addresses still being probed. */
  readonly addresses: Readonly<Record<HostFamily, readonly string[]>>;
}

interface IpAddressJson {
  readonly family?: string;
  readonly local?: string;
  readonly scope?: string;
  readonly tentative?: boolean;
  readonly dadfailed?: boolean;
}

interface IpLinkJson {
  readonly ifname?: string;
  readonly flags?: readonly string[];
  readonly master?: string;
  readonly addr_info?: readonly IpAddressJson[];
}

/** Parses `ip -j address show`; throws `ERR_ADDRESS` when it is not that. */
export function parseInterfaces(json: string): readonly NetworkInterface[] {
  return parseLinks(json).map((link) => ({
    name: link.ifname ?? '',
    isUp: link.flags?.includes('UP') ?? false,
    isLoopback: link.flags?.includes('LOOPBACK') ?? false,
    hasMaster: link.master !== undefined,
    addresses: { IPv4: addressesOf(link, 'inet'), IPv6: addressesOf(link, 'inet6') },
  }));
}

function parseLinks(json: string): readonly IpLinkJson[] {
  try {
    const parsed: unknown = JSON.parse(json === '' ? '[]' : json);
    if (Array.isArray(parsed)) return parsed as readonly IpLinkJson[];
  } catch (error) {
    throw new ProxyError('ERR_ADDRESS', 'the output of `ip -j address show` is no JSON', { cause: error });
  }
  throw new ProxyError('ERR_ADDRESS', 'the output of `ip -j address show` is no list');
}

function addressesOf(link: IpLinkJson, family: 'inet' | 'inet6'): readonly string[] {
  return (link.addr_info ?? [])
    .filter((info) => info.family === family && !info.tentative && !info.dadfailed)
    .filter((info) => family === 'inet' || info.scope !== 'link')
    .map((info) => info.local)
    .filter((local) => local !== undefined);
}

/** Where redirected packets can arrive, as seen at one moment. */
export interface HostAddresses {
  /** Every address of the node, loopback included. */
  readonly all: readonly string[];
  /**
   * The addresses that REDIRECT can choose: for packets of the node itself 127.0.0.1 or ::1, for others the
   * first address of the interface they came in by.
   */
  readonly redirect: Readonly<Record<HostFamily, readonly string[]>>;
  /** Interfaces that are up and on which REDIRECT would drop what comes in. */
  readonly withoutAddress: Readonly<Record<HostFamily, readonly string[]>>;
}

export function hostAddressesFromInterfaces(interfaces: readonly NetworkInterface[]): HostAddresses {
  const ingress = interfaces.filter((link) => link.isUp && !link.isLoopback && !link.hasMaster);
  const redirect = (family: HostFamily, loopback: string): readonly string[] => [
    ...new Set([
      loopback,
      ...ingress.map((link) => link.addresses[family][0]).filter((first) => first !== undefined),
    ]),
  ];
  const withoutAddress = (family: HostFamily): readonly string[] =>
    ingress.filter((link) => link.addresses[family].length === 0).map((link) => link.name);
  return {
    all: interfaces.flatMap((link) => [...link.addresses.IPv4, ...link.addresses.IPv6]),
    redirect: { IPv4: redirect('IPv4', '127.0.0.1'), IPv6: redirect('IPv6', '::1') },
    withoutAddress: { IPv4: withoutAddress('IPv4'), IPv6: withoutAddress('IPv6') },
  };
}

export function hasSameAddresses(a: HostAddresses, b: HostAddresses): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}
