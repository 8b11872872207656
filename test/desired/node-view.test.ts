/** What the node brings: its zone and addresses, where NodePorts are served, and who is a pod. */
import { describe, expect, test } from 'vitest';
import { type NodeSettings, type NodeView, servesNodePorts } from '../../src/desired/node-view.ts';
import { CAPTURE_ADDRESSES } from '../../src/host/capture-address.ts';
import type { IpFamily } from '../../src/model/address.ts';
import type { Cidr } from '../../src/model/cidr.ts';
import type { LocalDetection } from '../../src/model/local-detection.ts';
import type { NodeInfo } from '../../src/model/node.ts';
import { NODE_ADDRESSES, cidrs, makeNodeInfo, makeNodeView } from '../support/rule-fixture.ts';
import { addresses } from '../support/snapshots.ts';

function rangeTexts({ nodePortRanges }: NodeView): Record<IpFamily, string[]> {
  const texts = (ranges: readonly Cidr[]): string[] => ranges.map(({ text }) => text);
  return { IPv4: texts(nodePortRanges.IPv4), IPv6: texts(nodePortRanges.IPv6) };
}

describe('the zone', () => {
  test('is that of the Node’s label, and not known without label or Node', () => {
    expect(makeNodeView({ node: makeNodeInfo() }).zone).toBe('zone-a');
    expect(makeNodeView({ node: makeNodeInfo({ labels: { zone: 'zone-b' } }) }).zone).toBe('');
    expect(makeNodeView().zone).toBe('');
  });
});

describe('the addresses', () => {
  test('are those of the interfaces in canonical form', () => {
    const view = makeNodeView({ addresses: ['192.168.77.2', 'FD00:0::2', 'no address'] });
    expect([...view.addresses]).toEqual(['192.168.77.2', 'fd00::2']);
  });

  test('are not those that this proxy has put there itself', () => {
    const view = makeNodeView({ addresses: [...NODE_ADDRESSES, ...Object.values(CAPTURE_ADDRESSES)] });
    expect([...view.addresses]).toEqual(NODE_ADDRESSES);
    expect(view.nodeIPs).toEqual(['192.168.77.2', 'fd00:77::2']);
  });
});

describe('the node IPs', () => {
  test.each<{ name: string; node?: NodeInfo; expected: readonly string[] }>([
    {
      name: 'are the internal addresses of the Node',
      node: makeNodeInfo({ internalIPs: addresses('203.0.113.7') }),
      expected: ['203.0.113.7'],
    },
    {
      name: 'are those of the interfaces, without loopback, while the Node is not known',
      expected: ['192.168.77.2', 'fd00:77::2'],
    },
    {
      name: 'are those of the interfaces when the Node has none',
      node: makeNodeInfo({ internalIPs: [] }),
      expected: ['192.168.77.2', 'fd00:77::2'],
    },
  ])('$name', ({ node, expected }) => {
    expect(makeNodeView(node === undefined ? {} : { node }).nodeIPs).toEqual(expected);
  });
});

