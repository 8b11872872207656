/** Who must know where clients connected to gets a listener for each portal: the PROXY protocol, and the scheduler dh. */
import { describe, expect, test } from 'vitest';
import type { DesiredState } from '../../src/desired/desired-state.ts';
import type { NodeSettings } from '../../src/desired/node-view.ts';
import type { Protocol } from '../../src/model/service-port-name.ts';
import { cidrs } from '../support/rule-fixture.ts';
import { type ServicePortTweak, addresses, makeServicePort } from '../support/snapshots.ts';
import {
  EVERY_PORTAL,
  HERE_AND_ELSEWHERE,
  ONLY_CLUSTER_IPS,
  ONLY_ELSEWHERE,
  desiredOf,
  makeWeb,
  targetText,
  targetsOf,
} from './policy-fixture.ts';

/** By what of their keys comes after the Service port, where the clients of listeners connected to. */
function destinationsOf({ listeners }: DesiredState): Record<string, string> {
  return Object.fromEntries(
    [...listeners.values()].map(({ key, destination }) => [
      key.split('/').slice(3).join('/'),
      destination === undefined ? 'any' : `${destination.address} ${destination.port}`,
    ]),
  );
}

/** The places of the NodePorts with their targets. */
function nodePortTargets({ capture }: DesiredState): Record<string, string> {
  return Object.fromEntries(
    capture.portals
      .filter(({ kind }) => kind === 'nodePort')
      .map((portal) => [`${portal.address ?? portal.family} ${portal.port}`, targetText(portal)]),
  );
}

describe('a Service port with the PROXY protocol', () => {
  const web = makeWeb({ proxyProtocol: 'v2' });

  test('has a listener for each address, and of a NodePort for each local address', () => {
    expect(destinationsOf(desiredOf(web, HERE_AND_ELSEWHERE))).toEqual({
      'IPv4/cluster/10.96.0.10:80': '10.96.0.10 80',
      'IPv4/cluster/198.51.100.7:80': '198.51.100.7 80',
      'IPv4/cluster/192.0.2.7:80': '192.0.2.7 80',
      'IPv4/cluster/127.0.0.1:30080': '127.0.0.1 30080',
      'IPv4/cluster/192.168.77.2:30080': '192.168.77.2 30080',
      'IPv6/cluster/[fd00:96::a]:80': 'fd00:96::a 80',
      'IPv6/cluster/[2001:db8:1::7]:80': '2001:db8:1::7 80',
      'IPv6/cluster/[2001:db8::7]:80': '2001:db8::7 80',
      'IPv6/cluster/[::1]:30080': '::1 30080',
      'IPv6/cluster/[fd00:77::2]:30080': 'fd00:77::2 30080',
    });
  });

  test('has a portal for each of them, which leads to its own listener', () => {
    const desired = desiredOf(web, HERE_AND_ELSEWHERE);
    expect(nodePortTargets(desired)).toEqual({
      '127.0.0.1 30080': 'cluster/127.0.0.1:30080',
      '192.168.77.2 30080': 'cluster/192.168.77.2:30080',
      '::1 30080': 'cluster/[::1]:30080',
      'fd00:77::2 30080': 'cluster/[fd00:77::2]:30080',
    });
    expect(targetsOf(desired)).toMatchObject({
      'IPv4 clusterIP': 'cluster/10.96.0.10:80',
      'IPv6 externalIP': 'cluster/[2001:db8::7]:80',
    });
  });

  test('has one pool for each policy and family, whatever the portal', () => {
    const desired = desiredOf(
      makeWeb({ proxyProtocol: 'v1', externalTrafficPolicy: 'Local' }),
      HERE_AND_ELSEWHERE,
    );
    const listeners = [...desired.listeners.values()];
    expect([...new Set(listeners.map(({ pool }) => pool))]).toEqual([
      'default/web/TCP/IPv4/cluster',
      'default/web/TCP/IPv4/local',
      'default/web/TCP/IPv6/cluster',
      'default/web/TCP/IPv6/local',
    ]);
    for (const { pool, endpoints } of listeners) {
      expect(endpoints).toHaveLength(pool.endsWith('local') ? 1 : 2);
    }
  });

  test('has two listeners for each external portal under policy Local, of the same destination', () => {
    const local = makeWeb({ proxyProtocol: 'v2', externalTrafficPolicy: 'Local' });
    const desired = desiredOf(local, HERE_AND_ELSEWHERE);
    expect(targetsOf(desired)).toMatchObject({
      'IPv4 clusterIP': 'cluster/10.96.0.10:80',
      'IPv4 externalIP': 'inside cluster/192.0.2.7:80, outside local/192.0.2.7:80',
    });
    expect(nodePortTargets(desired)['192.168.77.2 30080']).toBe(
      'inside cluster/192.168.77.2:30080, outside local/192.168.77.2:30080',
    );
    expect(destinationsOf(desired)).toMatchObject({
      'IPv4/cluster/192.0.2.7:80': '192.0.2.7 80',
      'IPv4/local/192.0.2.7:80': '192.0.2.7 80',
    });
  });

  test('rejects and drops as any other', () => {
    const local = makeWeb({ proxyProtocol: 'v2', internalTrafficPolicy: 'Local' });
    expect(targetsOf(desiredOf(local, []))).toMatchObject({
      'IPv4 clusterIP': 'reject',
      'IPv4 nodePort': 'reject',
    });
    expect(targetsOf(desiredOf(local, ONLY_ELSEWHERE))).toMatchObject({ 'IPv4 clusterIP': 'drop' });
  });

  test.each<{ name: string; settings: Partial<NodeSettings>; served: readonly string[] }>([
    {
      name: 'in the ranges for NodePorts',
      settings: { nodePortAddresses: cidrs('192.168.0.0/16', 'fd00:77::/64') },
      served: ['192.168.77.2 30080', 'fd00:77::2 30080'],
    },
    {
      name: 'that are not loopback where that serves none',
      settings: { localhostNodePorts: false },
      served: ['192.168.77.2 30080', 'fd00:77::2 30080'],
    },
    {
      name: 'of which there are none in the ranges',
      settings: { nodePortAddresses: cidrs('10.0.0.0/8', 'fd00:78::/64') },
      served: [],
    },
  ])('has a NodePort on the local addresses $name', ({ settings, served }) => {
    expect(Object.keys(nodePortTargets(desiredOf(web, HERE_AND_ELSEWHERE, { settings })))).toEqual(served);
  });

  test('follows the addresses of the node', () => {
    const node = { addresses: ['127.0.0.1', '192.168.78.2', '10.9.0.1'] };
    expect(Object.keys(nodePortTargets(desiredOf(web, HERE_AND_ELSEWHERE, node)))).toEqual([
      '10.9.0.1 30080',
      '127.0.0.1 30080',
      '192.168.78.2 30080',
    ]);
  });
});

