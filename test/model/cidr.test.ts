/** Address ranges: one text for one range, read as Kubernetes reads them, and what is in them. */
import { describe, expect, test } from 'vitest';
import { IP_FAMILIES, type IpAddress, groupsOfIPv6, parseIpAddress } from '../../src/model/address.ts';
import {
  type Cidr,
  LOOPBACK_RANGE,
  WHOLE_FAMILY,
  cidrContains,
  hostCidr,
  isWholeFamily,
  parseCidr,
} from '../../src/model/cidr.ts';
import { Random, seeds } from '../support/random.ts';

function range(text: string): Cidr {
  const cidr = parseCidr(text);
  if (cidr === undefined) throw new Error(`${text} is no range`);
  return cidr;
}

function contains(text: string, address: string): boolean {
  return cidrContains(range(text), address as IpAddress);
}

describe('parseCidr', () => {
  test.each([
    { name: 'IPv4', text: '10.0.0.0/8', expected: '10.0.0.0/8' },
    { name: 'IPv6', text: 'fd00::/8', expected: 'fd00::/8' },
    { name: 'IPv4 with host bits, which are cleared', text: '10.1.2.3/8', expected: '10.0.0.0/8' },
    { name: 'IPv4 cut within a byte', text: '192.168.77.255/27', expected: '192.168.77.224/27' },
    { name: 'IPv6 with host bits, which are cleared', text: '2001:db8:1:2::3/33', expected: '2001:db8::/33' },
    { name: 'IPv6 cut within a group', text: 'fd00:ffff::/20', expected: 'fd00:f000::/20' },
    { name: 'all of IPv4', text: '1.2.3.4/0', expected: '0.0.0.0/0' },
    { name: 'all of IPv6', text: 'fd00::1/0', expected: '::/0' },
    { name: 'one IPv4 address', text: '10.1.2.3/32', expected: '10.1.2.3/32' },
    { name: 'one IPv6 address', text: 'fd00::1/128', expected: 'fd00::1/128' },
    { name: 'the last IPv4 address', text: '255.255.255.255/32', expected: '255.255.255.255/32' },
    {
      name: 'the last IPv6 address',
      text: 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128',
      expected: 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128',
    },
    { name: 'IPv6 in capitals and in full', text: 'FD00:0:0:0:0:0:0:0/64', expected: 'fd00::/64' },
    { name: 'white space around it', text: ' \t10.0.0.0/8\r\n', expected: '10.0.0.0/8' },
    { name: 'leading zeros, which mean nothing', text: '010.08.0.0/08', expected: '10.0.0.0/8' },
    { name: 'an IPv4 range in IPv6', text: '::ffff:10.1.2.3/104', expected: '10.0.0.0/8' },
    { name: 'an IPv4 range in IPv6 in hexadecimal', text: '::FFFF:a01:203/128', expected: '10.1.2.3/32' },
    {
      name: 'low IPv6, which is written with a dotted tail',
      text: '::1.2.3.4/112',
      expected: '::1.2.0.0/112',
    },
    { name: 'all of IPv4 in IPv6', text: '::ffff:0:0/96', expected: '0.0.0.0/0' },
  ])('reads $name', ({ text, expected }) => {
    const cidr = range(text);
    const [address, prefixLength] = expected.split('/');
    const family = expected.includes(':') ? 'IPv6' : 'IPv4';
    expect(cidr).toEqual({ family, address, prefixLength: Number(prefixLength), text: expected });
    expect(parseCidr(cidr.text)).toEqual(cidr);
  });

  test.each([
    { name: 'nothing', text: '' },
    { name: 'white space', text: ' ' },
    { name: 'an address without a length', text: '10.0.0.1' },
    { name: 'a length without an address', text: '/8' },
    { name: 'an empty length', text: '10.0.0.0/' },
    { name: '33 bits of IPv4', text: '10.0.0.0/33' },
    { name: '129 bits of IPv6', text: 'fd00::/129' },
    { name: 'a negative length', text: '10.0.0.0/-1' },
    { name: 'a length with a sign', text: '10.0.0.0/+8' },
    { name: 'half a bit', text: '10.0.0.0/8.5' },
    { name: 'a length in hexadecimal', text: '10.0.0.0/0x8' },
    { name: 'a length of many digits', text: '10.0.0.0/0000000000000000000008' },
    { name: 'a netmask', text: '10.0.0.0/255.0.0.0' },
    { name: 'two lengths', text: '10.0.0.0/8/8' },
    { name: 'a list', text: '10.0.0.0/8,fd00::/8' },
    { name: 'white space inside', text: '10.0.0.0 /8' },
    { name: 'three bytes', text: '10.0.0/8' },
    { name: 'a byte beyond 255', text: '10.0.0.256/8' },
    { name: 'a zone', text: 'fe80::%eth0/64' },
    { name: 'brackets', text: '[fd00::]/8' },
    { name: 'a name', text: 'office/24' },
    { name: 'more than the IPv4 part of an IPv4 range in IPv6', text: '::ffff:10.0.0.0/95' },
    { name: 'an IPv4 range in IPv6 of more bits than there are', text: '::ffff:10.0.0.0/129' },
    { name: 'a rule', text: '10.0.0.0/8 -j ACCEPT' },
  ])('refuses $name', ({ text }) => {
    expect(parseCidr(text)).toBeUndefined();
  });
});

