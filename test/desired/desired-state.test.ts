/** What a node needs: the listeners with their endpoints, and where each portal leads. */
import type { V1EndpointSlice, V1Service } from '@kubernetes/client-node';
import { describe, expect, test } from 'vitest';
import { type DesiredState, buildDesiredState } from '../../src/desired/desired-state.ts';
import { snapshotFromObjects } from '../../src/model/snapshot.ts';
import { type ServiceTweak, makeService, makeSlice } from '../support/objects.ts';
import { Random, seeds } from '../support/random.ts';
import { type NodeTweak, desiredFrom, makeNodeInfo, makeNodeView } from '../support/rule-fixture.ts';
import { addresses } from '../support/snapshots.ts';

const dualStack: ServiceTweak = ({ spec }) => {
  spec.clusterIPs = ['10.96.0.10', 'fd00:96::a'];
};

/** `clusterIP 10.96.0.10:80/TCP -> default/web:http` or `-> reject`, in order. */
function portalTexts({ capture }: DesiredState): string[] {
  return capture.portals.map((portal) => {
    const place = portal.kind === 'nodePort' ? `any ${portal.family}` : portal.address;
    const target = portal.target.kind === 'reject' ? 'reject' : portal.servicePortName;
    return `${portal.kind} ${place} ${portal.port}/${portal.protocol} -> ${target}`;
  });
}

function endpointKeys({ listeners }: DesiredState): Record<string, string[]> {
  return Object.fromEntries(
    [...listeners].map(([key, { endpoints }]) => [key, endpoints.map((endpoint) => endpoint.key)]),
  );
}

function createdAt(service: V1Service, creationTimestamp: string): V1Service {
  Object.assign(service.metadata ?? {}, { creationTimestamp });
  return service;
}

describe('portals', () => {
  test('are the clusterIPs, externalIPs and NodePorts of a Service, for each family it is of', () => {
    const web = makeService('web', (service) => {
      dualStack(service);
      service.spec.externalIPs = ['192.0.2.7', '2001:db8::7'];
      service.spec.ports = [{ name: 'http', port: 80, nodePort: 30_080 }];
    });
    const desired = desiredFrom(
      [web],
      [makeSlice('web', ['10.244.1.1']), makeSlice('web', ['fd00:244:1::1'])],
    );
    expect(portalTexts(desired)).toEqual([
      'clusterIP 10.96.0.10 80/TCP -> default/web:http',
      'externalIP 192.0.2.7 80/TCP -> default/web:http',
      'nodePort any IPv4 30080/TCP -> default/web:http',
      'clusterIP fd00:96::a 80/TCP -> default/web:http',
      'externalIP 2001:db8::7 80/TCP -> default/web:http',
      'nodePort any IPv6 30080/TCP -> default/web:http',
    ]);
    expect(desired.problems).toEqual([]);
    expect([...desired.listeners.keys()]).toEqual([
      'default/web:http/TCP/IPv4/cluster',
      'default/web:http/TCP/IPv6/cluster',
    ]);
  });

  test('of a family that this node does not capture are left out, with their listener', () => {
    const web = makeService('web', (service) => {
      dualStack(service);
      service.spec.ports = [{ name: 'http', port: 80, nodePort: 30_080 }];
    });
    const slices = [makeSlice('web', ['10.244.1.1']), makeSlice('web', ['fd00:244:1::1'])];
    const desired = desiredFrom([web], slices, { families: ['IPv4'] });
    expect(portalTexts(desired)).toEqual([
      'clusterIP 10.96.0.10 80/TCP -> default/web:http',
      'nodePort any IPv4 30080/TCP -> default/web:http',
    ]);
    expect(endpointKeys(desired)).toEqual({ 'default/web:http/TCP/IPv4/cluster': ['10.244.1.1:8080'] });
    expect(desiredFrom([web], slices, { families: [] }).capture.portals).toEqual([]);
  });

  test('without endpoints reject, but the listener is there for when they come', () => {
    const desired = desiredFrom([makeService('web')]);
    expect(portalTexts(desired)).toEqual(['clusterIP 10.96.0.10 80/TCP -> reject']);
    expect(endpointKeys(desired)).toEqual({ 'default/web:http/TCP/IPv4/cluster': [] });
  });

  test('reject in the family without endpoints only', () => {
    const desired = desiredFrom([makeService('web', dualStack)], [makeSlice('web', ['10.244.1.1'])]);
    expect(portalTexts(desired)).toEqual([
      'clusterIP 10.96.0.10 80/TCP -> default/web:http',
      'clusterIP fd00:96::a 80/TCP -> reject',
    ]);
  });

  test('of TCP and UDP with one number are two', () => {
    const dns = makeService('dns', ({ spec }) => {
      spec.ports = [
        { name: 'dns', port: 53, protocol: 'UDP' },
        { name: 'dns', port: 53, protocol: 'TCP' },
      ];
    });
    const slice = makeSlice(
      'dns',
      ['10.244.1.1'],
      (one) => void (one.ports = [{ name: 'dns', port: 53, protocol: 'UDP' }]),
    );
    expect(portalTexts(desiredFrom([dns], [slice]))).toEqual([
      'clusterIP 10.96.0.10 53/TCP -> reject',
      'clusterIP 10.96.0.10 53/UDP -> default/dns:dns',
    ]);
  });
});

