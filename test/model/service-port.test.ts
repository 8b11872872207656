/** What becomes of a Service: its ports in canonical form, and a problem for everything that is wrong with it. */
import type { V1Service } from '@kubernetes/client-node';
import { describe, expect, test } from 'vitest';
import type { Problem } from '../../src/errors.ts';
import { type ServicePort, servicePortsFromService } from '../../src/model/service-port.ts';
import { type ServiceTweak, makeService } from '../support/objects.ts';

function convert(tweak: ServiceTweak = () => {}): {
  ports: readonly ServicePort[];
  problems: readonly Problem[];
} {
  const { value, problems } = servicePortsFromService(makeService('web', tweak));
  return { ports: value, problems };
}

/** The only port of a Service that must be without problems. */
function onlyPort(tweak?: ServiceTweak): ServicePort {
  const { ports, problems } = convert(tweak);
  expect(problems).toEqual([]);
  expect(ports).toHaveLength(1);
  return ports[0] as ServicePort;
}

test('a plain Service gives its port with Kubernetes’ defaults', () => {
  expect(onlyPort()).toEqual({
    key: 'default/web:http/TCP',
    name: { namespace: 'default', name: 'web', port: 'http', protocol: 'TCP' },
    clusterIPs: ['10.96.0.10'],
    externalIPs: [],
    loadBalancerIPs: [],
    loadBalancerSourceRanges: { IPv4: undefined, IPv6: undefined },
    port: 80,
    nodePort: 0,
    families: ['IPv4'],
    sessionAffinity: { kind: 'None' },
    internalTrafficPolicy: 'Cluster',
    externalTrafficPolicy: 'Cluster',
    healthCheckNodePort: 0,
    scheduler: undefined,
    proxyProtocol: undefined,
    createdAt: 0,
  });
});

test('an unnamed port without protocol is TCP and is called by its Service alone', () => {
  const port = onlyPort(({ spec }) => {
    spec.ports = [{ port: 80 }];
  });
  expect(port).toMatchObject({ key: 'default/web/TCP', name: { port: '', protocol: 'TCP' } });
});

describe('a Service that no proxy serves gives nothing and is no problem:', () => {
  test.each<{ name: string; tweak: ServiceTweak }>([
    { name: 'clusterIP None', tweak: ({ spec }) => void (spec.clusterIP = 'None') },
    { name: 'an empty clusterIP', tweak: ({ spec }) => void (spec.clusterIP = '') },
    { name: 'no clusterIP', tweak: ({ spec }) => delete spec.clusterIP },
    {
      name: 'None in clusterIPs only',
      tweak: ({ spec }) => {
        delete spec.clusterIP;
        spec.clusterIPs = ['None'];
      },
    },
    { name: 'ExternalName', tweak: ({ spec }) => void (spec.type = 'ExternalName') },
    {
      name: 'ExternalName with a clusterIP that is no address and a bad port',
      tweak: ({ spec }) => {
        spec.type = 'ExternalName';
        spec.clusterIP = 'junk';
        spec.ports = [{ port: 70_000 }];
      },
    },
    { name: 'no ports', tweak: ({ spec }) => void (spec.ports = []) },
  ])('$name', ({ tweak }) => {
    expect(convert(tweak)).toEqual({ ports: [], problems: [] });
  });
});

test('a Service that turns headless or ExternalName and back has its port again', () => {
  const service = makeService('web') as V1Service & { spec: NonNullable<V1Service['spec']> };
  const count = (): number => servicePortsFromService(service).value.length;
  expect(count()).toBe(1);
  service.spec.clusterIP = 'None';
  expect(count()).toBe(0);
  service.spec.clusterIP = '10.96.0.10';
  service.spec.type = 'ExternalName';
  expect(count()).toBe(0);
  service.spec.type = 'NodePort';
  expect(count()).toBe(1);
});

