/**
 * Address ranges as values: parsed once, in canonical form (host bits cleared, RFC 5952 text), so that equality is
 * equality of `text`. Pure.
 */
import {
  type IpAddress,
  type IpFamily,
  type PerFamily,
  familyOf,
  groupsOfIPv6,
  parseIpAddress,
  parseSloppyIpAddress,
} from './address.ts';

export interface Cidr {
  readonly family: IpFamily;
  /** The first address of the range. */
  readonly address: IpAddress;
  /** 0 to 32 or 128. */
  readonly prefixLength: number;
  /** `10.0.0.0/8`, `fd00::/8`: as iptables prints it. */
  readonly text: string;
}

const BITS = { IPv4: 32, IPv6: 128 } as const;

/** Bits of an IPv6 address before the IPv4 address that it contains. */
const MAPPED_BITS = 96;

/**
 * The range, or undefined when the text is none. White space around it is ignored, as kube-proxy does for
 * `loadBalancerSourceRanges`; host bits are cleared, and addresses are read, as Kubernetes does
 * (k8s.io/utils/net `ParseCIDRSloppy`): `::ffff:10.0.0.0/104` is 10.0.0.0/8.
 */
export function parseCidr(text: string): Cidr | undefined {
  const [, addressText = '', lengthText = ''] = /^([^/]+)\/(\d{1,3})$/.exec(text.trim()) ?? [];
  const address = parseSloppyIpAddress(addressText);
  if (address === undefined) return undefined;
  const family = familyOf(address);
  const isMapped = family === 'IPv4' && addressText.includes(':');
  const prefixLength = Number(lengthText) - (isMapped ? MAPPED_BITS : 0);
  if (prefixLength < 0 || prefixLength > BITS[family]) return undefined;
  return cidrOf(family, mask(family, valueOf(address), prefixLength), prefixLength);
}

/** The range that holds this one address. */
export function hostCidr(address: IpAddress): Cidr {
  const family = familyOf(address);
  return { family, address, prefixLength: BITS[family], text: `${address}/${BITS[family]}` };
}

export function cidrContains(cidr: Cidr, address: IpAddress): boolean {
  if (cidr.family !== familyOf(address)) return false;
  return mask(cidr.family, valueOf(address), cidr.prefixLength) === valueOf(cidr.address);
}

/** Every address of the family is in it. */
export function isWholeFamily({ prefixLength }: Cidr): boolean {
  return prefixLength === 0;
}

function mask(family: IpFamily, value: bigint, prefixLength: number): bigint {
  const hostBits = BigInt(BITS[family] - prefixLength);
  return (value >> hostBits) << hostBits;
}

function valueOf(address: IpAddress): bigint {
  const isIPv4 = familyOf(address) === 'IPv4';
  const digits = isIPv4 ? address.split('.').map(Number) : groupsOfIPv6(address);
  const width = isIPv4 ? 8n : 16n;
  return digits.reduce((value, digit) => (value << width) | BigInt(digit), 0n);
}

function cidrOf(family: IpFamily, value: bigint, prefixLength: number): Cidr {
  const count = family === 'IPv4' ? 4 : 8;
  const width = family === 'IPv4' ? 8n : 16n;
  const digits = Array.from(
    { length: count },
    (_, index) => (value >> (BigInt(count - 1 - index) * width)) & ((1n << width) - 1n),
  );
  const text = family === 'IPv4' ? digits.join('.') : digits.map((digit) => digit.toString(16)).join(':');
  const address = parseIpAddress(text) ?? (text as IpAddress);
  return { family, address, prefixLength, text: `${address}/${prefixLength}` };
}

function knownCidr(text: string): Cidr {
  const cidr = parseCidr(text);
  if (cidr === undefined) throw new TypeError(`no range: ${text}`);
  return cidr;
}

export const LOOPBACK_RANGE: PerFamily<Cidr> = {
  IPv4: knownCidr('127.0.0.0/8'),
  IPv6: knownCidr('::1/128'),
};

/** Every address of the family. */
export const WHOLE_FAMILY: PerFamily<Cidr> = { IPv4: knownCidr('0.0.0.0/0'), IPv6: knownCidr('::/0') };
