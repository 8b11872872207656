import type { V1Node } from '@kubernetes/client-node';
import { describe, expect, test } from 'vitest';
import { nodeInfoFromNode } from '../../src/model/node.ts';

function makeNode(tweak: Partial<V1Node> = {}): V1Node {
  return {
    metadata: { name: 'node-a', labels: { 'topology.kubernetes.io/zone': 'z1' } },
    status: {
      addresses: [
        { type: 'InternalIP', address: '192.168.77.2' },
        { type: 'Hostname', address: 'node-a' },
        { type: 'InternalIP', address: 'FD00:0::2' },
        { type: 'ExternalIP', address: '203.0.113.9' },
      ],
    },
    ...tweak,
  };
}

test('a Node has its name, its labels and its internal addresses, in the order of the object', () => {
  expect(nodeInfoFromNode(makeNode())).toEqual({
    name: 'node-a',
    labels: { 'topology.kubernetes.io/zone': 'z1' },
    internalIPs: ['192.168.77.2', 'fd00::2'],
    podCIDRs: [],
    isEligible: true,
  });
});

test('what a Node does not say is empty, and it may take traffic', () => {
  expect(nodeInfoFromNode({ metadata: { name: 'node-a' } })).toEqual({
    name: 'node-a',
    labels: {},
    internalIPs: [],
    podCIDRs: [],
    isEligible: true,
  });
});

test('an internal address that is no IP address is left out, and the others stay', () => {
  const addresses = ['10.0.0.300', 'node-a', '', '10.0.0.1', '010.0.0.2'].map((address) => ({
    type: 'InternalIP',
    address,
  }));
  expect(nodeInfoFromNode(makeNode({ status: { addresses } })).internalIPs).toEqual(['10.0.0.1', '10.0.0.2']);
});

describe('the ranges of its pods', () => {
  test.each<{ name: string; spec: NonNullable<V1Node['spec']>; expected: string[] }>([
    {
      name: 'are those of podCIDRs',
      spec: { podCIDRs: ['10.244.1.0/24', 'fd00:244:1::/64'] },
      expected: ['10.244.1.0/24', 'fd00:244:1::/64'],
    },
    {
      name: 'are canonical',
      spec: { podCIDRs: [' 10.244.1.7/24', 'FD00:244:1::7/64'] },
      expected: ['10.244.1.0/24', 'fd00:244:1::/64'],
    },
    {
      name: 'are the one of podCIDR where there is no list',
      spec: { podCIDR: '10.244.1.0/24' },
      expected: ['10.244.1.0/24'],
    },
    {
      name: 'are those of the list where there is one',
      spec: { podCIDR: '10.9.0.0/24', podCIDRs: ['10.244.1.0/24'] },
      expected: ['10.244.1.0/24'],
    },
    { name: 'are none where there is no range', spec: {}, expected: [] },
    { name: 'are none where the range is empty', spec: { podCIDR: '', podCIDRs: [] }, expected: [] },
    {
      name: 'are without what is no range',
      spec: { podCIDRs: ['10.244.1.0', '', 'fd00:244:1::/64', 'fd00::/129'] },
      expected: ['fd00:244:1::/64'],
    },
  ])('$name', ({ spec, expected }) => {
    const { podCIDRs } = nodeInfoFromNode(makeNode({ spec }));
    expect(podCIDRs.map(({ text }) => text)).toEqual(expected);
  });
});

describe('load balancers may send new connections', () => {
  test.each<{ name: string; tweak: Partial<V1Node> }>([
    { name: 'without taints', tweak: { spec: {} } },
    { name: 'with no taint in the list', tweak: { spec: { taints: [] } } },
    {
      name: 'that is cordoned',
      tweak: { spec: { taints: [{ key: 'node.kubernetes.io/unschedulable', effect: 'NoSchedule' }] } },
    },
    {
      name: 'that the autoscaler may delete, but is not about to',
      tweak: { spec: { taints: [{ key: 'DeletionCandidateOfClusterAutoscaler', effect: 'NoSchedule' }] } },
    },
  ])('to a Node $name', ({ tweak }) => {
    expect(nodeInfoFromNode(makeNode(tweak)).isEligible).toBe(true);
  });

  test.each<{ name: string; tweak: Partial<V1Node> }>([
    {
      name: 'that is being deleted',
      tweak: { metadata: { name: 'node-a', deletionTimestamp: '2026-11-21T06:30:00Z' as unknown as Date } },
    },
    {
      name: 'that the autoscaler is about to remove',
      tweak: { spec: { taints: [{ key: 'ToBeDeletedByClusterAutoscaler', effect: 'NoSchedule' }] } },
    },
    {
      name: 'that the autoscaler is about to remove, whatever the effect and among other taints',
      tweak: {
        spec: {
          taints: [
            { key: 'node.kubernetes.io/unschedulable', effect: 'NoSchedule' },
            { key: 'ToBeDeletedByClusterAutoscaler', effect: 'PreferNoSchedule', value: '1795242600' },
          ],
        },
      },
    },
  ])('but not to a Node $name', ({ tweak }) => {
    expect(nodeInfoFromNode(makeNode(tweak)).isEligible).toBe(false);
  });
});
