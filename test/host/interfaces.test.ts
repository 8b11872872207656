/** `ip -j address show`, as iproute2 printed it, as REDIRECT sees it. */
import { describe, expect, test } from 'vitest';
import { hasSameAddresses, hostAddressesFromInterfaces, parseInterfaces } from '../../src/host/interfaces.ts';

/** Recorded with iproute2 6.1 on Linux 6.18 in a network namespace; times, MTUs and queues left out. */
const RECORDED = JSON.stringify([
  {
    ifindex: 1,
    ifname: 'lo',
    flags: ['LOOPBACK', 'UP', 'LOWER_UP'],
    link_type: 'loopback',
    addr_info: [
      { family: 'inet', local: '127.0.0.1', prefixlen: 8, scope: 'host', label: 'lo' },
      { family: 'inet6', local: '::1', prefixlen: 128, scope: 'host' },
    ],
  },
  {
    ifindex: 2,
    ifname: 'br0',
    flags: ['BROADCAST', 'MULTICAST', 'UP', 'LOWER_UP'],
    link_type: 'ether',
    addr_info: [
      { family: 'inet', local: '10.244.1.1', prefixlen: 24, scope: 'global', label: 'br0' },
      { family: 'inet6', local: 'fd00:244:1::1', prefixlen: 64, scope: 'global', nodad: true },
      { family: 'inet6', local: 'fe80::d0bb:edff:feb0:3a8f', prefixlen: 64, scope: 'link', tentative: true },
    ],
  },
  {
    ifindex: 4,
    link: 'p1',
    ifname: 'v1',
    flags: ['BROADCAST', 'MULTICAST', 'UP', 'LOWER_UP'],
    master: 'br0',
    link_type: 'ether',
    addr_info: [{ family: 'inet6', local: 'fe80::b868:1aff:fe54:d40e', prefixlen: 64, scope: 'link' }],
  },
  {
    ifindex: 6,
    link: 'pe',
    ifname: 'eth0',
    flags: ['BROADCAST', 'MULTICAST', 'UP', 'LOWER_UP'],
    link_type: 'ether',
    addr_info: [
      { family: 'inet', local: '192.168.77.2', prefixlen: 24, scope: 'global', label: 'eth0' },
      { family: 'inet', local: '10.9.0.1', prefixlen: 16, scope: 'global', label: 'eth0' },
      {
        family: 'inet',
        local: '192.168.77.3',
        prefixlen: 24,
        scope: 'global',
        secondary: true,
        label: 'eth0',
      },
      // The kernel puts the newest IPv6 address first.
      {
        family: 'inet6',
        local: 'fd00:77::4',
        prefixlen: 64,
        scope: 'global',
        tentative: true,
        dadfailed: true,
      },
      { family: 'inet6', local: 'fd00:77::3', prefixlen: 64, scope: 'global', tentative: true },
      { family: 'inet6', local: 'fd00:77::2', prefixlen: 64, scope: 'global' },
      { family: 'inet6', local: 'fe80::54dc:98ff:fe6d:8ccb', prefixlen: 64, scope: 'link' },
    ],
  },
  {
    ifindex: 7,
    ifname: 'dummy0',
    flags: ['BROADCAST', 'NOARP'],
    link_type: 'ether',
    addr_info: [{ family: 'inet', local: '10.50.0.1', prefixlen: 24, scope: 'global', label: 'dummy0' }],
  },
  {
    ifindex: 8,
    link: 'pc',
    ifname: 'cali1',
    flags: ['BROADCAST', 'MULTICAST', 'UP', 'LOWER_UP'],
    link_type: 'ether',
    addr_info: [{ family: 'inet6', local: 'fe80::3438:40ff:fe3f:5dc0', prefixlen: 64, scope: 'link' }],
  },
]);

