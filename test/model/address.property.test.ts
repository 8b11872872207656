/** Addresses and ranges, compared with what Node itself thinks of them (`net.isIP`, `net.BlockList`). */
import * as fc from 'fast-check';
import { BlockList, isIP } from 'node:net';
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
import { cidrContains, hostCidr, parseCidr } from '../../src/model/cidr.ts';
import { holds } from '../support/property.ts';

const byte = fc.nat(255);
const group = fc.oneof(fc.constant(0), fc.constant(0xffff), fc.nat(0xffff));
const ipv4 = fc.tuple(byte, byte, byte, byte).map((bytes) => bytes.join('.'));
const groups = fc.array(group, { minLength: 8, maxLength: 8 });
/** One of many ways to write the address: leading zeros, capitals, a run of zeros left out, dots at the end. */
const ipv6 = fc
  .record({ groups, width: fc.integer({ min: 1, max: 4 }), isUpper: fc.boolean(), form: fc.nat(2) })
  .map(({ groups: numbers, width, isUpper, form }) => {
    const parts = numbers.map((number) => number.toString(16).padStart(width, '0'));
    const [seventh = 0, eighth = 0] = numbers.slice(6);
    const dotted = [seventh >> 8, seventh & 255, eighth >> 8, eighth & 255].join('.');
    const whole = form === 1 ? [...parts.slice(0, 6), dotted].join(':') : parts.join(':');
    const text = form === 2 ? whole.replace(/(?:^|:)(?:0+(?::|$))+/, '::') : whole;
    return { text: isUpper ? text.toUpperCase() : text, numbers };
  });
const anyAddress = fc.oneof(
  ipv4,
  ipv6.map(({ text }) => text),
);
/** Nearly an address: one character is another, too many or gone. */
const nearlyAddress = fc
  .tuple(
    anyAddress,
    fc.nat(45),
    fc.constantFrom('', '.', ':', '::', '0', 'g', '%eth0', ' ', '/', '1'),
    fc.nat(2),
  )
  .map(([text, at, put, cut]) => text.slice(0, at) + put + text.slice(at + cut));

function parsed(text: string): IpAddress {
  const address = parseIpAddress(text);
  if (address === undefined) throw new Error(`${text} is no address`);
  return address;
}

/** IPv4 in IPv6. */
function isMapped(address: string): boolean {
  return /^::ffff:[\d.]+$/.test(address);
}

const net = (address: string): 'ipv4' | 'ipv6' => (isIP(address) === 6 ? 'ipv6' : 'ipv4');

describe('an address', () => {
  test('is what Node takes for one, without a zone, and nothing else', () => {
    holds(fc.oneof(anyAddress, nearlyAddress, fc.string()), (text) => {
      const isAddress = isIP(text) !== 0 && !text.includes('%');
      expect(parseIpAddress(text) !== undefined).toBe(isAddress);
    });
  });

  test('has one text however it is written, and that text is the same address', () => {
    holds(ipv6, ({ text, numbers }) => {
      const address = parsed(text);
      expect(parseIpAddress(numbers.map((number) => number.toString(16)).join(':'))).toBe(address);
      expect(parseIpAddress(address)).toBe(address);
      expect(groupsOfIPv6(address)).toEqual(numbers);
    });
  });

  test('is read from an object as from a flag, but for zeros before a byte and for IPv4 inside IPv6', () => {
    holds(fc.tuple(fc.tuple(byte, byte, byte, byte), fc.nat(3)), ([bytes, zeros]) => {
      const plain = bytes.join('.');
      const padded = bytes.map((one) => `${'0'.repeat(zeros)}${one}`).join('.');
      expect(parseSloppyIpAddress(padded)).toBe(plain);
      expect(parseSloppyIpAddress(`::ffff:${padded}`)).toBe(plain);
      expect(parseIpAddress(padded)).toBe(zeros === 0 ? plain : undefined);
    });
    holds(nearlyAddress, (text) => {
      const [strict, sloppy] = [parseIpAddress(text), parseSloppyIpAddress(text)];
      expect(strict === undefined || isMapped(strict) || sloppy === strict).toBe(true);
    });
  });

  test('is special exactly where the ranges of the RFCs are', () => {
    const special = new BlockList();
    for (const [range, length] of [
      ['127.0.0.0', 8],
      ['169.254.0.0', 16],
      ['224.0.0.0', 4],
    ] as const)
      special.addSubnet(range, length, 'ipv4');
    for (const address of ['0.0.0.0', '255.255.255.255']) special.addAddress(address, 'ipv4');
    for (const [range, length] of [
      ['fe80::', 10],
      ['ff00::', 8],
    ] as const)
      special.addSubnet(range, length, 'ipv6');
    for (const address of ['::', '::1']) special.addAddress(address, 'ipv6');
    const first = fc.constantFrom(0, 126, 127, 128, 169, 223, 224, 239, 240, 255);
    const near = fc
      .tuple(first, fc.constantFrom(0, 253, 254, 255), byte, byte)
      .map((bytes) => bytes.join('.'));
    holds(
      fc.oneof(near, anyAddress),
      (text) => {
        const address = parsed(text);
        // In the list it would stand for every IPv4 address.
        const isSpecial = isMapped(address) || special.check(address, net(address));
        expect(specialRangeOf(address) !== undefined).toBe(isSpecial);
      },
      1000,
    );
  });

  test('with its port is a text that no other address and port have', () => {
    const place = fc.tuple(anyAddress.map(parsed), fc.integer({ min: 1, max: 65_535 }));
    holds(fc.tuple(place, place), ([a, b]) => {
      const isSame = a[0] === b[0] && a[1] === b[1];
      expect(hostPortText(...a) === hostPortText(...b)).toBe(isSame);
    });
  });

  test('that is a megabyte long is refused at once', () => {
    for (const part of ['1', '0', '.', '1.', ':', '0:', 'f', ' '])
      expect(parseSloppyIpAddress(part.repeat(1_000_000 / part.length))).toBeUndefined();
  });
});

