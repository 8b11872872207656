/** Proxy ports are private, stay where they are, and keep out of the way of other programs. */
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { CAPTURE_ADDRESSES } from '../../src/host/capture-address.ts';
import { captureUnderTest } from '../support/capture-under-test.ts';
import {
  dualStackObjects,
  nodeAddressesOf,
  openVantage,
  VANTAGES,
  type Family,
} from '../support/dual-stack.ts';
import { canMakeNamespaces, createLab, type Host, type Lab } from '../support/netns-lab.ts';
import { manifestText } from '../support/objects.ts';
import { divertedPort, ProxyProcess, type ProxyProcessOptions } from '../support/proxy-process.ts';

const HTTP = { name: 'http', port: 80, targetPort: 8080, nodePort: 30_080 };
const DNS = { name: 'dns', port: 53, targetPort: 8053, nodePort: 30_053, protocol: 'UDP' } as const;
const WEB = { name: 'web', number: 10, ports: [HTTP, DNS] };
const FAMILIES = ['IPv4', 'IPv6'] as const;
/** Ports of one guard chain. */
const BLOCK = 64;

/** Which proxy port each listener has: `http/IPv4` and so on. */
type Ports = Readonly<Record<`${'http' | 'dns'}/${Family}`, number>>;

describe.skipIf(canMakeNamespaces() !== undefined)('proxy ports', () => {
  let lab: Lab;
  let proxy: ProxyProcess;

  beforeAll(async () => {
    lab = await createLab();
    for (const pod of [lab.pod(1), lab.pod(2)]) {
      const agent = await pod.agent();
      await agent.serveTcp({ port: HTTP.targetPort, mode: 'identify', name: pod.name });
      await agent.serveUdp({ port: DNS.targetPort, mode: 'identify', name: pod.name });
    }
    proxy = await start();
  });
  afterAll(async () => {
    await proxy?.[Symbol.asyncDispose]();
    await lab?.close();
  });

  const start = async (options: Parameters<typeof ProxyProcess.start>[1] = {}): Promise<ProxyProcess> => {
    const objects = dualStackObjects({ ...WEB, backends: [lab.pod(1), lab.pod(2)] });
    const manifests = { 'web.yaml': manifestText(...objects) };
    return ProxyProcess.start(lab.node, { manifests, ...options });
  };
  const restart = async (args: ProxyProcessOptions['args'] = []): Promise<void> => {
    const { directory } = proxy;
    if (proxy.isRunning) await proxy.stop();
    proxy = await start({ directory, args });
  };

  const portsOf = async (of: ProxyProcess): Promise<Ports> => {
    const ports: Partial<Record<keyof Ports, number>> = {};
    for (const family of FAMILIES) {
      ports[`http/${family}`] = await of.captured('default/web:http', { family });
      ports[`dns/${family}`] = await of.captured('default/web:dns', { protocol: 'udp', family });
    }
    return ports as Ports;
  };

  const everyVantageWorks = async (): Promise<void> => {
    for (const vantage of VANTAGES) {
      const tcp = await openVantage(lab, vantage, { ...WEB, ...HTTP });
      const [answer] = await tcp.client.tcpIdentify({ host: tcp.host, port: tcp.port, count: 1 });
      expect({ ...vantage, ok: answer?.ok, errno: answer?.errno }).toEqual({ ...vantage, ok: true });
      const udp = await openVantage(lab, vantage, { ...WEB, ...DNS });
      const target = { host: udp.host, port: udp.port, connected: true };
      const [datagram] = await udp.client.udpIdentify({ ...target, count: 1, sameSocket: true });
      expect({ ...vantage, ok: datagram?.ok, errno: datagram?.errno }).toEqual({ ...vantage, ok: true });
    }
  };

  /** The addresses that listeners are on: the node's, or one of their own. */
  const listenAddresses = (from: Host, family: Family): readonly string[] => {
    if (captureUnderTest() === 'link-local') return [CAPTURE_ADDRESSES[family]];
    const loopback = family === 'IPv4' ? '127.0.0.1' : '::1';
    return [...(from === lab.node ? [loopback] : []), ...nodeAddressesOf(lab, family)];
  };

  /** Every way to reach a proxy port directly, both protocols of both families. */
  const everyDirectWayIsRefused = async (): Promise<void> => {
    const ports = await portsOf(proxy);
    const ways = [lab.pod(4), lab.node, lab.ext].flatMap((from) =>
      FAMILIES.map((family) => ({ from, family })),
    );
    for (const { from, family } of ways) {
      const client = await from.agent();
      for (const host of listenAddresses(from, family)) {
        const tcp = { host, port: ports[`http/${family}`] };
        const probe = await client.tcpProbe({ ...tcp, timeoutMs: 2_000 });
        expect({ from: from.name, ...tcp, outcome: probe.outcome }).toEqual({
          from: from.name,
          ...tcp,
          outcome: 'refused',
        });
        const udp = { host, port: ports[`dns/${family}`] };
        const exchange = await client.udpExchange({
          ...udp,
          payloadBytes: 1,
          connected: true,
          timeoutMs: 2_000,
        });
        expect({ from: from.name, ...udp, errno: exchange.errno }).toEqual({
          from: from.name,
          ...udp,
          errno: 'ECONNREFUSED',
        });
      }
    }
  };

  test('refuse who comes to them directly, from wherever and over whatever, while the Service works', async () => {
    await everyVantageWorks();
    await everyDirectWayIsRefused();
    await everyVantageWorks();
  });

  test('are open to diverted traffic, and to nothing else, under a firewall that drops by default', async () => {
    for (const iptables of ['iptables', 'ip6tables']) {
      const change = async (...args: readonly string[]): Promise<string> =>
        lab.node.run([iptables, '-w', '5', ...args]);
      const rules = [
        ['-m', 'conntrack', '--ctstate', 'ESTABLISHED,RELATED', '-j', 'ACCEPT'],
        // What the test itself asks of the proxy.
        ['-i', 'lo', '-p', 'tcp', '-m', 'multiport', '--dports', '10249,10256', '-j', 'ACCEPT'],
        ...(iptables === 'ip6tables' ? [['-p', 'icmpv6', '-j', 'ACCEPT']] : []),
      ];
      for (const rule of rules) await change('-A', 'INPUT', ...rule);
      await change('-P', 'INPUT', 'DROP');
      onTestFinished(async () => {
        await change('-P', 'INPUT', 'ACCEPT');
        for (const rule of rules) await change('-D', 'INPUT', ...rule);
      });
    }
    const outside = await lab.ext.agent();
    const other = await (await lab.node.agent()).serveTcp({ port: 0, mode: 'identify', name: 'node' });
    const target = { host: lab.node.ipv4, port: other.port };
    expect((await outside.tcpProbe({ ...target, timeoutMs: 200 })).outcome).toBe('timeout');
    await everyVantageWorks();
    await everyDirectWayIsRefused();
  });

  test.for(FAMILIES)('never refuse another program’s port that lies among them, over %s', async (family) => {
    const ports = await portsOf(proxy);
    const own = new Set(Object.values(ports));
    const neighbour = (port: number): number => {
      const first = port - (port % BLOCK);
      const free = Array.from({ length: BLOCK }, (_, index) => first + index).find((at) => !own.has(at));
      if (free === undefined) throw new Error('a block without a free port');
      return free;
    };
    const [node, outside] = await Promise.all([lab.node.agent(), lab.ext.agent()]);
    const tcp = { port: neighbour(ports[`http/${family}`]), name: 'other' };
    const udp = { port: neighbour(ports[`dns/${family}`]), name: 'other' };
    const servers = [
      await node.serveTcp({ ...tcp, mode: 'identify' }),
      await node.serveUdp({ ...udp, mode: 'identify' }),
    ];
    onTestFinished(async () => void (await Promise.all(servers.map(async (one) => node.stopServer(one)))));
    const host = family === 'IPv4' ? lab.node.ipv4 : lab.node.ipv6;
    for (const client of [node, outside, await lab.pod(4).agent()]) {
      const [answer] = await client.tcpIdentify({ host, port: tcp.port, count: 1 });
      expect(answer).toMatchObject({ ok: true, name: 'other' });
      const [datagram] = await client.udpIdentify({ host, port: udp.port, count: 1, sameSocket: true });
      expect(datagram).toMatchObject({ ok: true, name: 'other' });
    }
  });

  test('are the same after a restart, and after a crash', async () => {
    const before = await portsOf(proxy);
    await restart();
    expect(await portsOf(proxy)).toEqual(before);
    await everyVantageWorks();
    proxy.signal('SIGKILL');
    await proxy.exited;
    await restart();
    expect(await portsOf(proxy)).toEqual(before);
    await everyVantageWorks();
  });

  test('are open to nobody even while the proxy starts on a node without its rules', async () => {
    const { 'http/IPv4': port } = await portsOf(proxy);
    await proxy.stop();
    for (const table of ['nat', 'filter'])
      await lab.node.run(['sh', '-c', `iptables -t ${table} -F && iptables -t ${table} -X`]);
    const outside = await lab.ext.agent();
    const [host = ''] = listenAddresses(lab.ext, 'IPv4');
    const load = await outside.startConnectLoad({ host, port, concurrency: 4, pauseMs: 1 });
    await restart();
    expect((await portsOf(proxy))['http/IPv4']).toBe(port);
    await everyVantageWorks();
    const { byName, requests, failed } = await outside.stopLoad(load);
    expect(byName).toEqual({});
    expect(failed).toBe(requests);
  });

  test('move one by one when somebody else has taken them meanwhile', async () => {
    const before = await portsOf(proxy);
    await proxy.stop();
    const node = await lab.node.agent();
    const servers = [
      await node.serveTcp({ port: before['http/IPv6'], mode: 'identify', name: 'other', family: 6 }),
      await node.serveUdp({
        port: before['dns/IPv4'],
        mode: 'identify',
        name: 'other',
        // Where listeners are on all of the node's addresses, any of them is enough.
        ...(captureUnderTest() === 'redirect' ? { address: lab.node.ipv4 } : { family: 4 }),
      }),
    ];
    onTestFinished(async () => void (await Promise.all(servers.map(async (one) => node.stopServer(one)))));
    await restart();
    const after = await portsOf(proxy);
    expect(after).toEqual({
      ...before,
      'http/IPv6': after['http/IPv6'],
      'dns/IPv4': after['dns/IPv4'],
    });
    expect(after['http/IPv6']).not.toBe(before['http/IPv6']);
    expect(after['dns/IPv4']).not.toBe(before['dns/IPv4']);
    await everyVantageWorks();
    const outside = await lab.ext.agent();
    const [others] = await outside.udpIdentify({
      host: lab.node.ipv4,
      port: before['dns/IPv4'],
      count: 1,
      sameSocket: true,
    });
    expect(others).toMatchObject({ ok: true, name: 'other' });
  });

  test('come from the range that the flag gives, and a range too small costs only what does not fit', async () => {
    await proxy.removeManifest('web.yaml');
    const first = {
      ...WEB,
      ports: [DNS, ...[1, 2, 3].map((port) => ({ name: `p${port}`, port, targetPort: 8080 }))],
    };
    await proxy.writeManifest(
      'web.yaml',
      manifestText(...dualStackObjects({ ...first, backends: [lab.pod(1)] })),
    );
    const { directory } = proxy;
    await proxy.stop();
    proxy = await ProxyProcess.start(lab.node, {
      directory,
      args: ['--proxy-port-range=25000-25001'],
      awaitReady: false,
    });
    const line = await proxy.logged(
      (entry) => JSON.stringify(entry).includes('proxy ports are taken'),
      'the range is exhausted',
    );
    expect(JSON.stringify(line)).toContain('all 2 TCP/IPv4 proxy ports are taken');
    await proxy.captured('default/web:p1', { family: 'IPv6' });
    const rules = (await Promise.all(FAMILIES.map(async (family) => proxy.rules(family)))).flat();
    const ports = rules.map(divertedPort).filter((port) => port !== undefined);
    // Two for each family and DNS for clusterIP and NodePort.
    expect(ports).toHaveLength(8);
    expect([...new Set(ports)].toSorted((a, b) => a - b)).toEqual([25_000, 25_001]);
    const client = await lab.pod(4).agent();
    for (const port of [1, 2]) {
      const [answer] = await client.tcpIdentify({ host: '10.96.0.10', port, count: 1 });
      expect(answer).toMatchObject({ ok: true });
    }
  });
});
