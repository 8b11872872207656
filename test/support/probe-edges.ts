/** Addresses just inside and just outside a range, and next to an address; and which of them one host may have in a lab. */
import { SocketAddress } from 'node:net';
import { type Family, familyOf, isInRange } from './intent-objects.ts';
import { addressNumber } from './netfilter-match.ts';

/** Networks of a lab. */
const LINKS = ['10.244.1.0/24', '192.168.77.0/24'] as const;
const BITS = { IPv4: 32, IPv6: 128 } as const;

/** The address before and the one behind, without those that do not exist. */
export function neighboursOf(address: string): readonly string[] {
  const number = addressNumber(address);
  return existing([number - 1n, number + 1n], familyOf(address));
}

/** The addresses at either end of a range, several, because the first is often no host's, and one beyond on either side. */
export function edgesOf(range: string): readonly string[] {
  const [address = '', length = ''] = range.split('/');
  const family = familyOf(address);
  const size = 1n << BigInt(BITS[family] - Number(length));
  const first = (addressNumber(address) / size) * size;
  const last = first + size - 1n;
  const inside = [first, first + 1n, first + 2n, last - 1n, last].filter(
    (number) => number >= first && number <= last,
  );
  return existing([first - 1n, ...new Set(inside), last + 1n], family);
}

function existing(numbers: readonly bigint[], family: Family): readonly string[] {
  return numbers
    .filter((number) => number >= 0n && number < 1n << BigInt(BITS[family]))
    .map((number) => textOf(number, family));
}

function textOf(number: bigint, family: Family): string {
  if (family === 'IPv4') return [24n, 16n, 8n, 0n].map((shift) => (number >> shift) & 0xffn).join('.');
  const digits = number.toString(16).padStart(32, '0');
  const address = (digits.match(/.{4}/g) ?? []).join(':');
  return new SocketAddress({ address, family: 'ipv6' }).address;
}

/** Not of a whole network (its first and its last address), and none that no packet may have. */
export function isSingleHost(address: string): boolean {
  const number = addressNumber(address);
  if (familyOf(address) === 'IPv6') return number > 1n && number >> 120n !== 0xffn && !isFirst(address, 64n);
  const firstOctet = number >> 24n;
  if (firstOctet === 0n || firstOctet >= 224n) return false;
  const isOnLink = LINKS.some((range) => isInRange(address, range));
  return !isOnLink || !((number & 0xffn) === 0n || (number & 0xffn) === 0xffn);
}

/** In IPv6 that is every router's. */
function isFirst(address: string, hostBits: bigint): boolean {
  const number = addressNumber(address);
  return (number >> hostBits) << hostBits === number;
}
