/** The PROXY header, against bytes written out by hand from the specification, and against a receiver of our own. */
import { describe, expect, test } from 'vitest';
import type { SocketAddress } from '../../src/engine/engine.ts';
import { PROXY_PROTOCOL_VERSIONS } from '../../src/model/service-policy.ts';
import { proxyProtocolHeader } from '../../src/proxy/proxy-protocol.ts';
import { parseProxyHeader } from '../support/proxy-protocol-parser.ts';
import { Random, seeds } from '../support/random.ts';

/** `10.0.0.1 56324`, `fd00::1 443`. */
function at(text: string): SocketAddress {
  const [address = '', port] = text.split(' ');
  return { address, port: Number(port) };
}

function bytesOf(...lines: readonly string[]): Uint8Array {
  return new Uint8Array(Buffer.from(lines.join('').replaceAll(' ', ''), 'hex'));
}

function v1(from: string, to: string): string {
  return Buffer.from(proxyProtocolHeader('v1', at(from), at(to))).toString('latin1');
}

function v2(from: string, to: string): Uint8Array {
  return new Uint8Array(proxyProtocolHeader('v2', at(from), at(to)));
}

describe('version 1', () => {
  test.each([
    {
      name: 'IPv4',
      from: '192.168.0.1 56324',
      to: '192.168.0.11 443',
      line: 'PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n',
    },
    {
      name: 'the longest IPv4 addresses and ports',
      from: '255.255.255.255 65535',
      to: '255.255.255.255 65535',
      line: 'PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n',
    },
    {
      name: 'IPv6, with its zeros left out',
      from: 'fd00:10:244::7 40000',
      to: 'fd00:10:96::a 80',
      line: 'PROXY TCP6 fd00:10:244::7 fd00:10:96::a 40000 80\r\n',
    },
    { name: 'IPv6 of zeros', from: ':: 0', to: '::1 1', line: 'PROXY TCP6 :: ::1 0 1\r\n' },
    {
      name: 'IPv6 spelt otherwise than it should be',
      from: 'FD00:0:0:0:0:0:0:1 1',
      to: 'fd00:0010::0002 2',
      line: 'PROXY TCP6 fd00::1 fd00:10::2 1 2\r\n',
    },
    {
      name: 'IPv6 that ends as an IPv4 address, in digits that the format knows',
      from: '::1.2.3.4 1',
      to: '64:ff9b::1.2.3.4 2',
      line: 'PROXY TCP6 0:0:0:0:0:0:102:304 64:ff9b::102:304 1 2\r\n',
    },
    {
      name: 'link-local IPv6, without its zone',
      from: 'fe80::1%eth0 1',
      to: 'fe80::2%br-0.100 2',
      line: 'PROXY TCP6 fe80::1 fe80::2 1 2\r\n',
    },
  ])('$name', ({ from, to, line }) => {
    expect(v1(from, to)).toBe(line);
  });

  test('the longest line there can be fits into what receivers read', () => {
    const longest = 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535';

    expect(v1(longest, longest)).toHaveLength(104);
  });
});

describe('version 2', () => {
  test('IPv4: signature, 0x21, 0x11, a length of 12, both addresses, both ports', () => {
    expect(v2('192.168.0.1 56324', '10.96.0.10 443')).toEqual(
      bytesOf('0d0a0d0a 000d0a51 5549540a', '21 11 000c', 'c0a80001 0a60000a', 'dc04 01bb'),
    );
  });

  test('IPv6: signature, 0x21, 0x21, a length of 36, both addresses, both ports', () => {
    expect(v2('fd00:10:244::7 40000', '2001:db8:85a3:8d3:1319:8a2e:370:7348 80')).toEqual(
      bytesOf(
        '0d0a0d0a 000d0a51 5549540a',
        '21 21 0024',
        'fd000010 02440000 00000000 00000007',
        '20010db8 85a308d3 13198a2e 03707348',
        '9c40 0050',
      ),
    );
  });

  test('the largest numbers keep their places', () => {
    expect(v2('255.255.255.255 65535', '0.0.0.0 0')).toEqual(
      bytesOf('0d0a0d0a 000d0a51 5549540a', '21 11 000c', 'ffffffff 00000000', 'ffff 0000'),
    );
  });

  test('a zone is left out', () => {
    expect(v2('fe80::1%eth0 1', 'fe80::2 2')).toEqual(v2('fe80::1 1', 'fe80::2 2'));
  });
});

