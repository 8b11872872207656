/** ClientIP affinity over a restart: who was tied to a pod comes back to it, for the rest of the time-out. */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { clusterIP, dualStackObjects } from '../../support/dual-stack.ts';
import { canMakeNamespaces, createLab, type Lab } from '../../support/netns-lab.ts';
import { manifestText } from '../../support/objects.ts';
import { ProxyProcess } from '../../support/proxy-process.ts';
import { waitFor } from '../../support/wait.ts';

/** Five times the five seconds between two saves. */
const SAVED_WITHIN_MS = 25_000;
const BRIEF_S = 1;
const HTTP = { name: 'http', port: 80, targetPort: 8080 };
const STICKY = { name: 'sticky', number: 10, timeoutSeconds: 600 };
const BRIEF = { name: 'brief', number: 11, timeoutSeconds: BRIEF_S };
/** Client addresses of one pod, two for each endpoint. */
const CLIENTS = Array.from({ length: 6 }, (_, index) => `10.244.1.${101 + index}`);

describe.skipIf(canMakeNamespaces() !== undefined)('ClientIP affinity over a restart', () => {
  let lab: Lab;

  beforeAll(async () => {
    lab = await createLab();
    for (const pod of [lab.pod(1), lab.pod(2), lab.pod(3)]) {
      await (await pod.agent()).serveTcp({ port: HTTP.targetPort, mode: 'identify', name: pod.name });
    }
    for (const address of CLIENTS) await lab.pod(4).addAddress(`${address}/24`);
  });
  afterAll(async () => {
    await lab?.close();
  });

  const manifest = ({ name, number, timeoutSeconds }: typeof STICKY, pods = [1, 2, 3]): string =>
    manifestText(
      ...dualStackObjects({
        name,
        number,
        ports: [HTTP],
        backends: pods.map((pod) => lab.pod(pod)),
        tweak: ({ spec }) =>
          Object.assign(spec, {
            sessionAffinity: 'ClientIP',
            sessionAffinityConfig: { clientIP: { timeoutSeconds } },
          }),
      }),
    );

  const start = async (options: Parameters<typeof ProxyProcess.start>[1] = {}): Promise<ProxyProcess> => {
    const manifests = { 'sticky.yaml': manifest(STICKY), 'brief.yaml': manifest(BRIEF) };
    const proxy = await ProxyProcess.start(lab.node, { manifests, ...options });
    onTestFinished(async () => proxy[Symbol.asyncDispose]());
    await proxy.captured('default/sticky:http');
    return proxy;
  };
  /** Who answers each of these client addresses, in turn. */
  const answersOf = async ({ number }: typeof STICKY, clients: readonly string[] = CLIENTS) => {
    const client = await lab.pod(4).agent();
    const names: string[] = [];
    for (const localAddress of clients) {
      const target = { host: clusterIP(number, 'IPv4'), port: HTTP.port, localAddress };
      const [answer] = await client.tcpIdentify({ ...target, count: 1 });
      names.push(answer?.name ?? `failed: ${answer?.errno}`);
    }
    return names;
  };
  const tiesOf = async (proxy: ProxyProcess, { name }: typeof STICKY): Promise<number> =>
    proxy.metric('userspace_proxy_affinity_entries', { service: name, ip_family: 'IPv4' });
  const fileOf = ({ directory }: ProxyProcess): string => join(directory, 'state', 'affinity.json');
  const areSaved = async (proxy: ProxyProcess, names: readonly string[]): Promise<boolean> => {
    const text = await readFile(fileOf(proxy), 'utf8').catch(() => '');
    const pools = text
      .split('\n')
      .filter((line) => CLIENTS.every((client) => line.includes(`["${client}",`)));
    return names.every((name) => pools.some((line) => line.includes(`"default/${name}:http/TCP/IPv4/`)));
  };

  test('holds over SIGKILL and start, but for a client whose time-out passes meanwhile', async () => {
    const crashed = await start();
    const before = await answersOf(STICKY);
    expect(before.toSorted()).toEqual(['pod1', 'pod1', 'pod2', 'pod2', 'pod3', 'pod3']);
    const isBriefTied = async (): Promise<boolean> => {
      // Its ties run out within the time between two saves, unless they are renewed.
      await answersOf(BRIEF);
      return areSaved(crashed, ['sticky', 'brief']);
    };
    await waitFor(isBriefTied, { timeoutMs: SAVED_WITHIN_MS, what: 'all ties to be saved' });
    crashed.signal('SIGKILL');
    await crashed.exited;
    const killedAt = performance.now();
    await waitFor(() => performance.now() - killedAt > BRIEF_S * 1_000, {
      timeoutMs: 2_000 * BRIEF_S,
      what: 'the shorter time-out to pass',
    });

    const proxy = await start({ directory: crashed.directory });

    // In the opposite order: whoever is tied anew is tied otherwise.
    expect(await answersOf(STICKY, CLIENTS.toReversed())).toEqual(before.toReversed());
    expect(await tiesOf(proxy, STICKY)).toBe(CLIENTS.length);
    // One client comes, and finds no other tied.
    await answersOf(BRIEF, CLIENTS.slice(0, 1));
    expect(await tiesOf(proxy, BRIEF)).toBe(1);
    expect(proxy.log.filter(({ msg }) => String(msg).startsWith('Affinity'))).toEqual([]);
  });

  test('is saved to the last moment by an orderly stop, and frees the clients of a pod that went meanwhile', async () => {
    const stopped = await start();
    const before = await answersOf(STICKY);
    await stopped.stop();
    expect(await areSaved(stopped, ['sticky'])).toBe(true);

    const manifests = { 'sticky.yaml': manifest(STICKY, [2, 3]) };
    await start({ directory: stopped.directory, manifests });

    const after = await answersOf(STICKY, CLIENTS.toReversed());
    for (const [index, name] of before.toReversed().entries()) {
      expect(after[index]).toMatch(name === 'pod1' ? /^pod[23]$/ : new RegExp(`^${name}$`));
    }
  });

  test('is lost with one warning where the file is damaged, which the next save mends', async () => {
    const stopped = await start();
    await answersOf(STICKY);
    await stopped.stop();
    const text = await readFile(fileOf(stopped), 'utf8');
    await writeFile(fileOf(stopped), text.slice(0, text.length / 2));

    const proxy = await start({ directory: stopped.directory });

    const warned = proxy.log.filter(({ msg }) => String(msg).startsWith('Affinity'));
    expect(warned).toMatchObject([{ level: 'warn', error: { code: 'ERR_STATE_DIR' } }]);
    const names = await answersOf(STICKY);
    expect(names.toSorted()).toEqual(['pod1', 'pod1', 'pod2', 'pod2', 'pod3', 'pod3']);
    await proxy.stop();
    expect(await areSaved(proxy, ['sticky'])).toBe(true);
  });

  test('is read where the state directory is read-only, and works there, with one warning', async () => {
    const stopped = await start();
    const before = await answersOf(STICKY);
    await stopped.stop();
    const stateDir = join(stopped.directory, 'state');
    await mkdir(stateDir, { recursive: true });
    const script = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"';

    const proxy = await start({
      directory: stopped.directory,
      within: ['unshare', '--mount', 'sh', '-c', script, stateDir],
    });

    expect(await answersOf(STICKY, CLIENTS.toReversed())).toEqual(before.toReversed());
    await proxy.stop();
    const told = proxy.log.filter(({ msg }) => msg === 'Affinity will be lost with a restart');
    expect(told).toMatchObject([{ level: 'warn', error: { code: 'ERR_STATE_DIR' } }]);
    expect(JSON.stringify(told)).toContain('EROFS');
  });
});
