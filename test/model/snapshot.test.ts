/** Services and EndpointSlices together: Services that come back, and whatever anybody may write. */
import type { V1EndpointSlice, V1Service } from '@kubernetes/client-node';
import { describe, expect, test } from 'vitest';
import { IP_FAMILIES, parseIpAddress } from '../../src/model/address.ts';
import { parseCidr } from '../../src/model/cidr.ts';
import {
  PROXY_PROTOCOL_ANNOTATION,
  SCHEDULERS,
  SCHEDULER_ANNOTATION,
} from '../../src/model/service-policy.ts';
import { EMPTY_SNAPSHOT, type Snapshot, snapshotFromObjects } from '../../src/model/snapshot.ts';
import { desiredFrom } from '../support/rule-fixture.ts';
import { makeService, makeSlice } from '../support/objects.ts';
import { Random, seeds } from '../support/random.ts';

test('nothing gives the empty snapshot', () => {
  expect(snapshotFromObjects({ services: [], endpointSlices: [] })).toEqual(EMPTY_SNAPSHOT);
});

describe('a Service that is deleted and made again finds its endpoints', () => {
  const service = makeService('web');
  const slice = makeSlice('web', ['10.244.1.1']);
  const whole = snapshotFromObjects({ services: [service], endpointSlices: [slice] });

  test.each([
    { name: 'Service first', between: { services: [service], endpointSlices: [] } },
    { name: 'endpoints first', between: { services: [], endpointSlices: [slice] } },
  ])('in either order: $name', ({ between }) => {
    snapshotFromObjects(between);
    const again = snapshotFromObjects({ services: [service], endpointSlices: [slice] });
    expect(again).toEqual(whole);
    expect(again.endpoints.get([...again.servicePorts.keys()][0] as never)).toHaveLength(1);
  });
});

test('one bad Service and one bad slice leave the others as they are', () => {
  const good = { services: [makeService('web')], endpointSlices: [makeSlice('web', ['10.244.1.1'])] };
  const both = snapshotFromObjects({
    services: [{}, ...good.services],
    endpointSlices: [{} as V1EndpointSlice, ...good.endpointSlices],
  });
  const alone = snapshotFromObjects(good);
  expect(both.servicePorts).toEqual(alone.servicePorts);
  expect(both.endpoints).toEqual(alone.endpoints);
});

describe('whatever is written into the objects', () => {
  test.each(seeds(8))(
    'nothing throws, and what comes out is in range and canonical (seed %i)',
    { timeout: 30_000 },
    (seed) => {
      const random = new Random(seed);
      for (let round = 0; round < 1500; round += 1) {
        const services = [fullService('web'), fullService('db')];
        const endpointSlices = [fullSlice('web'), fullSlice('db')];
        const target = random.pick([...services, ...endpointSlices]);
        for (let times = random.below(5); times >= 0; times -= 1) mutate(target, random);
        const shown = `seed ${seed}, round ${round}: ${JSON.stringify(target)}`;
        expect({ shown, faults: faultsOfConversion(services, endpointSlices) }).toEqual({
          shown,
          faults: [],
        });
      }
    },
  );
});

function faultsOfConversion(
  services: readonly V1Service[],
  endpointSlices: readonly V1EndpointSlice[],
): readonly string[] {
  try {
    desiredFrom(services, endpointSlices);
    return faultsOf(snapshotFromObjects({ services, endpointSlices }));
  } catch (error) {
    return [String(error)];
  }
}

/** Every field that is read, with a good value. */
function fullService(name: string): V1Service {
  return makeService(name, (service) => {
    const { metadata, spec } = service;
    Object.assign(metadata ?? {}, {
      creationTimestamp: '2026-01-02T03:04:05Z',
      annotations: { [SCHEDULER_ANNOTATION]: 'lc', [PROXY_PROTOCOL_ANNOTATION]: 'v2' },
    });
    service.status = {
      loadBalancer: { ingress: [{ ip: '198.51.100.1', ipMode: 'VIP' }, { ip: '2001:db8::1' }] },
    };
    Object.assign(spec, {
      type: 'LoadBalancer',
      internalTrafficPolicy: 'Local',
      externalTrafficPolicy: 'Local',
      healthCheckNodePort: 30_999,
      loadBalancerSourceRanges: ['198.51.100.0/24', '2001:db8::/32'],
      clusterIPs: ['10.96.0.10', 'fd00:96::a'],
      ipFamilies: ['IPv4', 'IPv6'],
      externalIPs: ['192.0.2.7', '2001:db8::7'],
      sessionAffinity: 'ClientIP',
      sessionAffinityConfig: { clientIP: { timeoutSeconds: 10 } },
      ports: [
        { name: 'http', port: 80, protocol: 'TCP', nodePort: 30_080 },
        { name: 'dns', port: 53, protocol: 'UDP', nodePort: 30_053 },
      ],
    });
  });
}

