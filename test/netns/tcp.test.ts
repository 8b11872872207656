/** TCP from end to end: balanced, whole, half-closed and reset as if no proxy stood between. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { ServerHandle } from '../support/agent-protocol.ts';
import {
  clusterIP,
  dualStackObjects,
  nodeAddressesOf,
  openVantage,
  VANTAGES,
} from '../support/dual-stack.ts';
import { canMakeNamespaces, createLab, type Lab } from '../support/netns-lab.ts';
import { manifestText } from '../support/objects.ts';
import { ProxyProcess } from '../support/proxy-process.ts';
import { waitFor } from '../support/wait.ts';

const isLong = process.env['KUP_TEST_LONG'] === '1';
const HELD = isLong ? 8_000 : 2_000;
const MEBIBYTE = 1_048_576;

const HTTP = { name: 'http', port: 80, targetPort: 8080, nodePort: 30_080 };
const SINK = { name: 'sink', port: 81, targetPort: 8081, nodePort: 30_081 };
const ECHO = { name: 'echo', port: 82, targetPort: 8082, nodePort: 30_082 };
const RESET = { name: 'reset', port: 83, targetPort: 8083, nodePort: 30_083 };
const WEB = { name: 'web', number: 10, ports: [HTTP, SINK, ECHO, RESET] };
/** One port number, two protocols. */
const DNS = {
  name: 'dns',
  number: 11,
  ports: [
    { name: 'dns-tcp', port: 53, targetPort: 8053 },
    { name: 'dns', port: 53, targetPort: 8053, protocol: 'UDP' },
  ],
} as const;
const SOLO = { name: 'solo', number: 12, ports: [{ name: 'http', port: 80, targetPort: 8080 }] };