describe('the endpoints of a listener', () => {
  const dying = { ready: false, serving: true, terminating: true };

  test('are those of its family that are ready', () => {
    const slices = [makeSlice('web', ['10.244.1.2', '10.244.1.1']), makeSlice('web', ['fd00:244:1::1'])];
    expect(endpointKeys(desiredFrom([makeService('web', dualStack)], slices))).toEqual({
      'default/web:http/TCP/IPv4/cluster': ['10.244.1.1:8080', '10.244.1.2:8080'],
      'default/web:http/TCP/IPv6/cluster': ['[fd00:244:1::1]:8080'],
    });
  });

  test('fall back to those that serve while they terminate in each family by itself', () => {
    const desired = desiredFrom(
      [makeService('web', dualStack)],
      [
        makeSlice('web', ['10.244.1.1']),
        makeSlice('web', [], (slice) => {
          slice.addressType = 'IPv6';
          Object.assign(slice.metadata ?? {}, { name: 'web-ipv6' });
          slice.endpoints = [{ addresses: ['fd00:244:1::1'], conditions: dying }];
        }),
      ],
    );
    expect(endpointKeys(desired)).toEqual({
      'default/web:http/TCP/IPv4/cluster': ['10.244.1.1:8080'],
      'default/web:http/TCP/IPv6/cluster': ['[fd00:244:1::1]:8080'],
    });
  });

  test('and the keys that still serve tell which UDP flows may live on', () => {
    const desired = desiredFrom(
      [makeService('web')],
      [
        makeSlice('web', [], (slice) => {
          slice.endpoints = [
            { addresses: ['10.244.1.1'], conditions: { ready: true } },
            { addresses: ['10.244.1.2'], conditions: dying },
            { addresses: ['10.244.1.3'], conditions: { ready: false, serving: false, terminating: true } },
            { addresses: ['10.244.1.4'], conditions: { ready: false, serving: false } },
          ];
        }),
      ],
    );
    const [listener] = desired.listeners.values();
    expect(listener?.endpoints.map(({ key }) => key)).toEqual(['10.244.1.1:8080']);
    expect([...(listener?.servingKeys ?? [])].sort()).toEqual(['10.244.1.1:8080', '10.244.1.2:8080']);
  });
});

