/**
 * What only concerns iptables-legacy: its lock, which another program may hold for long, and the change from the one
 * iptables to the other between two starts.
 */
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, onTestFinished, test } from 'vitest';
import { clusterIP, dualStackObjects } from '../../support/dual-stack.ts';
import { canMakeNamespaces, createLab, type Lab } from '../../support/netns-lab.ts';
import { manifestText } from '../../support/objects.ts';
import { ProxyProcess } from '../../support/proxy-process.ts';
import { waitFor } from '../../support/wait.ts';

const MAIN = new URL('../../../src/main.ts', import.meta.url).pathname;
/** Longer than a restore waits, which is 5 s. */
const HELD_SECONDS = 10;
/** Of a test that waits for the lock, or for two starts, on a busy machine. */
const PATIENCE = { timeout: 60_000 };
const ARGS = ['--iptables-sync-period=2s'];
const PROGRAMS = ['iptables', 'ip6tables'] as const;

const canTest = canMakeNamespaces() === undefined && existsSync('/usr/sbin/iptables-legacy');

describe.skipIf(!canTest)('with iptables-legacy', () => {
  let lab: Lab;

  beforeEach(async () => {
    lab = await createLab({ pods: 2 });
    await (await lab.pod(1).agent()).serveTcp({ port: 8080, mode: 'identify', name: 'pod1' });
  });
  afterEach(async () => {
    await lab.close();
  });

  const manifest = (name: string, number: number): string =>
    manifestText(
      ...dualStackObjects({
        name,
        number,
        ports: [{ name: 'http', port: 80, targetPort: 8080 }],
        backends: [lab.pod(1)],
      }),
    );
  const hintAtLegacy = async (): Promise<void> => {
    await lab.node.run(['iptables-legacy', '-t', 'mangle', '-N', 'KUBE-IPTABLES-HINT']);
  };
  const isServed = async (number: number): Promise<boolean> => {
    const client = await lab.pod(2).agent();
    const [IPv4, IPv6] = await Promise.all(
      (['IPv4', 'IPv6'] as const).map(async (family) =>
        client.tcpIdentify({ host: clusterIP(number, family), port: 80, count: 1, timeoutMs: 1_000 }),
      ),
    );
    return IPv4?.[0]?.name === 'pod1' && IPv6?.[0]?.name === 'pod1';
  };

  test(
    'traffic flows while another program holds the lock, and what was added meanwhile is up soon after',
    PATIENCE,
    async () => {
      const directory = await mkdtemp(join(tmpdir(), 'kup-lock-'));
      onTestFinished(async () => rm(directory, { recursive: true, force: true }));
      // The lock of this test alone: others on this machine are not held up.
      const lock = join(directory, 'xtables.lock');
      await hintAtLegacy();
      await using proxy = await ProxyProcess.start(lab.node, {
        manifests: { 'web.yaml': manifest('web', 10) },
        args: ARGS,
        env: { ...process.env, XTABLES_LOCKFILE: lock },
      });
      await waitFor(async () => isServed(10), { timeoutMs: 10_000, what: 'the Service to be served' });
      const client = await lab.pod(2).agent();
      const load = await client.startConnectLoad({ host: clusterIP(10, 'IPv4'), port: 80, pauseMs: 5 });
      const holder = lab.node.spawn(['flock', lock, 'sleep', String(HELD_SECONDS)], { stdio: 'ignore' });
      const released = new Promise<void>((resolve) => {
        holder.once('exit', () => resolve());
      });
      const isHeld = async (): Promise<boolean> =>
        (await lab.node.exec(['flock', '--nonblock', lock, 'true'])).exitCode !== 0;
      await waitFor(isHeld, { timeoutMs: 5_000, what: 'the lock to be held' });

      await proxy.writeManifest('new.yaml', manifest('new', 11));
      await proxy.logged(
        (line) => JSON.stringify(line).includes('ERR_IPTABLES_LOCKED'),
        'the lock was not to be had',
        15_000,
      );
      expect(await isServed(10)).toBe(true);
      expect(await isServed(11)).toBe(false);
      await released;
      await waitFor(async () => isServed(11), { timeoutMs: 10_000, what: 'the new Service to be served' });

      const report = await client.stopLoad(load);
      expect(report).toMatchObject({ failed: 0, failures: [] });
      expect(report.requests).toBeGreaterThan(100);
      expect(report.latencyMs.max).toBeLessThan(5_000);
      expect(
        await proxy.metric('kubeproxy_sync_proxy_rules_iptables_restore_failures_total'),
      ).toBeGreaterThan(0);
      expect(
        await proxy.metric('userspace_proxy_iptables_resyncs_total', { reason: 'failure' }),
      ).toBeGreaterThan(0);
    },
  );

  test(
    'rules that an earlier run left in the other iptables are not in force beside the new ones',
    PATIENCE,
    async () => {
      const ours = async (program: string): Promise<readonly string[]> =>
        (await lab.node.run([program])).split('\n').filter((line) => /^-A .*USERSPACE-PROXY-/.test(line));
      const first = await ProxyProcess.start(lab.node, {
        manifests: { 'web.yaml': manifest('web', 10) },
        args: ARGS,
      });
      await waitFor(async () => isServed(10), { timeoutMs: 10_000, what: 'the Service to be served' });
      await first.stop();
      for (const program of PROGRAMS) expect((await ours(`${program}-save`)).length).toBeGreaterThan(5);

      await hintAtLegacy();
      await using second = await ProxyProcess.start(lab.node, { directory: first.directory, args: ARGS });
      await waitFor(async () => isServed(10), { timeoutMs: 10_000, what: 'the Service to be served' });
      for (const program of PROGRAMS) {
        expect((await ours(`${program}-legacy-save`)).length).toBeGreaterThan(5);
        const left = await ours(`${program}-nft-save`);
        expect(left).toHaveLength(2);
        for (const line of left) expect(line).toContain('-A USERSPACE-PROXY-CANARY ');
      }

      await second.stop();
      await lab.node.run([
        process.execPath,
        MAIN,
        '--cleanup',
        '--state-dir',
        join(second.directory, 'state'),
      ]);
      for (const program of PROGRAMS)
        for (const flavour of ['nft', 'legacy'])
          expect(await lab.node.run([`${program}-${flavour}-save`])).not.toContain('USERSPACE-PROXY');
    },
  );
});
