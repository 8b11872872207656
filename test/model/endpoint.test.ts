/** The merge of EndpointSlices into the endpoints of each Service port, as kube-proxy's endpointSliceCache does it. */
import type { V1Endpoint, V1EndpointSlice } from '@kubernetes/client-node';
import { describe, expect, test } from 'vitest';
import type { Problem } from '../../src/errors.ts';
import { type Endpoint, endpointsFromSlices } from '../../src/model/endpoint.ts';
import { type SliceTweak, makeSlice } from '../support/objects.ts';
import { Random, seeds } from '../support/random.ts';

const HTTP = 'default/web:http/TCP';

function merge(...slices: readonly V1EndpointSlice[]): {
  endpoints: Record<string, readonly Endpoint[]>;
  problems: readonly Problem[];
} {
  const { value, problems } = endpointsFromSlices(slices);
  return { endpoints: Object.fromEntries(value), problems };
}

function keysOf(endpoints: readonly Endpoint[] | undefined): string[] {
  return (endpoints ?? []).map(({ key }) => key);
}

function withConditions(...conditions: readonly (V1Endpoint['conditions'] | null)[]): SliceTweak {
  return (slice) => {
    slice.endpoints = conditions.map((each, index) => ({
      addresses: [`10.244.1.${index + 1}`],
      ...(each === undefined ? {} : { conditions: each as NonNullable<V1Endpoint['conditions']> }),
    }));
  };
}

test('an endpoint is an address and port with its conditions and Node', () => {
  const { endpoints, problems } = merge(
    makeSlice('web', ['10.244.1.1'], (slice) => {
      slice.endpoints = [{ addresses: ['10.244.1.1'], nodeName: 'node-a' }];
    }),
  );
  expect(problems).toEqual([]);
  expect(endpoints).toEqual({
    [HTTP]: [
      {
        key: '10.244.1.1:8080',
        address: '10.244.1.1',
        family: 'IPv4',
        port: 8080,
        ready: true,
        serving: true,
        terminating: false,
        nodeName: 'node-a',
        zoneHints: [],
        nodeHints: [],
      },
    ],
  });
});

describe('hints', () => {
  test.each<{ name: string; hints: unknown; zoneHints: string[]; nodeHints: string[] }>([
    { name: 'of no kind', hints: {}, zoneHints: [], nodeHints: [] },
    { name: 'that are null', hints: null, zoneHints: [], nodeHints: [] },
    { name: 'whose lists are null', hints: { forZones: null, forNodes: null }, zoneHints: [], nodeHints: [] },
    { name: 'whose lists are empty', hints: { forZones: [], forNodes: [] }, zoneHints: [], nodeHints: [] },
    {
      name: 'for zones',
      hints: { forZones: [{ name: 'z1' }, { name: 'z2' }] },
      zoneHints: ['z1', 'z2'],
      nodeHints: [],
    },
    { name: 'for Nodes', hints: { forNodes: [{ name: 'node-a' }] }, zoneHints: [], nodeHints: ['node-a'] },
    {
      name: 'for both',
      hints: { forZones: [{ name: 'z1' }], forNodes: [{ name: 'node-a' }, { name: 'node-b' }] },
      zoneHints: ['z1'],
      nodeHints: ['node-a', 'node-b'],
    },
  ])('$name', ({ hints, zoneHints, nodeHints }) => {
    const { endpoints, problems } = merge(
      makeSlice('web', ['10.244.1.1', '10.244.1.2'], (slice) =>
        Object.assign(slice.endpoints?.[0] ?? {}, { hints }),
      ),
    );
    expect(problems).toEqual([]);
    expect(endpoints[HTTP]).toMatchObject([
      { zoneHints, nodeHints },
      { zoneHints: [], nodeHints: [] },
    ]);
  });
});

describe('conditions', () => {
  test.each([
    { name: 'no conditions at all', conditions: undefined, expected: [true, true, false] },
    { name: 'null conditions', conditions: null, expected: [true, true, false] },
    { name: 'empty conditions', conditions: {}, expected: [true, true, false] },
    { name: 'not ready', conditions: { ready: false }, expected: [false, true, false] },
    { name: 'not serving', conditions: { serving: false }, expected: [true, false, false] },
    {
      name: 'terminating and serving',
      conditions: { ready: false, serving: true, terminating: true },
      expected: [false, true, true],
    },
  ])('$name: ready, serving, terminating are $expected', ({ conditions, expected }) => {
    const { endpoints } = merge(makeSlice('web', [], withConditions(conditions)));
    const [endpoint] = endpoints[HTTP] ?? [];
    expect([endpoint?.ready, endpoint?.serving, endpoint?.terminating]).toEqual(expected);
  });
});

