/**
 * The address of its own that the proxy puts on `lo`: nobody else is to notice it, it comes back when somebody takes it
 * away, and it goes with the rules.
 */
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { CAPTURE_ADDRESSES } from '../../../src/host/capture-address.ts';
import { IP_FAMILIES } from '../../../src/model/address.ts';
import { clusterIP, dualStackObjects, openVantage, VANTAGES } from '../../support/dual-stack.ts';
import { canMakeNamespaces, createLab, type ExecResult, type Lab } from '../../support/netns-lab.ts';
import { manifestText } from '../../support/objects.ts';
import { ProxyProcess } from '../../support/proxy-process.ts';
import { waitFor } from '../../support/wait.ts';

const MAIN = new URL('../../../src/main.ts', import.meta.url).pathname;
const HTTP = { name: 'http', port: 80, targetPort: 8080, nodePort: 30_080 };
const DNS = { name: 'dns', port: 53, targetPort: 8053, nodePort: 30_053, protocol: 'UDP' } as const;
const ECHO = { name: 'echo', port: 7, targetPort: 8007 };
const WEB = { name: 'web', number: 10, ports: [HTTP, DNS, ECHO] };
/** How long a node may be without what somebody has taken from it; well below the periodic look. */
const BACK_MS = 5_000;

/** As `ip -j address` tells of it. */
interface AddressInfo {
  readonly local: string;
  readonly prefixlen: number;
  readonly scope: string;
  readonly deprecated?: boolean;
}

