/**
 * Two instances on one node: one writes the rules, connections stay with whoever took them, and when one ends the other
 * has everything.
 */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { clusterIP, dualStackObjects, type Family, type ServiceOptions } from '../../support/dual-stack.ts';
import { IptablesWrapper } from '../../support/iptables-wrapper.ts';
import type { LogLine } from '../../support/log-sink.ts';
import { canMakeNamespaces, createLab, type Lab } from '../../support/netns-lab.ts';
import { manifestText, type ServiceTweak } from '../../support/objects.ts';
import { ProxyProcess } from '../../support/proxy-process.ts';
import { waitFor } from '../../support/wait.ts';

const MAIN = new URL('../../../src/main.ts', import.meta.url).pathname;
const FAMILIES = ['IPv4', 'IPv6'] as const;
const ECHO = { name: 'echo', port: 7, targetPort: 8007 };
const DNS = { name: 'dns', port: 53, targetPort: 8053, protocol: 'UDP' } as const;
const WEB = { name: 'web', number: 10, ports: [ECHO, DNS] };
const MORE = { name: 'more', number: 11, ports: [ECHO] };
const OTHER = { name: 'other', number: 12, ports: [ECHO] };
const LOCAL_PORT = 41_000;
/** Far more than an instance needs to notice, on a machine that has other things to do. */
const DEADLINE_MS = 30_000;

