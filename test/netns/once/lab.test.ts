/** The lab the other netns tests stand on: that it carries traffic, that it says what happened, that it goes away. */
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest';
import type { ServerHandle } from '../../support/agent-protocol.ts';
import { captureFlags, captureUnderTest, podLinksUnderTest } from '../../support/capture-under-test.ts';
import { engineFlags, engineUnderTest } from '../../support/engine-under-test.ts';
import {
  canMakeNamespaces,
  createLab,
  type Host,
  isProcessAlive,
  listNamespaces,
  type Lab,
} from '../../support/netns-lab.ts';
import { waitFor } from '../../support/wait.ts';

const reason = canMakeNamespaces();
if (reason !== undefined) process.stderr.write(`skipped, for lack of network namespaces: ${reason}\n`);

const LAB_MODULE = join(import.meta.dirname, '..', '..', 'support', 'netns-lab.ts');

describe.skipIf(reason !== undefined)('a lab of network namespaces', () => {
  let lab: Lab;
  beforeAll(async () => {
    lab = await createLab();
  });
  afterAll(async () => {
    await lab.close();
  });

  test.for([
    { name: 'IPv4', address: 'ipv4' },
    { name: 'IPv6', address: 'ipv6' },
  ] as const)(
    'carries TCP and UDP between pods, and from outside to the node, over $name',
    async ({ address }) => {
      const [client, server, ext, node] = await Promise.all([
        lab.pod(1).agent(),
        lab.pod(2).agent(),
        lab.ext.agent(),
        lab.node.agent(),
      ]);
      const target = lab.pod(2)[address];
      const echo = await server.serveTcp({ port: 0, mode: 'sink-then-echo', name: 'pod2' });
      const udp = await server.serveUdp({ port: 0, mode: 'echo', name: 'pod2' });
      const onNode = await node.serveTcp({ port: 0, mode: 'identify', name: 'node' });

      const exchange = await client.tcpExchange({
        host: target,
        port: echo.port,
        bytes: 1_000_000,
        halfClose: true,
      });
      expect(exchange).toMatchObject({ ok: true, identical: true, received: 1_000_000 });
      const datagram = await client.udpExchange({ host: target, port: udp.port, payloadBytes: 65_507 });
      expect(datagram).toMatchObject({ ok: true, from: { address: target, port: udp.port } });
      const named = await ext.tcpIdentify({ host: lab.node[address], port: onNode.port, count: 3 });
      expect(named.map(({ ok, name }) => (ok ? name : 'failed'))).toEqual(['node', 'node', 'node']);
      expect(await server.serverReport(echo)).toMatchObject({ accepted: 1, remotes: [lab.pod(1)[address]] });
    },
  );

  test('tells apart a refusal, a reset, silence and a connection', async () => {
    const [client, server] = await Promise.all([lab.pod(1).agent(), lab.pod(2).agent()]);
    const host = lab.pod(2).ipv4;
    const echo = await server.serveTcp({ port: 0, mode: 'echo', name: 'pod2' });
    const reset = await server.serveTcp({ port: 0, mode: 'accept-reset', name: 'pod2' });

    expect(await client.tcpProbe({ host, port: 9 })).toMatchObject({ outcome: 'refused' });
    expect(await client.tcpEnd({ host, port: reset.port })).toMatchObject({ outcome: 'reset' });
    expect(await client.udpExchange({ host, port: 9, payloadBytes: 1, connected: true })).toMatchObject({
      ok: false,
      errno: 'ECONNREFUSED',
    });
    const undo = await lab.dropTraffic(lab.pod(2), { port: echo.port });
    expect(await client.tcpProbe({ host, port: echo.port, timeoutMs: 150 })).toMatchObject({
      outcome: 'timeout',
    });
    await undo();
    expect(await client.tcpProbe({ host, port: echo.port })).toMatchObject({ outcome: 'connected' });
  });

  test('counts a load that goes on while something changes', async () => {
    const [client, server] = await Promise.all([lab.pod(1).agent(), lab.pod(2).agent()]);
    const host = lab.pod(2).ipv4;
    const http = await server.serveTcp({ port: 0, mode: 'http', name: 'pod2' });
    const load = await client.startHttpLoad({ host, port: http.port, keepAlive: false });
    const served = async (): Promise<boolean> => (await client.loadReport(load)).requests >= 10;
    await waitFor(served, { timeoutMs: 5_000, what: 'ten requests' });
    expect(await client.loadReport(load)).toMatchObject({ failed: 0 });
    await server.stopServer(http);
    const failing = async (): Promise<boolean> => (await client.loadReport(load)).failed >= 1;
    await waitFor(failing, { timeoutMs: 5_000, what: 'a failed request' });
    const report = await client.stopLoad(load);
    expect(Object.keys(report.byName)).toEqual(['pod2']);
    expect(report.byName['pod2']).toBe(report.requests - report.failed);
    expect(report.failures.at(-1)?.errno).toMatch(/^ECONN(REFUSED|RESET)$/);
  });

  test('sees how each held connection ended', async () => {
    const [client, server] = await Promise.all([lab.pod(1).agent(), lab.pod(2).agent()]);
    const echo = await server.serveTcp({ port: 0, mode: 'identify-echo', name: 'pod2' });
    const group = await client.tcpHold({ host: lab.pod(2).ipv6, port: echo.port, count: 8, named: true });
    expect(group).toMatchObject({ opened: 8, open: 8, byName: { pod2: 8 } });
    expect(await client.heldUse(group)).toMatchObject({ ok: 8, failed: 0 });
    await server.stopServer({ id: echo.id, connections: 'reset' });
    const ended = async (): Promise<boolean> => (await client.heldStatus(group)).endedByReset === 8;
    await waitFor(ended, { timeoutMs: 5_000, what: 'eight resets' });
    expect(await client.heldUse(group)).toMatchObject({ ok: 0, failed: 8 });
  });

  test('forges segments that are whole, and that belong to no connection', async () => {
    const [src, dst] = [lab.pod(3), lab.pod(4)];
    for (const state of ['NEW', 'INVALID']) {
      await dst.run([
        'iptables',
        '-A',
        'INPUT',
        '-p',
        'tcp',
        '-m',
        'conntrack',
        '--ctstate',
        state,
        '-j',
        'DROP',
      ]);
    }
    const segment = { src: src.ipv4, sport: 4_444, dst: dst.ipv4, dport: 80, seq: 1, ack: 0 };
    // Conntrack calls a segment with a wrong checksum INVALID, so NEW says that it was right.
    await src.forgeSegment({ ...segment, flags: 'S', payloadBytes: 3 });
    await src.forgeSegment({ ...segment, sport: 4_445, flags: 'R' });
    const counters = async (): Promise<string[]> =>
      [...(await dst.run(['iptables', '-nvxL', 'INPUT'])).matchAll(/^ +(\d+) .*ctstate (\w+)/gm)].map(
        ([, packets, state]) => `${state} ${packets}`,
      );
    await waitFor(async () => (await counters()).join() === 'NEW 1,INVALID 1', {
      timeoutMs: 2_000,
      what: 'both',
    });
    await expect(src.forgeSegment({ ...segment, flags: 'X' })).rejects.toThrow('not a TCP flag: X');
  });

  test('attaches a host with several prefixes and a route with a source address', async () => {
    const host = await lab.attach({
      name: 'two-prefixes',
      nodeInterface: 'eth1',
      nodeAddresses: ['10.9.0.1/24', 'fd01::1/64', 'fd02::1/64'],
      hostAddresses: ['10.9.0.2/24', 'fd01::2/64', 'fd02::2/64', '10.50.0.1/32'],
      hostRoutes: ['default via 10.9.0.1', 'default via fd02::1'],
      nodeRoutes: [`10.50.0.0/16 via 10.9.0.2 src ${lab.node.ipv4}`],
    });
    const [server, node] = await Promise.all([host.agent(), lab.node.agent()]);
    const echo = await server.serveTcp({ port: 0, mode: 'echo', name: 'host' });
    for (const target of ['fd01::2', 'fd02::2', '10.50.0.1']) {
      const probe = await node.tcpProbe({ host: target, port: echo.port });
      expect({ target, outcome: probe.outcome }).toEqual({ target, outcome: 'connected' });
    }
    // The kernel completes a connection before the server hears of it.
    const isAccepted = async (): Promise<boolean> => (await server.serverReport(echo)).accepted === 3;
    await waitFor(isAccepted, { timeoutMs: 5_000, what: 'three connections' });
    expect((await server.serverReport(echo)).remotes).toEqual([lab.node.ipv4, 'fd01::1', 'fd02::1']);
  });

  test('refuses to attach a name twice, and stays as it was', async () => {
    const options = {
      name: 'pod1',
      nodeInterface: 'eth9',
      nodeAddresses: [],
      hostAddresses: [],
      hostRoutes: [],
    };
    await expect(lab.attach(options)).rejects.toThrow('has a host pod1 already');
    await expect(lab.attach({ ...options, name: 'clash', nodeInterface: 'eth0' })).rejects.toThrow(
      'File exists',
    );
    expect(await listNamespaces(`${lab.prefix}clash`)).toEqual([]);
    await expect(lab.pod(1).run(['ip', 'link', 'show', 'eth0'])).resolves.toContain('eth0');
  });

  test('refuses what an agent has no method for', async () => {
    const agent = await lab.pod(1).agent();
    // @ts-expect-error: the types refuse it as well
    expect(agent.reboot).toBeUndefined();
    await expect(agent.serverReport({ id: 999 })).rejects.toThrow('no server 999');
  });
});

