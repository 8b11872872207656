/** Addresses: one text for one address, and which of them nobody may use for a Service or endpoint. */
import { describe, expect, test } from 'vitest';
import {
  type IpAddress,
  familyOf,
  groupsOfIPv6,
  hostPortText,
  parseIpAddress,
  parseSloppyIpAddress,
  specialRangeOf,
} from '../../src/model/address.ts';
import { Random, seeds } from '../support/random.ts';

describe('parseIpAddress', () => {
  test.each([
    { name: 'IPv4', text: '10.96.0.10', expected: '10.96.0.10' },
    { name: 'the largest IPv4', text: '255.255.255.255', expected: '255.255.255.255' },
    { name: 'short IPv6', text: 'fd00::1', expected: 'fd00::1' },
    { name: 'IPv6 in full', text: 'fd00:0:0:0:0:0:0:1', expected: 'fd00::1' },
    { name: 'IPv6 with leading zeros', text: 'fd00:0000::0001', expected: 'fd00::1' },
    { name: 'IPv6 in capitals', text: 'FD00::ABCD', expected: 'fd00::abcd' },
    {
      name: 'the longest run of zeros shortened',
      text: '2001:db8:0:0:1:0:0:0',
      expected: '2001:db8:0:0:1::',
    },
    { name: 'the first of two equal runs', text: '2001:db8:0:0:1:0:0:1', expected: '2001:db8::1:0:0:1' },
    { name: 'a single zero group as it is', text: '2001:db8::1:1:1:1:1', expected: '2001:db8:0:1:1:1:1:1' },
    { name: 'nothing but zeros', text: '0:0:0:0:0:0:0:0', expected: '::' },
    { name: 'IPv4 in IPv6', text: '::FFFF:10.0.0.1', expected: '::ffff:10.0.0.1' },
  ])('gives $name in canonical form', ({ text, expected }) => {
    expect(parseIpAddress(text)).toBe(expected);
    expect(parseIpAddress(expected)).toBe(expected);
  });

  test.each([
    { name: 'nothing', text: '' },
    { name: 'a name', text: 'web.default.svc' },
    { name: 'None', text: 'None' },
    { name: 'leading zeros, which some read as octal', text: '010.0.0.1' },
    { name: 'a number beyond 255', text: '10.0.0.256' },
    { name: 'three numbers', text: '10.0.1' },
    { name: 'a prefix', text: '10.0.0.0/8' },
    { name: 'blanks around it', text: ' 10.0.0.1 ' },
    { name: 'a newline', text: '10.0.0.1\n' },
    { name: 'a port', text: '10.0.0.1:80' },
    { name: 'hexadecimal', text: '0x0a000001' },
    { name: 'a zone', text: 'fe80::1%eth0' },
    { name: 'brackets', text: '[fd00::1]' },
    { name: 'two gaps', text: 'fd00::1::2' },
    { name: 'nine groups', text: '1:2:3:4:5:6:7:8:9' },
    { name: 'a group of five digits', text: 'fd00::12345' },
  ])('refuses $name', ({ text }) => {
    expect(parseIpAddress(text)).toBeUndefined();
  });
});

describe('parseSloppyIpAddress reads as Kubernetes does', () => {
  test.each([
    { name: 'an address as it is', text: '10.96.0.10', expected: '10.96.0.10' },
    { name: 'leading zeros as nothing, never as octal', text: '010.0.0.08', expected: '10.0.0.8' },
    { name: 'many leading zeros', text: '000010.000.00.001', expected: '10.0.0.1' },
    { name: 'IPv6 in canonical form', text: 'FD00:0::01', expected: 'fd00::1' },
    { name: 'IPv4 in IPv6 as IPv4', text: '::ffff:10.0.0.1', expected: '10.0.0.1' },
    { name: 'IPv4 in IPv6 in hexadecimal', text: '0:0:0:0:0:FFFF:a00:1', expected: '10.0.0.1' },
    { name: 'IPv4 in IPv6 with leading zeros', text: '::ffff:010.0.0.01', expected: '10.0.0.1' },
    {
      name: 'another prefix before four bytes as IPv6',
      text: '64:ff9b::10.0.0.1',
      expected: '64:ff9b::a00:1',
    },
  ])('$name', ({ text, expected }) => {
    expect(parseSloppyIpAddress(text)).toBe(expected);
    expect(parseIpAddress(expected)).toBe(expected);
  });

  test.each([
    '',
    'None',
    '10.0.0.256',
    '010.0.1',
    '1.010.0.0.1',
    'x010.0.0.1',
    '10.0.0.1/8',
    ' 10.0.0.1',
    '0x0a.0.0.1',
    `${'9'.repeat(400)}.0.0.1`,
    'fe80::1%eth0',
    '::ffff:10.0.0.300',
  ])('and refuses %j', (text) => {
    expect(parseSloppyIpAddress(text)).toBeUndefined();
  });
});

