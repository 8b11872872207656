/** Slices of API servers before 1.21, in the words of today. */
import { describe, expect, test } from 'vitest';
import { endpointsFromSlices } from '../../../src/model/endpoint.ts';
import { endpointSliceFromV1beta1 } from '../../../src/sources/kubernetes/endpoint-slice-v1beta1.ts';
import { decodeObject, endpointSliceResource, objectKey } from '../../../src/sources/kubernetes/resource.ts';
import { Random, seeds } from '../../support/random.ts';

function slice(...endpoints: readonly unknown[]): object {
  return {
    apiVersion: 'discovery.k8s.io/v1beta1',
    metadata: {
      namespace: 'default',
      name: 'web-1',
      labels: { 'kubernetes.io/service-name': 'web' },
      resourceVersion: '7',
    },
    addressType: 'IPv4',
    ports: [{ name: 'http', port: 8080, protocol: 'TCP' }],
    endpoints,
  };
}

const endpointsOf = (adapted: unknown): unknown => (adapted as { endpoints: unknown }).endpoints;

describe('an endpoint of v1beta1', () => {
  test.for([
    {
      name: 'has its node and its zone from its topology',
      before: {
        addresses: ['10.0.0.1'],
        topology: {
          'kubernetes.io/hostname': 'n1',
          'topology.kubernetes.io/zone': 'z1',
          'topology.kubernetes.io/region': 'r',
        },
      },
      after: { addresses: ['10.0.0.1'], nodeName: 'n1', zone: 'z1', conditions: {} },
    },
    {
      name: 'keeps the nodeName that 1.20 had already, and what it says wins',
      before: { addresses: ['10.0.0.1'], nodeName: 'n2', topology: { 'kubernetes.io/hostname': 'n1' } },
      after: { addresses: ['10.0.0.1'], nodeName: 'n2', conditions: {} },
    },
    {
      name: 'without topology is of no node',
      before: { addresses: ['10.0.0.1'] },
      after: { addresses: ['10.0.0.1'], conditions: {} },
    },
    {
      name: 'serves when it is ready',
      before: { addresses: ['10.0.0.1'], conditions: { ready: true } },
      after: { addresses: ['10.0.0.1'], conditions: { ready: true, serving: true } },
    },
    {
      name: 'does not serve when it is not ready',
      before: { addresses: ['10.0.0.1'], conditions: { ready: false } },
      after: { addresses: ['10.0.0.1'], conditions: { ready: false, serving: false } },
    },
    {
      name: 'serves when it says so, while it terminates',
      before: { addresses: ['10.0.0.1'], conditions: { ready: false, serving: true, terminating: true } },
      after: { addresses: ['10.0.0.1'], conditions: { ready: false, serving: true, terminating: true } },
    },
    {
      name: 'keeps its hostname',
      before: { addresses: ['10.0.0.1'], hostname: 'web-0', conditions: { ready: true } },
      after: { addresses: ['10.0.0.1'], hostname: 'web-0', conditions: { ready: true, serving: true } },
    },
    {
      name: 'keeps the zone that it says itself',
      before: { addresses: ['10.0.0.1'], zone: 'z2', topology: { 'topology.kubernetes.io/zone': 'z1' } },
      after: { addresses: ['10.0.0.1'], zone: 'z2', conditions: {} },
    },
    {
      name: 'keeps its hints for zones, which 1.21 had behind a gate, and for Nodes',
      before: {
        addresses: ['10.0.0.1'],
        hints: { forZones: [{ name: 'z1' }], forNodes: [{ name: 'n1' }] },
        topology: { 'kubernetes.io/hostname': 'n1' },
      },
      after: {
        addresses: ['10.0.0.1'],
        nodeName: 'n1',
        hints: { forZones: [{ name: 'z1' }], forNodes: [{ name: 'n1' }] },
        conditions: {},
      },
    },
    {
      name: 'gets no hints from its topology: that says where it is, not who should use it',
      before: { addresses: ['10.0.0.1'], topology: { 'topology.kubernetes.io/zone': 'z1' } },
      after: { addresses: ['10.0.0.1'], zone: 'z1', conditions: {} },
    },
  ])('$name', ({ before, after }) => {
    expect(endpointsOf(endpointSliceFromV1beta1(slice(before)))).toEqual([after]);
  });

  test('is one of ours in the end', () => {
    const raw = endpointSliceFromV1beta1(
      slice(
        {
          addresses: ['10.0.0.1'],
          conditions: { ready: true },
          topology: { 'kubernetes.io/hostname': 'n1', 'topology.kubernetes.io/zone': 'z1' },
          hints: { forZones: [{ name: 'z1' }], forNodes: [{ name: 'n1' }] },
        },
        { addresses: ['10.0.0.2'], conditions: { ready: null }, topology: null },
        { addresses: ['10.0.0.3'], conditions: { ready: false } },
      ),
    );
    const decoded = decodeObject(endpointSliceResource(''), raw, objectKey(raw) ?? '');
    if ('problems' in decoded) throw new Error(JSON.stringify(decoded.problems));
    const { value, problems } = endpointsFromSlices([decoded.object]);
    expect(problems).toEqual([]);
    expect([...value.values()].flat()).toMatchObject([
      {
        key: '10.0.0.1:8080',
        ready: true,
        serving: true,
        nodeName: 'n1',
        zoneHints: ['z1'],
        nodeHints: ['n1'],
      },
      { key: '10.0.0.2:8080', ready: true, serving: true, nodeName: '', zoneHints: [], nodeHints: [] },
      { key: '10.0.0.3:8080', ready: false, serving: false, nodeName: '' },
    ]);
  });
});

test('what else stands in the slice stays as it was, and the slice that was given too', () => {
  const before = slice({ addresses: ['10.0.0.1'], topology: { 'kubernetes.io/hostname': 'n1' } });
  const copy = structuredClone(before);
  const { endpoints: _, ...rest } = endpointSliceFromV1beta1(before) as Record<string, unknown>;
  const { endpoints: __, ...wanted } = copy as Record<string, unknown>;
  expect(rest).toEqual(wanted);
  expect(before).toEqual(copy);
});

describe('what makes no sense passes unchanged, for the checks to name', () => {
  test.for([
    undefined,
    null,
    17,
    'text',
    [],
    {},
    { endpoints: null },
    { endpoints: 'none' },
    { endpoints: {} },
  ])('%j', (value) => {
    expect(endpointSliceFromV1beta1(value)).toBe(value);
  });

  test.for([null, 17, 'text', []])('an endpoint that is %j', (endpoint) => {
    expect(endpointsOf(endpointSliceFromV1beta1(slice(endpoint)))).toEqual([endpoint]);
  });

  const JUNK: readonly unknown[] = [
    null,
    17,
    '',
    'x',
    true,
    [],
    {},
    ['x'],
    { ready: 'yes' },
    { 'kubernetes.io/hostname': 5 },
  ];
  test.for(seeds(50))('and nothing at all makes it throw (seed %i)', (seed) => {
    const random = new Random(seed);
    const endpoint: Record<string, unknown> = { addresses: ['10.0.0.1'] };
    for (const field of ['addresses', 'conditions', 'topology', 'nodeName', 'zone', 'hints']) {
      if (random.next() < 0.7) endpoint[field] = random.pick(JUNK);
    }
    const raw = endpointSliceFromV1beta1(slice(endpoint));
    expect(() => decodeObject(endpointSliceResource(''), raw, 'default/web-1')).not.toThrow();
  });
});
