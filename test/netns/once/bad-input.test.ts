/** Objects that make no sense: each is told of once, by name and field, and harms nothing else. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { Agent } from '../../support/agent-client.ts';
import { clusterIP } from '../../support/dual-stack.ts';
import { canMakeNamespaces, createLab, type Lab } from '../../support/netns-lab.ts';
import { makeService, makeSlice, manifestText, type ServiceTweak } from '../../support/objects.ts';
import { ProxyProcess } from '../../support/proxy-process.ts';
import { waitFor } from '../../support/wait.ts';

/** A port that is good beside one that a test spoils. */
const GOOD = { name: 'good', port: 1_111, protocol: 'TCP' };
const BAD_IP = clusterIP(66, 'IPv4');

describe.skipIf(canMakeNamespaces() !== undefined)('a malformed object', () => {
  let lab: Lab;
  let proxy: ProxyProcess;
  let client: Agent;
  let load: { readonly id: number };

  /** A Service `default/bad` at an address of its own, whose endpoint is pod1. */
  const bad = (tweak: ServiceTweak): readonly object[] => [
    makeService('bad', (service) => {
      service.spec.clusterIP = BAD_IP;
      tweak(service);
    }),
    makeSlice('bad', [lab.pod(1).ipv4], (slice) => {
      slice.ports = ['http', 'good'].map((name) => ({ name, port: 8080, protocol: 'TCP' }));
    }),
  ];
  const withEndpoint = (address: string, port: number, name = 'bad', own = BAD_IP): readonly object[] => [
    makeService(name, ({ spec }) => {
      spec.clusterIP = own;
    }),
    makeSlice(name, [address], (slice) => {
      slice.ports = [{ name: 'http', port, protocol: 'TCP' }];
    }),
  ];

  const isAnswered = async (host: string, port: number): Promise<boolean> =>
    (await client.tcpIdentify({ host, port, count: 1, timeoutMs: 500 }))[0]?.name === 'pod1';
  const told = (): readonly string[] =>
    proxy.log
      .filter(({ msg }) => msg === 'Invalid object')
      .map((line) => `${String(line['code'])} ${String(line['object'])} ${String(line['field'])}`);
  /** What was told since `before`, once `line` is among it and everything was looked at once more. */
  const toldSince = async (before: number, line: string): Promise<readonly string[]> => {
    await waitFor(() => told().slice(before).includes(line), { timeoutMs: 5_000, what: `the line: ${line}` });
    // Another object changes, and all are judged again.
    const marker = clusterIP(90, 'IPv4');
    await proxy.writeManifest(
      'marker.yaml',
      manifestText(
        makeService('marker', ({ spec }) => {
          spec.clusterIP = marker;
        }),
        makeSlice('marker', [lab.pod(1).ipv4]),
      ),
    );
    await waitFor(async () => isAnswered(marker, 80), { timeoutMs: 5_000, what: 'another change' });
    await proxy.removeManifest('marker.yaml');
    return told().slice(before);
  };

  beforeAll(async () => {
    lab = await createLab();
    await (await lab.pod(1).agent()).serveTcp({ port: 8080, mode: 'identify', name: 'pod1' });
    client = await lab.pod(4).agent();
    proxy = await ProxyProcess.start(lab.node, {
      manifests: {
        'web.yaml': manifestText(
          makeService('web', (service) => {
            Object.assign(service.metadata ?? {}, { creationTimestamp: '2020-01-01T00:00:00Z' });
            service.spec.type = 'NodePort';
            service.spec.ports = [{ name: 'http', port: 80, protocol: 'TCP', nodePort: 30_080 }];
          }),
          makeSlice('web', [lab.pod(1).ipv4]),
        ),
      },
    });
    await proxy.captured('default/web:http');
  });
  afterAll(async () => {
    await proxy?.[Symbol.asyncDispose]();
    await lab?.close();
  });
  // A healthy Service is answered throughout, whatever stands beside it.
  beforeEach(async () => {
    load = await client.startConnectLoad({ host: clusterIP(10, 'IPv4'), port: 80, pauseMs: 5 });
  });
  afterEach(async () => stillHealthy());

  const stillHealthy = async (): Promise<void> => {
    const { failed, failures, requests } = await client.stopLoad(load);
    expect({ failed, failures }).toEqual({ failed: 0, failures: [] });
    expect(requests).toBeGreaterThan(10);
    const before = proxy.log.length;
    await proxy.removeManifest('bad.yaml');
    const isForgotten = async (): Promise<boolean> =>
      (await proxy.metric('userspace_proxy_invalid_objects')) === 0;
    await waitFor(isForgotten, { timeoutMs: 5_000, what: 'the problem to be forgotten' });
    const mended = proxy.log.slice(before).filter(({ msg }) => msg === 'Invalid object mended or gone');
    expect(mended.length).toBeGreaterThanOrEqual(1);
  };

  const port =
    (fields: object): ServiceTweak =>
    ({ spec }) => {
      spec.ports = [{ name: 'http', port: 80, protocol: 'TCP', ...fields }, GOOD];
    };
  test.for([
    { name: 'an unknown protocol', tweak: port({ protocol: 'ICMP' }), field: 'spec.ports[0].protocol' },
    { name: 'port 0', tweak: port({ port: 0 }), field: 'spec.ports[0].port' },
    { name: 'port 70000', tweak: port({ port: 70_000 }), field: 'spec.ports[0].port' },
    { name: 'nodePort 70000', tweak: port({ nodePort: 70_000 }), field: 'spec.ports[0].nodePort' },
  ])('with $name is told of by field, and its other port is served', async ({ tweak, field }) => {
    const before = told().length;
    await proxy.writeManifest('bad.yaml', manifestText(...bad(tweak)));
    const line = `ERR_SERVICE_INVALID Service default/bad ${field}`;
    expect(await toldSince(before, line)).toEqual([line]);
    expect(await isAnswered(BAD_IP, GOOD.port)).toBe(true);
  });

  test('that wants SCTP is told that nobody carries it, and its other port is served', async () => {
    const before = told().length;
    await proxy.writeManifest('bad.yaml', manifestText(...bad(port({ protocol: 'SCTP' }))));
    const line = 'ERR_SERVICE_UNSUPPORTED Service default/bad spec.ports[0].protocol';
    expect(await toldSince(before, line)).toEqual([line]);
    expect(await isAnswered(BAD_IP, GOOD.port)).toBe(true);
  });

  test.for([{ address: 'ten.96.0.66' }, { address: '10.96.0.666' }, { address: '127.0.0.1' }])(
    'with the clusterIP $address is told of by field',
    async ({ address }) => {
      const before = told().length;
      const objects = bad(({ spec }) => {
        spec.clusterIP = address;
      });
      await proxy.writeManifest('bad.yaml', manifestText(...objects));
      const line = 'ERR_SERVICE_INVALID Service default/bad spec.clusterIP';
      expect(await toldSince(before, line)).toEqual([line]);
    },
  );

  test.for([
    { name: 'clusterIP and port', tweak: { clusterIP: clusterIP(10, 'IPv4') } },
    {
      name: 'nodePort',
      tweak: {
        clusterIP: BAD_IP,
        type: 'NodePort',
        ports: [{ name: 'http', port: 80, protocol: 'TCP', nodePort: 30_080 }],
      },
    },
  ])('with the $name of an older Service is told of, and the older one keeps it', async ({ tweak }) => {
    const before = told().length;
    const objects = [
      makeService('bad', ({ spec }) => Object.assign(spec, tweak)),
      makeSlice('bad', [lab.pod(2).ipv4]),
    ];
    await proxy.writeManifest('bad.yaml', manifestText(...objects));
    const line = 'ERR_SERVICE_CONFLICT Service default/bad port "http"';
    expect(await toldSince(before, line)).toEqual([line]);
    const conflict = proxy.log.findLast(({ code }) => code === 'ERR_SERVICE_CONFLICT');
    expect(conflict?.['problem']).toContain('default/web:http');
    const outside = await lab.ext.agent();
    const answers = await outside.tcpIdentify({ host: lab.node.ipv4, port: 30_080, count: 4 });
    expect(answers.map(({ name }) => name)).toEqual(['pod1', 'pod1', 'pod1', 'pod1']);
  });

  test('that is a slice of no Service is told of by its label', async () => {
    const before = told().length;
    await proxy.writeManifest('bad.yaml', manifestText(makeSlice('nobody', [lab.pod(1).ipv4])));
    const line =
      'ERR_ENDPOINTSLICE_ORPHAN EndpointSlice default/nobody-ipv4 metadata.labels[kubernetes.io/service-name]';
    expect(await toldSince(before, line)).toEqual([line]);
  });

  test('with an endpoint that is no address is told of, and its other endpoint is used', async () => {
    const before = told().length;
    const [service] = withEndpoint('', 8080);
    const slice = makeSlice('bad', [lab.pod(1).ipv4, 'pod-1.example.org']);
    await proxy.writeManifest('bad.yaml', manifestText(service ?? {}, slice));
    const line = 'ERR_ENDPOINT_INVALID EndpointSlice default/bad-ipv4 endpoints[1].addresses[0]';
    expect(await toldSince(before, line)).toEqual([line]);
    const answers = await client.tcpIdentify({ host: BAD_IP, port: 80, count: 4 });
    expect(answers.map(({ name }) => name)).toEqual(['pod1', 'pod1', 'pod1', 'pod1']);
  });

  const other = clusterIP(67, 'IPv4');
  test.for([
    { name: 'its own clusterIP', build: () => withEndpoint(BAD_IP, 80), endpoints: [`${BAD_IP}:80`] },
    {
      name: 'another Service’s clusterIP',
      build: () => withEndpoint(clusterIP(10, 'IPv4'), 80),
      endpoints: [`${clusterIP(10, 'IPv4')}:80`],
    },
    {
      name: 'a NodePort of this node',
      build: () => withEndpoint('192.168.77.2', 30_080),
      endpoints: ['192.168.77.2:30080'],
    },
    {
      name: 'a Service whose endpoint is this one',
      build: () => [...withEndpoint(other, 80), ...withEndpoint(BAD_IP, 80, 'worse', other)],
      endpoints: [`${other}:80`, `${BAD_IP}:80`],
    },
  ])('with the endpoint $name is refused at once, and no connection chases its tail', async (scenario) => {
    const { build, endpoints } = scenario;
    const before = told().length;
    await proxy.writeManifest('bad.yaml', manifestText(...build()));
    const lines = endpoints.map(
      (endpoint, index) =>
        `ERR_ENDPOINT_CAPTURED Service default/${['bad', 'worse'][index]} endpoint ${endpoint}`,
    );
    expect((await toldSince(before, lines.at(-1) ?? '')).toSorted()).toEqual(lines.toSorted());
    const connections = async (): Promise<number> => {
      const services = ['bad', 'worse'];
      const totals = await Promise.all(
        services.map(async (service) => proxy.metric('userspace_proxy_connections_total', { service })),
      );
      return totals.reduce((sum, total) => sum + total, 0);
    };
    const count = await connections();
    for (let connection = 0; connection < 3; connection += 1) {
      const probe = await client.tcpProbe({ host: BAD_IP, port: 80, timeoutMs: 2_000 });
      expect(probe.outcome).toBe('refused');
    }
    expect(await connections()).toBe(count);
  });

  test('with a captured endpoint among others uses the others only', async () => {
    const objects = [
      makeService('bad', ({ spec }) => {
        spec.clusterIP = BAD_IP;
        spec.ports = [{ name: 'http', port: 8080, protocol: 'TCP' }];
      }),
      makeSlice('bad', [BAD_IP, lab.pod(1).ipv4]),
    ];
    await proxy.writeManifest('bad.yaml', manifestText(...objects));
    await waitFor(async () => isAnswered(BAD_IP, 8080), { timeoutMs: 5_000, what: 'an answer' });
    const total = async (): Promise<number> =>
      proxy.metric('userspace_proxy_connections_total', { service: 'bad' });
    const before = await total();
    const answers = await client.tcpIdentify({ host: BAD_IP, port: 8080, count: 10 });
    expect(answers.filter(({ name }) => name !== 'pod1')).toEqual([]);
    expect(await total()).toBe(before + 10);
  });
});