describe('two Services that claim one place', () => {
  const withNodePort: ServiceTweak = ({ spec }) => {
    spec.ports = [{ name: 'http', port: 80, nodePort: 30_080 }];
  };
  const slices = [makeSlice('old', ['10.244.1.1']), makeSlice('new', ['10.244.1.2'])];
  const old = createdAt(makeService('old', withNodePort), '2026-01-01T00:00:00Z');

  test('the older one keeps it, and the other keeps its remaining portals', () => {
    const recent = createdAt(
      makeService('new', (service) => {
        withNodePort(service);
        service.spec.externalIPs = ['192.0.2.7'];
      }),
      '2026-01-02T00:00:00Z',
    );
    const desired = desiredFrom([recent, old], slices);
    expect(portalTexts(desired)).toEqual([
      'externalIP 192.0.2.7 80/TCP -> default/new:http',
      'clusterIP 10.96.0.10 80/TCP -> default/old:http',
      'nodePort any IPv4 30080/TCP -> default/old:http',
    ]);
    expect(desired.problems).toEqual([
      {
        code: 'ERR_SERVICE_CONFLICT',
        object: 'Service default/new',
        field: 'port "http"',
        message: 'clusterIP 10.96.0.10:80/TCP (IPv4) is kept by the older default/old:http',
      },
      {
        code: 'ERR_SERVICE_CONFLICT',
        object: 'Service default/new',
        field: 'port "http"',
        message: 'nodePort 30080/TCP (IPv4) is kept by the older default/old:http',
      },
    ]);
  });

  test('one that lost everything has neither portal nor listener', () => {
    const recent = createdAt(makeService('new', withNodePort), '2026-01-02T00:00:00Z');
    expect(Object.keys(endpointKeys(desiredFrom([recent, old], slices)))).toEqual([
      'default/old:http/TCP/IPv4/cluster',
    ]);
  });

  test('the other gets it when the first is deleted, and loses it when that comes back older', () => {
    const recent = createdAt(makeService('new', withNodePort), '2026-01-02T00:00:00Z');
    expect(portalTexts(desiredFrom([recent], slices))[0]).toBe(
      'clusterIP 10.96.0.10 80/TCP -> default/new:http',
    );
    expect(portalTexts(desiredFrom([recent, old], slices))[0]).toBe(
      'clusterIP 10.96.0.10 80/TCP -> default/old:http',
    );
  });

  test('of the same age: the first by name keeps it, in whatever order they come', () => {
    const a = makeService('a');
    const b = makeService('b');
    const first = desiredFrom([a, b]);
    expect(first.capture.portals).toMatchObject([{ servicePortName: 'default/a:http' }]);
    expect(desiredFrom([b, a])).toEqual(first);
  });

  test('in different families or protocols, or at different ports, do not meet', () => {
    const ports = (port: number, protocol: string): ServiceTweak => {
      return ({ spec }) => void (spec.ports = [{ name: 'http', port, protocol }]);
    };
    const services = [
      makeService('a', ports(80, 'TCP')),
      makeService('b', ports(80, 'UDP')),
      makeService('c', ports(81, 'TCP')),
      makeService('d', ({ spec }) => void (spec.clusterIP = 'fd00:96::a')),
    ];
    expect(desiredFrom(services).problems).toEqual([]);
    expect(desiredFrom(services).capture.portals).toHaveLength(4);
  });

  test('an externalIP that is the clusterIP of another Service goes by age too', () => {
    const thief = createdAt(
      makeService('thief', ({ spec }) => {
        spec.clusterIP = '10.96.0.99';
        spec.externalIPs = ['10.96.0.10'];
      }),
      '2026-01-02T00:00:00Z',
    );
    const desired = desiredFrom([thief, old], slices);
    expect(portalTexts(desired)).toContain('clusterIP 10.96.0.10 80/TCP -> default/old:http');
    expect(desired.problems).toMatchObject([{ object: 'Service default/thief' }]);
  });
});

