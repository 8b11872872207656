/** The node's addresses come and go while the proxy runs: UDP follows, and nobody else notices. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Result } from '../support/agent-protocol.ts';
import { clusterIP, dualStackObjects } from '../support/dual-stack.ts';
import { canMakeNamespaces, createLab, type Host, type Lab } from '../support/netns-lab.ts';
import { manifestText } from '../support/objects.ts';
import { ProxyProcess } from '../support/proxy-process.ts';
import { waitFor } from '../support/wait.ts';

const ECHO = { name: 'echo', port: 7, targetPort: 8007, nodePort: 30_007, protocol: 'UDP' } as const;
const UDP = { name: 'udp', number: 10, ports: [ECHO] };

describe.skipIf(canMakeNamespaces() !== undefined)('when the node’s addresses change', () => {
  let lab: Lab;
  let proxy: ProxyProcess;
  let late: Host;
  /** From a pod, over both families; must never lose a datagram. */
  let loads: readonly { readonly id: number }[];

  beforeAll(async () => {
    lab = await createLab();
    const server = await lab.pod(1).agent();
    await server.serveUdp({ port: ECHO.targetPort, mode: 'identify', name: 'pod1' });
    const objects = dualStackObjects({ ...UDP, backends: [lab.pod(1)] });
    proxy = await ProxyProcess.start(lab.node, { manifests: { 'udp.yaml': manifestText(...objects) } });
    for (const family of ['IPv4', 'IPv6'] as const)
      await proxy.captured('default/udp:echo', { protocol: 'udp', family });
    const client = await lab.pod(4).agent();
    loads = await Promise.all(
      (['IPv4', 'IPv6'] as const).map(async (family) =>
        client.startUdpLoad({ host: clusterIP(UDP.number, family), port: ECHO.port, pauseMs: 2 }),
      ),
    );
  });
  afterAll(async () => {
    await proxy?.[Symbol.asyncDispose]();
    await lab?.close();
  });

  /** Asks from a new socket, by the clusterIP and by a NodePort, until both answer. */
  const becomesAnswered = async (localAddress: string, nodeAddress: string): Promise<void> => {
    const client = await late.agent();
    const family = localAddress.includes(':') ? 'IPv6' : 'IPv4';
    const ask = async (host: string, port: number): Promise<Result<'udpIdentify'>> =>
      client.udpIdentify({
        host,
        port,
        localAddress,
        count: 1,
        sameSocket: false,
        connected: true,
        timeoutMs: 300,
      });
    const isAnswered = async (): Promise<boolean> => {
      const answers = [
        ...(await ask(clusterIP(UDP.number, family), ECHO.port)),
        ...(await ask(nodeAddress, ECHO.nodePort)),
      ];
      return answers.every(({ ok }) => ok);
    };
    await waitFor(isAnswered, { timeoutMs: 5_000, what: `answers for ${localAddress} by ${nodeAddress}` });
  };

  const othersLoseNothing = async (): Promise<void> => {
    const client = await lab.pod(4).agent();
    for (const load of loads) {
      const before = (await client.loadReport(load)).requests;
      const goesOn = async (): Promise<boolean> => (await client.loadReport(load)).requests >= before + 50;
      await waitFor(goesOn, { timeoutMs: 5_000, what: '50 more answers' });
      expect(await client.loadReport(load)).toMatchObject({ failed: 0, failures: [] });
    }
  };

  test('a new interface with addresses is served', async () => {
    late = await lab.attach({
      name: 'late',
      nodeInterface: 'eth7',
      nodeAddresses: ['10.7.0.1/24', '10.7.1.1/24', 'fd07::1/64', 'fd08::1/64'],
      hostAddresses: ['10.7.0.2/24', '10.7.1.2/24', 'fd07::2/64', 'fd08::2/64'],
      hostRoutes: ['default via 10.7.1.1', 'default via fd08::1'],
    });
    await becomesAnswered('10.7.0.2', '10.7.0.1');
    await becomesAnswered('10.7.1.2', '10.7.1.1');
    await becomesAnswered('fd07::2', 'fd07::1');
    await becomesAnswered('fd08::2', 'fd08::1');
    await othersLoseNothing();
  });

  test('an interface that loses the address its packets were redirected to goes on with the next one', async () => {
    for (const [cidr, other] of [
      ['10.7.0.1/24', '10.7.1.2'],
      ['fd08::1/64', 'fd07::2'],
      ['fd07::1/64', ''],
    ] as const) {
      await lab.node.run(['ip', 'address', 'del', cidr, 'dev', 'eth7']);
      if (other !== '') await becomesAnswered(other, other.replace(/2$/, '1'));
    }
    await othersLoseNothing();
  });

  test('an address that was added to an interface is served, first or not', async () => {
    for (const cidr of ['10.7.0.1/24', 'fd07::1/64', 'fd08::1/64']) {
      const nodad = cidr.includes(':') ? ['nodad'] : [];
      await lab.node.run(['ip', 'address', 'add', cidr, 'dev', 'eth7', ...nodad]);
    }
    await becomesAnswered('10.7.0.2', '10.7.0.1');
    await becomesAnswered('10.7.1.2', '10.7.1.1');
    await becomesAnswered('fd07::2', 'fd07::1');
    await becomesAnswered('fd08::2', 'fd08::1');
    await othersLoseNothing();
  });

  test('an interface that goes away harms nobody', async () => {
    const before = await proxy.metric('userspace_proxy_listeners');
    await lab.node.run(['ip', 'link', 'del', 'eth7']);
    await othersLoseNothing();
    expect(await proxy.metric('userspace_proxy_listeners')).toBe(before);
    expect(proxy.log.filter((line) => line['level'] === 'error')).toEqual([]);
  });
});