function fullSlice(service: string): V1EndpointSlice {
  return makeSlice(service, ['10.244.1.1', '10.244.1.2'], (slice) => {
    slice.endpoints = (slice.endpoints ?? []).map(({ addresses }) => ({
      addresses,
      nodeName: 'node-a',
      conditions: { ready: true, serving: true, terminating: false },
      hints: { forZones: [{ name: 'z1' }], forNodes: [{ name: 'node-a' }] },
    }));
  });
}

const TEXTS = [
  '',
  'None',
  'junk',
  '10.96.0.10',
  '010.0.0.1',
  '127.0.0.1',
  '192.168.77.2',
  'FD00:96:0::A',
  '::ffff:10.0.0.1',
  'fe80::1%eth0',
  'TCP',
  'UDP',
  'SCTP',
  'ClientIP',
  'Local',
  'Proxy',
  'v1',
  ' rr ',
  '10.0.0.0/8',
  '0.0.0.0/0',
  '::ffff:10.0.0.0/104',
  'fd00::/129',
  'ExternalName',
  'FQDN',
  'IPv6',
  'a/b',
  '__proto__',
  'constructor',
  '"; -j ACCEPT\n',
  'x'.repeat(300),
  '\u{1f4a5}',
];
const NUMBERS = [
  0,
  1,
  -1,
  80,
  30_080,
  65_535,
  65_536,
  70_000,
  1.5,
  Number.NaN,
  Number.POSITIVE_INFINITY,
  2 ** 53,
];

/** One random change anywhere inside: a field gone, null, or another value of its type; a list cut or doubled. */
function mutate(root: object, random: Random): void {
  let node = root as Record<string, unknown>;
  for (;;) {
    const keys = Object.keys(node);
    if (keys.length === 0) return;
    const key = random.pick(keys);
    const value = node[key];
    if (typeof value === 'object' && value !== null && random.next() < 0.85) {
      node = value as Record<string, unknown>;
      continue;
    }
    if (Array.isArray(node)) {
      if (typeof value === 'object' || random.next() < 0.3) node.splice(Number(key), random.below(2), value);
      else node[Number(key)] = otherValue(value, random);
    } else if (random.next() < 0.25) {
      delete node[key];
    } else {
      node[key] = random.next() < 0.25 ? null : otherValue(value, random);
    }
    return;
  }
}

function otherValue(value: unknown, random: Random): unknown {
  if (typeof value === 'string') return random.pick(TEXTS);
  if (typeof value === 'number') return random.pick(NUMBERS);
  if (typeof value === 'boolean') return !value;
  if (value === null) return null;
  return Array.isArray(value) ? [] : {};
}

function faultsOf({ servicePorts, endpoints }: Snapshot): string[] {
  const faults: string[] = [];
  const isPort = (port: number): boolean => Number.isInteger(port) && port >= 1 && port <= 65_535;
  for (const [key, port] of servicePorts) {
    if (key !== port.key) faults.push(`${key} is filed under another key`);
    if (!isPort(port.port)) faults.push(`${key} has port ${port.port}`);
    if (port.nodePort !== 0 && !isPort(port.nodePort)) faults.push(`${key} has nodePort ${port.nodePort}`);
    if (port.clusterIPs.length === 0) faults.push(`${key} has no clusterIP`);
    if (!/^[a-z0-9/:-]+\/(TCP|UDP)$/.test(key)) faults.push(`${key} is no key`);
    for (const address of [...port.clusterIPs, ...port.externalIPs, ...port.loadBalancerIPs]) {
      if (parseIpAddress(address) !== address) faults.push(`${key} has address ${address}`);
    }
    for (const range of IP_FAMILIES.flatMap((family) => port.loadBalancerSourceRanges[family] ?? [])) {
      if (parseCidr(range.text)?.text !== range.text) faults.push(`${key} has range ${range.text}`);
    }
    if (port.healthCheckNodePort !== 0 && !isPort(port.healthCheckNodePort))
      faults.push(`${key} has health check ${port.healthCheckNodePort}`);
    if (port.scheduler !== undefined && !SCHEDULERS.includes(port.scheduler))
      faults.push(`${key} has scheduler ${port.scheduler}`);
    if (![undefined, 'v1', 'v2'].includes(port.proxyProtocol))
      faults.push(`${key} has PROXY protocol ${String(port.proxyProtocol)}`);
    const { sessionAffinity: affinity } = port;
    if (affinity.kind === 'ClientIP' && !(affinity.timeoutMs >= 1000 && affinity.timeoutMs <= 86_400_000))
      faults.push(`${key} has affinity ${affinity.timeoutMs}`);
    if (!Number.isFinite(port.createdAt)) faults.push(`${key} was created at ${port.createdAt}`);
  }
  for (const [key, list] of endpoints) {
    for (const endpoint of list) {
      if (!isPort(endpoint.port)) faults.push(`${key} has an endpoint with port ${endpoint.port}`);
      if (parseIpAddress(endpoint.address) !== endpoint.address)
        faults.push(`${key} has ${endpoint.address}`);
    }
    if (new Set(list.map((endpoint) => endpoint.key)).size !== list.length) faults.push(`${key} has doubles`);
  }
  return faults;
}