describe.skipIf(canMakeNamespaces() !== undefined)('two instances', () => {
  let lab: Lab;
  let state: string;

  beforeAll(async () => {
    lab = await createLab({ podLinks: 'bridged' });
    const server = await lab.pod(1).agent();
    await server.serveTcp({ port: ECHO.targetPort, mode: 'identify-echo', name: 'pod1' });
    await server.serveUdp({ port: DNS.targetPort, mode: 'identify', name: 'pod1' });
    state = await mkdtemp(join(tmpdir(), 'kup-shared-state-'));
  });
  afterAll(async () => {
    await lab?.close();
    await rm(state, { recursive: true });
  });

  const manifestOf = (service: Omit<ServiceOptions, 'backends'>): string =>
    manifestText(...dualStackObjects({ ...service, backends: [lab.pod(1)] }));
  /** With one state directory for all of them, as on a node, and manifests of its own. */
  const start = async (
    capture: string,
    args: readonly string[] = [],
    env: NodeJS.ProcessEnv = process.env,
    service: Omit<ServiceOptions, 'backends'> = WEB,
  ): Promise<ProxyProcess> => {
    const manifests = { 'web.yaml': manifestOf(service) };
    const all = ['--capture', capture, '--state-dir', state, ...args];
    const proxy = await ProxyProcess.start(lab.node, { manifests, args: all, awaitReady: false, env });
    onTestFinished(async () => proxy[Symbol.asyncDispose]());
    return proxy;
  };
  const owns = async (proxy: ProxyProcess, times = 1): Promise<number> => {
    const lines = (): readonly { readonly generation?: unknown }[] =>
      proxy.log.filter(({ msg }) => msg === 'This instance writes the rules');
    await waitFor(() => lines().length >= times, { timeoutMs: DEADLINE_MS, what: 'it to own the rules' });
    return Number(lines().at(-1)?.generation);
  };
  const ports = async (proxy: ProxyProcess): Promise<Record<Family, number>> => ({
    IPv4: await proxy.captured('default/web:echo', { family: 'IPv4' }),
    IPv6: await proxy.captured('default/web:echo', { family: 'IPv6' }),
  });
  /** Waits until the rules lead to other ports than these. */
  const moved = async (
    proxy: ProxyProcess,
    from: Record<Family, number>,
  ): Promise<Record<Family, number>> => {
    const isMoved = async (): Promise<Record<Family, number> | undefined> => {
      const now = await ports(proxy);
      return FAMILIES.every((family) => now[family] !== from[family]) ? now : undefined;
    };
    return waitFor(isMoved, { timeoutMs: DEADLINE_MS, what: 'the rules to lead to other ports' });
  };
  const isGuarded = async (family: Family, port: number): Promise<boolean> => {
    const tool = family === 'IPv4' ? 'iptables-save' : 'ip6tables-save';
    const saved = await lab.node.run([tool, '-t', 'filter']);
    return new RegExp(`--dport ${port} .*-j USERSPACE-PROXY-REFUSE`).test(saved);
  };
  /** From one source port for ever, so that it is one flow to conntrack. */
  const datagramAnswered = async (): Promise<void> => {
    const client = await lab.pod(3).agent();
    const target = { host: clusterIP(WEB.number, 'IPv4'), port: DNS.port, localPort: LOCAL_PORT };
    const isAnswered = async (): Promise<boolean> =>
      (await client.udpIdentify({ ...target, count: 1, sameSocket: true, timeoutMs: 500 }))[0]?.ok === true;
    await waitFor(isAnswered, { timeoutMs: DEADLINE_MS, what: 'an answer to the old source port' });
  };
  /** The proxy port that this flow has in conntrack. */
  const flowLeadsTo = async (): Promise<number> => {
    const of = ['-p', 'udp', '--orig-port-src', String(LOCAL_PORT), '--orig-port-dst', String(DNS.port)];
    const listed = await lab.node.run(['conntrack', '-L', ...of]);
    return Number(/ sport=(\d+) dport=\d+ (?:\[|mark|use|$)/.exec(listed)?.[1] ?? Number.NaN);
  };
  const answers = async (): Promise<void> => {
    const client = await lab.pod(4).agent();
    for (const family of FAMILIES) {
      const target = { host: clusterIP(WEB.number, family), port: ECHO.port, count: 3 };
      expect((await client.tcpIdentify(target)).map(({ name }) => name)).toEqual(['pod1', 'pod1', 'pod1']);
    }
  };

  test.for(['redirect', 'link-local'])(
    '(--capture %s): the new one takes the rules and new connections, the old one keeps its own; when the new one dies the old one is back, when the old one dies nothing of it is left',
    { timeout: 120_000 },
    async (capture) => {
      const old = await start(capture);
      await old.ready(DEADLINE_MS);
      const oldPorts = await ports(old);
      const client = await lab.pod(4).agent();
      const held: { id: number }[] = [];
      for (const family of FAMILIES) {
        const target = { host: clusterIP(WEB.number, family), port: ECHO.port };
        held.push(await client.tcpHold({ ...target, count: 3, named: true }));
      }
      const load = await client.startConnectLoad({
        host: clusterIP(WEB.number, 'IPv4'),
        port: ECHO.port,
        concurrency: 2,
        pauseMs: 5,
      });

      const flowPort = await old.captured('default/web:dns', { protocol: 'udp' });
      await datagramAnswered();
      expect(await flowLeadsTo()).toBe(flowPort);

      const heir = await start(capture);
      const generation = await owns(heir);
      await heir.ready(DEADLINE_MS);
      const heirPorts = await moved(heir, oldPorts);
      // The old one has closed its servers: these pages are the new one's.
      await waitFor(async () => (await heir.metric('userspace_proxy_rules_generation')) === generation, {
        timeoutMs: DEADLINE_MS,
        what: 'the metrics of the new one',
      });
      expect(await heir.metric('userspace_proxy_owner')).toBe(1);
      expect(old.log.filter(({ level }) => level === 'warn' || level === 'error')).toEqual([]);

      // Old connections live on the old one, new ones come to the new one.
      for (const { id } of held) expect(await client.heldUse({ id })).toMatchObject({ ok: 3, failed: 0 });
      await answers();
      await datagramAnswered();
      expect(await flowLeadsTo()).toBe(flowPort);
      for (const family of FAMILIES) {
        expect(await isGuarded(family, oldPorts[family])).toBe(true);
        expect(await isGuarded(family, heirPorts[family])).toBe(true);
      }

      // Only one writes: a Service that only the old one knows of is not captured.
      await old.writeManifest('more.yaml', manifestOf(MORE));
      await heir.writeManifest('other.yaml', manifestOf(OTHER));
      await heir.captured('default/other:echo', { family: 'IPv6' });
      expect((await heir.rules()).filter((rule) => rule.includes('default/more'))).toEqual([]);

      const beforeDeath = await client.loadReport(load);
      expect(beforeDeath).toMatchObject({ failed: 0, failures: [] });

      heir.signal('SIGKILL');
      await heir.exited;
      await owns(old, 2);
      expect(await moved(old, heirPorts)).toEqual(oldPorts);
      await old.captured('default/more:echo', { family: 'IPv6' });
      await answers();
      for (const { id } of held) expect(await client.heldUse({ id })).toMatchObject({ ok: 3, failed: 0 });
      await old.ready(DEADLINE_MS);
      await client.stopLoad(load);

      const next = await start(capture);
      await owns(next);
      const nextPorts = await moved(next, oldPorts);
      old.signal('SIGKILL');
      await old.exited;
      const guardsGone = async (): Promise<boolean> =>
        !(await isGuarded('IPv4', oldPorts.IPv4)) && !(await isGuarded('IPv6', oldPorts.IPv6));
      await waitFor(guardsGone, { timeoutMs: DEADLINE_MS, what: 'the guards of the old one to go' });
      expect(await ports(next)).toEqual(nextPorts);
      await answers();
      // One that keeps its source port comes to the new one now.
      await datagramAnswered();
      expect(await flowLeadsTo()).toBe(await next.proxyPort('default/web:dns', { protocol: 'udp' }));
      const remembered = await readFile(join(state, 'ports.json'), 'utf8');
      expect(remembered).toContain(String(nextPorts.IPv4));
      next.signal('SIGKILL');
      await next.exited;
    },
  );

  test('the old one is told to stop while the new one serves: nothing fails, connections live until the drain is over', {
    timeout: 120_000,
  }, async () => {
    const old = await start('redirect', ['--drain-timeout', '1500ms']);
    await old.ready(DEADLINE_MS);
    const client = await lab.pod(4).agent();
    const target = { host: clusterIP(WEB.number, 'IPv6'), port: ECHO.port };
    const held = await client.tcpHold({ ...target, count: 3, named: true });
    const load = await client.startConnectLoad({ ...target, concurrency: 2, pauseMs: 5 });
    const heir = await start('redirect');
    await owns(heir);
    await heir.ready(DEADLINE_MS);
    old.signal('SIGTERM');
    await old.logged(({ msg }) => String(msg).startsWith('Draining'), 'the drain');
    expect(await client.heldUse(held)).toMatchObject({ ok: 3, failed: 0 });
    expect(await old.exited).toEqual({ exitCode: 0, signal: null });
    await answers();
    const report = await client.stopLoad(load);
    expect(report).toMatchObject({ failed: 0, failures: [] });
    expect(report.requests).toBeGreaterThan(100);
  });

  test('the new one is told to stop while the old one stands by: the old one is back before the drain is over, and nothing fails', {
    timeout: 120_000,
  }, async () => {
    const old = await start('redirect');
    await old.ready(DEADLINE_MS);
    const heir = await start('redirect', ['--drain-timeout', '1h']);
    await owns(heir);
    await heir.ready(DEADLINE_MS);
    const client = await lab.pod(4).agent();
    const target = { host: clusterIP(WEB.number, 'IPv4'), port: ECHO.port };
    const load = await client.startConnectLoad({ ...target, concurrency: 2, pauseMs: 5 });
    heir.signal('SIGTERM');
    await owns(old, 2);
    await old.ready(DEADLINE_MS);
    heir.signal('SIGINT');
    expect(await heir.exited).toEqual({ exitCode: 0, signal: null });
    await answers();
    expect(await client.stopLoad(load)).toMatchObject({ failed: 0, failures: [] });
  });

  test('health check node ports are the new one’s as soon as the old one has left them', {
    timeout: 120_000,
  }, async () => {
    const balanced = {
      ...WEB,
      tweak: (({ spec }) => {
        Object.assign(spec, {
          type: 'LoadBalancer',
          externalTrafficPolicy: 'Local',
          healthCheckNodePort: 30_777,
        });
      }) satisfies ServiceTweak,
    };
    // No look at the rules that would happen to try again.
    const rarely = ['--iptables-sync-period', '1h'];
    const old = await start('redirect', rarely, process.env, balanced);
    await old.ready(DEADLINE_MS);
    const heir = await start('redirect', rarely, process.env, balanced);
    await owns(heir);
    await heir.ready(DEADLINE_MS);
    for (const address of ['0.0.0.0', '[::]']) {
      const isOpen = ({ msg, healthCheck }: LogLine): boolean =>
        msg === 'Health check port open' && healthCheck === `${address}:30777`;
      await heir.logged(isOpen, `the health check node port on ${address}`, DEADLINE_MS);
    }
  });

  test('an owner that hangs is passed over, and when it wakes it writes nothing', {
    timeout: 120_000,
  }, async () => {
    await using oldPrograms = await IptablesWrapper.create();
    await using heirPrograms = await IptablesWrapper.create();
    const writes = async (programs: IptablesWrapper): Promise<number> =>
      programs.calls('iptables-restore', 'ip6tables-restore');
    const often = ['--iptables-sync-period', '300ms'];
    const old = await start('redirect', often, oldPrograms.env);
    await old.ready(DEADLINE_MS);
    const oldPorts = await ports(old);
    old.signal('SIGSTOP');
    const heir = await start('redirect', often, heirPrograms.env);
    const isPassedOver = ({ msg }: LogLine): boolean => String(msg).includes('does not yield them');
    await heir.logged(isPassedOver, 'the warning', DEADLINE_MS);
    await owns(heir);
    const heirPorts = await moved(heir, oldPorts);
    await answers();
    for (const family of FAMILIES) expect(await isGuarded(family, oldPorts[family])).toBe(true);
    const before = await writes(oldPrograms);

    old.signal('SIGCONT');
    await old.logged(({ msg }) => String(msg).includes('standing by'), 'it to stand by', DEADLINE_MS);
    await heir.ready(DEADLINE_MS);
    // Both have work: what only the old one knows of, and what only the new one knows of.
    await old.writeManifest('more.yaml', manifestOf(MORE));
    await heir.writeManifest('other.yaml', manifestOf(OTHER));
    await heir.captured('default/other:echo', { family: 'IPv6' });
    const writesOfHeir = await writes(heirPrograms);
    const synced = async (): Promise<number> =>
      heir.metric('kubeproxy_sync_proxy_rules_duration_seconds_count');
    const syncs = await synced();
    await waitFor(async () => (await synced()) >= syncs + 8, { timeoutMs: DEADLINE_MS, what: 'some syncs' });
    expect(await ports(heir)).toEqual(heirPorts);
    expect((await heir.rules()).filter((rule) => rule.includes('default/more'))).toEqual([]);
    // At most the one that was refused.
    expect(await writes(oldPrograms)).toBeLessThanOrEqual(before + 2);
    expect(await writes(heirPrograms)).toBe(writesOfHeir);
    expect(old.log.filter(({ msg }) => String(msg).includes('standing by'))).toHaveLength(1);
    expect(old.log.filter(({ level }) => level === 'error')).toEqual([]);
  });

  test('--cleanup does nothing while one is running, and says why', async () => {
    const proxy = await start('redirect');
    await proxy.ready(DEADLINE_MS);
    const rules = await proxy.rules();
    const cleanUp = [process.execPath, MAIN, '--cleanup', '--state-dir', state];
    const refused = await lab.node.exec(cleanUp);
    expect(refused.exitCode).toBe(1);
    expect(refused.stderr).toContain('ERR_INSTANCE_RUNNING');
    expect(await proxy.rules()).toEqual(rules);
    await proxy.stop();
    expect(await lab.node.exec(cleanUp)).toMatchObject({ exitCode: 0 });
    expect(await proxy.rules()).toEqual([]);
  });
});
