/** The commands that do one thing and end: --cleanup, --print-rules, --version, --help. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { dualStackObjects } from '../../support/dual-stack.ts';
import { IptablesWrapper } from '../../support/iptables-wrapper.ts';
import { canMakeNamespaces, createLab, type ExecResult, type Lab } from '../../support/netns-lab.ts';
import { manifestText } from '../../support/objects.ts';
import { ProxyProcess } from '../../support/proxy-process.ts';

const MAIN = new URL('../../../src/main.ts', import.meta.url).pathname;
const SERVICE = {
  name: 'web',
  number: 10,
  ports: [
    { name: 'http', port: 80, targetPort: 8080, nodePort: 30_080 },
    { name: 'dns', port: 53, targetPort: 8053, nodePort: 30_053, protocol: 'UDP' },
  ],
} as const;

describe.skipIf(canMakeNamespaces() !== undefined)('the command', () => {
  let lab: Lab;
  let directory: string;
  let manifest: string;

  beforeAll(async () => {
    lab = await createLab();
    await (await lab.pod(1).agent()).serveTcp({ port: 8080, mode: 'identify', name: 'pod1' });
    directory = await mkdtemp(join(tmpdir(), 'kup-command-'));
    manifest = join(directory, 'web.yaml');
    await writeFile(manifest, manifestText(...dualStackObjects({ ...SERVICE, backends: [lab.pod(1)] })));
  });
  afterAll(async () => {
    await lab?.close();
    await rm(directory, { recursive: true, force: true });
  });

  const run = async (args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<ExecResult> =>
    lab.node.exec([
      'env',
      ...Object.entries(env).map(([name, value]) => `${name}=${value}`),
      process.execPath,
      MAIN,
      ...args,
    ]);
  const state = ['--state-dir', '/nonexistent/kup-state'];
  /** Rules and chains of whoever has made some, in both families. */
  const saved = async (): Promise<readonly string[]> => {
    const texts = await Promise.all(
      ['iptables-save', 'ip6tables-save'].map(async (save) => lab.node.run([save])),
    );
    return texts
      .join('\n')
      .split('\n')
      .filter((line) => /^-A |^:\S+ - /.test(line));
  };
  const ours = async (): Promise<readonly string[]> =>
    (await saved()).filter((line) => line.includes('USERSPACE-PROXY'));

  describe('--cleanup', () => {
    test('works with nothing installed', async () => {
      const before = await saved();
      expect(await run(['--cleanup', ...state])).toMatchObject({ exitCode: 0, stdout: '' });
      expect(await saved()).toEqual(before);
    });

    test('removes every rule and chain, whatever points at them, and leaves others alone', async () => {
      const foreign = async (...args: readonly string[]): Promise<string> =>
        lab.node.run(['iptables', ...args]);
      await foreign('-t', 'nat', '-A', 'PREROUTING', '-p', 'tcp', '--dport', '9999', '-j', 'RETURN');
      await foreign('-N', 'FOREIGN');
      await foreign('-A', 'FOREIGN', '-p', 'udp', '-j', 'DROP');
      const before = await saved();
      await using proxy = await ProxyProcess.start(lab.node, { args: ['--manifests', manifest] });
      await proxy.captured('default/web:http');
      await proxy.stop();
      expect((await ours()).length).toBeGreaterThan(20);
      // Also a jump that somebody else made.
      await foreign('-A', 'FOREIGN', '-j', 'USERSPACE-PROXY-INPUT');

      const stateDir = join(proxy.directory, 'state');
      const first = await run(['--cleanup', '--state-dir', stateDir]);
      expect(first).toMatchObject({ exitCode: 0, stdout: '' });
      expect(await ours()).toEqual([]);
      expect((await saved()).filter((line) => before.includes(line))).toEqual(before);
      for (const file of ['ports.json', 'affinity.json']) {
        expect(await lab.node.exec(['test', '-e', join(stateDir, file)])).toMatchObject({ exitCode: 1 });
      }
      const second = await run(['--cleanup', '--state-dir', stateDir]);
      expect(second).toMatchObject({ exitCode: 0 });
      await foreign('-F', 'FOREIGN');
      await foreign('-X', 'FOREIGN');
    });

    test.for([
      { name: 'read', programs: ['iptables-save'] },
      { name: 'written', programs: ['iptables-restore'] },
    ] as const)('exits with 1 when rules cannot be $name, and does the rest', async ({ programs }) => {
      await using proxy = await ProxyProcess.start(lab.node, { args: ['--manifests', manifest] });
      await proxy.captured('default/web:http', { family: 'IPv6' });
      await proxy.stop();
      await using wrapper = await IptablesWrapper.create();
      await wrapper.fail(programs, 'no such luck');
      const failed = await run(['--cleanup', ...state], { PATH: wrapper.env['PATH'] });
      expect(failed.exitCode).toBe(1);
      expect(failed.stderr).toContain('no such luck');
      expect(await proxy.rules('IPv6')).toEqual([]);
      expect((await proxy.rules('IPv4')).length).toBeGreaterThan(10);
      await wrapper.mend();
      expect(await run(['--cleanup', ...state], { PATH: wrapper.env['PATH'] })).toMatchObject({
        exitCode: 0,
      });
      expect(await ours()).toEqual([]);
    });
  });

  describe('--print-rules', () => {
    test('writes what iptables-restore loads, and changes nothing', async () => {
      const before = await saved();
      const printed = await run(['--print-rules', '--manifests', manifest, ...state]);
      expect(printed.exitCode).toBe(0);
      expect(await saved()).toEqual(before);
      const [ipv4 = '', ipv6 = ''] = printed.stdout.split(/^(?=# ip6tables-restore)/m);
      for (const [program, input] of [
        ['iptables-restore', ipv4],
        ['ip6tables-restore', ipv6],
      ] as const) {
        expect(input.startsWith(`# ${program} --noflush -w 5\n`)).toBe(true);
        expect(input).toContain('"default/web:http"');
        await lab.node.run([program, '--test', '--noflush', '-w', '5'], { input });
      }
      expect(await saved()).toEqual(before);
    });

    test('writes what a proxy with the same state installs', async () => {
      await using proxy = await ProxyProcess.start(lab.node, { args: ['--manifests', manifest] });
      await proxy.captured('default/web:http', { family: 'IPv6' });
      const stateDir = join(proxy.directory, 'state');
      const printed = await run(['--print-rules', '--manifests', manifest, '--state-dir', stateDir]);
      // The proxy that runs has remembered its ports; the jumps are printed as `-I`, and the canary is of a first write.
      const rules = printed.stdout.split('\n').filter((line) => /^-A (?!USERSPACE-PROXY-CANARY )/.test(line));
      const installed = (await ours()).filter((line) => /^-A USERSPACE-PROXY-(?!CANARY )/.test(line));
      expect(rules.toSorted()).toEqual(installed.toSorted());
      await proxy.stop();
      await run(['--cleanup', ...state]);
    });
  });

  test('--version and --help need nothing, and say what they are for', async () => {
    expect(await run(['--version'])).toMatchObject({
      exitCode: 0,
      stdout: expect.stringMatching(/^kube-userspace-proxy \d+\.\d+\.\d+\n$/),
    });
    const help = await run(['--help']);
    expect(help.exitCode).toBe(0);
    for (const flag of ['--manifests', '--cleanup', '--proxy-port-range'])
      expect(help.stdout).toContain(flag);
  });
});