describe('parseInterfaces', () => {
  test('knows every interface by name, state and place', () => {
    expect(
      parseInterfaces(RECORDED).map(({ name, isUp, isLoopback, hasMaster }) => ({
        name,
        isUp,
        isLoopback,
        hasMaster,
      })),
    ).toEqual([
      { name: 'lo', isUp: true, isLoopback: true, hasMaster: false },
      { name: 'br0', isUp: true, isLoopback: false, hasMaster: false },
      { name: 'v1', isUp: true, isLoopback: false, hasMaster: true },
      { name: 'eth0', isUp: true, isLoopback: false, hasMaster: false },
      { name: 'dummy0', isUp: false, isLoopback: false, hasMaster: false },
      { name: 'cali1', isUp: true, isLoopback: false, hasMaster: false },
    ]);
  });

  test('leaves out what REDIRECT cannot choose: tentative, failed and link-local IPv6', () => {
    const addresses = Object.fromEntries(
      parseInterfaces(RECORDED).map((link) => [link.name, link.addresses]),
    );
    expect(addresses).toEqual({
      lo: { IPv4: ['127.0.0.1'], IPv6: ['::1'] },
      br0: { IPv4: ['10.244.1.1'], IPv6: ['fd00:244:1::1'] },
      v1: { IPv4: [], IPv6: [] },
      eth0: { IPv4: ['192.168.77.2', '10.9.0.1', '192.168.77.3'], IPv6: ['fd00:77::2'] },
      dummy0: { IPv4: ['10.50.0.1'], IPv6: [] },
      cali1: { IPv4: [], IPv6: [] },
    });
  });

  test.each([
    { name: 'no output', json: '' },
    { name: 'an empty list', json: '[]' },
  ])('takes $name as a node without interfaces', ({ json }) => {
    expect(parseInterfaces(json)).toEqual([]);
  });

  test('keeps an interface of which it knows little', () => {
    expect(parseInterfaces('[{},{"ifname":"x"}]')).toMatchObject([
      { name: '', isUp: false },
      { name: 'x', isUp: false, addresses: { IPv4: [], IPv6: [] } },
    ]);
  });

  test.each([
    { name: 'text', json: 'Device "eth9" does not exist.' },
    { name: 'half a list', json: '[{"ifname":"lo"' },
    { name: 'an object', json: '{}' },
    { name: 'null', json: 'null' },
  ])('refuses $name by its code', ({ json }) => {
    expect(() => parseInterfaces(json)).toThrow(expect.objectContaining({ code: 'ERR_ADDRESS' }) as Error);
  });
});

describe('hostAddressesFromInterfaces', () => {
  const addresses = hostAddressesFromInterfaces(parseInterfaces(RECORDED));

  test('gathers every address, also those of interfaces that are down', () => {
    expect([...addresses.all].sort()).toEqual([
      '10.244.1.1',
      '10.50.0.1',
      '10.9.0.1',
      '127.0.0.1',
      '192.168.77.2',
      '192.168.77.3',
      '::1',
      'fd00:244:1::1',
      'fd00:77::2',
    ]);
  });

  test('gives loopback and the first address of each interface that packets can enter by', () => {
    expect(addresses.redirect).toEqual({
      IPv4: ['127.0.0.1', '10.244.1.1', '192.168.77.2'],
      IPv6: ['::1', 'fd00:244:1::1', 'fd00:77::2'],
    });
  });

  test('names the interfaces on which REDIRECT would drop, but no port of a bridge and none that is down', () => {
    expect(addresses.withoutAddress).toEqual({ IPv4: ['cali1'], IPv6: ['cali1'] });
  });

  test('gives loopback even when there is nothing else', () => {
    expect(hostAddressesFromInterfaces([])).toEqual({
      all: [],
      redirect: { IPv4: ['127.0.0.1'], IPv6: ['::1'] },
      withoutAddress: { IPv4: [], IPv6: [] },
    });
  });

  test('gives an address that two interfaces share once', () => {
    const link = (name: string): object => ({
      ifname: name,
      flags: ['UP'],
      addr_info: [{ family: 'inet', local: '10.0.0.1', scope: 'global' }],
    });
    const shared = hostAddressesFromInterfaces(parseInterfaces(JSON.stringify([link('a'), link('b')])));
    expect(shared.redirect.IPv4).toEqual(['127.0.0.1', '10.0.0.1']);
  });
});

test('addresses are the same when nothing about them differs, and not when the order does', () => {
  const read = (json: string): ReturnType<typeof hostAddressesFromInterfaces> =>
    hostAddressesFromInterfaces(parseInterfaces(json));
  expect(hasSameAddresses(read(RECORDED), read(RECORDED))).toBe(true);
  expect(hasSameAddresses(read(RECORDED), read(RECORDED.replace('192.168.77.2', '192.168.77.9')))).toBe(
    false,
  );
  const swapped = RECORDED.replace('"192.168.77.2"', '"X"')
    .replace('"10.9.0.1"', '"192.168.77.2"')
    .replace('"X"', '"10.9.0.1"');
  expect(hasSameAddresses(read(RECORDED), read(swapped))).toBe(false);
});
