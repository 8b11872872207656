/**
 * IP addresses as values: parsed once, canonical text ever after, so that equality is string equality. Pure.
 * `net.isIP` is deliberate: looser parsers read `010.0.0.1` as 8.0.0.1.
 */
import { SocketAddress, isIP } from 'node:net';

/** Kubernetes' own spelling of the families (`spec.ipFamilies`, the `ip_family` label). */
export type IpFamily = 'IPv4' | 'IPv6';
export const IP_FAMILIES = ['IPv4', 'IPv6'] as const satisfies readonly IpFamily[];

/** Canonical text of an IP address (RFC 5952 for IPv6, no zone). Made only by `parseIpAddress`. */
export type IpAddress = string & { readonly __brand: 'IpAddress' };

/** One value of `T` for each family. */
export type PerFamily<T> = Readonly<Record<IpFamily, T>>;

/** The address in canonical form, or undefined when the text is no IP address (zones are refused). */
export function parseIpAddress(text: string): IpAddress | undefined {
  switch (isIP(text)) {
    case 4:
      return text as IpAddress;
    case 6:
      if (text.includes('%')) return undefined;
      return new SocketAddress({ address: text, family: 'ipv6' }).address as IpAddress;
    default:
      return undefined;
  }
}

/** Longer text is no address, whatever zeros it begins with: to look for one in a megabyte of digits would take hours. */
const MAX_TEXT_LENGTH = 128;

/**
 * As Kubernetes reads the addresses in its objects (k8s.io/utils/net `ParseIPSloppy`): leading zeros of an IPv4 byte mean
 * nothing, `010.0.0.1` is 10.0.0.1, and IPv4 in IPv6 is that IPv4 address. API servers let both in for long, and every
 * other component of the cluster reads them so. Only for objects: in flags such an address is a mistake.
 */
export function parseSloppyIpAddress(text: string): IpAddress | undefined {
  if (text.length > MAX_TEXT_LENGTH) return undefined;
  const decimal = text.replace(/\d+(?:\.\d+){3}$/, (bytes) => bytes.split('.').map(Number).join('.'));
  const address = parseIpAddress(decimal);
  const [, mapped] = /^::ffff:([\d.]+)$/.exec(address ?? '') ?? [];
  return mapped === undefined ? address : parseIpAddress(mapped);
}

export function familyOf(address: IpAddress): IpFamily {
  return address.includes(':') ? 'IPv6' : 'IPv4';
}

/** The eight 16-bit groups of an IPv6 address. */
export function groupsOfIPv6(address: IpAddress): readonly number[] {
  const [head = '', tail] = dottedTailAsGroups(address).split('::');
  const front = head === '' ? [] : head.split(':');
  const back = tail === undefined || tail === '' ? [] : tail.split(':');
  const zeros = tail === undefined ? 0 : 8 - front.length - back.length;
  return [...front, ...Array<string>(zeros).fill('0'), ...back].map((group) => Number.parseInt(group, 16));
}

/** `::ffff:1.2.3.4` as `::ffff:102:304`; other addresses as they are. */
function dottedTailAsGroups(address: string): string {
  const tail = /(\d+)\.(\d+)\.(\d+)\.(\d+)$/.exec(address);
  if (tail === null) return address;
  const [a = 0, b = 0, c = 0, d = 0] = tail.slice(1).map(Number);
  return `${address.slice(0, tail.index)}${(a * 256 + b).toString(16)}:${(c * 256 + d).toString(16)}`;
}

/**
 * Why an address may not stand in a Service or EndpointSlice, or undefined when it may: the special ranges
 * that the API server refuses too (validation.ValidateNonSpecialIP: unspecified, loopback, link-local,
 * multicast), plus limited broadcast and IPv4-mapped IPv6, which no packet on the wire carries.
 */
export function specialRangeOf(address: IpAddress): string | undefined {
  return familyOf(address) === 'IPv4' ? specialRangeOfIPv4(address) : specialRangeOfIPv6(address);
}

function specialRangeOfIPv4(address: IpAddress): string | undefined {
  const [first = 0, second = 0] = address.split('.').map(Number);
  if (address === '0.0.0.0') return 'unspecified';
  if (first === 127) return 'loopback';
  if (first === 169 && second === 254) return 'link-local';
  if (first >= 224 && first <= 239) return 'multicast';
  if (address === '255.255.255.255') return 'broadcast';
  return undefined;
}

function specialRangeOfIPv6(address: IpAddress): string | undefined {
  const groups = groupsOfIPv6(address);
  const first = groups[0] ?? 0;
  if (address === '::') return 'unspecified';
  if (address === '::1') return 'loopback';
  if ((first & 0xffc0) === 0xfe80) return 'link-local';
  if (first >> 8 === 0xff) return 'multicast';
  if (groups.slice(0, 5).every((group) => group === 0) && groups[5] === 0xffff) return 'IPv4-mapped';
  return undefined;
}

/** `10.0.0.1:80`, `[fd00::1]:80`: the text used in logs, keys and errors. */
export function hostPortText(address: string, port: number): string {
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}
