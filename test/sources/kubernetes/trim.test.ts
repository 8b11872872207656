/** What is kept of an object is all that the model reads, and little else. */
import { isDeepStrictEqual } from 'node:util';
import { describe, expect, test } from 'vitest';
import { endpointsFromSlices, serviceOfSlice, triggerTimeOfSlice } from '../../../src/model/endpoint.ts';
import { nodeInfoFromNode } from '../../../src/model/node.ts';
import { servicePortsFromService } from '../../../src/model/service-port.ts';
import type { Check } from '../../../src/sources/objects/field-reader.ts';
import {
  endpointSliceResource,
  nodeResource,
  serviceResource,
} from '../../../src/sources/kubernetes/resource.ts';
import { trimEndpointSlice, trimNode, trimService } from '../../../src/sources/kubernetes/trim.ts';
import { Random, seeds } from '../../support/random.ts';
import {
  brokenCopy,
  copiesWithOneChange,
  richNode,
  richService,
  richSlice,
} from '../../support/rich-objects.ts';

interface Checked {
  readonly check: Check;
}

/** Of copies that are broken somewhere, those that pass the checks all the same. */
function soundOnes<T extends object>(_like: T, copies: readonly unknown[], { check }: Checked): T[] {
  return copies.filter((copy): copy is T => {
    let isSound = true;
    check(copy, '', () => {
      isSound = false;
    });
    return isSound;
  });
}

function soundCopies<T extends object>(make: () => T, random: Random, resource: Checked): T[] {
  const copies = Array.from({ length: 20 }, () => brokenCopy(make(), random));
  return soundOnes(make(), copies, resource);
}

/** Something else, of whatever type and meaning a field may have. */
const OTHERS: readonly unknown[] = [
  '',
  'other',
  'None',
  'Local',
  'Cluster',
  'VIP',
  'rr',
  'v1',
  '192.0.2.99',
  '2001:db8::99',
  '192.0.2.0/25',
  'InternalIP',
  'ToBeDeletedByClusterAutoscaler',
  0,
  17,
  true,
  false,
  [],
  {},
];

interface Compared {
  /** How many copies passed the checks. */
  readonly sound: number;
  /** How many of them the model reads in another way than the object as it was. */
  readonly readInAnotherWay: number;
  /** Those that the model reads in another way once they are trimmed. */
  readonly lost: readonly unknown[];
}

/** Every copy of the object with one change: does the model see after trimming what it saw before? */
function compareAll<T extends object>(
  object: T,
  { trim, read, resource }: { trim: (object: T) => T; read: (object: T) => unknown; resource: Checked },
): Compared {
  const copies = soundOnes(object, [...copiesWithOneChange(object, OTHERS)], resource);
  return {
    sound: copies.length,
    readInAnotherWay: copies.filter((copy) => !isDeepStrictEqual(read(copy), read(object))).length,
    lost: copies.filter((copy) => !isDeepStrictEqual(read(trim(copy)), read(copy))),
  };
}