describe('slices', () => {
  test.each<{ name: string; tweak: SliceTweak }>([
    { name: 'without labels', tweak: (slice) => delete slice.metadata?.labels },
    { name: 'without the label', tweak: (slice) => slice.metadata && (slice.metadata.labels = { a: 'b' }) },
    {
      name: 'with an empty label',
      tweak: (slice) => slice.metadata && (slice.metadata.labels = { 'kubernetes.io/service-name': '' }),
    },
    { name: 'without metadata', tweak: (slice) => delete slice.metadata },
    {
      name: 'of FQDNs',
      tweak: (slice) => {
        slice.addressType = 'FQDN';
        slice.endpoints = [{ addresses: ['example.com'] }];
      },
    },
    { name: 'with no ports', tweak: (slice) => delete slice.ports },
    { name: 'with null ports', tweak: (slice) => Object.assign(slice, { ports: null }) },
  ])('$name are ignored and no problem', ({ tweak }) => {
    expect(merge(makeSlice('web', ['10.244.1.1'], tweak))).toEqual({ endpoints: {}, problems: [] });
  });

  test.each<{ name: string; tweak: SliceTweak }>([
    { name: 'no endpoints', tweak: (slice) => void (slice.endpoints = []) },
    {
      name: 'null endpoints, as an API server writes an empty list',
      tweak: (slice) => Object.assign(slice, { endpoints: null }),
    },
  ])('with $name leave the port known and empty', ({ tweak }) => {
    expect(merge(makeSlice('web', ['10.244.1.1'], tweak))).toEqual({
      endpoints: { [HTTP]: [] },
      problems: [],
    });
  });

  test('of one Service are united', () => {
    const { endpoints } = merge(
      makeSlice('web', ['10.244.1.1', '10.244.1.2']),
      makeSlice('web', ['fd00:244:1::1']),
      makeSlice('web', ['10.244.1.3'], (slice) => slice.metadata && (slice.metadata.name = 'web-more')),
    );
    expect(keysOf(endpoints[HTTP])).toEqual([
      '10.244.1.1:8080',
      '10.244.1.2:8080',
      '10.244.1.3:8080',
      '[fd00:244:1::1]:8080',
    ]);
  });

  test('of several Services and namespaces are kept apart', () => {
    const { endpoints } = merge(
      makeSlice('web', ['10.244.1.1']),
      makeSlice('db', ['10.244.1.2']),
      makeSlice('web', ['10.244.1.3'], (slice) => slice.metadata && (slice.metadata.namespace = 'other')),
    );
    expect(Object.keys(endpoints).sort()).toEqual(['default/db:http/TCP', HTTP, 'other/web:http/TCP']);
  });

  test('whose label is no name belong to no Service that it begins with', () => {
    const { endpoints } = merge(
      makeSlice('web', ['10.244.1.1'], (slice) => {
        Object.assign(slice.metadata ?? {}, { labels: { 'kubernetes.io/service-name': 'web/x' } });
      }),
    );
    expect(endpoints[HTTP]).toBeUndefined();
  });

  test('may give one port name different numbers', () => {
    const { endpoints } = merge(
      makeSlice('web', ['10.244.1.1']),
      makeSlice('web', ['10.244.1.2'], (slice) => {
        Object.assign(slice.metadata ?? {}, { name: 'web-new' });
        slice.ports = [{ name: 'http', port: 9090, protocol: 'TCP' }];
      }),
    );
    expect(keysOf(endpoints[HTTP])).toEqual(['10.244.1.1:8080', '10.244.1.2:9090']);
  });

  test('keep ports of different names and protocols apart', () => {
    const { endpoints } = merge(
      makeSlice('web', ['10.244.1.1'], (slice) => {
        slice.ports = [
          { name: 'http', port: 8080, protocol: 'TCP' },
          { name: 'http', port: 8080, protocol: 'UDP' },
          { name: 'admin', port: 9000 },
          { port: 7000 },
        ];
      }),
    );
    expect(Object.keys(endpoints).sort()).toEqual([
      'default/web/TCP',
      'default/web:admin/TCP',
      HTTP,
      'default/web:http/UDP',
    ]);
  });

  test.each(seeds(5))('give the same in whatever order they come (seed %i)', (seed) => {
    const random = new Random(seed);
    const slices = Array.from({ length: 6 }, (_, index) =>
      makeSlice('web', ['10.244.1.1', '10.244.1.2', `10.244.2.${index}`], (slice) => {
        Object.assign(slice.metadata ?? {}, { name: `web-${index}` });
        slice.endpoints = (slice.endpoints ?? []).map(({ addresses }) => ({
          addresses,
          conditions: { ready: random.next() < 0.5, terminating: random.next() < 0.5 },
        }));
      }),
    );
    const first = merge(...slices);
    for (let round = 0; round < 20; round += 1) {
      expect(merge(...random.shuffled(slices))).toEqual(first);
    }
  });
});