describe.skipIf(canMakeNamespaces() !== undefined)('TCP through the proxy', () => {
  let lab: Lab;
  let proxy: ProxyProcess;
  /** The `echo` servers, one on each of the three backends. */
  const echoes: ServerHandle[] = [];

  beforeAll(async () => {
    lab = await createLab();
    const backends = [lab.pod(1), lab.pod(2), lab.pod(3)];
    for (const pod of [...backends, lab.pod(4)]) {
      const agent = await pod.agent();
      await agent.serveTcp({ port: HTTP.targetPort, mode: 'identify', name: pod.name });
      if (pod === lab.pod(4)) continue;
      await agent.serveTcp({ port: SINK.targetPort, mode: 'sink-then-echo', name: pod.name });
      echoes.push(await agent.serveTcp({ port: ECHO.targetPort, mode: 'identify-echo', name: pod.name }));
      await agent.serveTcp({ port: RESET.targetPort, mode: 'accept-reset', name: pod.name });
      await agent.serveTcp({ port: 8053, mode: 'identify', name: `${pod.name} over TCP` });
      await agent.serveUdp({ port: 8053, mode: 'identify', name: `${pod.name} over UDP` });
    }
    proxy = await ProxyProcess.start(lab.node, {
      manifests: {
        'web.yaml': manifestText(...dualStackObjects({ ...WEB, backends })),
        'dns.yaml': manifestText(...dualStackObjects({ ...DNS, backends: [lab.pod(1)] })),
        'solo.yaml': manifestText(...dualStackObjects({ ...SOLO, backends: [lab.pod(4)] })),
      },
    });
    for (const family of ['IPv4', 'IPv6'] as const) await proxy.captured('default/solo:http', { family });
  });
  afterAll(async () => {
    await proxy?.[Symbol.asyncDispose]();
    await lab?.close();
  });

  test.for(VANTAGES)('from $from over $family, a $by is answered by its pods in turn', async (vantage) => {
    const { client, host, port } = await openVantage(lab, vantage, { ...WEB, ...HTTP });
    const answers = await client.tcpIdentify({ host, port, count: 10 });
    const names = answers.map(({ ok, name, errno }) => (ok ? (name ?? '') : `failed: ${errno}`));
    const counts = Map.groupBy(names, (name) => name);
    expect([...counts.keys()].toSorted()).toEqual(['pod1', 'pod2', 'pod3']);
    for (const same of counts.values()) expect([3, 4]).toContain(same.length);
    // In turn: never the same twice in a row.
    expect(names.some((name, index) => name === names[index + 1])).toBe(false);
  });

  test.for(VANTAGES)(
    'from $from over $family, 1 MiB is sent, the write side shut down, and 1 MiB comes back whole',
    async (vantage) => {
      const { client, host, port } = await openVantage(lab, vantage, { ...WEB, ...SINK });
      const exchange = await client.tcpExchange({ host, port, bytes: MEBIBYTE, halfClose: true });
      expect(exchange).toMatchObject({ ok: true, sent: MEBIBYTE, received: MEBIBYTE, identical: true });
    },
  );

  test('a NodePort is found at every address of the node, from pods and from the node itself', async () => {
    const addresses = [...nodeAddressesOf(lab, 'IPv4'), ...nodeAddressesOf(lab, 'IPv6')];
    const places = [
      { client: await lab.pod(4).agent(), hosts: addresses },
      { client: await lab.node.agent(), hosts: [...addresses, '127.0.0.1', '::1'] },
      { client: await lab.ext.agent(), hosts: addresses },
    ];
    for (const { client, hosts } of places) {
      for (const host of hosts) {
        const answers = await client.tcpIdentify({ host, port: HTTP.nodePort, count: 3 });
        const names = answers.map(({ ok, name, errno }) => (ok ? (name ?? '') : `failed: ${errno}`));
        expect({ host, names: names.toSorted() }).toEqual({ host, names: ['pod1', 'pod2', 'pod3'] });
      }
    }
  });

  test('large transfers in both directions at once are whole, and stay so when many run together', async () => {
    const client = await lab.pod(4).agent();
    const bytes = (isLong ? 64 : 4) * MEBIBYTE;
    const exchanges = await Promise.all(
      Array.from({ length: 8 }, async (_, seed) =>
        client.tcpExchange({
          host: clusterIP(WEB.number, 'IPv4'),
          port: SINK.port,
          bytes,
          halfClose: true,
          seed,
          timeoutMs: 60_000,
        }),
      ),
    );
    expect(exchanges.map(({ ok, received }) => ({ ok, received }))).toEqual(
      exchanges.map(() => ({ ok: true, received: bytes })),
    );
  });

  test.for(VANTAGES)('from $from over $family, a reset by the backend is a reset', async (vantage) => {
    const { client, host, port } = await openVantage(lab, vantage, { ...WEB, ...RESET });
    // Not also that it was connected: the reset can come before the client has heard of its connection.
    expect(await client.tcpEnd({ host, port, sendBytes: 1 })).toMatchObject({ outcome: 'reset' });
  });

  test.for([
    { how: 'reset', seen: 'endedByReset', other: 'endedByFin' },
    { how: 'fin', seen: 'endedByFin', other: 'endedByReset' },
  ] as const)('a client that ends by $how is seen by the backend to end so', async ({ how, seen, other }) => {
    const client = await lab.pod(4).agent();
    const total = async (end: 'endedByReset' | 'endedByFin'): Promise<number> => {
      const reports = await Promise.all(
        echoes.map(async (echo, index) => (await lab.pod(index + 1).agent()).serverReport(echo)),
      );
      return reports.reduce((sum, report) => sum + report[end], 0);
    };
    const before = { seen: await total(seen), other: await total(other) };
    const host = clusterIP(WEB.number, 'IPv4');
    const group = await client.tcpHold({ host, port: ECHO.port, count: 9, named: true });
    expect(group).toMatchObject({ open: 9, byName: { pod1: 3, pod2: 3, pod3: 3 } });
    await client.heldClose({ ...group, how });
    await waitFor(async () => (await total(seen)) === before.seen + 9, {
      timeoutMs: 5_000,
      what: `nine connections to be ${seen}`,
    });
    expect(await total(other)).toBe(before.other);
  });

  test('a backend that dies resets its own clients, and leaves those of the others alone', async () => {
    const [client, backend] = await Promise.all([lab.pod(4).agent(), lab.pod(2).agent()]);
    const port = { name: 'mortal', port: 84, targetPort: 8084 };
    const servers = await Promise.all(
      [lab.pod(1), lab.pod(2)].map(async (pod) =>
        (await pod.agent()).serveTcp({ port: port.targetPort, mode: 'identify-echo', name: pod.name }),
      ),
    );
    const service = { name: 'mortal', number: 13, ports: [port], backends: [lab.pod(1), lab.pod(2)] };
    await proxy.writeManifest('mortal.yaml', manifestText(...dualStackObjects(service)));
    await proxy.captured('default/mortal:mortal');
    const group = await client.tcpHold({
      host: clusterIP(13, 'IPv4'),
      port: port.port,
      count: 10,
      named: true,
    });
    expect(group).toMatchObject({ opened: 10, byName: { pod1: 5, pod2: 5 } });
    await backend.stopServer({ id: servers[1]?.id ?? 0, connections: 'reset' });
    const halfEnded = async (): Promise<boolean> => (await client.heldStatus(group)).endedByReset === 5;
    await waitFor(halfEnded, { timeoutMs: 5_000, what: 'five resets' });
    expect(await client.heldUse(group)).toMatchObject({ ok: 5, failed: 5 });
    await client.heldClose({ ...group, how: 'fin' });
  });

  test.for([{ family: 'IPv4' }, { family: 'IPv6' }] as const)(
    'a pod reaches itself through its own Service over $family',
    async ({ family }) => {
      const client = await lab.pod(4).agent();
      const answers = await client.tcpIdentify({ host: clusterIP(SOLO.number, family), port: 80, count: 3 });
      expect(answers.map(({ ok, name }) => (ok ? name : 'failed'))).toEqual(['pod4', 'pod4', 'pod4']);
    },
  );

  test('one port number serves TCP and UDP side by side', async () => {
    const client = await lab.pod(4).agent();
    const target = { host: clusterIP(DNS.number, 'IPv4'), port: 53, count: 1 };
    const [[tcp], [udp]] = await Promise.all([
      client.tcpIdentify(target),
      client.udpIdentify({ ...target, sameSocket: false }),
    ]);
    expect([tcp?.name, udp?.name]).toEqual(['pod1 over TCP', 'pod1 over UDP']);
  });

  test('each port of a Service leads to its own target port, and no other port is captured', async () => {
    const client = await lab.pod(4).agent();
    const host = clusterIP(WEB.number, 'IPv4');
    const ports = await Promise.all(
      WEB.ports.map(async ({ name }) => proxy.proxyPort(`default/web:${name}`)),
    );
    expect(new Set(ports).size).toBe(WEB.ports.length);
    expect(await client.tcpIdentify({ host, port: HTTP.port, count: 1 })).toMatchObject([{ ok: true }]);
    expect(await client.tcpEnd({ host, port: RESET.port, sendBytes: 1 })).toMatchObject({ outcome: 'reset' });
    // Nothing of ours: it leaves the node by the default route, and nobody answers.
    const probe = await client.tcpProbe({ host, port: 85, timeoutMs: 300 });
    expect(probe.outcome).not.toBe('connected');
  });

  test.for([{ family: 'IPv4' }, { family: 'IPv6' }] as const)(
    `${HELD} idle connections over $family are held, then all used`,
    async ({ family }) => {
      const client = await lab.pod(4).agent();
      const count = HELD;
      const target = { host: clusterIP(WEB.number, family), port: ECHO.port };
      const group = await client.tcpHold({ ...target, count, named: true, timeoutMs: 20_000 });
      expect(group).toMatchObject({ opened: count, open: count, failures: [] });
      for (const share of Object.values(group.byName)) expect(Math.abs(share - count / 3)).toBeLessThan(1);
      expect(await client.heldUse({ id: group.id, timeoutMs: 20_000 })).toMatchObject({
        ok: count,
        failed: 0,
      });
      const closed = await client.heldClose({ id: group.id, how: 'fin', timeoutMs: 20_000 });
      expect(closed.endedByReset).toBe(0);
    },
  );
});
