/** Addresses just inside and just outside a range, and next to an address. */
import { SocketAddress } from 'node:net';
import { familyOf, type Family } from './intent-objects.ts';
import { addressNumber } from './netfilter-match.ts';

const BITS = { IPv4: 32, IPv6: 128 } as const;

/** The address before and the one behind, without those that do not exist. */
export function neighboursOf(address: string): readonly string[] {
  const number = addressNumber(address);
  return existing([number - 1n, number + 1n], familyOf(address));
}

/**
 * Two addresses at either end of a range, and one beyond it on either side; two, because the first of a network is often
 * nobody's.
 */
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