const range = fc.oneof(
  fc.tuple(ipv4, fc.integer({ min: 0, max: 32 })),
  fc.tuple(
    ipv6.map(({ text }) => text).filter((text) => !isMapped(parsed(text))),
    fc.integer({ min: 0, max: 128 }),
  ),
);

describe('a range', () => {
  test('holds the addresses that Node says it holds', () => {
    // Half of the addresses begin as the range does, or nearly none would be in it.
    const near = fc
      .tuple(range, anyAddress, fc.boolean(), fc.nat(39))
      .map(([[address, length], other, isNear, at]) => {
        const mixed = address.slice(0, at) + other.slice(at);
        return { address, length, other: isNear && isIP(mixed) !== 0 ? mixed : other };
      });
    holds(
      near.filter(({ other }) => !isMapped(parsed(other))),
      ({ address, length, other }) => {
        const cidr = parseCidr(`${address}/${length}`);
        if (cidr === undefined) throw new Error('no range');
        const oracle = new BlockList();
        oracle.addSubnet(address, length, net(address));
        expect(cidrContains(cidr, parsed(other))).toBe(
          net(address) === net(other) && oracle.check(other, net(other)),
        );
        expect(cidrContains(cidr, parsed(address))).toBe(true);
      },
      1000,
    );
  });

  test('has one text, which is the same range, begins with its first address and says its length', () => {
    holds(range, ([address, length]) => {
      const cidr = parseCidr(`${address}/${length}`);
      expect(cidr).toBeDefined();
      if (cidr === undefined) return;
      expect(cidr.text).toBe(`${cidr.address}/${length}`);
      expect(parseCidr(` ${cidr.text}\t`)).toEqual(cidr);
      expect(parseCidr(`${cidr.address}/${length}`)).toEqual(cidr);
      expect(cidr.family).toBe(familyOf(parsed(address)));
    });
  });

  test('of one address holds that one and no other', () => {
    holds(fc.tuple(anyAddress, anyAddress), ([one, other]) => {
      const cidr = hostCidr(parsed(one));
      expect(cidrContains(cidr, parsed(other))).toBe(parsed(one) === parsed(other));
    });
  });

  test('is nothing else than an address and a length that its family has', () => {
    const text = fc.oneof(
      fc
        .tuple(nearlyAddress, fc.integer({ min: -1, max: 200 }))
        .map(([address, length]) => `${address}/${length}`),
      fc.string(),
    );
    holds(text, (candidate) => {
      const [, address = '', length = ''] = /^(.*)\/(\d{1,3})$/s.exec(candidate.trim()) ?? [];
      const read = address.includes('/') ? undefined : parseSloppyIpAddress(address);
      const bits =
        read === undefined ? -1 : Number(length) - (isIP(address) === 6 && isIP(read) === 4 ? 96 : 0);
      const isRange = read !== undefined && bits >= 0 && bits <= (isIP(read) === 4 ? 32 : 128);
      expect(parseCidr(candidate) !== undefined).toBe(isRange);
    });
  });
});
