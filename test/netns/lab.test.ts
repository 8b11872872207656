/** The lab the other netns tests stand on: that it carries traffic, that it says what happened, that it goes away. */
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import {
  canMakeNamespaces,
  createLab,
  isProcessAlive,
  listNamespaces,
  type Lab,
} from '../support/netns-lab.ts';
import { waitFor } from '../support/wait.ts';

const reason = canMakeNamespaces();
if (reason !== undefined) process.stderr.write(`skipped, for lack of network namespaces: ${reason}\n`);

const LAB_MODULE = join(import.meta.dirname, '..', 'support', 'netns-lab.ts');

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
      nodeRoutes: ['10.50.0.0/16 via 10.9.0.2 src 10.244.1.1'],
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
    expect((await server.serverReport(echo)).remotes).toEqual(['10.244.1.1', 'fd01::1', 'fd02::1']);
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
    await expect(lab.attach({ ...options, name: 'clash', nodeInterface: 'cni0' })).rejects.toThrow(
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
