/**
 * Interfaces without an address are out of REDIRECT's reach: whoever runs the proxy is told so, by name, once, and with
 * the way out. Nobody is told of what does no harm.
 */
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { IP_FAMILIES } from '../../../src/model/address.ts';
import { clusterIP, dualStackObjects, type Family } from '../../support/dual-stack.ts';
import type { LogLine } from '../../support/log-sink.ts';
import { canMakeNamespaces, createLab, type Lab } from '../../support/netns-lab.ts';
import { manifestText } from '../../support/objects.ts';
import { ProxyProcess } from '../../support/proxy-process.ts';
import { waitFor } from '../../support/wait.ts';

const NAME = { name: 'name', port: 80, targetPort: 8080 };
const WEB = { name: 'web', number: 10, ports: [NAME] };

/** What was told of one interface and family. */
function toldOf(proxy: ProxyProcess, name: string, family: Family): readonly LogLine[] {
  return proxy.log.filter((line) => line['interface'] === name && line['family'] === family);
}

async function becomesTold(proxy: ProxyProcess, name: string, family: Family): Promise<LogLine> {
  return proxy.logged(
    (line) => line['interface'] === name && line['family'] === family,
    `${name} has no ${family} address`,
  );
}

async function start(lab: Lab): Promise<ProxyProcess> {
  await (await lab.pod(1).agent()).serveTcp({ port: NAME.targetPort, mode: 'identify', name: 'pod1' });
  const objects = dualStackObjects({ ...WEB, backends: [lab.pod(1)] });
  const proxy = await ProxyProcess.start(lab.node, { manifests: { 'web.yaml': manifestText(...objects) } });
  for (const family of IP_FAMILIES) await proxy.captured('default/web:name', { family });
  return proxy;
}

const count = async (proxy: ProxyProcess): Promise<number> =>
  proxy.metric('userspace_proxy_interfaces_without_address');

describe.skipIf(canMakeNamespaces() !== undefined)('an interface without an address', () => {
  let lab: Lab;
  let proxy: ProxyProcess;

  beforeAll(async () => {
    lab = await createLab({ pods: 2, podLinks: 'bridged' });
    proxy = await start(lab);
  });
  afterAll(async () => {
    await proxy?.[Symbol.asyncDispose]();
    await lab?.close();
  });

  test('is told of once for each family, by name, with the flag that needs none', async () => {
    await lab.node.run(['ip', 'link', 'add', 'bare0', 'type', 'bridge']);
    await lab.node.run(['ip', 'link', 'set', 'bare0', 'up']);
    for (const family of IP_FAMILIES) {
      const line = await becomesTold(proxy, 'bare0', family);
      expect(line).toMatchObject({ level: 'warn' });
      expect(line['msg']).toContain('--capture link-local');
    }
    await waitFor(async () => (await count(proxy)) === 2, { timeoutMs: 5_000, what: 'the metric' });
    // It comes again, and that is no news.
    await lab.node.run(['ip', 'link', 'set', 'bare0', 'down']);
    await waitFor(async () => (await count(proxy)) === 0, { timeoutMs: 5_000, what: 'the metric to go' });
    await lab.node.run(['ip', 'link', 'set', 'bare0', 'up']);
    await waitFor(async () => (await count(proxy)) === 2, { timeoutMs: 5_000, what: 'the metric again' });
    await lab.node.run(['ip', 'link', 'del', 'bare0']);
    await waitFor(async () => (await count(proxy)) === 0, { timeoutMs: 5_000, what: 'the metric to go' });
    for (const family of IP_FAMILIES) expect(toldOf(proxy, 'bare0', family)).toHaveLength(1);
  });

  test('is no reason to speak when it is a port of a bridge, or has an address', async () => {
    // `vp1` and `vp2` have none, and their bridge has.
    await lab.node.run(['ip', 'link', 'add', 'full0', 'type', 'bridge']);
    onTestFinished(async () => void (await lab.node.run(['ip', 'link', 'del', 'full0'])));
    await lab.node.addAddress('10.8.0.1/24', 'full0');
    await lab.node.run(['ip', 'link', 'set', 'full0', 'up']);
    // It is IPv6 only that it lacks, and this was noticed: so was everything else.
    await becomesTold(proxy, 'full0', 'IPv6');
    expect(toldOf(proxy, 'full0', 'IPv4')).toEqual([]);
    const names = proxy.log.map((line) => line['interface']).filter((name) => typeof name === 'string');
    expect(names.filter((name) => !/^(?:bare|full)0$/.test(name))).toEqual([]);
  });
});

describe.skipIf(canMakeNamespaces() !== undefined)('a pod on an unnumbered interface', () => {
  let lab: Lab;
  let proxy: ProxyProcess;

  beforeAll(async () => {
    lab = await createLab({ pods: 2, podLinks: 'unnumbered' });
    proxy = await start(lab);
  });
  afterAll(async () => {
    await proxy?.[Symbol.asyncDispose]();
    await lab?.close();
  });

  test('is why its interface is named, with the flag that serves it', async () => {
    for (const name of ['vp1', 'vp2']) {
      for (const family of IP_FAMILIES) {
        const line = await becomesTold(proxy, name, family);
        expect(line).toMatchObject({ level: 'warn' });
        expect(line['msg']).toContain('--capture link-local');
      }
    }
    expect(await count(proxy)).toBe(4);
    // What comes in elsewhere is not concerned.
    const names = proxy.log.map((line) => line['interface']).filter((name) => name !== undefined);
    expect(new Set(names)).toEqual(new Set(['vp1', 'vp2']));
  });

  test('gets no answer over IPv4, while the node and the outside do', async () => {
    const target = { host: clusterIP(WEB.number, 'IPv4'), port: NAME.port };
    const [pod, node, outside] = await Promise.all([lab.pod(2).agent(), lab.node.agent(), lab.ext.agent()]);
    expect((await pod.tcpProbe({ ...target, timeoutMs: 500 })).outcome).toBe('timeout');
    expect(await node.tcpIdentify({ ...target, count: 1 })).toMatchObject([{ ok: true, name: 'pod1' }]);
    expect(await outside.tcpIdentify({ ...target, count: 1 })).toMatchObject([{ ok: true, name: 'pod1' }]);
  });
});
