/** Which places a Service port claims, who gets them, and what is captured there. */
import { describe, expect, test } from 'vitest';
import type { NodeSettings } from '../../src/desired/node-view.ts';
import { type PortalClaim, claimPortals } from '../../src/desired/portal-claims.ts';
import { CAPTURE_ADDRESSES } from '../../src/host/capture-address.ts';
import type { IpAddress, IpFamily } from '../../src/model/address.ts';
import type { ServicePort } from '../../src/model/service-port.ts';
import {
  NODE_ADDRESSES,
  type NodeTweak,
  cidrs,
  makeNodeInfo,
  makeNodeView,
} from '../support/rule-fixture.ts';
import { type ServicePortTweak, addresses, makeServicePort, makeSnapshot } from '../support/snapshots.ts';

const DUAL_STACK = addresses('10.96.0.10', 'fd00:96::a');

function makeWeb(tweak: ServicePortTweak = {}): ServicePort {
  return makeServicePort({ name: 'web' }, { clusterIPs: DUAL_STACK, ...tweak });
}

/** `loadBalancerIP 192.0.2.7:80`, `nodePort IPv4:30080`, and in brackets who may come if not everybody. */
function claimText(claim: PortalClaim): string {
  const place = claim.address ?? claim.family;
  const sources = claim.kind === 'loadBalancerIP' ? claim.allowedSources : undefined;
  const from = sources === undefined ? '' : ` [${sources.map(({ text }) => text).join(' ')}]`;
  return `${claim.kind} ${place}:${claim.port}${from}`;
}

function claimsOf(servicePort: ServicePort, node: NodeTweak = {}): readonly string[] {
  const { won } = claimPortals(makeSnapshot([servicePort, []]).servicePorts, makeNodeView(node));
  return (won.get(servicePort.key) ?? []).map(claimText);
}

describe('a Service port claims', () => {
  const CLUSTER_IPS = ['clusterIP 10.96.0.10:80', 'clusterIP fd00:96::a:80'];
  const everything: ServicePortTweak = {
    externalIPs: addresses('192.0.2.7', '2001:db8::7'),
    loadBalancerIPs: addresses('198.51.100.7', '2001:db8:1::7'),
    nodePort: 30_080,
  };

  test.each<{
    name: string;
    tweak: ServicePortTweak;
    node?: NodeTweak;
    expected: readonly string[];
  }>([
    {
      name: 'all its addresses and its NodePort, in both families',
      tweak: everything,
      expected: [
        ...CLUSTER_IPS,
        'loadBalancerIP 198.51.100.7:80',
        'loadBalancerIP 2001:db8:1::7:80',
        'externalIP 192.0.2.7:80',
        'externalIP 2001:db8::7:80',
        'nodePort IPv4:30080',
        'nodePort IPv6:30080',
      ],
    },
    {
      name: 'what is of a family that is captured here',
      tweak: everything,
      node: { families: ['IPv6'] },
      expected: [
        'clusterIP fd00:96::a:80',
        'loadBalancerIP 2001:db8:1::7:80',
        'externalIP 2001:db8::7:80',
        'nodePort IPv6:30080',
      ],
    },
    {
      name: 'no externalIP when those are switched off, and everything else',
      tweak: everything,
      node: { settings: { disableExternalIPs: true } },
      expected: [
        ...CLUSTER_IPS,
        'loadBalancerIP 198.51.100.7:80',
        'loadBalancerIP 2001:db8:1::7:80',
        'nodePort IPv4:30080',
        'nodePort IPv6:30080',
      ],
    },
    {
      name: 'its load balancer addresses also when it has no NodePort',
      tweak: { loadBalancerIPs: addresses('198.51.100.7'), nodePort: 0 },
      expected: [...CLUSTER_IPS, 'loadBalancerIP 198.51.100.7:80'],
    },
    {
      name: 'an address that is external and of the load balancer once, as the latter',
      tweak: { externalIPs: addresses('192.0.2.7', '192.0.2.8'), loadBalancerIPs: addresses('192.0.2.7') },
      expected: [...CLUSTER_IPS, 'loadBalancerIP 192.0.2.7:80', 'externalIP 192.0.2.8:80'],
    },
    {
      name: 'an address of the load balancer also when externalIPs are switched off and it is one',
      tweak: { externalIPs: addresses('192.0.2.7'), loadBalancerIPs: addresses('192.0.2.7') },
      node: { settings: { disableExternalIPs: true } },
      expected: [...CLUSTER_IPS, 'loadBalancerIP 192.0.2.7:80'],
    },
    {
      name: 'its clusterIP once when that is an externalIP too',
      tweak: { externalIPs: addresses('10.96.0.10') },
      expected: CLUSTER_IPS,
    },
    {
      name: 'no NodePort in a family in which none is served',
      tweak: { nodePort: 30_080 },
      node: {
        settings: { nodePortAddresses: 'primary' },
        node: makeNodeInfo({ internalIPs: addresses('192.168.77.2') }),
      },
      expected: [...CLUSTER_IPS, 'nodePort IPv4:30080'],
    },
    {
      name: 'a NodePort in its own families only',
      tweak: { clusterIPs: addresses('10.96.0.10'), nodePort: 30_080 },
      expected: ['clusterIP 10.96.0.10:80', 'nodePort IPv4:30080'],
    },
  ])('$name', ({ tweak, node = {}, expected }) => {
    const web = makeWeb(tweak);
    expect(claimsOf(web, node)).toEqual(expected);
    const { problems } = claimPortals(makeSnapshot([web, []]).servicePorts, makeNodeView(node));
    expect(problems).toEqual([]);
  });
});

