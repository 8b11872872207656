/** What a Service is reached at, and by whom: load balancer addresses, source ranges, families, and how addresses are read. */
import type { V1LoadBalancerIngress, V1Service } from '@kubernetes/client-node';
import { describe, expect, test } from 'vitest';
import { type ServiceAddresses, serviceAddressesOf } from '../../src/model/service-addresses.ts';
import { type ServiceTweak, makeService } from '../support/objects.ts';

interface Reading extends ServiceAddresses {
  /** `field: message`. */
  readonly problems: readonly string[];
}

function read(service: V1Service): Reading {
  const problems: string[] = [];
  const addresses = serviceAddressesOf(service, (field, message) => problems.push(`${field}: ${message}`));
  return { ...addresses, problems };
}

/** Of both families unless tweaked. */
function dualStack(tweak: ServiceTweak = () => {}): V1Service {
  return makeService('web', (service) => {
    service.spec.clusterIPs = ['10.96.0.10', 'fd00:96::a'];
    service.spec.ipFamilies = ['IPv4', 'IPv6'];
    tweak(service);
  });
}

function withIngress(...ingress: readonly V1LoadBalancerIngress[]): V1Service {
  return dualStack((service) => void (service.status = { loadBalancer: { ingress: [...ingress] } }));
}

function withRanges(...ranges: readonly string[]): V1Service {
  return dualStack(({ spec }) => void (spec.loadBalancerSourceRanges = [...ranges]));
}

describe('the addresses of the load balancer are captured', () => {
  test.each<{ name: string; ingress: V1LoadBalancerIngress; expected: string[] }>([
    { name: 'where ipMode is not given', ingress: { ip: '198.51.100.1' }, expected: ['198.51.100.1'] },
    { name: 'with ipMode VIP', ingress: { ip: '198.51.100.1', ipMode: 'VIP' }, expected: ['198.51.100.1'] },
    {
      name: 'with a host name beside',
      ingress: { ip: '198.51.100.1', hostname: 'lb' },
      expected: ['198.51.100.1'],
    },
    { name: 'of IPv6, in canonical form', ingress: { ip: '2001:DB8:0::1' }, expected: ['2001:db8::1'] },
    { name: 'with white space around them', ingress: { ip: ' 198.51.100.1\n' }, expected: ['198.51.100.1'] },
    { name: 'but not with ipMode Proxy', ingress: { ip: '198.51.100.1', ipMode: 'Proxy' }, expected: [] },
    { name: 'but not a host name', ingress: { hostname: 'lb.example.com' }, expected: [] },
    {
      name: 'but not a host name of whatever ipMode',
      ingress: { hostname: 'lb', ipMode: 'Magic' },
      expected: [],
    },
    { name: 'but not an empty address', ingress: { ip: '', hostname: 'lb' }, expected: [] },
    { name: 'but not white space', ingress: { ip: ' ' }, expected: [] },
  ])('$name', ({ ingress, expected }) => {
    expect(read(withIngress(ingress))).toMatchObject({ loadBalancerIPs: expected, problems: [] });
  });

  test.each(['Magic', 'vip', ''])(
    'but not with an ipMode that nobody knows, which is reported: %j',
    (ipMode) => {
      const { loadBalancerIPs, problems } = read(
        withIngress({ ip: '198.51.100.1', ipMode }, { ip: '198.51.100.2' }),
      );
      expect(loadBalancerIPs).toEqual(['198.51.100.2']);
      expect(problems).toEqual([
        `status.loadBalancer.ingress[0].ipMode: ${JSON.stringify(ipMode)} is neither "VIP" nor "Proxy"; the address is not captured`,
      ]);
    },
  );

  test('each once, in the order of the object', () => {
    const twice = withIngress(
      { ip: '2001:db8::1' },
      { ip: '198.51.100.2' },
      { ip: '198.51.100.1', ipMode: 'VIP' },
      { ip: '2001:DB8::0:1' },
      { ip: '198.51.100.2' },
    );
    expect(read(twice)).toMatchObject({
      loadBalancerIPs: ['2001:db8::1', '198.51.100.2', '198.51.100.1'],
      problems: [],
    });
  });

  test.each([
    { name: 'IPv4', clusterIP: '10.96.0.10', expected: ['198.51.100.1'] },
    { name: 'IPv6', clusterIP: 'fd00:96::a', expected: ['2001:db8::1'] },
  ])('of the families of the Service only, which is no problem: $name', ({ clusterIP, expected }) => {
    const service = withIngress({ ip: '198.51.100.1' }, { ip: '2001:db8::1' });
    Object.assign(service.spec ?? {}, { clusterIP, clusterIPs: [clusterIP], ipFamilies: undefined });
    expect(read(service)).toMatchObject({ loadBalancerIPs: expected, problems: [] });
  });

  test.each([
    { name: 'is no address', ip: 'junk', says: '"junk" is no IP address' },
    { name: 'is loopback', ip: '127.0.0.1', says: '"127.0.0.1" is loopback: no Service may have it' },
  ])('and one that $name is reported, and the others stay', ({ ip, says }) => {
    const { loadBalancerIPs, problems } = read(withIngress({ ip }, { ip: '198.51.100.1' }));
    expect(loadBalancerIPs).toEqual(['198.51.100.1']);
    expect(problems).toEqual([`status.loadBalancer.ingress[0].ip: ${says}`]);
  });

  test.each(['ClusterIP', 'NodePort', 'LoadBalancer'])('whatever the type of the Service: %s', (type) => {
    const service = withIngress({ ip: '198.51.100.1' });
    Object.assign(service.spec ?? {}, { type });
    expect(read(service).loadBalancerIPs).toEqual(['198.51.100.1']);
  });

  test.each<{ name: string; status: unknown }>([
    { name: 'no status', status: undefined },
    { name: 'a null status', status: null },
    { name: 'an empty status', status: {} },
    { name: 'an empty load balancer', status: { loadBalancer: {} } },
    { name: 'null ingress', status: { loadBalancer: { ingress: null } } },
    { name: 'an ingress of nulls', status: { loadBalancer: { ingress: [{ ip: null, ipMode: null }] } } },
  ])('and there are none with $name', ({ status }) => {
    const service = dualStack((one) => void Object.assign(one, { status }));
    expect(read(service)).toMatchObject({ loadBalancerIPs: [], problems: [] });
  });
});