describe('a bad port is reported with its field, and the other ports are kept:', () => {
  test.each([
    { name: 'port 0', port: { port: 0 }, field: 'port', quotes: '0' },
    { name: 'port 70000', port: { port: 70_000 }, field: 'port', quotes: '70000' },
    { name: 'port 65536', port: { port: 65_536 }, field: 'port', quotes: '65536' },
    { name: 'a negative port', port: { port: -1 }, field: 'port', quotes: '-1' },
    { name: 'a port that is not whole', port: { port: 80.5 }, field: 'port', quotes: '80.5' },
    { name: 'a port that is no number', port: { port: Number.NaN }, field: 'port', quotes: 'NaN' },
    {
      name: 'an unknown protocol',
      port: { port: 81, protocol: 'QUIC' },
      field: 'protocol',
      quotes: '"QUIC"',
    },
    {
      name: 'a protocol in small letters',
      port: { port: 81, protocol: 'tcp' },
      field: 'protocol',
      quotes: '"tcp"',
    },
    { name: 'a name that is no label', port: { port: 81, name: 'a"b' }, field: 'name', quotes: '"a\\"b"' },
    {
      name: 'a name of 64 characters',
      port: { port: 81, name: 'a'.repeat(64) },
      field: 'name',
      quotes: 'aaaa',
    },
  ])('$name', ({ port, field, quotes }) => {
    const { ports, problems } = convert(({ spec }) => {
      spec.ports = [
        { name: 'bad', protocol: 'TCP', ...port },
        { name: 'good', port: 443 },
      ];
    });
    expect(ports.map(({ key }) => key)).toEqual(['default/web:good/TCP']);
    expect(problems).toEqual([
      {
        code: 'ERR_SERVICE_INVALID',
        object: 'Service default/web',
        field: `spec.ports[0].${field}`,
        message: expect.stringContaining(quotes) as string,
      },
    ]);
  });

  test('SCTP, by a code of its own', () => {
    const { ports, problems } = convert(({ spec }) => {
      spec.ports = [
        { name: 'bad', port: 80, protocol: 'SCTP' },
        { name: 'good', port: 443 },
      ];
    });
    expect(ports.map(({ key }) => key)).toEqual(['default/web:good/TCP']);
    expect(problems).toMatchObject([{ code: 'ERR_SERVICE_UNSUPPORTED', field: 'spec.ports[0].protocol' }]);
  });

  test('a name that stands twice for one protocol, of which the first wins', () => {
    const { ports, problems } = convert(({ spec }) => {
      spec.ports = [
        { name: 'a', port: 1 },
        { name: 'a', port: 2 },
      ];
    });
    expect(ports).toMatchObject([{ port: 1 }]);
    expect(problems).toMatchObject([
      { field: 'spec.ports[1].name', message: expect.stringContaining('"a"') as string },
    ]);
  });

  test('but neither one name nor one number for TCP and UDP is a fault', () => {
    const { ports, problems } = convert(({ spec }) => {
      spec.ports = [
        { name: 'dns', port: 53, protocol: 'UDP' },
        { name: 'dns', port: 53, protocol: 'TCP' },
      ];
    });
    expect(ports.map(({ key }) => key)).toEqual(['default/web:dns/UDP', 'default/web:dns/TCP']);
    expect(problems).toEqual([]);
  });
});

describe('nodePort', () => {
  test.each([
    { name: 'is taken', nodePort: 30_080, expected: 30_080 },
    { name: '0 is none', nodePort: 0, expected: 0 },
    { name: '65535 is the last', nodePort: 65_535, expected: 65_535 },
  ])('$name', ({ nodePort, expected }) => {
    expect(onlyPort(({ spec }) => void (spec.ports = [{ port: 80, nodePort }])).nodePort).toBe(expected);
  });

  test.each([65_536, -1, Number.NaN, 1.5])('%d is reported and leaves the clusterIP served', (nodePort) => {
    const { ports, problems } = convert(({ spec }) => void (spec.ports = [{ port: 80, nodePort }]));
    expect(ports).toMatchObject([{ port: 80, nodePort: 0 }]);
    expect(problems).toMatchObject([{ code: 'ERR_SERVICE_INVALID', field: 'spec.ports[0].nodePort' }]);
  });
});