describe('an endpoint that is itself a captured portal is unusable and reported:', () => {
  const web = makeService('web', ({ spec }) => {
    spec.externalIPs = ['192.0.2.7'];
    spec.ports = [{ name: 'http', port: 80, nodePort: 30_080 }];
  });
  const db = makeService('db', ({ spec }) => {
    spec.clusterIP = '10.96.0.20';
    spec.ports = [{ name: 'http', port: 5432 }];
    spec.loadBalancerSourceRanges = ['203.0.113.0/24'];
  });
  db.status = { loadBalancer: { ingress: [{ ip: '198.51.100.20' }] } };
  const at = (service: string, address: string, port: number): V1EndpointSlice =>
    makeSlice(service, [address], (slice) => void (slice.ports = [{ name: 'http', port }]));

  test.each([
    { name: 'its own clusterIP', slices: [at('web', '10.96.0.10', 80)], owner: 'default/web:http' },
    { name: 'its own externalIP', slices: [at('web', '192.0.2.7', 80)], owner: 'default/web:http' },
    {
      name: 'its own NodePort at the node',
      slices: [at('web', '192.168.77.2', 30_080)],
      owner: 'default/web:http',
    },
    {
      name: 'the load balancer address of another Service, whoever that lets in',
      slices: [at('web', '198.51.100.20', 5432), at('db', '10.244.1.1', 5432)],
      owner: 'default/db:http',
    },
    {
      name: 'the clusterIP of another Service',
      slices: [at('web', '10.96.0.20', 5432), at('db', '10.244.1.1', 5432)],
      owner: 'default/db:http',
    },
    {
      name: 'the clusterIP of another Service without endpoints',
      slices: [at('web', '10.96.0.20', 5432)],
      owner: 'default/db:http',
    },
  ])('$name', ({ slices, owner }) => {
    const desired = desiredFrom([web, db], slices);
    expect(endpointKeys(desired)['default/web:http/TCP/IPv4/cluster']).toEqual([]);
    expect(desired.problems).toMatchObject([
      {
        code: 'ERR_ENDPOINT_CAPTURED',
        object: 'Service default/web',
        message: expect.stringContaining(owner) as string,
      },
    ]);
    expect(portalTexts(desired)).toContain('clusterIP 10.96.0.10 80/TCP -> reject');
  });

  test('in a cycle of two', () => {
    const desired = desiredFrom([web, db], [at('web', '10.96.0.20', 5432), at('db', '10.96.0.10', 80)]);
    expect(endpointKeys(desired)).toEqual({
      'default/db:http/TCP/IPv4/cluster': [],
      'default/web:http/TCP/IPv4/cluster': [],
    });
    expect(desired.problems.map(({ object }) => object)).toEqual([
      'Service default/db',
      'Service default/web',
    ]);
  });

  test('in IPv6', () => {
    const six = makeService('six', ({ spec }) => void (spec.clusterIP = 'fd00:96::a'));
    const desired = desiredFrom([six], [at('six', 'fd00:96::a', 80)]);
    expect(desired.problems).toMatchObject([{ field: 'endpoint [fd00:96::a]:80' }]);
  });

  test('the others of the Service go on', () => {
    const slice = makeSlice(
      'web',
      ['10.96.0.10', '10.244.1.1'],
      (one) => void (one.ports = [{ name: 'http', port: 80 }]),
    );
    const desired = desiredFrom([web], [slice]);
    expect(endpointKeys(desired)).toEqual({ 'default/web:http/TCP/IPv4/cluster': ['10.244.1.1:80'] });
    expect([...(desired.listeners.values().next().value?.servingKeys ?? [])]).toEqual(['10.244.1.1:80']);
  });

  test.each([
    { name: 'at another port', slices: [at('web', '10.96.0.20', 5433)] },
    { name: 'for another protocol', slices: [at('web', '10.96.0.30', 53)] },
    { name: 'at the NodePort of a node that is not this one', slices: [at('web', '192.168.77.3', 30_080)] },
    { name: 'at this node, but at no NodePort', slices: [at('web', '192.168.77.2', 8080)] },
  ])('but not $name', ({ slices }) => {
    const dns = makeService('dns', ({ spec }) => {
      spec.clusterIP = '10.96.0.30';
      spec.ports = [{ name: 'dns', port: 53, protocol: 'UDP' }];
    });
    const desired = desiredFrom([web, db, dns], slices);
    expect(desired.problems).toEqual([]);
    expect(endpointKeys(desired)['default/web:http/TCP/IPv4/cluster']).toHaveLength(1);
  });

  test('nor a portal in a family that is not captured here', () => {
    const six = makeService('six', ({ spec }) => {
      spec.clusterIPs = ['10.96.0.50', 'fd00:96::a'];
    });
    const slice = at('six', 'fd00:96::a', 80);
    expect(desiredFrom([six], [slice], { families: ['IPv4'] }).problems).toEqual([]);
  });

  test('becomes usable when the node loses the address', () => {
    const slices = [at('web', '192.168.77.2', 30_080)];
    expect(desiredFrom([web], slices, { addresses: ['127.0.0.1'] }).problems).toEqual([]);
  });
});