describe('the source ranges of the load balancer', () => {
  test.each<{ name: string; ranges: string[]; IPv4: string[] | undefined; IPv6: string[] | undefined }>([
    { name: 'are none with an empty list', ranges: [], IPv4: undefined, IPv6: undefined },
    { name: 'are none with a list of white space', ranges: ['', ' \t'], IPv4: undefined, IPv6: undefined },
    {
      name: 'are kept for each family',
      ranges: ['10.0.0.0/8', 'fd00::/8', '192.0.2.0/24'],
      IPv4: ['10.0.0.0/8', '192.0.2.0/24'],
      IPv6: ['fd00::/8'],
    },
    { name: 'of IPv4 do not restrict IPv6', ranges: ['10.0.0.0/8'], IPv4: ['10.0.0.0/8'], IPv6: undefined },
    { name: 'of IPv6 do not restrict IPv4', ranges: ['fd00::/8'], IPv4: undefined, IPv6: ['fd00::/8'] },
    {
      name: 'are trimmed, without host bits, and each once',
      ranges: [' 10.1.2.3/8 ', '10.0.0.0/8', '\tFD00::1/8'],
      IPv4: ['10.0.0.0/8'],
      IPv6: ['fd00::/8'],
    },
    { name: 'may be everything', ranges: ['0.0.0.0/0', '::/0'], IPv4: ['0.0.0.0/0'], IPv6: ['::/0'] },
    { name: 'may have leading zeros', ranges: ['010.0.0.0/8'], IPv4: ['10.0.0.0/8'], IPv6: undefined },
    {
      name: 'that are IPv4 in IPv6 restrict IPv4',
      ranges: ['::ffff:10.0.0.0/104'],
      IPv4: ['10.0.0.0/8'],
      IPv6: undefined,
    },
  ])('$name', ({ ranges, IPv4, IPv6 }) => {
    const { loadBalancerSourceRanges, problems } = read(withRanges(...ranges));
    expect(problems).toEqual([]);
    expect(loadBalancerSourceRanges.IPv4?.map(({ text }) => text)).toEqual(IPv4);
    expect(loadBalancerSourceRanges.IPv6?.map(({ text }) => text)).toEqual(IPv6);
  });

  test.each<{ name: string; ranges: string[]; IPv4: string[]; IPv6: string[] }>([
    { name: 'alone lets nobody in', ranges: ['10.0.0.0'], IPv4: [], IPv6: [] },
    { name: 'beside white space lets nobody in', ranges: ['', 'office'], IPv4: [], IPv6: [] },
    {
      name: 'leaves the readable ones of its family',
      ranges: ['10.0.0.0/8', '10.0.0.0/33'],
      IPv4: ['10.0.0.0/8'],
      IPv6: [],
    },
    {
      name: 'of another family closes the family without a range',
      ranges: ['fd00::/8', '10.0.0.0/33'],
      IPv4: [],
      IPv6: ['fd00::/8'],
    },
    {
      name: 'changes nothing where both families have one',
      ranges: ['10.0.0.0/8', 'fd00::/8', 'x'],
      IPv4: ['10.0.0.0/8'],
      IPv6: ['fd00::/8'],
    },
  ])('closes where it may have been meant: one that cannot be read $name', ({ ranges, IPv4, IPv6 }) => {
    const { loadBalancerSourceRanges, problems } = read(withRanges(...ranges));
    const bad = ranges[ranges.length - 1] ?? '';
    expect(problems).toEqual([
      `spec.loadBalancerSourceRanges[${ranges.length - 1}]: "${bad}" is no range of addresses; nobody is let in by it`,
    ]);
    expect(loadBalancerSourceRanges.IPv4?.map(({ text }) => text)).toEqual(IPv4);
    expect(loadBalancerSourceRanges.IPv6?.map(({ text }) => text)).toEqual(IPv6);
  });

  test('are none when the list is not there, or null', () => {
    const none = { IPv4: undefined, IPv6: undefined };
    expect(read(dualStack()).loadBalancerSourceRanges).toEqual(none);
    const isNull = dualStack(({ spec }) => void Object.assign(spec, { loadBalancerSourceRanges: null }));
    expect(read(isNull)).toMatchObject({ loadBalancerSourceRanges: none, problems: [] });
  });
});

