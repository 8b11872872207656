/** A state directory that is damaged, or cannot be written: one warning, everything else as ever, and no help needed. */
import { mkdir, mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test } from 'vitest';
import { clusterIP, dualStackObjects } from '../../support/dual-stack.ts';
import { canMakeNamespaces, createLab, type Lab } from '../../support/netns-lab.ts';
import { manifestText } from '../../support/objects.ts';
import { ProxyProcess, type ProxyProcessOptions } from '../../support/proxy-process.ts';
import { waitFor } from '../../support/wait.ts';

const HTTP = { name: 'http', port: 80, targetPort: 8080 };
const LOST = 'Proxy ports of the last run are lost, taking new ones';
const FORGETFUL = 'Proxy ports will not be the same after a restart';
const DEADLINE_MS = 15_000;

describe.skipIf(canMakeNamespaces() !== undefined)('a state directory', () => {
  let lab: Lab;
  let state: string;
  let ports: string;

  beforeAll(async () => {
    lab = await createLab();
    await (await lab.pod(1).agent()).serveTcp({ port: HTTP.targetPort, mode: 'identify', name: 'pod1' });
  });
  afterAll(async () => {
    await lab?.close();
  });
  beforeEach(async () => {
    const directory = await mkdtemp(join(tmpdir(), 'kup-state-'));
    onTestFinished(async () => rm(directory, { recursive: true, force: true }));
    state = join(directory, 'state');
    ports = join(state, 'ports.json');
    await mkdir(state);
  });

  const web = (number: number): string =>
    manifestText(
      ...dualStackObjects({ name: `web${number}`, number, ports: [HTTP], backends: [lab.pod(1)] }),
    );
  const start = async (options: ProxyProcessOptions = {}): Promise<ProxyProcess> => {
    const args = ['--state-dir', state, '--iptables-sync-period', '300ms'];
    const proxy = await ProxyProcess.start(lab.node, {
      manifests: { 'web.yaml': web(10) },
      args,
      ...options,
    });
    onTestFinished(async () => proxy[Symbol.asyncDispose]());
    return proxy;
  };
  const isServed = async (number: number): Promise<void> => {
    const client = await lab.pod(4).agent();
    const asked = { host: clusterIP(number, 'IPv6'), port: HTTP.port, count: 1, timeoutMs: 500 };
    const isAnswered = async (): Promise<boolean> => (await client.tcpIdentify(asked))[0]?.name === 'pod1';
    await waitFor(isAnswered, { timeoutMs: DEADLINE_MS, what: `an answer of web${number}` });
  };
  const isRemembered = async (proxy: ProxyProcess): Promise<void> => {
    const port = await proxy.proxyPort('default/web10:http');
    const isSaved = async (): Promise<boolean> => (await readFile(ports, 'utf8')).includes(`${port}`);
    await waitFor(isSaved, { timeoutMs: DEADLINE_MS, what: 'the port to be remembered' });
  };
  const said = (proxy: ProxyProcess, message: string): number =>
    proxy.log.filter(({ msg }) => msg === message).length;
  const syncs = async (proxy: ProxyProcess, more: number): Promise<void> => {
    const count = async (): Promise<number> =>
      proxy.metric('kubeproxy_sync_proxy_rules_duration_seconds_count', { ip_family: 'IPv4' });
    const before = await count();
    await waitFor(async () => (await count()) >= before + more, {
      timeoutMs: DEADLINE_MS,
      what: 'some syncs',
    });
  };

  test.for([
    { name: 'a file that is cut off', damage: async () => writeFile(ports, '{"version":1,"ports":{"a":2') },
    { name: 'binary', damage: async () => writeFile(ports, Buffer.from([0, 255, 254, 1, 2, 3])) },
    {
      name: 'a list of nothing but lies',
      damage: async () => writeFile(ports, '{"version":1,"ports":[[1]]}'),
      isSilent: true,
    },
    {
      name: 'a file of 100 MB',
      damage: async () => {
        await writeFile(ports, '{');
        await truncate(ports, 100 * 1024 * 1024);
      },
    },
  ])(
    'with $name for remembered ports costs one warning, and is whole again after the start',
    async ({ damage, isSilent }) => {
      await damage();
      const proxy = await start();
      await isServed(10);
      await isRemembered(proxy);
      expect(said(proxy, LOST)).toBe(isSilent === true ? 0 : 1);
      expect(said(proxy, FORGETFUL)).toBe(0);
    },
  );

  test('with a directory in the place of the file costs one warning at the start and one for all syncs, until it is gone', async () => {
    await mkdir(join(ports, 'x'), { recursive: true });
    const proxy = await start();
    await isServed(10);
    await syncs(proxy, 3);
    expect([said(proxy, LOST), said(proxy, FORGETFUL)]).toEqual([1, 1]);
    await rm(ports, { recursive: true });
    await isRemembered(proxy);
  });

  test('that is missing with all its parents is made', async () => {
    state = join(state, 'a', 'b', 'c');
    ports = join(state, 'ports.json');
    const proxy = await start();
    await isRemembered(proxy);
    expect([said(proxy, LOST), said(proxy, FORGETFUL)]).toEqual([0, 0]);
  });

  test.for([
    { name: 'is read-only', mount: 'size=64k,ro', mend: 'mount -o remount,rw' },
    { name: 'is full', mount: 'size=4k', mend: 'mount -o remount,size=64k' },
  ])(
    'that $name costs one warning, however many Services change, and is used when it is mended',
    async ({ mount, mend }) => {
      // In the proxy's own mount namespace. A tmpfs of one page is full with one file.
      const script = `mount -t tmpfs -o ${mount} tmpfs '${state}'; echo full >'${state}/other' || true; exec "$@"`;
      const proxy = await start({ within: ['unshare', '-m', 'sh', '-c', script, 'sh'] });
      await isServed(10);
      await proxy.writeManifest('more.yaml', web(11));
      await isServed(11);
      await syncs(proxy, 3);
      expect([said(proxy, LOST), said(proxy, FORGETFUL)]).toEqual([0, 1]);
      const within = ['nsenter', '-t', String(proxy.pid), '-m', 'sh', '-c'];
      await lab.node.run([...within, `${mend} '${state}'`]);
      await proxy.logged(
        ({ msg }) => msg === 'Proxy ports are remembered again',
        'it is mended',
        DEADLINE_MS,
      );
      const saved = await lab.node.run([...within, `cat '${ports}'`]);
      expect(saved).toContain(String(await proxy.proxyPort('default/web11:http')));
      expect(said(proxy, FORGETFUL)).toBe(1);
    },
  );
});