describe('clusterIPs', () => {
  test.each([
    { name: 'both families', clusterIPs: ['10.96.0.10', 'fd00:96::a'], families: ['IPv4', 'IPv6'] },
    { name: 'IPv6 first', clusterIPs: ['fd00:96::a', '10.96.0.10'], families: ['IPv6', 'IPv4'] },
    { name: 'IPv6 only', clusterIPs: ['fd00:96::a'], families: ['IPv6'] },
  ])('are taken in order: $name', ({ clusterIPs, families }) => {
    const port = onlyPort(({ spec }) => {
      spec.clusterIP = clusterIPs[0] as string;
      spec.clusterIPs = clusterIPs;
    });
    expect(port.clusterIPs).toEqual(clusterIPs);
    expect(port.families).toEqual(families);
  });

  test('are made canonical', () => {
    expect(onlyPort(({ spec }) => void (spec.clusterIP = 'FD00:96:0:0::A')).clusterIPs).toEqual([
      'fd00:96::a',
    ]);
  });

  test.each([
    { name: 'no address', clusterIP: '10.96.0.300' },
    { name: 'loopback', clusterIP: '127.0.0.1' },
    { name: 'unspecified', clusterIP: '0.0.0.0' },
    { name: 'multicast', clusterIP: '224.0.0.1' },
    { name: 'link-local IPv6', clusterIP: 'fe80::1' },
    { name: 'loopback in IPv6', clusterIP: '::ffff:127.0.0.1' },
  ])('a clusterIP that is $name is reported and nothing is served', ({ clusterIP }) => {
    const { ports, problems } = convert(({ spec }) => void (spec.clusterIP = clusterIP));
    expect(ports).toEqual([]);
    expect(problems).toMatchObject([
      {
        code: 'ERR_SERVICE_INVALID',
        field: 'spec.clusterIP',
        message: expect.stringContaining(clusterIP) as string,
      },
    ]);
  });

  test('one bad address leaves the other family served', () => {
    const { ports, problems } = convert(({ spec }) => void (spec.clusterIPs = ['10.96.0.10', 'junk']));
    expect(ports).toMatchObject([{ clusterIPs: ['10.96.0.10'], families: ['IPv4'] }]);
    expect(problems).toMatchObject([{ field: 'spec.clusterIPs[1]' }]);
  });

  test('a second address of one family is reported and the first kept', () => {
    const { ports, problems } = convert(({ spec }) => void (spec.clusterIPs = ['10.96.0.10', '10.96.0.11']));
    expect(ports).toMatchObject([{ clusterIPs: ['10.96.0.10'] }]);
    expect(problems).toMatchObject([
      { field: 'spec.clusterIPs[1]', message: expect.stringContaining('IPv4') as string },
    ]);
  });
});

describe('externalIPs', () => {
  test('are trimmed, made canonical, and each taken once; empty ones are ignored', () => {
    const port = onlyPort(({ spec }) => {
      spec.clusterIPs = ['10.96.0.10', 'fd00:96::a'];
      spec.externalIPs = [' 192.0.2.7 ', '', '192.0.2.7', '\t', '2001:DB8::7'];
    });
    expect(port.externalIPs).toEqual(['192.0.2.7', '2001:db8::7']);
  });

  test('of a family that the Service is not of are left out, which is no problem', () => {
    expect(onlyPort(({ spec }) => void (spec.externalIPs = ['2001:db8::7'])).externalIPs).toEqual([]);
  });

  test('that are no address, or nobody’s, are reported one by one', () => {
    const { ports, problems } = convert(
      ({ spec }) => void (spec.externalIPs = ['junk', '127.0.0.1', '192.0.2.7']),
    );
    expect(ports).toMatchObject([{ externalIPs: ['192.0.2.7'] }]);
    expect(problems.map(({ field }) => field)).toEqual(['spec.externalIPs[0]', 'spec.externalIPs[1]']);
  });
});