describe('ipFamilies', () => {
  test.each<{ name: string; ipFamilies: string[] | undefined; clusterIPs: string[]; families: string[] }>([
    {
      name: 'of both',
      ipFamilies: ['IPv4', 'IPv6'],
      clusterIPs: ['10.96.0.10', 'fd00:96::a'],
      families: ['IPv4', 'IPv6'],
    },
    {
      name: 'in another order than the addresses',
      ipFamilies: ['IPv6', 'IPv4'],
      clusterIPs: ['10.96.0.10', 'fd00:96::a'],
      families: ['IPv4', 'IPv6'],
    },
    {
      name: 'that are absent: the addresses say it',
      ipFamilies: undefined,
      clusterIPs: ['10.96.0.10', 'fd00:96::a'],
      families: ['IPv4', 'IPv6'],
    },
    {
      name: 'that are empty: the addresses say it',
      ipFamilies: [],
      clusterIPs: ['fd00:96::a'],
      families: ['IPv6'],
    },
    {
      name: 'of more than there are addresses',
      ipFamilies: ['IPv4', 'IPv6'],
      clusterIPs: ['10.96.0.10'],
      families: ['IPv4'],
    },
  ])('$name', ({ ipFamilies, clusterIPs, families }) => {
    const service = makeService('web', ({ spec }) => void Object.assign(spec, { clusterIPs, ipFamilies }));
    expect(read(service)).toMatchObject({ clusterIPs, families, problems: [] });
  });

  test('that leave a family out take its clusterIP and all its other addresses away', () => {
    const service = dualStack((one) => {
      one.spec.ipFamilies = ['IPv4'];
      one.spec.externalIPs = ['192.0.2.7', '2001:db8::7'];
      one.status = { loadBalancer: { ingress: [{ ip: '198.51.100.1' }, { ip: '2001:db8::1' }] } };
    });
    expect(read(service)).toMatchObject({
      clusterIPs: ['10.96.0.10'],
      families: ['IPv4'],
      externalIPs: ['192.0.2.7'],
      loadBalancerIPs: ['198.51.100.1'],
      problems: ['spec.clusterIPs[1]: "fd00:96::a" is of IPv6, which is not among spec.ipFamilies'],
    });
  });

  test('that are of no address leave nothing, and it is said', () => {
    const service = makeService('web', ({ spec }) => void (spec.ipFamilies = ['IPv6']));
    expect(read(service)).toMatchObject({
      clusterIPs: [],
      problems: ['spec.clusterIP: "10.96.0.10" is of IPv4, which is not among spec.ipFamilies'],
    });
  });
});

test('an address is read as every component of a cluster reads it, wherever it stands', () => {
  const service = dualStack((one) => {
    one.spec.clusterIPs = ['010.096.000.010', 'FD00:96::A'];
    one.spec.externalIPs = ['::ffff:192.0.2.7', '192.0.02.7'];
    one.status = { loadBalancer: { ingress: [{ ip: '198.051.100.01' }] } };
  });
  expect(read(service)).toMatchObject({
    clusterIPs: ['10.96.0.10', 'fd00:96::a'],
    externalIPs: ['192.0.2.7'],
    loadBalancerIPs: ['198.51.100.1'],
    problems: [],
  });
});