describe('loadBalancerSourceRanges', () => {
  const LB4 = addresses('198.51.100.7', '198.51.100.8');
  const LB6 = addresses('2001:db8:1::7');
  const NOBODY: Record<IpFamily, undefined> = { IPv4: undefined, IPv6: undefined };
  const ofLoadBalancer = (tweak: ServicePortTweak, node: NodeTweak = {}): readonly string[] =>
    claimsOf(makeWeb({ loadBalancerIPs: [...LB4, ...LB6], ...tweak }), node).filter((text) =>
      text.startsWith('loadBalancerIP'),
    );

  test.each<{
    name: string;
    ranges: ServicePort['loadBalancerSourceRanges'];
    node?: NodeTweak;
    expected: readonly string[];
  }>([
    {
      name: 'that are not there let everybody in',
      ranges: NOBODY,
      expected: ['198.51.100.7:80', '198.51.100.8:80', '2001:db8:1::7:80'],
    },
    {
      name: 'limit the addresses of their family',
      ranges: { ...NOBODY, IPv4: cidrs('203.0.113.0/24', '203.0.114.0/24') },
      expected: [
        '198.51.100.7:80 [203.0.113.0/24 203.0.114.0/24]',
        '198.51.100.8:80 [203.0.113.0/24 203.0.114.0/24]',
        '2001:db8:1::7:80',
      ],
    },
    {
      name: 'that nobody can read let nobody in',
      ranges: { IPv4: [], IPv6: [] },
      expected: ['198.51.100.7:80 []', '198.51.100.8:80 []', '2001:db8:1::7:80 []'],
    },
    {
      name: 'that hold an address of this node let its load balancer addresses in, as they may be its own',
      ranges: { IPv4: cidrs('192.168.0.0/16'), IPv6: cidrs('fd00:77::/64') },
      expected: [
        '198.51.100.7:80 [192.168.0.0/16 198.51.100.7/32 198.51.100.8/32]',
        '198.51.100.8:80 [192.168.0.0/16 198.51.100.7/32 198.51.100.8/32]',
        '2001:db8:1::7:80 [fd00:77::/64 2001:db8:1::7/128]',
      ],
    },
    {
      name: 'that hold an address of this node in one family do so in that one only',
      ranges: { IPv4: cidrs('203.0.113.0/24'), IPv6: cidrs('fd00:77::/64') },
      expected: [
        '198.51.100.7:80 [203.0.113.0/24]',
        '198.51.100.8:80 [203.0.113.0/24]',
        '2001:db8:1::7:80 [fd00:77::/64 2001:db8:1::7/128]',
      ],
    },
    {
      name: 'go by the addresses of the Node where those are known',
      ranges: { ...NOBODY, IPv4: cidrs('192.168.77.0/24') },
      node: { node: makeNodeInfo({ internalIPs: addresses('203.0.113.200') }) },
      expected: [
        '198.51.100.7:80 [192.168.77.0/24]',
        '198.51.100.8:80 [192.168.77.0/24]',
        '2001:db8:1::7:80',
      ],
    },
    {
      name: 'that hold loopback hold no address of this node',
      ranges: { ...NOBODY, IPv4: cidrs('127.0.0.0/8') },
      expected: ['198.51.100.7:80 [127.0.0.0/8]', '198.51.100.8:80 [127.0.0.0/8]', '2001:db8:1::7:80'],
    },
  ])('$name', ({ ranges, node = {}, expected }) => {
    const texts = ofLoadBalancer({ loadBalancerSourceRanges: ranges }, node);
    expect(texts).toEqual(expected.map((text) => `loadBalancerIP ${text}`));
  });

  test('hold for an address that is external too, and for no other kind of portal', () => {
    const web = makeWeb({
      clusterIPs: addresses('10.96.0.10'),
      externalIPs: addresses('198.51.100.7', '192.0.2.7'),
      loadBalancerIPs: addresses('198.51.100.7'),
      loadBalancerSourceRanges: { ...NOBODY, IPv4: cidrs('203.0.113.0/24') },
      nodePort: 30_080,
    });
    expect(claimsOf(web)).toEqual([
      'clusterIP 10.96.0.10:80',
      'loadBalancerIP 198.51.100.7:80 [203.0.113.0/24]',
      'externalIP 192.0.2.7:80',
      'nodePort IPv4:30080',
    ]);
  });
});

