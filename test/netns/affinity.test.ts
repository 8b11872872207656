/** sessionAffinity ClientIP: a client address keeps its endpoint, for as long as it should and no longer. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  clusterIP,
  dualStackObjects,
  openVantage,
  VANTAGES,
  type PortOptions,
} from '../support/dual-stack.ts';
import { canMakeNamespaces, createLab, type Lab } from '../support/netns-lab.ts';
import { manifestText } from '../support/objects.ts';
import { ProxyProcess } from '../support/proxy-process.ts';
import { waitFor } from '../support/wait.ts';

const TIMEOUT_S = 2;
const NAME: PortOptions = { name: 'name', port: 80, targetPort: 8080, nodePort: 30_080 };
const HTTP: PortOptions = { name: 'http', port: 81, targetPort: 8081 };
const DNS: PortOptions = { name: 'dns', port: 53, targetPort: 8053, protocol: 'UDP' };
const STICKY = { name: 'sticky', number: 10, ports: [NAME, HTTP, DNS] };
/** Client addresses of one pod, two for each endpoint. */
const CLIENTS = Array.from({ length: 6 }, (_, index) => `10.244.1.${101 + index}`);

describe.skipIf(canMakeNamespaces() !== undefined)('ClientIP affinity', () => {
  let lab: Lab;
  let proxy: ProxyProcess;

  const manifest = ({
    name = STICKY.name,
    number = STICKY.number,
    ports = STICKY.ports,
    affinity = 'ClientIP',
    timeoutSeconds = TIMEOUT_S,
    pods = [1, 2, 3],
  } = {}): string =>
    manifestText(
      ...dualStackObjects({
        name,
        number,
        ports,
        backends: pods.map((pod) => lab.pod(pod)),
        tweak: ({ spec }) =>
          Object.assign(spec, {
            sessionAffinity: affinity,
            sessionAffinityConfig: { clientIP: { timeoutSeconds } },
          }),
      }),
    );

  beforeAll(async () => {
    lab = await createLab();
    for (const pod of [lab.pod(1), lab.pod(2), lab.pod(3)]) {
      const agent = await pod.agent();
      await agent.serveTcp({ port: NAME.targetPort, mode: 'identify', name: pod.name });
      await agent.serveTcp({ port: HTTP.targetPort, mode: 'http', name: pod.name });
      await agent.serveUdp({ port: DNS.targetPort, mode: 'identify', name: pod.name });
    }
    for (const address of CLIENTS) {
      if (lab.podLinks === 'bridged') {
        await lab.pod(4).addAddress(`${address}/24`);
        continue;
      }
      await lab.pod(4).addAddress(`${address}/32`);
      await lab.node.run(['ip', 'route', 'add', `${address}/32`, 'dev', 'vp4', 'scope', 'link']);
    }
    proxy = await ProxyProcess.start(lab.node, { manifests: { 'sticky.yaml': manifest() } });
    for (const family of ['IPv4', 'IPv6'] as const) await proxy.captured('default/sticky:name', { family });
  });
  afterAll(async () => {
    await proxy?.[Symbol.asyncDispose]();
    await lab?.close();
  });

  /** Who answers each of these client addresses, in turn. */
  const answersOf = async (number: number, addresses: readonly string[]): Promise<readonly string[]> => {
    const client = await lab.pod(4).agent();
    const names: string[] = [];
    for (const localAddress of addresses) {
      const target = { host: clusterIP(number, 'IPv4'), port: NAME.port, localAddress };
      const [answer] = await client.tcpIdentify({ ...target, count: 1 });
      names.push(answer?.name ?? `failed: ${answer?.errno}`);
    }
    return names;
  };

  test.for(VANTAGES)('holds over 15 connections from $from over $family', async (vantage) => {
    const { client, host, port } = await openVantage(lab, vantage, {
      ...STICKY,
      port: NAME.port,
      nodePort: 30_080,
    });
    const answers = await client.tcpIdentify({ host, port, count: 15 });
    expect(answers.every(({ ok }) => ok)).toBe(true);
    expect(new Set(answers.map(({ name }) => name)).size).toBe(1);
  });

  test('holds for connections that are opened at the same time', async () => {
    const client = await lab.pod(4).agent();
    const target = { host: clusterIP(STICKY.number, 'IPv4'), port: NAME.port };
    const answers = await client.tcpIdentify({ ...target, count: 30, concurrency: 30 });
    expect(answers.every(({ ok }) => ok)).toBe(true);
    expect(new Set(answers.map(({ name }) => name)).size).toBe(1);
  });

  test('is each client address’s own, and spreads them over the endpoints in turn', async () => {
    const ports = [{ ...NAME, nodePort: 30_081 }];
    const spread = manifest({ name: 'spread', number: 11, ports, timeoutSeconds: 60 });
    await proxy.writeManifest('spread.yaml', spread);
    await proxy.captured('default/spread:name');
    const first = await answersOf(11, CLIENTS);
    expect(first.toSorted()).toEqual(['pod1', 'pod1', 'pod2', 'pod2', 'pod3', 'pod3']);
    expect(await answersOf(11, CLIENTS)).toEqual(first);
    expect(await answersOf(11, CLIENTS.toReversed())).toEqual(first.toReversed());
    const metric = 'userspace_proxy_affinity_entries';
    expect(await proxy.metric(metric, { service: 'spread', ip_family: 'IPv4' })).toBe(CLIENTS.length);
  });

  test('holds for UDP, for new sockets of one address too', async () => {
    const client = await lab.pod(4).agent();
    const target = { host: clusterIP(STICKY.number, 'IPv4'), port: DNS.port };
    const answers = await client.udpIdentify({ ...target, count: 10, sameSocket: false });
    expect(answers.every(({ ok }) => ok)).toBe(true);
    expect(new Set(answers.map(({ name }) => name)).size).toBe(1);
    expect(new Set(answers.map(({ localPort }) => localPort)).size).toBe(10);
  });

  test('slides: a client that keeps coming keeps its endpoint for longer than the time-out', async () => {
    const client = await lab.pod(4).agent();
    const target = { host: clusterIP(STICKY.number, 'IPv6'), port: HTTP.port, keepAlive: false };
    const report = await client.httpRequests({ ...target, count: 6, pauseMs: TIMEOUT_S * 400 });
    expect(report.failed).toBe(0);
    expect(report.elapsedMs).toBeGreaterThan(1.5 * TIMEOUT_S * 1_000);
    expect(Object.values(report.byName)).toEqual([6]);
  });

  test('ends when the client was away for longer than the time-out', async () => {
    const client = await lab.pod(4).agent();
    const target = { host: clusterIP(STICKY.number, 'IPv4'), port: HTTP.port, keepAlive: false };
    const report = await client.httpRequests({ ...target, count: 2, pauseMs: TIMEOUT_S * 1_000 + 100 });
    // The second time it is the next one's turn.
    expect(Object.values(report.byName)).toEqual([1, 1]);
  });

  test('can be switched off and on while the proxy runs', async () => {
    const client = await lab.pod(4).agent();
    const target = { host: clusterIP(STICKY.number, 'IPv4'), port: NAME.port };
    const spreadOver = async (): Promise<number> => {
      const answers = await client.tcpIdentify({ ...target, count: 6 });
      return new Set(answers.map(({ ok, name }) => (ok ? name : 'failed'))).size;
    };
    const becomes = async (affinity: string, count: number): Promise<void> => {
      await proxy.writeManifest('sticky.yaml', manifest({ affinity }));
      await waitFor(async () => (await spreadOver()) === count, {
        timeoutMs: 5_000,
        what: `${count} endpoints to answer`,
      });
    };
    const port = await proxy.captured('default/sticky:name');
    await becomes('None', 3);
    await becomes('ClientIP', 1);
    await becomes('None', 3);
    await becomes('ClientIP', 1);
    expect(await proxy.captured('default/sticky:name')).toBe(port);
  });

  test.for([
    { how: 'refuses', number: 12 },
    { how: 'falls silent', number: 13 },
    { how: 'leaves the slice', number: 14 },
  ])(
    'moves the clients of an endpoint that $how to others, where they stay, and no other client',
    async ({ how, number }) => {
      const targetPort = 8000 + number;
      const servers = await Promise.all(
        [lab.pod(1), lab.pod(2), lab.pod(3)].map(async (pod) =>
          (await pod.agent()).serveTcp({ port: targetPort, mode: 'identify', name: pod.name }),
        ),
      );
      const service = {
        name: `moving-${number}`,
        number,
        ports: [{ name: 'name', port: NAME.port, targetPort }],
        timeoutSeconds: 60,
      };
      await proxy.writeManifest(`${service.name}.yaml`, manifest(service));
      await proxy.captured(`default/${service.name}:name`);
      const before = await answersOf(number, CLIENTS);
      expect(before.filter((name) => name === 'pod1')).toHaveLength(2);

      if (how === 'refuses') await (await lab.pod(1).agent()).stopServer({ id: servers[0]?.id ?? 0 });
      if (how === 'falls silent') await lab.dropTraffic(lab.pod(1), { port: targetPort });
      if (how === 'leaves the slice') {
        await proxy.writeManifest(`${service.name}.yaml`, manifest({ ...service, pods: [2, 3] }));
        const isGone = async (): Promise<boolean> =>
          (await proxy.metric('userspace_proxy_affinity_entries', { service: service.name })) === 4;
        await waitFor(isGone, { timeoutMs: 5_000, what: 'the ties to pod1 to be gone' });
      }
      const after = await answersOf(number, CLIENTS);
      for (const [index, name] of before.entries()) {
        expect(after[index]).toMatch(name === 'pod1' ? /^pod[23]$/ : new RegExp(`^${name}$`));
      }
      expect(await answersOf(number, CLIENTS)).toEqual(after);
    },
  );
});