describe('NodePorts are served', () => {
  test.each<{
    name: string;
    nodePortAddresses: NodeSettings['nodePortAddresses'];
    node?: NodeInfo;
    IPv4: readonly string[];
    IPv6: readonly string[];
  }>([
    {
      name: 'on every local address unless told',
      nodePortAddresses: [],
      IPv4: ['0.0.0.0/0'],
      IPv6: ['::/0'],
    },
    {
      name: 'in the ranges of their family',
      nodePortAddresses: cidrs('192.168.0.0/16', '10.0.0.0/8', 'fd00:77::/64'),
      IPv4: ['192.168.0.0/16', '10.0.0.0/8'],
      IPv6: ['fd00:77::/64'],
    },
    {
      name: 'everywhere in a family that has no range of its own',
      nodePortAddresses: cidrs('192.168.0.0/16'),
      IPv4: ['192.168.0.0/16'],
      IPv6: ['::/0'],
    },
    {
      name: 'on the first internal address of each family when told "primary"',
      nodePortAddresses: 'primary',
      node: makeNodeInfo({
        internalIPs: addresses('192.168.77.2', '192.168.78.2', 'fd00:77::2', 'fd00:78::2'),
      }),
      IPv4: ['192.168.77.2/32'],
      IPv6: ['fd00:77::2/128'],
    },
    {
      name: 'nowhere in a family in which "primary" means no address',
      nodePortAddresses: 'primary',
      node: makeNodeInfo({ internalIPs: addresses('192.168.77.2') }),
      IPv4: ['192.168.77.2/32'],
      IPv6: [],
    },
    {
      name: 'nowhere while the Node is not known that "primary" asks for',
      nodePortAddresses: 'primary',
      IPv4: [],
      IPv6: [],
    },
  ])('$name', ({ nodePortAddresses, node, IPv4, IPv6 }) => {
    const view = makeNodeView({ settings: { nodePortAddresses }, ...(node === undefined ? {} : { node }) });
    expect(rangeTexts(view)).toEqual({ IPv4, IPv6 });
  });

  test.each<{ name: string; settings: Partial<NodeSettings>; served: readonly string[] }>([
    { name: 'all of them', settings: {}, served: NODE_ADDRESSES },
    {
      name: 'none of loopback when that is switched off',
      settings: { localhostNodePorts: false },
      served: ['192.168.77.2', 'fd00:77::2'],
    },
    {
      name: 'none of loopback when that is switched off, also when a range names it',
      settings: { localhostNodePorts: false, nodePortAddresses: cidrs('127.0.0.0/8', '::1/128') },
      served: [],
    },
    {
      name: 'loopback alone when that is the range',
      settings: { nodePortAddresses: cidrs('127.0.0.0/8', '::1/128') },
      served: ['127.0.0.1', '::1'],
    },
    {
      name: 'none outside the ranges',
      settings: { nodePortAddresses: cidrs('10.0.0.0/8', 'fd00:78::/64') },
      served: [],
    },
  ])('so of the addresses of a node: $name', ({ settings, served }) => {
    const view = makeNodeView({ settings });
    expect([...view.addresses].filter((address) => servesNodePorts(view, address))).toEqual(served);
  });
});

describe('pods are told', () => {
  const sourcesOf = (localDetection: LocalDetection, node?: NodeInfo): Record<IpFamily, string[]> => {
    const { podSources } = makeNodeView({
      settings: { localDetection },
      ...(node === undefined ? {} : { node }),
    });
    const texts = (family: IpFamily): string[] =>
      podSources[family].map((source) => (source.kind === 'cidr' ? source.cidr.text : source.name));
    return { IPv4: texts('IPv4'), IPv6: texts('IPv6') };
  };

  test.each<{
    name: string;
    detection: LocalDetection;
    node?: NodeInfo;
    IPv4: readonly string[];
    IPv6: readonly string[];
  }>([
    { name: 'not at all', detection: { kind: 'none' }, node: makeNodeInfo(), IPv4: [], IPv6: [] },
    {
      name: 'by the ranges of the cluster',
      detection: { kind: 'cidrs', cidrs: cidrs('10.244.0.0/16', 'fd00:244::/48') },
      IPv4: ['10.244.0.0/16'],
      IPv6: ['fd00:244::/48'],
    },
    {
      name: 'in one family when the cluster has a range of that one only',
      detection: { kind: 'cidrs', cidrs: cidrs('fd00:244::/48') },
      IPv4: [],
      IPv6: ['fd00:244::/48'],
    },
    {
      name: 'by the ranges of the Node',
      detection: { kind: 'nodeCIDR' },
      node: makeNodeInfo(),
      IPv4: ['10.244.1.0/24'],
      IPv6: ['fd00:244:1::/64'],
    },
    {
      name: 'not yet while the Node that has the ranges is not known',
      detection: { kind: 'nodeCIDR' },
      IPv4: [],
      IPv6: [],
    },
    {
      name: 'by their interface in both families',
      detection: { kind: 'interface', name: 'cali+' },
      IPv4: ['cali+'],
      IPv6: ['cali+'],
    },
  ])('$name', ({ detection, node, IPv4, IPv6 }) => {
    expect(sourcesOf(detection, node)).toEqual({ IPv4, IPv6 });
  });
});