describe('an address and port that stands twice', () => {
  const named =
    (name: string, conditions: V1Endpoint['conditions']): SliceTweak =>
    (slice) => {
      Object.assign(slice.metadata ?? {}, { name });
      slice.endpoints = [{ addresses: ['10.244.1.1'], ...(conditions === undefined ? {} : { conditions }) }];
    };
  const alive = { ready: true, terminating: false };
  const dying = { ready: false, serving: true, terminating: true };

  test.each([
    { name: 'a non-terminating one replaces a terminating one', first: dying, second: alive, ready: true },
    { name: 'a terminating one never replaces', first: alive, second: dying, ready: true },
    {
      name: 'of two that are alive the later slice counts',
      first: alive,
      second: { ready: false },
      ready: false,
    },
    {
      name: 'of two terminating ones the earlier slice counts',
      first: dying,
      second: { ...dying, serving: false },
      ready: false,
    },
  ])('is one endpoint: $name', ({ first, second, ready }) => {
    const { endpoints } = merge(
      makeSlice('web', [], named('a', first)),
      makeSlice('web', [], named('b', second)),
    );
    expect(endpoints[HTTP]).toHaveLength(1);
    expect(endpoints[HTTP]?.[0]).toMatchObject({ ready, serving: true });
  });

  test('within one slice too', () => {
    const { endpoints } = merge(
      makeSlice('web', [], (slice) => {
        slice.endpoints = [dying, alive, dying].map((conditions) => ({
          addresses: ['10.244.1.1'],
          conditions,
        }));
      }),
    );
    expect(endpoints[HTTP]).toMatchObject([{ ready: true }]);
  });

  test('is two endpoints when the numbers differ', () => {
    const { endpoints } = merge(
      makeSlice('web', ['10.244.1.1'], (slice) => {
        slice.ports = [
          { name: 'http', port: 8080 },
          { name: 'http', port: 8081 },
        ];
      }),
    );
    expect(keysOf(endpoints[HTTP])).toEqual(['10.244.1.1:8080', '10.244.1.1:8081']);
  });
});

test('an endpoint that moves from one slice to another is there before, during and after', () => {
  const slice = (name: string, addresses: readonly string[]): V1EndpointSlice =>
    makeSlice('web', addresses, (one) => void Object.assign(one.metadata ?? {}, { name }));
  const before = merge(slice('a', ['10.244.1.1', '10.244.1.2']), slice('b', []));
  const during = merge(slice('a', ['10.244.1.1', '10.244.1.2']), slice('b', ['10.244.1.2']));
  const after = merge(slice('a', ['10.244.1.1']), slice('b', ['10.244.1.2']));
  expect(during.endpoints[HTTP]).toEqual(before.endpoints[HTTP]);
  expect(after.endpoints[HTTP]).toEqual(before.endpoints[HTTP]);
});

