/** Services change while clients use them, and no client notices. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { clusterIP, dualStackObjects } from '../support/dual-stack.ts';
import { canMakeNamespaces, createLab, type Lab } from '../support/netns-lab.ts';
import { manifestText } from '../support/objects.ts';
import { ProxyProcess } from '../support/proxy-process.ts';
import { waitFor } from '../support/wait.ts';

const isLong = process.env['KUP_TEST_LONG'] === '1';
const CHANGES = isLong ? 1_000 : 60;
/** Connections of each of the four clients at a time: more would only take the processor from the changes. */
const CONCURRENCY = 2;

const WEB = { name: 'web', number: 10 };
const NODE_PORT = 30_080;

describe.skipIf(canMakeNamespaces() !== undefined)('under load', () => {
  let lab: Lab;
  let proxy: ProxyProcess;

  const manifest = (portName: string, backends: readonly number[] = [1, 2]): string =>
    manifestText(
      ...dualStackObjects({
        ...WEB,
        ports: [{ name: portName, port: 80, targetPort: 8080, nodePort: NODE_PORT }],
        backends: backends.map((number) => lab.pod(number)),
      }),
    );

  beforeAll(async () => {
    lab = await createLab();
    for (const pod of [lab.pod(1), lab.pod(2)])
      await (await pod.agent()).serveTcp({ port: 8080, mode: 'identify', name: pod.name });
    proxy = await ProxyProcess.start(lab.node, {
      manifests: { 'web.yaml': manifest('a') },
      args: ['--iptables-min-sync-period=0s'],
    });
    for (const family of ['IPv4', 'IPv6'] as const) await proxy.captured('default/web:a', { family });
  });
  afterAll(async () => {
    await proxy?.[Symbol.asyncDispose]();
    await lab?.close();
  });

  /** From a pod, from the node and from outside, over both families: until the changes are made, and each has had 100. */
  const withoutLoss = async (changes: () => Promise<void>): Promise<number> => {
    const clients = [
      { client: await lab.pod(4).agent(), host: clusterIP(WEB.number, 'IPv4'), port: 80 },
      { client: await lab.pod(3).agent(), host: clusterIP(WEB.number, 'IPv6'), port: 80 },
      { client: await lab.node.agent(), host: clusterIP(WEB.number, 'IPv4'), port: 80 },
      { client: await lab.ext.agent(), host: lab.node.ipv4, port: NODE_PORT },
    ];
    const loads = await Promise.all(
      clients.map(async ({ client, ...target }) => ({
        client,
        id: (await client.startConnectLoad({ ...target, concurrency: CONCURRENCY, pauseMs: 10 })).id,
      })),
    );
    await changes();
    const isEnough = async (): Promise<boolean> => {
      const counts = await Promise.all(
        loads.map(async ({ client, id }) => (await client.loadReport({ id })).requests),
      );
      return counts.every((count) => count > 100);
    };
    await waitFor(isEnough, { timeoutMs: 15_000, what: '100 connections of each client' });
    const reports = await Promise.all(loads.map(async ({ client, id }) => client.stopLoad({ id })));
    for (const report of reports) expect(report).toMatchObject({ failed: 0, failures: [] });
    return reports.reduce((sum, { requests }) => sum + requests, 0);
  };

  const allDrained = async (): Promise<void> => {
    const isDrained = async (): Promise<boolean> =>
      (await proxy.metric('userspace_proxy_listeners_draining')) === 0;
    await waitFor(isDrained, { timeoutMs: 30_000, what: 'the last listeners to be closed' });
    expect(await proxy.metric('userspace_proxy_listeners')).toBe(2);
  };

  test(`a Service changed ${CHANGES} times, its listeners reopened each time, costs no connection`, {
    timeout: isLong ? 600_000 : 180_000,
  }, async () => {
    const ports: number[] = [];
    await withoutLoss(async () => {
      for (let change = 1; change <= CHANGES; change += 1) {
        await proxy.writeManifest('web.yaml', manifest(`v${change}`));
        ports.push(await proxy.captured(`default/web:v${change}`, { family: 'IPv6' }));
      }
    });
    // Each time another listener, at another port: what was given back rests.
    expect(ports.filter((port, index) => port === ports[index - 1])).toEqual([]);
    await allDrained();
  });

  test('a Service that changes to and fro takes its old listener back, and costs no connection', async () => {
    const ports = new Map<string, number>();
    await withoutLoss(async () => {
      for (let change = 0; change < 20; change += 1) {
        const name = change % 2 === 0 ? 'to' : 'fro';
        await proxy.writeManifest('web.yaml', manifest(name));
        const port = await proxy.captured(`default/web:${name}`, { family: 'IPv6' });
        expect(port).toBe(ports.get(name) ?? port);
        ports.set(name, port);
      }
    });
    await allDrained();
  });

  test('endpoints that come and go cost no connection', async () => {
    await withoutLoss(async () => {
      const client = await lab.pod(4).agent();
      const answering = async (): Promise<string> => {
        const answers = await client.tcpIdentify({
          host: clusterIP(WEB.number, 'IPv4'),
          port: 80,
          count: 20,
        });
        return [...new Set(answers.map(({ name }) => name ?? 'nobody'))].toSorted().join();
      };
      for (const backends of [[1], [2], [1, 2], [2], [1], [1, 2]]) {
        await proxy.writeManifest('web.yaml', manifest('fro', backends));
        const expected = backends.map((number) => `pod${number}`).join();
        await waitFor(async () => (await answering()) === expected, {
          timeoutMs: 15_000,
          what: `answers of ${expected}`,
        });
      }
    });
  });
});
