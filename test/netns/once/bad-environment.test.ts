/** A node that is not as the proxy needs it: it says so, does what it can, and recovers by itself. */
import { execFileSync } from 'node:child_process';
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { clusterIP } from '../../support/dual-stack.ts';
import { IptablesWrapper } from '../../support/iptables-wrapper.ts';
import type { LogLine } from '../../support/log-sink.ts';
import { canMakeNamespaces, createLab, type Lab } from '../../support/netns-lab.ts';
import { makeService, makeSlice, manifestText } from '../../support/objects.ts';
import { ProxyProcess, type Exit, type ProxyProcessOptions } from '../../support/proxy-process.ts';
import { waitFor } from '../../support/wait.ts';

const SYNC_PERIOD_MS = 500;

describe.skipIf(canMakeNamespaces() !== undefined)('the proxy', () => {
  let lab: Lab;

  beforeAll(async () => {
    lab = await createLab();
    await (await lab.pod(1).agent()).serveTcp({ port: 8080, mode: 'identify', name: 'pod1' });
  });
  afterAll(async () => {
    await lab?.close();
  });

  const start = async (options: ProxyProcessOptions = {}): Promise<ProxyProcess> => {
    const proxy = await ProxyProcess.start(lab.node, options);
    onTestFinished(async () => proxy[Symbol.asyncDispose]());
    return proxy;
  };
  const web = (name = 'web', number = 10): string =>
    manifestText(
      makeService(name, ({ spec }) => {
        spec.clusterIP = clusterIP(number, 'IPv4');
      }),
      makeSlice(name, [lab.pod(1).ipv4]),
    );
  const isAnswered = async (number = 10): Promise<boolean> => {
    const client = await lab.pod(4).agent();
    const target = { host: clusterIP(number, 'IPv4'), port: 80, timeoutMs: 500 };
    return (await client.tcpIdentify({ ...target, count: 1 }))[0]?.name === 'pod1';
  };
  const becomesAnswered = async (number = 10): Promise<void> => {
    await waitFor(async () => isAnswered(number), { timeoutMs: 5_000, what: 'an answer' });
  };
  const ended = async (proxy: ProxyProcess): Promise<{ exit: Exit; said: string }> => {
    const exit = await proxy.exited;
    return { exit, said: proxy.errors + proxy.log.map((line: LogLine) => JSON.stringify(line)).join('\n') };
  };

  test('with an empty directory waits for the first Service', async () => {
    const proxy = await start();
    expect(await proxy.rules()).not.toContainEqual(expect.stringContaining('REDIRECT'));
    await proxy.writeManifest('web.yaml', web());
    await becomesAnswered();
  });

  test('with a directory that is missing says so, and reads it when it appears', async () => {
    const parent = await mkdtemp(join(tmpdir(), 'kup-missing-'));
    onTestFinished(async () => rm(parent, { recursive: true }));
    const missing = join(parent, 'later', 'manifests');
    const proxy = await start({ args: ['--manifests', missing] });
    const line = await proxy.logged(({ code }) => code === 'ERR_MANIFEST_UNREADABLE', 'it is missing');
    expect(line).toMatchObject({ object: missing });
    await mkdir(missing, { recursive: true });
    await writeFile(join(missing, 'web.yaml'), web());
    await becomesAnswered();
    const isMended = ({ msg, code }: LogLine): boolean =>
      msg === 'Invalid object mended or gone' && code === 'ERR_MANIFEST_UNREADABLE';
    await proxy.logged(isMended, 'it is there now');
  });

  test('whose metrics port is taken serves all the same, and takes it when it is free', async () => {
    const node = await lab.node.agent();
    const taken = await node.serveTcp({ port: 10_249, mode: 'hold', name: 'other', address: '127.0.0.1' });
    const proxy = await start({ manifests: { 'web.yaml': web() } });
    const line = await proxy.logged(({ flag }) => flag === '--metrics-bind-address', 'the port is taken');
    expect(JSON.stringify(line)).toMatch(/ERR_HTTP_BIND.*127\.0\.0\.1:10249.*EADDRINUSE/);
    await becomesAnswered();
    expect((await proxy.health('/healthz')).status).toBe(200);
    await node.stopServer(taken);
    const isServed = async (): Promise<boolean> => (await proxy.page('/proxyMode')).body === 'userspace';
    await waitFor(isServed, { timeoutMs: 25_000, what: 'the metrics server' });
  });

  test('whose health port is taken ends when it was told to', async () => {
    const node = await lab.node.agent();
    const taken = await node.serveTcp({ port: 10_256, mode: 'hold', name: 'other', family: 4 });
    onTestFinished(async () => void (await node.stopServer(taken)));
    const { exit, said } = await ended(
      await start({ args: ['--bind-address-hard-fail'], awaitReady: false }),
    );
    expect(exit).toEqual({ exitCode: 1, signal: null });
    expect(said).toMatch(/0\.0\.0\.0:10256 \(--healthz-bind-address\).*"code":"ERR_HTTP_BIND"/);
  });

  test('without iptables ends, and says what is missing', async () => {
    const path = await mkdtemp(join(tmpdir(), 'kup-path-'));
    onTestFinished(async () => rm(path, { recursive: true }));
    for (const program of ['ip', 'setpriv']) {
      const real = execFileSync('sh', ['-c', `command -v ${program}`], { encoding: 'utf8' }).trim();
      await symlink(real, join(path, program));
    }
    const { exit, said } = await ended(
      await start({ env: { ...process.env, PATH: path }, awaitReady: false }),
    );
    expect(exit).toEqual({ exitCode: 1, signal: null });
    expect(said).toMatch(/ERR_IPTABLES_UNAVAILABLE.*ip6tables-save is not installed or not on PATH/);
  });

  test.for([
    { code: 'ERR_IPTABLES_RESTORE', exitCode: 1, message: 'iptables-restore: line 5 failed' },
    {
      code: 'ERR_IPTABLES_LOCKED',
      exitCode: 4,
      message: 'Another app is currently holding the xtables lock; still 1s 0us time ahead',
    },
  ])(
    'that iptables refuses ($code) turns unhealthy, counts, keeps what works, and recovers by itself',
    async ({ exitCode, message }) => {
      await using wrapper = await IptablesWrapper.create();
      const proxy = await start({
        manifests: { 'web.yaml': web() },
        env: wrapper.env,
        args: [`--iptables-sync-period=${SYNC_PERIOD_MS}ms`],
      });
      await becomesAnswered();
      await wrapper.fail(['iptables-restore', 'ip6tables-restore'], message, exitCode);
      await proxy.writeManifest('more.yaml', web('more', 20));
      const failed = await proxy.logged(({ msg }) => String(msg).startsWith('Sync failed'), 'a failed sync');
      expect(JSON.stringify(failed)).toContain(message);
      const status = async (path: string): Promise<number> => (await proxy.health(path)).status;
      await waitFor(async () => (await status('/healthz')) === 503, {
        timeoutMs: 10 * SYNC_PERIOD_MS,
        what: 'health to say so',
      });
      expect([await status('/livez'), await status('/readyz')]).toEqual([503, 503]);
      expect(
        await proxy.metric('kubeproxy_sync_proxy_rules_iptables_restore_failures_total'),
      ).toBeGreaterThan(0);
      expect(await isAnswered(10)).toBe(true);
      await wrapper.mend();
      await waitFor(async () => (await status('/healthz')) === 200, {
        timeoutMs: 20 * SYNC_PERIOD_MS,
        what: 'health to recover',
      });
      expect(await status('/readyz')).toBe(200);
      await becomesAnswered(20);
    },
  );

  test('that iptables refuses from the start is not ready, and becomes so by itself', async () => {
    await using wrapper = await IptablesWrapper.create();
    await wrapper.fail(['iptables-restore', 'ip6tables-restore'], 'out of memory');
    const proxy = await start({
      manifests: { 'web.yaml': web() },
      env: wrapper.env,
      args: [`--iptables-sync-period=${SYNC_PERIOD_MS}ms`],
      awaitReady: false,
    });
    await proxy.logged(({ msg }) => String(msg).startsWith('Sync failed'), 'a failed sync');
    expect((await proxy.health('/readyz')).status).toBe(503);
    await wrapper.mend();
    await proxy.ready();
    await becomesAnswered();
  });

  test.for([
    { name: 'an unknown flag', args: ['--frobnicate'], said: /--frobnicate/ },
    {
      name: 'a value out of range',
      args: ['--proxy-port-range=80-90'],
      said: /"80-90" for --proxy-port-range: must be .* 1024 to 65535/,
    },
    {
      name: 'a duration of 0',
      args: ['--iptables-sync-period=0s'],
      said: /"0s" for --iptables-sync-period: must be .* from 1ms/,
    },
    { name: 'a number that is none', args: ['-v', 'loud'], said: /"loud" for --v: must be .* 0 to 99/ },
    {
      name: 'too short a grace period',
      args: ['--listener-grace-period=5ms'],
      said: /"5ms" for --listener-grace-period: must be .* from 1s/,
    },
    { name: 'a word too many', args: ['now'], said: /"now"/ },
  ])('with $name ends at once, and says which and why', async ({ args, said: expected }) => {
    const { exit, said } = await ended(await start({ args, awaitReady: false }));
    expect(exit).toEqual({ exitCode: 1, signal: null });
    expect(said).toMatch(expected);
    expect(said).toContain('--help');
  });
});