describe('the model reads the same before and after', () => {
  test('in a Service', () => {
    const before = servicePortsFromService(richService());
    expect(before.value).toHaveLength(2);
    // What is at its default would be the same when it is lost.
    expect(before.value[0]).toMatchObject({
      loadBalancerIPs: ['198.51.100.1', '2001:db8::1'],
      loadBalancerSourceRanges: { IPv4: [{ text: '198.51.100.0/24' }], IPv6: [{ text: '2001:db8::/32' }] },
      internalTrafficPolicy: 'Local',
      externalTrafficPolicy: 'Local',
      healthCheckNodePort: 30_999,
      scheduler: 'lc',
      proxyProtocol: 'v2',
    });
    expect(before.problems).toHaveLength(2);
    expect(servicePortsFromService(trimService(richService()))).toEqual(before);
  });

  test('in a slice', () => {
    const [before, after] = [richSlice(), trimEndpointSlice(richSlice())];
    const endpoints = endpointsFromSlices([before]);
    expect([...endpoints.value.values()].flat()).toHaveLength(6);
    expect(endpoints.problems).not.toEqual([]);
    expect([...endpoints.value.values()].flat()).toContainEqual(
      expect.objectContaining({ nodeName: 'n1', zoneHints: ['z1', 'z2'], nodeHints: ['n1'] }),
    );
    expect(endpointsFromSlices([after])).toEqual(endpoints);
    expect(serviceOfSlice(after)).toBe('default/web');
    expect(triggerTimeOfSlice(after)).toBe(Date.UTC(2026, 10, 21, 8, 0, 0, 500));
  });

  test('in a Node', () => {
    const before = nodeInfoFromNode(richNode());
    expect(before).toMatchObject({
      name: 'n1',
      internalIPs: ['192.0.2.1', '2001:db8::1'],
      podCIDRs: [{ text: '10.0.0.0/24' }, { text: 'fd00:0:0:1::/64' }],
      isEligible: false,
    });
    expect(nodeInfoFromNode(trimNode(richNode()))).toEqual(before);
    const deleted = richNode();
    Object.assign(deleted, { spec: {} });
    Object.assign(deleted.metadata ?? {}, { deletionTimestamp: '2026-11-21T09:00:00Z' });
    expect(nodeInfoFromNode(trimNode(deleted))).toEqual(nodeInfoFromNode(deleted));
    expect(nodeInfoFromNode(trimNode(deleted)).isEligible).toBe(false);
  });

  test('in objects that have next to nothing', () => {
    const service = { metadata: { name: 'web', namespace: 'default' } };
    expect(servicePortsFromService(trimService(service))).toEqual(servicePortsFromService(service));
    const slice = { metadata: { name: 'web-1', namespace: 'default' }, addressType: 'IPv4', endpoints: [] };
    expect(endpointsFromSlices([trimEndpointSlice(slice)])).toEqual(endpointsFromSlices([slice]));
    const node = { metadata: { name: 'n1' } };
    expect(nodeInfoFromNode(trimNode(node))).toEqual(nodeInfoFromNode(node));
  });

  test('in a Service of which one field, whichever, is another or missing', () => {
    const compared = compareAll(richService(), {
      trim: trimService,
      read: servicePortsFromService,
      resource: serviceResource(''),
    });
    expect(compared.lost).toEqual([]);
    expect(compared.sound).toBeGreaterThan(500);
    expect(compared.readInAnotherWay).toBeGreaterThan(200);
  });

  test('in a slice of which one field, whichever, is another or missing', () => {
    const compared = compareAll(richSlice(), {
      trim: trimEndpointSlice,
      read: (slice) => [endpointsFromSlices([slice]), serviceOfSlice(slice), triggerTimeOfSlice(slice)],
      resource: endpointSliceResource(''),
    });
    expect(compared.lost).toEqual([]);
    expect(compared.sound).toBeGreaterThan(300);
    expect(compared.readInAnotherWay).toBeGreaterThan(100);
  });

  test('in a Node of which one field, whichever, is another or missing', () => {
    const compared = compareAll(richNode(), {
      trim: trimNode,
      read: nodeInfoFromNode,
      resource: nodeResource('n1'),
    });
    expect(compared.lost).toEqual([]);
    expect(compared.sound).toBeGreaterThan(300);
    expect(compared.readInAnotherWay).toBeGreaterThan(50);
  });

  test.for(seeds(60))('in objects that make little sense but pass the checks (seed %i)', (seed) => {
    const random = new Random(seed);
    const services = soundCopies(richService, random, serviceResource(''));
    const slices = soundCopies(richSlice, random, endpointSliceResource(''));
    const nodes = soundCopies(richNode, random, nodeResource('n1'));
    expect(services.map(trimService).map(servicePortsFromService)).toEqual(
      services.map(servicePortsFromService),
    );
    expect(endpointsFromSlices(slices.map(trimEndpointSlice))).toEqual(endpointsFromSlices(slices));
    expect(nodes.map(trimNode).map(nodeInfoFromNode)).toEqual(nodes.map(nodeInfoFromNode));
  });
});

describe('the rest is dropped', () => {
  test.for([
    { kind: 'a Service', before: richService(), after: trimService(richService()) },
    { kind: 'a slice', before: richSlice(), after: trimEndpointSlice(richSlice()) },
    { kind: 'a Node', before: richNode(), after: trimNode(richNode()) },
  ])('of $kind: managedFields, and annotations that are not ours', ({ before, after }) => {
    const text = JSON.stringify(after);
    expect(JSON.stringify(before).length).toBeGreaterThan(10_000);
    expect(text.length).toBeLessThan(1500);
    expect(text).not.toMatch(/managedFields|last-applied-configuration|resourceVersion|ownerReferences|uid/);
  });

  test('but annotations that are for us stay', () => {
    expect(trimService(richService()).metadata?.annotations).toEqual({
      'userspace-proxy.io/note': 'kept',
      'userspace-proxy.io/scheduler': 'lc',
      'userspace-proxy.io/proxy-protocol': 'v2',
    });
    expect(trimEndpointSlice(richSlice()).metadata?.annotations).toEqual({
      'endpoints.kubernetes.io/last-change-trigger-time': '2026-11-21T08:00:00.5Z',
    });
  });

  test('of a load balancer all but its addresses', () => {
    expect(trimService(richService()).status?.loadBalancer?.ingress).toEqual([
      { ip: '198.51.100.1', ipMode: 'VIP' },
      { ip: '2001:db8::1' },
      { ip: '198.51.100.2', ipMode: 'Proxy' },
      {},
    ]);
  });

  test('of a slice all labels but the name of its Service', () => {
    expect(trimEndpointSlice(richSlice()).metadata?.labels).toEqual({ 'kubernetes.io/service-name': 'web' });
  });

  test.for([
    { what: 'a label', tweak: { labels: { new: 'x' } } },
    { what: 'the version', tweak: { resourceVersion: '999' } },
    {
      what: 'an annotation of somebody else',
      tweak: { annotations: { ...richService().metadata?.annotations, a: 'b' } },
    },
  ])('so that a Service of which only $what changed is as it was', ({ tweak }) => {
    const changed = richService();
    Object.assign(changed.metadata ?? {}, tweak);
    expect(changed).not.toEqual(richService());
    expect(trimService(changed)).toEqual(trimService(richService()));
  });

  test('and nothing of it is done to the object that is given', () => {
    const [service, slice, node] = [richService(), richSlice(), richNode()];
    trimService(service);
    trimEndpointSlice(slice);
    trimNode(node);
    expect([service, slice, node]).toEqual([richService(), richSlice(), richNode()]);
  });
});
