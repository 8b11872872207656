/**
 * Which engine a proxy runs on, with the addon of this working copy, without one, and with one that is damaged: the last
 * two by covering its directory or its file in a mount namespace of the proxy's own.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { clusterIP } from '../../support/dual-stack.ts';
import { canMakeNamespaces, createLab, type Lab } from '../../support/netns-lab.ts';
import { makeService, makeSlice, manifestText } from '../../support/objects.ts';
import { ProxyProcess } from '../../support/proxy-process.ts';
import { waitFor } from '../../support/wait.ts';

const BUILD = join(import.meta.dirname, '../../../native/build');
const ADDON = join(BUILD, 'Release/kup_engine.node');

/** Ends in the proxy, which sees nothing where the addon was built. */
const WITHOUT_ADDON = within('mount -t tmpfs none "$0" && exec "$@"', BUILD);

function within(script: string, argument: string): readonly string[] {
  return ['unshare', '--mount', '--propagation', 'private', 'sh', '-ec', script, argument];
}

describe.skipIf(canMakeNamespaces() !== undefined)('the engine', () => {
  let lab: Lab;

  beforeAll(async () => {
    lab = await createLab({ pods: 2 });
    await (await lab.pod(1).agent()).serveTcp({ port: 8080, mode: 'identify', name: 'pod1' });
  });
  afterAll(async () => {
    await lab?.close();
  });

  const start = async (
    engine: string,
    { withinWhat = [], awaitReady = true }: { withinWhat?: readonly string[]; awaitReady?: boolean } = {},
  ): Promise<ProxyProcess> => {
    const service = makeService('web', ({ spec }) => {
      spec.clusterIP = clusterIP(10, 'IPv4');
    });
    const proxy = await ProxyProcess.start(lab.node, {
      manifests: { 'web.yaml': manifestText(service, makeSlice('web', [lab.pod(1).ipv4])) },
      args: ['--engine', engine],
      within: withinWhat,
      awaitReady,
    });
    onTestFinished(async () => proxy[Symbol.asyncDispose]());
    return proxy;
  };
  /** What the one line about it says. */
  const chosenBy = (proxy: ProxyProcess): Readonly<Record<string, unknown>> => {
    const lines = proxy.log.filter(({ msg }) => msg === 'Engine chosen');
    expect(lines).toHaveLength(1);
    return { ...lines[0] };
  };
  const carries = async (proxy: ProxyProcess): Promise<void> => {
    await proxy.captured('default/web:http');
    const client = await lab.pod(2).agent();
    const [answer] = await client.tcpIdentify({ host: clusterIP(10, 'IPv4'), port: 80, count: 1 });
    expect(answer).toMatchObject({ ok: true, name: 'pod1' });
  };

  test.each([
    { asked: 'auto', given: 'native' },
    { asked: 'native', given: 'native' },
    { asked: 'node', given: 'node' },
  ])('is $given with the addon when $asked is asked for: log and metric say so', async ({ asked, given }) => {
    const proxy = await start(asked);
    expect(chosenBy(proxy)).toMatchObject({ level: 'info', engine: given });
    expect(chosenBy(proxy)).not.toHaveProperty('nativeUnavailable');
    for (const engine of ['native', 'node'])
      expect(await proxy.metric('userspace_proxy_build_info', { engine })).toBe(engine === given ? 1 : 0);
    await carries(proxy);
  });

  test('is the node engine where nobody has built the addon, and the log says what is missing', async () => {
    const proxy = await start('auto', { withinWhat: WITHOUT_ADDON });
    expect(chosenBy(proxy)).toMatchObject({
      level: 'info',
      engine: 'node',
      nativeUnavailable: expect.stringContaining(ADDON) as string,
    });
    expect(await proxy.metric('userspace_proxy_build_info', { engine: 'node' })).toBe(1);
    await carries(proxy);
  });

  test('is the node engine where the addon is damaged, and the log says how', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'kup-addon-'));
    onTestFinished(async () => rm(directory, { recursive: true }));
    const file = join(directory, 'kup_engine.node');
    await writeFile(file, 'not a library');
    const proxy = await start('auto', {
      withinWhat: within(`mount --bind "$0" '${ADDON}' && exec "$@"`, file),
    });
    expect(chosenBy(proxy)).toMatchObject({
      engine: 'node',
      nativeUnavailable: expect.stringContaining(ADDON) as string,
    });
    await carries(proxy);
  });

  test('that is asked for and cannot be had ends the proxy before it writes a rule, with a code and the way out', async () => {
    const rulesNow = async (): Promise<readonly string[]> =>
      (await lab.node.run(['iptables-save'])).split('\n').filter((line) => line.startsWith('-A'));
    const before = await rulesNow();
    const proxy = await start('native', { withinWhat: WITHOUT_ADDON, awaitReady: false });
    expect(await proxy.exited).toMatchObject({ exitCode: 1 });
    const said = await waitFor(() => proxy.log.find(({ msg }) => msg === 'Exiting'), {
      timeoutMs: 5_000,
      what: 'the last line',
    });
    const text = JSON.stringify(said);
    expect(text).toContain('ERR_ENGINE_UNAVAILABLE');
    expect(text).toContain(ADDON);
    expect(text).toContain('npm run build:native');
    expect(await rulesNow()).toEqual(before);
  });
});