describe('IPv4 in IPv6', () => {
  test.each([
    { from: '::ffff:192.168.0.1 1', to: '10.96.0.10 2' },
    { from: '::ffff:c0a8:1 1', to: '10.96.0.10 2' },
    { from: '::FFFF:192.168.0.1 1', to: '::ffff:10.96.0.10 2' },
    { from: '192.168.0.1 1', to: '::ffff:10.96.0.10 2' },
    { from: '::ffff:192.168.0.1%eth0 1', to: '10.96.0.10 2' },
  ])('$from → $to is told as what it is: IPv4', ({ from, to }) => {
    expect(v1(from, to)).toBe(v1('192.168.0.1 1', '10.96.0.10 2'));
    expect(v2(from, to)).toEqual(v2('192.168.0.1 1', '10.96.0.10 2'));
  });
});

describe('addresses that no family fits', () => {
  test.each([
    { name: 'of two families', from: '192.168.0.1 1', to: 'fd00::1 2' },
    { name: 'of two families, one of them mapped', from: '::ffff:192.168.0.1 1', to: 'fd00::1 2' },
    { name: 'of two families, the other way round', from: 'fd00::1 1', to: '10.96.0.10 2' },
    { name: 'that are none', from: 'localhost 1', to: '10.96.0.10 2' },
    { name: 'that are empty', from: ' 1', to: ' 2' },
  ])('$name are not told', ({ from, to }) => {
    expect(v1(from, to)).toBe('PROXY UNKNOWN\r\n');
    expect(v2(from, to)).toEqual(bytesOf('0d0a0d0a 000d0a51 5549540a', '21 00 0000'));
  });
});

describe.each(PROXY_PROTOCOL_VERSIONS)('a receiver of %s', (version) => {
  test.each(seeds(20))('reads what was sent, whatever the addresses (seed %i)', (seed) => {
    const random = new Random(seed);
    for (let round = 0; round < 200; round += 1) {
      const size = random.pick([4, 16] as const);
      const [from, to] = [randomAddress(random, size), randomAddress(random, size)];
      const ports = [random.below(65_536), random.below(65_536)] as const;

      const header = proxyProtocolHeader(
        version,
        { address: from.text, port: ports[0] },
        { address: to.text, port: ports[1] },
      );

      expect(parseProxyHeader(version, header), `${from.text} ${to.text}`).toEqual({
        kind: size === 4 ? 'TCP4' : 'TCP6',
        from: { address: from.bytes, port: ports[0] },
        to: { address: to.bytes, port: ports[1] },
        length: header.length,
      });
    }
  });

  test('reads that the addresses are not known', () => {
    const header = proxyProtocolHeader(version, at('192.168.0.1 1'), at('fd00::1 2'));

    expect(parseProxyHeader(version, header)).toEqual({ kind: 'UNKNOWN', length: header.length });
  });

  test.each([0, 1, 5, 12, 15, 27])('refuses the first %i bytes of a header', (length) => {
    const header = proxyProtocolHeader(version, at('192.168.0.1 1'), at('10.96.0.10 2'));

    expect(() => parseProxyHeader(version, header.subarray(0, length))).toThrow(
      /line end|a header of|signature|bytes of/,
    );
  });
});

/** Any address but an IPv4-mapped one, spelt in one of the ways it may be spelt. */
function randomAddress(
  random: Random,
  size: 4 | 16,
): { readonly text: string; readonly bytes: readonly number[] } {
  // Zeros and ones now and then: they are what is left out, filled up and confused.
  const byte = (): number => random.pick([0, 0, 1, 255, random.below(256)]);
  const bytes = Array.from({ length: size }, byte);
  if (size === 4) return { text: bytes.join('.'), bytes };
  if (random.below(2) === 0) bytes.fill(0, 2 * random.below(4), 8 + 2 * random.below(4));
  const isMapped = bytes.slice(0, 10).every((one) => one === 0) && bytes[10] === 255 && bytes[11] === 255;
  if (isMapped) bytes[0] = 0xfd;
  return { text: random.pick([fullText, paddedText, shortText])(bytes), bytes };
}

function groupsOf(bytes: readonly number[]): readonly number[] {
  return Array.from({ length: 8 }, (_, index) => (bytes[2 * index] ?? 0) * 256 + (bytes[2 * index + 1] ?? 0));
}

function fullText(bytes: readonly number[]): string {
  return groupsOf(bytes)
    .map((group) => group.toString(16))
    .join(':');
}

function paddedText(bytes: readonly number[]): string {
  return groupsOf(bytes)
    .map((group) => group.toString(16).toUpperCase().padStart(4, '0'))
    .join(':');
}

/** The first run of zeros is left out, however long or short. */
function shortText(bytes: readonly number[]): string {
  const groups = groupsOf(bytes);
  const start = groups.indexOf(0);
  if (start === -1) return fullText(bytes);
  const next = groups.findIndex((group, index) => index > start && group !== 0);
  const hex = (part: readonly number[]): string => part.map((group) => group.toString(16)).join(':');
  return `${hex(groups.slice(0, start))}::${next === -1 ? '' : hex(groups.slice(next))}`;
}