describe('listeners are shared', () => {
  const SHARED = { 'IPv4/cluster': 'any', 'IPv6/cluster': 'any' };

  test.each<{ name: string; protocol?: Protocol; tweak: ServicePortTweak }>([
    { name: 'without the PROXY protocol', tweak: {} },
    { name: 'by UDP, which has no PROXY protocol', protocol: 'UDP', tweak: { proxyProtocol: 'v2' } },
    { name: 'with a scheduler that does not ask for the destination', tweak: { scheduler: 'sh' } },
  ])('$name', ({ protocol = 'TCP', tweak }) => {
    const servicePort = makeServicePort({ name: 'web', protocol }, { ...EVERY_PORTAL, ...tweak });
    const desired = desiredOf(servicePort, HERE_AND_ELSEWHERE);
    expect(destinationsOf(desired)).toEqual(SHARED);
    expect(nodePortTargets(desired)).toEqual({ 'IPv4 30080': 'cluster', 'IPv6 30080': 'cluster' });
  });

  test('with a scheduler of their own that does not ask, whatever the others have', () => {
    const desired = desiredOf(makeWeb({ scheduler: 'rr' }), HERE_AND_ELSEWHERE, {
      settings: { scheduler: 'dh' },
    });
    expect(destinationsOf(desired)).toEqual(SHARED);
  });
});

describe('the scheduler dh, which chooses by the destination, asks for a listener for each portal', () => {
  const EACH = {
    'IPv4/cluster/10.96.0.10:80': '10.96.0.10 80',
    'IPv6/cluster/[fd00:96::a]:80': 'fd00:96::a 80',
  };

  test.each<{ name: string; protocol: Protocol; tweak: ServicePortTweak; settings: Partial<NodeSettings> }>([
    { name: 'of the Service, for TCP', protocol: 'TCP', tweak: { scheduler: 'dh' }, settings: {} },
    { name: 'of the Service, for UDP', protocol: 'UDP', tweak: { scheduler: 'dh' }, settings: {} },
    {
      name: 'of all Services that have none of their own',
      protocol: 'UDP',
      tweak: {},
      settings: { scheduler: 'dh' },
    },
  ])('$name', ({ protocol, tweak, settings }) => {
    const servicePort = makeServicePort(
      { name: 'web', protocol },
      { clusterIPs: addresses('10.96.0.10', 'fd00:96::a'), ...ONLY_CLUSTER_IPS, ...tweak },
    );
    expect(destinationsOf(desiredOf(servicePort, HERE_AND_ELSEWHERE, { settings }))).toEqual(EACH);
  });
});