test('the family of an address is seen in its text', () => {
  expect(familyOf('10.0.0.1' as IpAddress)).toBe('IPv4');
  expect(familyOf('::ffff:10.0.0.1' as IpAddress)).toBe('IPv6');
});

describe('groupsOfIPv6', () => {
  test.each([
    { name: 'nothing but zeros', text: '::', groups: [0, 0, 0, 0, 0, 0, 0, 0] },
    { name: 'loopback', text: '::1', groups: [0, 0, 0, 0, 0, 0, 0, 1] },
    { name: 'a gap at the end', text: 'fd00:244:1::', groups: [0xfd00, 0x244, 1, 0, 0, 0, 0, 0] },
    { name: 'a gap in the middle', text: 'fd00::1:2', groups: [0xfd00, 0, 0, 0, 0, 0, 1, 2] },
    { name: 'no gap', text: '1:2:3:4:5:6:7:8', groups: [1, 2, 3, 4, 5, 6, 7, 8] },
    { name: 'a dotted tail', text: '::ffff:1.2.3.4', groups: [0, 0, 0, 0, 0, 0xffff, 0x102, 0x304] },
    { name: 'a dotted tail of zeros', text: '::ffff:0.0.0.0', groups: [0, 0, 0, 0, 0, 0xffff, 0, 0] },
  ])('knows the groups of $name', ({ text, groups }) => {
    expect(groupsOfIPv6(text as IpAddress)).toEqual(groups);
  });

  test.each(seeds(3))('and parseIpAddress are each other’s inverse (seed %i)', (seed) => {
    const random = new Random(seed);
    for (let round = 0; round < 5000; round += 1) {
      const groups = Array.from({ length: 8 }, () =>
        random.next() < 0.5 ? 0 : random.below(random.pick([2, 256, 65_536])),
      );
      const text = groups.map((group) => group.toString(16)).join(':');
      const address = parseIpAddress(text);
      expect({ text, groups: groupsOfIPv6(address as IpAddress) }).toEqual({ text, groups });
    }
  });
});

describe('specialRangeOf', () => {
  test.each([
    { text: '0.0.0.0', range: 'unspecified' },
    { text: '127.0.0.1', range: 'loopback' },
    { text: '127.255.255.254', range: 'loopback' },
    { text: '169.254.0.1', range: 'link-local' },
    { text: '224.0.0.1', range: 'multicast' },
    { text: '239.255.255.255', range: 'multicast' },
    { text: '255.255.255.255', range: 'broadcast' },
    { text: '::', range: 'unspecified' },
    { text: '::1', range: 'loopback' },
    { text: 'fe80::1', range: 'link-local' },
    { text: 'febf::1', range: 'link-local' },
    { text: 'ff02::1', range: 'multicast' },
    { text: '::ffff:10.0.0.1', range: 'IPv4-mapped' },
    { text: '::ffff:127.0.0.1', range: 'IPv4-mapped' },
  ])('$text is $range', ({ text, range }) => {
    expect(specialRangeOf(parseIpAddress(text) as IpAddress)).toBe(range);
  });

  test.each([
    '10.96.0.1',
    '126.255.255.255',
    '128.0.0.1',
    '169.253.255.255',
    '169.255.0.1',
    '223.255.255.255',
    '100.64.0.1',
    'fd00::1',
    'fec0::1',
    'fe00::1',
    '2001:db8::1',
    '::2',
    '::fffe:a00:1',
  ])('%s may be used', (text) => {
    expect(specialRangeOf(parseIpAddress(text) as IpAddress)).toBeUndefined();
  });
});

test('an IPv6 address with a port stands in brackets, an IPv4 address does not', () => {
  expect(hostPortText('fd00::1', 80)).toBe('[fd00::1]:80');
  expect(hostPortText('10.0.0.1', 80)).toBe('10.0.0.1:80');
});