describe('"primary" of --nodeport-addresses', () => {
  const nodePort: ServiceTweak = ({ spec }) => {
    spec.ports = [{ name: 'http', port: 80, nodePort: 30_080 }];
  };
  const dualNodePort: ServiceTweak = (service) => {
    dualStack(service);
    nodePort(service);
  };
  const primary = { nodePortAddresses: 'primary' } as const;
  const onlyIPv4 = makeNodeInfo({ internalIPs: addresses('192.168.77.2') });

  test.each<{ name: string; service: ServiceTweak; node: NodeTweak; families: readonly string[] }>([
    {
      name: 'that means no address is reported, for each family of a NodePort',
      service: dualNodePort,
      node: { settings: primary },
      families: ['IPv4', 'IPv6'],
    },
    {
      name: 'is reported for the family alone that has none',
      service: dualNodePort,
      node: { settings: primary, node: onlyIPv4 },
      families: ['IPv6'],
    },
    {
      name: 'is no concern in a family that no NodePort is of',
      service: nodePort,
      node: { settings: primary, node: onlyIPv4 },
      families: [],
    },
    {
      name: 'is no concern in a family that is not captured here',
      service: dualNodePort,
      node: { settings: primary, node: onlyIPv4, families: ['IPv4'] },
      families: [],
    },
    {
      name: 'is no concern without NodePorts',
      service: dualStack,
      node: { settings: primary },
      families: [],
    },
    { name: 'is no concern where it is not asked for', service: dualNodePort, node: {}, families: [] },
  ])('$name', ({ service, node, families }) => {
    const { problems, capture } = desiredFrom([makeService('web', service)], [], node);
    expect(problems).toEqual(
      families.map((family) => ({
        code: 'ERR_NODE_ADDRESS',
        object: 'Node node1',
        field: 'status.addresses',
        message: `no InternalIP of ${family} is known, which --nodeport-addresses primary asks for: no NodePort is served in that family`,
      })),
    );
    const served = capture.portals.filter(({ kind }) => kind === 'nodePort').map(({ family }) => family);
    expect(served.filter((family) => families.includes(family))).toEqual([]);
  });
});

describe('equal inputs give equal outputs', () => {
  test.each(seeds(5))('in whatever order objects and maps come (seed %i)', (seed) => {
    const random = new Random(seed);
    const services = Array.from({ length: 12 }, (_, index) =>
      makeService(`s${index}`, (service) => {
        // Few addresses and ports, so that they meet.
        service.spec.clusterIP = `10.96.0.${random.below(6) + 1}`;
        if (random.next() < 0.5) service.spec.externalIPs = [`10.96.0.${random.below(6) + 1}`];
        if (random.next() < 0.5) dualStack(service);
        service.spec.ports = [
          { name: 'http', port: 80, ...(random.next() < 0.5 ? { nodePort: 30_080 } : {}) },
        ];
        Object.assign(service.metadata ?? {}, {
          creationTimestamp: `2026-01-0${random.below(2) + 1}T00:00:00Z`,
        });
      }),
    );
    const slices = services.map((_, index) =>
      makeSlice(`s${index}`, [`10.96.0.${random.below(6) + 1}`, `10.244.1.${index}`], (slice) => {
        slice.ports = [{ name: 'http', port: 80 }];
      }),
    );
    const text = (desired: DesiredState): string =>
      JSON.stringify(desired, (_, value: unknown) =>
        value instanceof Map || value instanceof Set ? [...(value as Iterable<unknown>)] : value,
      );
    const view = makeNodeView();
    const first = text(desiredFrom(services, slices));
    for (let round = 0; round < 20; round += 1) {
      const snapshot = snapshotFromObjects({
        services: random.shuffled(services),
        endpointSlices: random.shuffled(slices),
      });
      const shuffled = {
        ...snapshot,
        servicePorts: new Map(random.shuffled([...snapshot.servicePorts])),
        endpoints: new Map(random.shuffled([...snapshot.endpoints])),
      };
      expect(text(buildDesiredState(shuffled, view))).toBe(first);
    }
  });

  test('and the inputs are left as they were', () => {
    const services = [makeService('web', dualStack)];
    const snapshot = snapshotFromObjects({ services, endpointSlices: [makeSlice('web', ['10.244.1.1'])] });
    const copy = structuredClone(snapshot);
    buildDesiredState(snapshot, makeNodeView());
    expect(snapshot).toEqual(copy);
  });
});