describe('a range contains', () => {
  test.each([
    { cidr: '10.0.0.0/8', inside: ['10.0.0.0', '10.255.255.255'], outside: ['9.255.255.255', '11.0.0.0'] },
    {
      cidr: '192.168.77.224/27',
      inside: ['192.168.77.224', '192.168.77.255'],
      outside: ['192.168.77.223', '192.168.78.0'],
    },
    { cidr: '10.1.2.3/32', inside: ['10.1.2.3'], outside: ['10.1.2.2', '10.1.2.4'] },
    { cidr: '0.0.0.0/0', inside: ['0.0.0.0', '255.255.255.255'], outside: ['::', 'fd00::1'] },
    { cidr: 'fd00::/8', inside: ['fd00::', 'fdff:ffff::1'], outside: ['fc00::1', 'fe00::'] },
    { cidr: 'fd00::1/128', inside: ['fd00::1'], outside: ['fd00::', 'fd00::2', '0.0.0.1'] },
    { cidr: '::/0', inside: ['::', 'ffff::1', '::ffff:10.0.0.1'], outside: ['10.0.0.1', '0.0.0.0'] },
    { cidr: '::ffff:10.0.0.0/104', inside: ['10.1.1.1'], outside: ['11.0.0.0', '::ffff:10.1.1.1'] },
  ])('its own addresses and no others: $cidr', ({ cidr, inside, outside }) => {
    expect(inside.filter((address) => !contains(cidr, address))).toEqual([]);
    expect(outside.filter((address) => contains(cidr, address))).toEqual([]);
  });

  test.each(seeds(5))('what its first bits say, of either family (seed %i)', (seed) => {
    const random = new Random(seed);
    for (let round = 0; round < 500; round += 1) {
      const family = random.pick(IP_FAMILIES);
      const [base, other] = [randomBits(family, random), randomBits(family, random)];
      const prefixLength = random.below(base.length + 1);
      // Often nearly in it: the bits of the range, but for one.
      const near = [...base.slice(0, prefixLength), ...other.slice(prefixLength)];
      if (random.next() < 0.5) near[random.below(near.length)] = random.below(2);
      const text = `${textOf(base)}/${prefixLength}`;
      const isInside = base.slice(0, prefixLength).every((bit, index) => bit === near[index]);
      const shown = `${text} contains ${textOf(near)}`;
      expect([shown, contains(text, parseIpAddress(textOf(near)) ?? '')]).toEqual([shown, isInside]);
    }
  });
});

/** The first bit is 1: neither in an IPv4 range in IPv6 nor such an address. */
function randomBits(family: string, random: Random): number[] {
  return Array.from({ length: family === 'IPv4' ? 32 : 128 }, (_, index) =>
    index === 0 ? 1 : random.below(2),
  );
}

function textOf(bits: readonly number[]): string {
  const width = bits.length === 32 ? 8 : 16;
  const digits = Array.from({ length: bits.length / width }, (_, index) =>
    Number.parseInt(bits.slice(index * width, (index + 1) * width).join(''), 2),
  );
  return width === 8 ? digits.join('.') : digits.map((digit) => digit.toString(16)).join(':');
}

test('the range of one address holds that address alone', () => {
  expect(hostCidr('10.1.2.3' as IpAddress)).toEqual(parseCidr('10.1.2.3/32'));
  expect(hostCidr('fd00::1' as IpAddress)).toEqual(parseCidr('fd00::1/128'));
});

test('a range is the whole family exactly when it has no bits', () => {
  expect(['0.0.0.0/0', '::/0', '10.0.0.0/0'].map(range).map(isWholeFamily)).toEqual([true, true, true]);
  expect(['0.0.0.0/1', '::/1', '10.1.2.3/32'].map(range).map(isWholeFamily)).toEqual([false, false, false]);
});

test.each(IP_FAMILIES)('the ranges that are always there are of their family: %s', (family) => {
  expect(WHOLE_FAMILY[family]).toMatchObject({ family, prefixLength: 0 });
  expect(LOOPBACK_RANGE[family].family).toBe(family);
  expect(cidrContains(LOOPBACK_RANGE[family], (family === 'IPv4' ? '127.0.0.53' : '::1') as IpAddress)).toBe(
    true,
  );
});

test('the first address of an IPv6 range is canonical', () => {
  expect(groupsOfIPv6(range('2001:db8:0:1:ffff::/64').address)).toEqual([0x2001, 0xdb8, 0, 1, 0, 0, 0, 0]);
});