describe.skipIf(canMakeNamespaces() !== undefined)('the address of the proxy itself', () => {
  let lab: Lab;
  let proxy: ProxyProcess;
  /** Before the proxy came. */
  let before: readonly string[];

  beforeAll(async () => {
    lab = await createLab();
    const server = await lab.pod(1).agent();
    await server.serveTcp({ port: HTTP.targetPort, mode: 'identify', name: 'pod1' });
    await server.serveUdp({ port: DNS.targetPort, mode: 'identify', name: 'pod1' });
    await server.serveTcp({ port: ECHO.targetPort, mode: 'identify-echo', name: 'pod1' });
    // Somebody else's, as like ours as can be.
    for (const cidr of ['169.254.77.2/32', '10.77.0.1/32', 'fd6b:7570:77::2/128'])
      await lab.node.addAddress(cidr, 'lo');
    before = await allAddresses();
    proxy = await start();
  });
  afterAll(async () => {
    await proxy?.[Symbol.asyncDispose]();
    await lab?.close();
  });

  const start = async (): Promise<ProxyProcess> => {
    const objects = dualStackObjects({ ...WEB, backends: [lab.pod(1)] });
    const started = await ProxyProcess.start(lab.node, {
      manifests: { 'web.yaml': manifestText(...objects) },
      // The periodic look does nothing for these tests.
      args: ['--iptables-sync-period=1h'],
    });
    for (const family of IP_FAMILIES) await started.captured('default/web:http', { family });
    return started;
  };
  const run = async (...args: readonly string[]): Promise<ExecResult> =>
    lab.node.exec([process.execPath, MAIN, ...args]);
  const addressesOn = async (device: string): Promise<readonly AddressInfo[]> => {
    const links = JSON.parse(await lab.node.run(['ip', '-j', 'address', 'show', 'dev', device])) as readonly {
      readonly addr_info: readonly AddressInfo[];
    }[];
    return links.flatMap((link) => link.addr_info);
  };
  /** Of the whole node, as text that can be compared. */
  const allAddresses = async (): Promise<readonly string[]> =>
    (await lab.node.run(['ip', '-o', 'address', 'show'])).split('\n').toSorted();

  const everybodyIsAnswered = async (): Promise<boolean> => {
    for (const vantage of VANTAGES) {
      const tcp = await openVantage(lab, vantage, { ...WEB, ...HTTP });
      const target = { host: tcp.host, port: tcp.port, count: 1, timeoutMs: 400 };
      if ((await tcp.client.tcpIdentify(target))[0]?.name !== 'pod1') return false;
      const udp = await openVantage(lab, vantage, { ...WEB, ...DNS });
      const dial = { host: udp.host, port: udp.port, count: 1, sameSocket: true, timeoutMs: 400 };
      if ((await udp.client.udpIdentify(dial))[0]?.name !== 'pod1') return false;
    }
    return true;
  };

  test('is on lo, for this node only, and never anybody’s source', async () => {
    const onLo = await addressesOn('lo');
    expect(onLo.find(({ local }) => local === CAPTURE_ADDRESSES.IPv4)).toMatchObject({
      prefixlen: 32,
      scope: 'host',
    });
    expect(onLo.find(({ local }) => local === CAPTURE_ADDRESSES.IPv6)).toMatchObject({
      prefixlen: 128,
      deprecated: true,
      preferred_life_time: 0,
      valid_life_time: 4_294_967_295,
    });
    const foreign = (await allAddresses()).filter(
      (line) => !Object.values(CAPTURE_ADDRESSES).some((address) => line.includes(` ${address}/`)),
    );
    expect(foreign).toEqual(before);
  });

  test('is where every listener is, and no other address has one', async () => {
    const ports = await Promise.all(
      IP_FAMILIES.flatMap((family) => [
        proxy.proxyPort('default/web:http', { family }),
        proxy.proxyPort('default/web:echo', { family }),
        proxy.proxyPort('default/web:dns', { family, protocol: 'udp' }),
      ]),
    );
    const sockets = (await lab.node.run(['ss', '-Htuln'])).split('\n').filter((line) => line !== '');
    const own = sockets
      .map((line) => /^\w+ +\w+ +\d+ +\d+ +(\S+):(\d+) /.exec(line))
      .filter((match) => ports.includes(Number(match?.[2])))
      .map((match) => match?.[1] ?? '');
    const { IPv4, IPv6 } = CAPTURE_ADDRESSES;
    expect(own.toSorted()).toEqual([IPv4, IPv4, IPv4, `[${IPv6}]`, `[${IPv6}]`, `[${IPv6}]`]);
  });

  test.for(IP_FAMILIES)(
    'of %s comes back when somebody deletes it, and traffic flows again, also in connections that were open',
    async (family) => {
      const client = await lab.pod(4).agent();
      const group = await client.tcpHold({
        host: clusterIP(WEB.number, family),
        port: ECHO.port,
        count: 3,
        named: true,
      });
      const cidr = `${CAPTURE_ADDRESSES[family]}/${family === 'IPv4' ? 32 : 128}`;
      const specification = (await addressesOn('lo')).find(
        ({ local }) => local === CAPTURE_ADDRESSES[family],
      );
      await lab.node.removeAddress(cidr, 'lo');
      const isBack = async (): Promise<boolean> =>
        (await addressesOn('lo')).some(({ local }) => local === CAPTURE_ADDRESSES[family]);
      await waitFor(isBack, { timeoutMs: BACK_MS, what: `${cidr} to be back` });
      await waitFor(everybodyIsAnswered, { timeoutMs: BACK_MS, what: 'everybody to be answered' });
      expect((await addressesOn('lo')).find(({ local }) => local === CAPTURE_ADDRESSES[family])).toEqual(
        specification,
      );
      expect(await client.heldUse({ id: group.id, timeoutMs: 5_000 })).toMatchObject({ ok: 3, failed: 0 });
      await client.heldClose({ ...group, how: 'fin' });
      expect(proxy.log.filter((line) => line['level'] === 'error')).toEqual([]);
    },
  );

  test('spares every interface the warning that it has none', async () => {
    await lab.node.run(['ip', 'link', 'add', 'bare0', 'type', 'bridge']);
    onTestFinished(async () => void (await lab.node.run(['ip', 'link', 'del', 'bare0'])));
    await lab.node.run(['ip', 'link', 'set', 'bare0', 'up']);
    // The sync that this leads to is over when one that comes later has had its effect.
    await proxy.writeManifest(
      'more.yaml',
      manifestText(...dualStackObjects({ name: 'more', number: 11, ports: [ECHO], backends: [lab.pod(1)] })),
    );
    await proxy.captured('default/more:echo', { family: 'IPv6' });
    expect(proxy.log.filter((line) => line['interface'] !== undefined)).toEqual([]);
    expect(await proxy.metric('userspace_proxy_interfaces_without_address')).toBe(0);
  });

  test('is in the rules that --print-rules shows, as a proxy with the same state installs them', async () => {
    const [stateDir, manifests] = ['state', 'manifests'].map((name) => `${proxy.directory}/${name}`);
    const state = ['--state-dir', stateDir ?? '', '--manifests', manifests ?? ''];
    const printed = await run('--print-rules', '--capture', 'link-local', ...state);
    expect(printed.exitCode).toBe(0);
    const rules = printed.stdout.split('\n').filter((line) => /^-A (?!USERSPACE-PROXY-CANARY )/.test(line));
    const installed = (await Promise.all(IP_FAMILIES.map(async (family) => proxy.rules(family))))
      .flat()
      .filter((line) => /^-A USERSPACE-PROXY-(?!CANARY )/.test(line));
    expect(rules.toSorted()).toEqual(installed.toSorted());
  });

  test('stays when the proxy ends, and goes with --cleanup, and nothing else does', async () => {
    const after = await allAddresses();
    await proxy.stop();
    expect(await allAddresses()).toEqual(after);
    const state = ['--state-dir', `${proxy.directory}/state`];
    // Whether it is told so or not: who cleans up may not know how the proxy was run.
    expect(await run('--cleanup', ...state)).toMatchObject({ exitCode: 0, stdout: '' });
    expect(await allAddresses()).toEqual(before);
    for (const family of IP_FAMILIES) expect(await proxy.rules(family)).toEqual([]);
    expect(await run('--cleanup', ...state)).toMatchObject({ exitCode: 0 });
    await proxy[Symbol.asyncDispose]();
    proxy = await start();
    expect(await everybodyIsAnswered()).toBe(true);
  });
});
