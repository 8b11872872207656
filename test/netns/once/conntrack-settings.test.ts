/**
 * The node's connection tracking settings. The kernel forgets a half-closed connection after 60 s without a packet, and
 * with it where it was led: an answer that comes later reaches nobody. Here those are 2 s.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { TcpExchangeResult } from '../../support/agent-protocol.ts';
import { clusterIP, dualStackObjects } from '../../support/dual-stack.ts';
import { canMakeNamespaces, createLab, type Lab } from '../../support/netns-lab.ts';
import { manifestText } from '../../support/objects.ts';
import { ProxyProcess } from '../../support/proxy-process.ts';
import { trackedFlows } from '../../support/tracked-flows.ts';
import { waitFor } from '../../support/wait.ts';

const SERVICE = { name: 'slow', number: 10, port: 80, targetPort: 8_080 } as const;
const SHORT_SECONDS = 2;
const EXCHANGE_TIMEOUT_MS = 8_000;
const SET = 'A connection tracking limit of the node is lower than wanted and cannot be set from here';

/** Reads until its client's FIN, and sends everything back when it is told to by a line on its standard input. */
const SLOW_SERVER = `
  require('node:net').createServer({ allowHalfOpen: true }, (socket) => {
    const chunks = [];
    socket.on('data', (chunk) => chunks.push(chunk));
    socket.on('error', () => undefined);
    process.stdin.once('data', () => socket.end(Buffer.concat(chunks)));
  }).listen(${SERVICE.targetPort}, '::', () => console.log('listening'));`;