describe.skipIf(reason !== undefined)('the links of a lab', () => {
  const SHAPES = ([1, 2] as const).flatMap((nodes) =>
    (['bridged', 'unnumbered'] as const).map((podLinks) => ({ nodes, podLinks })),
  );

  describe.for(SHAPES)('with nodes: $nodes and $podLinks pods', ({ nodes, podLinks }) => {
    let lab: Lab;
    beforeAll(async () => {
      lab = await createLab({ nodes, podLinks, pods: 2 });
    });
    afterAll(async () => {
      await lab.close();
    });

    test.for(['ipv4', 'ipv6'] as const)(
      'every host reaches every other, each by its own address, over %s',
      async (family) => {
        const hosts = [lab.node, ...lab.pods, lab.ext, ...(nodes === 2 ? [lab.node2, ...lab.pods2] : [])];
        const servers = await Promise.all(hosts.map(serveOn));
        for (const { host, tcp, udp } of servers) {
          const others = hosts.filter((other) => other !== host);
          for (const other of others) {
            const client = await other.agent();
            const to = `${other.name} to ${host.name}`;
            const [named] = await client.tcpIdentify({ host: host[family], port: tcp.port, count: 1 });
            expect({ to, ...named }).toMatchObject({ to, ok: true, name: host.name });
            // As fragments, as many as there can be.
            const echoed = await client.udpExchange({
              host: host[family],
              port: udp.port,
              payloadBytes: 65_507,
            });
            expect({ to, ...echoed }).toMatchObject({ to, ok: true });
          }
          const { remotes } = await (await host.agent()).serverReport(tcp);
          // A node has several addresses and uses that of the way out.
          const own = others.filter((other) => !['node', 'node2'].includes(other.name));
          expect(remotes).toEqual(expect.arrayContaining(own.map((other) => other[family])));
        }
      },
    );

    test('REDIRECT drops what pods send only where it finds no address: over IPv4, by unnumbered links', async () => {
      const { tcp } = await serveOn(lab.node);
      const client = await lab.pod(1).agent();
      const isDropped = podLinks === 'unnumbered';
      for (const { command, portal, outcome } of [
        { command: 'iptables', portal: '10.96.7.7', outcome: isDropped ? 'timeout' : 'connected' },
        // The link-local address serves, where it is the interface's only one: `nf_nat_redirect_ipv6` compares
        // scopes only when the destination is itself not global.
        { command: 'ip6tables', portal: 'fd00:96::77', outcome: 'connected' },
      ]) {
        const rule = ['PREROUTING', '-d', portal, '-p', 'tcp', '-j', 'REDIRECT', '--to-ports'];
        await lab.node.run([command, '-t', 'nat', '-A', ...rule, String(tcp.port)]);
        const timeoutMs = outcome === 'timeout' ? 200 : 5_000;
        const probe = await client.tcpProbe({ host: portal, port: 80, timeoutMs });
        expect({ portal, outcome: probe.outcome }).toEqual({ portal, outcome });
      }
    });
  });

  test("the node's ends of unnumbered links have link-local addresses only, and strict filters", async () => {
    await using lab = await createLab({ nodes: 2, podLinks: 'unnumbered', pods: 2 });
    expect(() => lab.bridge).toThrow('no bridge');
    for (const node of [lab.node, lab.node2]) {
      const addresses = await node.run(['ip', '-o', 'address', 'show']);
      const onPodLinks = [...addresses.matchAll(/^\d+: (vp\d+|cni0) +(\S+ \S+)/gm)].map(
        ([, device, address]) => `${device} ${address}`,
      );
      const linkLocal = 'inet6 fe80::ecee:eeff:feee:eeee/64';
      expect(onPodLinks).toEqual([`vp1 ${linkLocal}`, `vp2 ${linkLocal}`]);
    }
    const segment = { dst: lab.node.ipv4, sport: 4_444, dport: 9, seq: 1, ack: 0, flags: 'S' };
    await lab.pod(1).forgeSegment({ ...segment, src: lab.pod(1).ipv4 });
    await lab.pod(1).forgeSegment({ ...segment, src: lab.pod(2).ipv4 });
    await waitFor(async () => (await countFiltered(lab.node)) > 0, { timeoutMs: 2_000, what: 'a drop' });
    expect(await countFiltered(lab.node)).toBe(1);
  });

  test("the node's bridge has the addresses that the lab says", async () => {
    await using lab = await createLab({ podLinks: 'bridged', pods: 0 });
    const addresses = await lab.node.run(['ip', '-o', 'address', 'show', 'dev', 'cni0']);
    expect(addresses).toContain(` inet ${lab.bridge.ipv4}/24 `);
    expect(addresses).toContain(` inet6 ${lab.bridge.ipv6}/64 `);
  });

  test('there is no second node unless asked for', async () => {
    await using lab = await createLab({ pods: 0 });
    expect(() => lab.node2).toThrow('no second node');
    expect(() => lab.podOn2(1)).toThrow('no pod1 on node2, which has 0');
    expect(lab.pods2).toEqual([]);
  });

  test('what a lab does to a host it does to those of the second node', async () => {
    await using lab = await createLab({ nodes: 2, pods: 1 });
    const { tcp } = await serveOn(lab.podOn2(1));
    const target = { host: lab.podOn2(1).ipv6, port: tcp.port };
    const other = await lab.attach({
      name: 'other',
      to: lab.node2,
      nodeInterface: 'eth1',
      nodeAddresses: ['fd01::1/64'],
      hostAddresses: ['fd01::2/64'],
      hostRoutes: ['default via fd01::1'],
    });
    const client = await other.agent();
    expect(await client.tcpProbe(target)).toMatchObject({ outcome: 'connected' });
    const undo = await lab.dropTraffic(lab.podOn2(1), { port: tcp.port });
    expect(await client.tcpProbe({ ...target, timeoutMs: 150 })).toMatchObject({ outcome: 'timeout' });
    await undo();
    expect(await client.tcpProbe(target)).toMatchObject({ outcome: 'connected' });
  });

  test('addresses come and go on an interface', async () => {
    await using lab = await createLab({ pods: 0 });
    const { tcp } = await serveOn(lab.ext);
    const client = await lab.node.agent();
    for (const [address, prefixLength] of [
      ['192.168.77.50', 24],
      ['fd00:77::50', 64],
    ] as const) {
      const target = { host: address, port: tcp.port };
      await lab.ext.addAddress(`${address}/${prefixLength}`);
      expect(await client.tcpProbe(target)).toMatchObject({ outcome: 'connected' });
      await lab.ext.removeAddress(`${address}/${prefixLength}`);
      expect(await client.tcpProbe({ ...target, timeoutMs: 150 })).not.toMatchObject({
        outcome: 'connected',
      });
      await expect(lab.ext.removeAddress(`${address}/${prefixLength}`)).rejects.toThrow('address del');
    }
    await lab.ext.addAddress('10.99.0.1/32', 'lo');
    expect(await lab.ext.run(['ip', '-o', 'address', 'show', 'dev', 'lo'])).toContain(' 10.99.0.1/32 ');
  });
});