describe('a port', () => {
  test.each([
    { name: 'without number', port: {} },
    { name: 'with a null number', port: { port: null } },
    { name: '0', port: { port: 0 } },
    { name: 'of SCTP', port: { port: 80, protocol: 'SCTP' } },
  ])('$name is ignored and no problem', ({ port }) => {
    const { endpoints, problems } = merge(
      makeSlice('web', ['10.244.1.1'], (slice) =>
        Object.assign(slice, { ports: [{ name: 'http', ...port }] }),
      ),
    );
    expect(endpoints).toEqual({});
    expect(problems).toEqual([]);
  });

  test('with a null protocol is TCP', () => {
    const { endpoints } = merge(
      makeSlice('web', ['10.244.1.1'], (slice) =>
        Object.assign(slice, { ports: [{ name: 'http', port: 80, protocol: null }] }),
      ),
    );
    expect(Object.keys(endpoints)).toEqual([HTTP]);
  });

  test.each([
    { name: '70000', port: { port: 70_000 }, field: 'ports[0].port' },
    { name: 'NaN', port: { port: Number.NaN }, field: 'ports[0].port' },
    { name: 'of an unknown protocol', port: { port: 80, protocol: 'QUIC' }, field: 'ports[0].protocol' },
  ])('$name is reported once, however many endpoints there are', ({ port, field }) => {
    const { endpoints, problems } = merge(
      makeSlice(
        'web',
        ['10.244.1.1', '10.244.1.2'],
        (slice) => void (slice.ports = [{ name: 'http', ...port }]),
      ),
    );
    expect(endpoints).toEqual({});
    expect(problems).toMatchObject([
      { code: 'ERR_ENDPOINT_INVALID', object: 'EndpointSlice default/web-ipv4', field },
    ]);
  });
});

describe('an address', () => {
  test.each([
    { name: 'that is no address', addresses: ['pod-1'], quotes: '"pod-1"' },
    { name: 'of the other family', addresses: ['fd00::1'], quotes: '"fd00::1"' },
    { name: 'of loopback', addresses: ['127.0.0.1'], quotes: 'loopback' },
    { name: 'of a link', addresses: ['169.254.1.1'], quotes: 'link-local' },
    { name: 'that is unspecified', addresses: ['0.0.0.0'], quotes: 'unspecified' },
    { name: 'that is missing from an empty list', addresses: [], quotes: 'no address' },
    { name: 'that is missing with its list', addresses: undefined, quotes: 'no address' },
    { name: 'that is missing with a null list', addresses: null, quotes: 'no address' },
  ])('$name is reported once, and the others are kept', ({ addresses, quotes }) => {
    const { endpoints, problems } = merge(
      makeSlice('web', ['10.244.1.1'], (slice) => {
        slice.ports = [
          { name: 'http', port: 8080 },
          { name: 'admin', port: 9000 },
        ];
        slice.endpoints = [{ addresses: addresses as string[] }, { addresses: ['10.244.1.2'] }];
      }),
    );
    expect(keysOf(endpoints[HTTP])).toEqual(['10.244.1.2:8080']);
    expect(keysOf(endpoints['default/web:admin/TCP'])).toEqual(['10.244.1.2:9000']);
    expect(problems).toMatchObject([
      {
        code: 'ERR_ENDPOINT_INVALID',
        field: 'endpoints[0].addresses[0]',
        message: expect.stringContaining(quotes) as string,
      },
    ]);
  });

  test('after the first is not looked at', () => {
    const { endpoints, problems } = merge(
      makeSlice('web', [], (slice) => void (slice.endpoints = [{ addresses: ['10.244.1.1', 'junk'] }])),
    );
    expect(keysOf(endpoints[HTTP])).toEqual(['10.244.1.1:8080']);
    expect(problems).toEqual([]);
  });

  test('is read as every component of a cluster reads it, so that two spellings are one endpoint', () => {
    const { endpoints, problems } = merge(
      makeSlice('web', ['10.244.1.1', '010.244.01.1', '::ffff:10.244.1.2']),
    );
    expect(keysOf(endpoints[HTTP])).toEqual(['10.244.1.1:8080', '10.244.1.2:8080']);
    expect(problems).toEqual([]);
  });

  test('of IPv4 in IPv6 is no IPv6 address', () => {
    const { endpoints, problems } = merge(makeSlice('web', ['fd00::1', '::ffff:10.244.1.2']));
    expect(keysOf(endpoints[HTTP])).toEqual(['[fd00::1]:8080']);
    expect(problems).toMatchObject([{ field: 'endpoints[1].addresses[0]' }]);
  });

  test('of IPv6 is made canonical, so that two spellings are one endpoint', () => {
    const { endpoints } = merge(makeSlice('web', ['FD00:244:1::1', 'fd00:244:1:0:0::1']));
    expect(keysOf(endpoints[HTTP])).toEqual(['[fd00:244:1::1]:8080']);
  });
});