describe('session affinity', () => {
  test.each([
    { name: 'absent', seconds: undefined, timeoutMs: 10_800_000 },
    { name: '0, which is absent for Go', seconds: 0, timeoutMs: 10_800_000 },
    { name: '1 s', seconds: 1, timeoutMs: 1000 },
    { name: 'a day', seconds: 86_400, timeoutMs: 86_400_000 },
  ])('takes a time-out that is $name', ({ seconds, timeoutMs }) => {
    const port = onlyPort(({ spec }) => {
      spec.sessionAffinity = 'ClientIP';
      if (seconds !== undefined) spec.sessionAffinityConfig = { clientIP: { timeoutSeconds: seconds } };
    });
    expect(port.sessionAffinity).toEqual({ kind: 'ClientIP', timeoutMs });
  });

  test.each([86_401, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY])(
    'reports a time-out of %d s and takes the default',
    (timeoutSeconds) => {
      const { ports, problems } = convert(({ spec }) => {
        spec.sessionAffinity = 'ClientIP';
        spec.sessionAffinityConfig = { clientIP: { timeoutSeconds } };
      });
      expect(ports).toMatchObject([{ sessionAffinity: { kind: 'ClientIP', timeoutMs: 10_800_000 } }]);
      expect(problems).toMatchObject([
        {
          field: 'spec.sessionAffinityConfig.clientIP.timeoutSeconds',
          message: expect.stringContaining(String(timeoutSeconds)) as string,
        },
      ]);
    },
  );

  test.each(['None', ''])('%j is none', (sessionAffinity) => {
    expect(onlyPort(({ spec }) => void (spec.sessionAffinity = sessionAffinity)).sessionAffinity).toEqual({
      kind: 'None',
    });
  });

  test('of an unknown kind is reported and taken as none', () => {
    const { ports, problems } = convert(({ spec }) => void (spec.sessionAffinity = 'Cookie'));
    expect(ports).toMatchObject([{ sessionAffinity: { kind: 'None' } }]);
    expect(problems).toMatchObject([{ field: 'spec.sessionAffinity' }]);
  });
});

describe('the time of creation', () => {
  test.each([
    { name: 'text', value: '2026-01-02T03:04:05Z', expected: Date.UTC(2026, 0, 2, 3, 4, 5) },
    { name: 'a Date', value: new Date(5000), expected: 5000 },
    { name: 'unreadable', value: 'yesterday', expected: 0 },
  ])('may be $name', ({ value, expected }) => {
    const port = onlyPort(({ metadata }) => {
      if (metadata !== undefined) metadata.creationTimestamp = value as Date;
    });
    expect(port.createdAt).toBe(expected);
  });
});

describe('a malformed object never throws:', () => {
  test.each<{ name: string; service: unknown; problems: number }>([
    { name: 'nothing in it', service: {}, problems: 1 },
    { name: 'no metadata', service: { spec: makeService('web').spec }, problems: 1 },
    { name: 'no spec', service: { metadata: { namespace: 'default', name: 'web' } }, problems: 0 },
    {
      name: 'a null spec',
      service: { metadata: { namespace: 'default', name: 'web' }, spec: null },
      problems: 0,
    },
    {
      name: 'null in every field of the spec',
      service: makeService('web', ({ spec }) => {
        Object.assign(spec, { clusterIPs: null, externalIPs: null, sessionAffinity: null, type: null });
        Object.assign(spec.ports?.[0] ?? {}, { name: null, protocol: null, nodePort: null });
      }),
      problems: 0,
    },
    {
      name: 'a null time-out',
      service: makeService('web', ({ spec }) => {
        Object.assign(spec, {
          sessionAffinity: 'ClientIP',
          sessionAffinityConfig: { clientIP: { timeoutSeconds: null } },
        });
      }),
      problems: 0,
    },
    {
      name: 'null ports',
      service: makeService('web', ({ spec }) => Object.assign(spec, { ports: null })),
      problems: 0,
    },
    {
      name: 'a name that could break out of a rule’s comment',
      service: makeService('web" -j ACCEPT\n*nat'),
      problems: 1,
    },
  ])('$name', ({ service, problems }) => {
    expect(servicePortsFromService(service as V1Service).problems).toHaveLength(problems);
  });
});