describe.skipIf(canMakeNamespaces() !== undefined)('the connection tracking settings of a node', () => {
  let lab: Lab;

  beforeAll(async () => {
    lab = await createLab({ pods: 2 });
  });
  afterAll(async () => {
    await lab?.close();
  });

  const setting = (name: string): string => `/proc/sys/net/netfilter/nf_conntrack_${name}`;
  const set = async (name: string, value: number): Promise<void> =>
    void (await lab.node.run(['sh', '-c', `echo ${value} >${setting(name)}`]));
  const read = async (name: string): Promise<number> => Number(await lab.node.run(['cat', setting(name)]));

  const startServer = async (): Promise<AsyncDisposable & { readonly answer: () => void }> => {
    const argv = [process.execPath, '-e', SLOW_SERVER];
    const server = lab.pod(1).spawn(argv, { stdio: ['pipe', 'pipe', 'inherit'] });
    const ended = new Promise((resolve) => server.once('close', resolve));
    await Promise.race([
      new Promise((resolve) => server.stdout?.once('data', resolve)),
      ended.then(() => Promise.reject(new Error('the server has ended'))),
    ]);
    return {
      answer: () => void server.stdin?.write('answer\n'),
      async [Symbol.asyncDispose]() {
        server.kill('SIGKILL');
        await ended;
      },
    };
  };
  const startProxy = async (...args: readonly string[]): Promise<ProxyProcess> => {
    const { name, number, port, targetPort } = SERVICE;
    const ports = [{ name: 'tcp', port, targetPort }];
    const objects = dualStackObjects({ name, number, ports, backends: [lab.pod(1)] });
    const proxy = await ProxyProcess.start(lab.node, {
      manifests: { 'a.yaml': manifestText(...objects) },
      args,
    });
    await proxy.captured('default/slow:tcp');
    return proxy;
  };

  /** A client that ends its side at once; its backend answers when `isLongSilent` says so. */
  const exchange = async (isLongSilent: () => Promise<boolean>): Promise<TcpExchangeResult> => {
    await using server = await startServer();
    const client = await lab.pod(2).agent();
    const exchanged = client.tcpExchange({
      host: clusterIP(SERVICE.number, 'IPv4'),
      port: SERVICE.port,
      bytes: 1_000,
      halfClose: true,
      timeoutMs: EXCHANGE_TIMEOUT_MS,
    });
    await waitFor(isLongSilent, { timeoutMs: 7_500, what: 'the connection to have been silent' });
    server.answer();
    // Awaited here: the server ends with this block.
    return await exchanged;
  };
  const tracked = async () => trackedFlows(lab.node, { protocol: 'tcp', port: SERVICE.port });

  test('let a half-closed connection live on: an answer that takes longer than the kernel’s time-out arrives whole', async () => {
    await set('tcp_timeout_close_wait', SHORT_SECONDS);
    await using proxy = await startProxy();
    await waitFor(async () => (await read('tcp_timeout_close_wait')) === 3_600, {
      timeoutMs: 5_000,
      what: 'the time-out to be set',
    });
    const isLongSilent = async (): Promise<boolean> =>
      (await tracked()).some(
        ({ state, remainingSeconds }) =>
          state === 'CLOSE_WAIT' && remainingSeconds < 3_600 - 2 * SHORT_SECONDS,
      );
    expect(await exchange(isLongSilent)).toMatchObject({ ok: true, received: 1_000 });
    expect(proxy.log.filter(({ msg }) => msg === SET)).toEqual([]);
  });

  test('cut it off where they are left as they are, which is why they are set', async () => {
    await set('tcp_timeout_close_wait', SHORT_SECONDS);
    await using _proxy = await startProxy('--conntrack-tcp-timeout-close-wait', '0');
    let wasTracked = false;
    const isForgotten = async (): Promise<boolean> => {
      const isTracked = (await tracked()).some(({ state }) => state === 'CLOSE_WAIT');
      wasTracked ||= isTracked;
      return wasTracked && !isTracked;
    };
    expect(await exchange(isForgotten)).toMatchObject({ ok: false, received: 0 });
    expect(await read('tcp_timeout_close_wait')).toBe(SHORT_SECONDS);
  });

  test('are raised to what the flags say, never lowered, and shown in /configz', async () => {
    await set('tcp_timeout_established', 600);
    await set('tcp_timeout_close_wait', 7_200);
    await set('udp_timeout', 30);
    await using proxy = await startProxy(
      '--conntrack-tcp-timeout-established=2h',
      '--conntrack-udp-timeout=45s',
      '--conntrack-tcp-be-liberal',
    );
    await waitFor(async () => (await read('tcp_be_liberal')) === 1, {
      timeoutMs: 5_000,
      what: 'segments to pass for valid',
    });
    expect(await read('tcp_timeout_established')).toBe(7_200);
    expect(await read('tcp_timeout_close_wait')).toBe(7_200);
    expect(await read('udp_timeout')).toBe(45);
    expect(JSON.parse((await proxy.page('/configz')).body)).toMatchObject({
      'kubeproxy.config.k8s.io': { conntrack: { tcpEstablishedTimeout: '2h0m0s', udpTimeout: '45s' } },
    });
    const { entries, max } = {
      entries: await proxy.metric('userspace_proxy_conntrack_entries'),
      max: await proxy.metric('userspace_proxy_conntrack_entries_max'),
    };
    expect(max).toBe(await read('max'));
    expect(entries).toBeGreaterThan(0);
  });

  test('that cannot be written and are too low are told of, one warning each, and the proxy carries on', async () => {
    await set('tcp_timeout_close_wait', 60);
    await set('tcp_timeout_established', 432_000);
    const readOnly = 'mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec "$@"';
    const { name, number, port, targetPort } = SERVICE;
    const objects = dualStackObjects({
      name,
      number,
      ports: [{ name: 'tcp', port, targetPort }],
      backends: [lab.pod(1)],
    });
    await using proxy = await ProxyProcess.start(lab.node, {
      manifests: { 'a.yaml': manifestText(...objects) },
      within: ['unshare', '--mount', 'sh', '-c', readOnly, 'sh'],
      args: ['--iptables-sync-period', '200ms'],
    });
    await proxy.captured('default/slow:tcp');
    const warnings = (): readonly unknown[] =>
      proxy.log
        .filter(({ msg }) => msg === SET)
        .map(({ sysctl, found, wanted }) => ({ sysctl, found, wanted }));
    const syncs = async (): Promise<number> =>
      proxy.metric('kubeproxy_sync_proxy_rules_duration_seconds_count', { ip_family: 'IPv4' });
    await waitFor(async () => (await syncs()) >= 3, { timeoutMs: 10_000, what: 'a few syncs' });
    const closeWait = {
      sysctl: 'net.netfilter.nf_conntrack_tcp_timeout_close_wait',
      found: 60,
      wanted: 3_600,
    };
    expect(warnings().filter((warning) => JSON.stringify(warning).includes('close_wait'))).toEqual([
      closeWait,
    ]);
    expect(JSON.stringify(warnings())).not.toContain('established');
    const client = await lab.pod(2).agent();
    await using _server = await startServer();
    expect(await client.tcpProbe({ host: clusterIP(number, 'IPv4'), port })).toMatchObject({
      outcome: 'connected',
    });
  });
});