describe.skipIf(reason !== undefined)('a lab goes away', () => {
  test('by close, with every process in it, also those that no longer have a parent', async () => {
    const lab = await createLab({ pods: 1 });
    onTestFinished(async () => lab.close());
    const child = lab.pod(1).spawn(['sh', '-c', 'setsid sleep 600 & exec sleep 600'], { stdio: 'ignore' });
    const agent = await lab.pod(1).agent();
    const pids = async (): Promise<string[]> =>
      (await lab.pod(1).run(['ip', 'netns', 'pids', lab.pod(1).netns])).split('\n');
    await waitFor(async () => (await pids()).length > 3, {
      timeoutMs: 5_000,
      what: 'both sleepers and the agent',
    });
    await lab.close();
    await lab.close();
    expect(await listNamespaces(lab.prefix)).toEqual([]);
    expect(child.signalCode).toBe('SIGKILL');
    await expect(agent.serverReport({ id: 1 })).rejects.toThrow('has ended');
  });

  test('when the process that made it is killed by SIGKILL', async () => {
    const script = `
      import { createLab } from ${JSON.stringify(LAB_MODULE)};
      const lab = await createLab({ pods: 2 });
      const agent = await lab.pod(1).agent();
      console.log(lab.prefix, agent.pid);
      setInterval(() => undefined, 60_000);`;
    const maker = spawn(process.execPath, ['--input-type=module', '--eval', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    onTestFinished(() => void maker.kill('SIGKILL'));
    const [line] = (await once(createInterface(maker.stdout), 'line')) as [string];
    const [prefix = '', agentPid = ''] = line.split(' ');
    expect(await listNamespaces(prefix)).toHaveLength(4);

    maker.kill('SIGKILL');
    const isGone = async (): Promise<boolean> => (await listNamespaces(prefix)).length === 0;
    await waitFor(isGone, { timeoutMs: 10_000, what: `the namespaces ${prefix}* to be gone` });
    await waitFor(() => !isProcessAlive(Number(agentPid)), {
      timeoutMs: 5_000,
      what: `agent ${agentPid} to be gone`,
    });
  });

  test('of a process that is gone when the next lab is made, but not that of a living one', async () => {
    const other = await createLab({ pods: 0 });
    onTestFinished(async () => other.close());
    // No process has the start time 0 but, at most, the first.
    const name = `kup-${process.pid}-0-dead-node`;
    execFileSync('ip', ['netns', 'add', name]);
    onTestFinished(() => void spawnSync('ip', ['netns', 'del', name]));
    expect(await listNamespaces(name)).toEqual([name]);
    const lab = await createLab({ pods: 0 });
    onTestFinished(async () => lab.close());
    expect(await listNamespaces(name)).toEqual([]);
    expect(await listNamespaces(other.prefix)).toHaveLength(2);
  });
});

describe('what the suite is run for', () => {
  afterEach(() => vi.unstubAllEnvs());

  test('is redirect, bridged and the engine that the proxy takes unless the environment says otherwise', () => {
    vi.stubEnv('KUP_TEST_CAPTURE', undefined);
    vi.stubEnv('KUP_TEST_POD_LINKS', '');
    vi.stubEnv('KUP_TEST_ENGINE', '');
    expect([captureUnderTest(), podLinksUnderTest(), engineUnderTest()]).toEqual([
      'redirect',
      'bridged',
      'auto',
    ]);
    expect([...captureFlags([]), ...engineFlags([])]).toEqual([]);
    vi.stubEnv('KUP_TEST_CAPTURE', 'link-local');
    vi.stubEnv('KUP_TEST_POD_LINKS', 'unnumbered');
    vi.stubEnv('KUP_TEST_ENGINE', 'node');
    expect([captureUnderTest(), podLinksUnderTest(), engineUnderTest()]).toEqual([
      'link-local',
      'unnumbered',
      'node',
    ]);
  });

  test('is refused when nobody knows it', async () => {
    vi.stubEnv('KUP_TEST_CAPTURE', 'linklocal');
    vi.stubEnv('KUP_TEST_POD_LINKS', 'Bridged');
    expect(() => captureFlags([])).toThrow(
      'KUP_TEST_CAPTURE must be one of redirect, link-local, not "linklocal"',
    );
    await expect(createLab()).rejects.toThrow('KUP_TEST_POD_LINKS must be one of');
    vi.stubEnv('KUP_TEST_ENGINE', 'nodejs');
    expect(() => engineFlags([])).toThrow('KUP_TEST_ENGINE must be one of auto, native, node, not "nodejs"');
  });

  test('goes to every proxy that is not told something else', () => {
    vi.stubEnv('KUP_TEST_CAPTURE', 'link-local');
    expect(captureFlags(['--capture-other', 'x'])).toEqual(['--capture', 'link-local']);
    expect(captureFlags(['--capture', 'redirect'])).toEqual([]);
    expect(captureFlags(['--capture=redirect'])).toEqual([]);
    vi.stubEnv('KUP_TEST_ENGINE', 'native');
    expect(engineFlags(['--engine-other', 'x'])).toEqual(['--engine', 'native']);
    expect(engineFlags(['--engine', 'node'])).toEqual([]);
    expect(engineFlags(['--engine=node'])).toEqual([]);
  });
});

/** An `identify` server and a UDP echo server, both named as the host is. */
async function serveOn(host: Host): Promise<{ host: Host; tcp: ServerHandle; udp: ServerHandle }> {
  const agent = await host.agent();
  const tcp = await agent.serveTcp({ port: 0, mode: 'identify', name: host.name });
  const udp = await agent.serveUdp({ port: 0, mode: 'echo', name: host.name });
  return { host, tcp, udp };
}

/** How many packets the host's reverse path filters have dropped. */
async function countFiltered(host: Host): Promise<number> {
  const [names = '', values = ''] = (await host.run(['grep', '^TcpExt:', '/proc/net/netstat'])).split('\n');
  return Number(values.split(' ')[names.split(' ').indexOf('IPReversePathFilter')]);
}
