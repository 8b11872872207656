/** UDP from end to end: datagrams come whole, and replies from the address that the client knows. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  clusterIP,
  dualStackObjects,
  nodeAddressesOf,
  openVantage,
  VANTAGES,
} from '../support/dual-stack.ts';
import { canMakeNamespaces, createLab, type Host, type Lab } from '../support/netns-lab.ts';
import { manifestText } from '../support/objects.ts';
import { ProxyProcess } from '../support/proxy-process.ts';

/** Without payload, one octet, a whole Ethernet frame's, more than one, many, and the most there can be. */
const PAYLOADS = [0, 1, 1_472, 4_096, 8_192, 65_507];

const ECHO = { name: 'echo', port: 7, targetPort: 8007, nodePort: 30_007, protocol: 'UDP' } as const;
const NAME = { name: 'name', port: 53, targetPort: 8053, nodePort: 30_053, protocol: 'UDP' } as const;
const UDP = { name: 'udp', number: 10, ports: [ECHO, NAME] };

describe.skipIf(canMakeNamespaces() !== undefined)('UDP through the proxy', () => {
  let lab: Lab;
  let proxy: ProxyProcess;
  /** Two prefixes of each family on one link, and addresses that the node reaches with another source. */
  let multi: Host;
  const multiAddresses = ['10.9.0.2', '10.9.1.2', '10.50.0.1', 'fd01::2', 'fd02::2', 'fd50::1'];

  beforeAll(async () => {
    lab = await createLab();
    multi = await lab.attach({
      name: 'multi',
      nodeInterface: 'eth1',
      nodeAddresses: ['10.9.0.1/24', '10.9.1.1/24', 'fd01::1/64', 'fd02::1/64'],
      hostAddresses: multiAddresses.map((address) => {
        if (address.startsWith('10.50.')) return `${address}/32`;
        if (address.startsWith('fd50:')) return `${address}/128`;
        return `${address}/${address.includes(':') ? 64 : 24}`;
      }),
      hostRoutes: ['default via 10.9.0.1', 'default via fd02::1'],
      nodeRoutes: [
        `10.50.0.0/16 via 10.9.0.2 src ${nodeAddressesOf(lab, 'IPv4').at(-1)}`,
        `fd50::/64 via fd01::2 src ${nodeAddressesOf(lab, 'IPv6').at(-1)}`,
      ],
    });
    for (const pod of [lab.pod(1), lab.pod(2)]) {
      const agent = await pod.agent();
      await agent.serveUdp({ port: ECHO.targetPort, mode: 'echo', name: pod.name });
      await agent.serveUdp({ port: NAME.targetPort, mode: 'identify', name: pod.name });
    }
    const objects = dualStackObjects({ ...UDP, backends: [lab.pod(1), lab.pod(2)] });
    proxy = await ProxyProcess.start(lab.node, { manifests: { 'udp.yaml': manifestText(...objects) } });
    for (const family of ['IPv4', 'IPv6'] as const)
      await proxy.captured('default/udp:echo', { protocol: 'udp', family });
  });
  afterAll(async () => {
    await proxy?.[Symbol.asyncDispose]();
    await lab?.close();
  });

  test.for(VANTAGES)(
    'from $from over $family, datagrams of every size come back whole to a connected client',
    async (vantage) => {
      const { client, host, port } = await openVantage(lab, vantage, { ...UDP, ...ECHO });
      for (const payloadBytes of PAYLOADS) {
        const exchange = await client.udpExchange({ host, port, payloadBytes, connected: true });
        expect(exchange).toMatchObject({ ok: true, received: payloadBytes, identical: true });
      }
    },
  );

  test.for(VANTAGES)(
    'from $from over $family, an unconnected client sees the address it asked as the source',
    async (vantage) => {
      const echo = await openVantage(lab, vantage, { ...UDP, ...ECHO });
      for (const payloadBytes of PAYLOADS) {
        const { host: address, port } = echo;
        const exchange = await echo.client.udpExchange({ host: address, port, payloadBytes });
        expect(exchange).toMatchObject({ ok: true, identical: true, from: { address, port } });
      }
      const { client, host, port } = await openVantage(lab, vantage, { ...UDP, ...NAME });
      const answers = await client.udpIdentify({ host, port, count: 4, sameSocket: false });
      expect(answers.map(({ name }) => name ?? '').toSorted()).toEqual(['pod1', 'pod1', 'pod2', 'pod2']);
      for (const { from } of answers) expect(from).toEqual({ address: host, port });
    },
  );

  test('a client keeps its backend for as long as it keeps its socket', async () => {
    const client = await lab.pod(4).agent();
    const target = { host: clusterIP(UDP.number, 'IPv4'), port: NAME.port };
    const answers = await client.udpIdentify({ ...target, count: 6, sameSocket: true });
    expect(new Set(answers.map(({ name }) => name)).size).toBe(1);
    expect(answers.every(({ ok }) => ok)).toBe(true);
  });

  test('a host of several prefixes is answered whichever of its addresses it uses, and whichever of the node’s', async () => {
    const client = await multi.agent();
    for (const localAddress of multiAddresses) {
      const isIPv6 = localAddress.includes(':');
      const nodeAddresses = isIPv6
        ? ['fd01::1', 'fd02::1', ...nodeAddressesOf(lab, 'IPv6')]
        : ['10.9.0.1', '10.9.1.1', ...nodeAddressesOf(lab, 'IPv4')];
      const targets = [
        { host: clusterIP(UDP.number, isIPv6 ? 'IPv6' : 'IPv4'), port: ECHO.port },
        ...nodeAddresses.map((host) => ({ host, port: ECHO.nodePort })),
      ];
      for (const target of targets) {
        const exchange = await client.udpExchange({
          ...target,
          localAddress,
          payloadBytes: 4_096,
          connected: true,
          timeoutMs: 1_000,
        });
        expect({ ...target, localAddress, errno: exchange.errno }).toEqual({ ...target, localAddress });
      }
    }
  });

  test('the node is answered whichever of its own addresses it uses, loopback included', async () => {
    const client = await lab.node.agent();
    const addresses = {
      IPv4: ['127.0.0.1', '10.9.1.1', ...nodeAddressesOf(lab, 'IPv4')],
      IPv6: ['::1', 'fd02::1', ...nodeAddressesOf(lab, 'IPv6')],
    };
    for (const family of ['IPv4', 'IPv6'] as const) {
      for (const localAddress of addresses[family]) {
        for (const host of addresses[family]) {
          const target = { host, port: ECHO.nodePort, localAddress };
          const exchange = await client.udpExchange({
            ...target,
            payloadBytes: 1,
            connected: true,
            timeoutMs: 1_000,
          });
          expect({ ...target, errno: exchange.errno }).toEqual(target);
        }
      }
    }
  });
});