describe('a place that two claim', () => {
  const old = makeWeb({ clusterIPs: addresses('10.96.0.10'), loadBalancerIPs: addresses('192.0.2.7') });

  test.each<{ name: string; tweak: ServicePortTweak; lost: string | undefined }>([
    {
      name: 'as load balancer address and as externalIP goes to the older one',
      tweak: { externalIPs: addresses('192.0.2.7') },
      lost: 'externalIP 192.0.2.7:80/TCP (IPv4)',
    },
    {
      name: 'as load balancer address of both goes to the older one',
      tweak: { loadBalancerIPs: addresses('192.0.2.7') },
      lost: 'loadBalancerIP 192.0.2.7:80/TCP (IPv4)',
    },
    {
      name: 'at different ports is two places: load balancers share addresses',
      tweak: { loadBalancerIPs: addresses('192.0.2.7'), port: 81 },
      lost: undefined,
    },
  ])('$name', ({ tweak, lost }) => {
    const recent = makeServicePort(
      { name: 'new' },
      { clusterIPs: addresses('10.96.0.11'), createdAt: 1, ...tweak },
    );
    const { problems } = claimPortals(makeSnapshot([recent, []], [old, []]).servicePorts, makeNodeView());
    expect(problems.map(({ message }) => message)).toEqual(
      lost === undefined ? [] : [`${lost} is kept by the older default/web`],
    );
  });

  test('because externalIPs are switched off nobody else loses it', () => {
    const squatter = makeServicePort(
      { name: 'a' },
      { clusterIPs: addresses('10.96.0.11'), externalIPs: addresses('10.96.0.10') },
    );
    const { problems, won } = claimPortals(
      makeSnapshot([squatter, []], [old, []]).servicePorts,
      makeNodeView({ settings: { disableExternalIPs: true } }),
    );
    expect(problems).toEqual([]);
    expect(won.get(old.key)).toHaveLength(2);
  });
});

describe('what is captured at an address and port', () => {
  const ALL = {
    externalIPs: addresses('192.0.2.7'),
    loadBalancerIPs: addresses('198.51.100.7'),
    nodePort: 30_080,
  };
  const NAME = 'default/web';

  test.each<{
    name: string;
    place: readonly [address: string, port: number];
    settings?: Partial<NodeSettings>;
    addresses?: readonly string[];
    owner: string | undefined;
  }>([
    { name: 'a clusterIP', place: ['10.96.0.10', 80], owner: NAME },
    { name: 'a clusterIP at another port', place: ['10.96.0.10', 81], owner: undefined },
    { name: 'a load balancer address', place: ['198.51.100.7', 80], owner: NAME },
    { name: 'an externalIP', place: ['192.0.2.7', 80], owner: NAME },
    {
      name: 'an externalIP when those are switched off',
      place: ['192.0.2.7', 80],
      settings: { disableExternalIPs: true },
      owner: undefined,
    },
    { name: 'a NodePort at an address of this node', place: ['192.168.77.2', 30_080], owner: NAME },
    { name: 'a NodePort at an address of another', place: ['192.168.77.3', 30_080], owner: undefined },
    { name: 'a NodePort in IPv6', place: ['fd00:77::2', 30_080], owner: NAME },
    {
      name: 'a NodePort at an address outside the ranges',
      place: ['192.168.77.2', 30_080],
      settings: { nodePortAddresses: cidrs('10.0.0.0/8') },
      owner: undefined,
    },
    {
      name: 'a NodePort at an address in the ranges',
      place: ['192.168.77.2', 30_080],
      settings: { nodePortAddresses: cidrs('192.168.0.0/16') },
      owner: NAME,
    },
    {
      name: 'a NodePort at the primary address when it is not known',
      place: ['192.168.77.2', 30_080],
      settings: { nodePortAddresses: 'primary' },
      owner: undefined,
    },
    {
      // Nobody is told of it, but the kernel calls it local too: our own dial would come back to us.
      name: 'a NodePort at the address that this proxy has put on the node itself',
      place: [CAPTURE_ADDRESSES.IPv6, 30_080],
      addresses: [...NODE_ADDRESSES, ...Object.values(CAPTURE_ADDRESSES)],
      owner: NAME,
    },
  ])('$name', ({ place: [address, port], settings = {}, addresses: local = NODE_ADDRESSES, owner }) => {
    const node = makeNodeView({ settings, addresses: local });
    const claims = claimPortals(makeSnapshot([makeWeb(ALL), []]).servicePorts, node);
    expect(claims.ownerOf(address as IpAddress, port, 'TCP')).toBe(owner);
    expect(claims.ownerOf(address as IpAddress, port, 'UDP')).toBeUndefined();
  });
});
