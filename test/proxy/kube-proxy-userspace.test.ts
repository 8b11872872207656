/**
 * The behaviour that kube-proxy 1.20.2 tests in `pkg/proxy/userspace/proxier_test.go`, from a Service object to
 * bytes at a backend, upstream's name beside each.
 */
import { describe, expect, test, vi } from 'vitest';
import type { Endpoint } from '../../src/model/endpoint.ts';
import type { Protocol } from '../../src/model/service-port-name.ts';
import { openBlackHole, openTcpBackend, closedTcpPort } from '../support/loopback-tcp.ts';
import { openUdpEcho } from '../support/loopback-udp.ts';
import { type ServiceTweak, makeService } from '../support/objects.ts';
import { makeEndpoint } from '../support/snapshots.ts';
import { waitFor } from '../support/wait.ts';
import { type PortalAddress, UserspaceNode } from './userspace-node.ts';

// Longer than any wait in a test, so that one that fails says for what it waited.
vi.setConfig({ testTimeout: 60_000 });

const CLUSTER_IP = '10.96.0.10';

/** Answers everything with itself, its name first. */
async function openEcho(protocol: Protocol, name: string): Promise<Endpoint> {
  if (protocol === 'UDP') {
    const { address, port } = await openUdpEcho('127.0.0.1', `${name}: `);
    return makeEndpoint(address, port);
  }
  const { address, port } = await openTcpBackend('127.0.0.1', ({ socket }) => {
    socket.write(`${name}: `);
    socket.pipe(socket);
  });
  return makeEndpoint(address, port);
}

/** `default/echo` with port `p`, 80 unless told. */
function makeEchoService(protocol: Protocol, port = 80, tweak: ServiceTweak = () => {}) {
  return makeService('echo', (service) => {
    service.spec.clusterIP = CLUSTER_IP;
    service.spec.ports = [{ name: 'p', port, protocol }];
    tweak(service);
  });
}

/** A node with that Service and one backend, synced. */
async function makeNode(protocol: Protocol): Promise<{ node: UserspaceNode; portal: PortalAddress }> {
  const node = new UserspaceNode();
  node.setEndpoints('echo', 'p', protocol, [await openEcho(protocol, 'backend')]);
  await node.apply(makeEchoService(protocol));
  return { node, portal: { address: CLUSTER_IP, port: 80, protocol } };
}

describe.each(['TCP', 'UDP'] as const)('a %s Service', (protocol) => {
  // TestTCPProxy, TestUDPProxy
  test('carries bytes to its backend and back', async () => {
    const { node, portal } = await makeNode(protocol);

    expect(await node.ask(portal, 'hello')).toBe('backend: hello');
    expect(await node.ask(portal, 'world')).toBe('backend: world');
  });

  // TestMultiPortProxy
  test('and another one each reach their own backends', async () => {
    const { node, portal } = await makeNode(protocol);
    node.setEndpoints('echo-q', 'q', protocol, [await openEcho(protocol, 'other')]);
    const other = makeService('echo-q', (service) => {
      service.spec.clusterIP = '10.96.0.11';
      service.spec.ports = [{ name: 'q', port: 80, protocol }];
    });

    await node.apply(makeEchoService(protocol), other);

    expect(await node.ask(portal, 'x')).toBe('backend: x');
    expect(await node.ask({ ...portal, address: '10.96.0.11' }, 'x')).toBe('other: x');
  });

  // TestMultiPortOnServiceAdd
  test('has a listener for each of its ports, and none for any other', async () => {
    const node = new UserspaceNode();
    node.setEndpoints('echo', 'p', protocol, [await openEcho(protocol, 'at p')]);
    node.setEndpoints('echo', 'q', protocol, [await openEcho(protocol, 'at q')]);
    node.setEndpoints('echo', 'x', protocol, [await openEcho(protocol, 'at x')]);

    await node.apply(
      makeEchoService(protocol, 80, ({ spec }) => {
        spec.ports?.push({ name: 'q', port: 81, protocol });
      }),
    );

    const at = (port: number): PortalAddress => ({ address: CLUSTER_IP, port, protocol });
    expect(await node.ask(at(80), 'x')).toBe('at p: x');
    expect(await node.ask(at(81), 'x')).toBe('at q: x');
    expect(node.leadsTo(at(82))).toBeUndefined();
    expect(node.listeners.openCount).toBe(2);
  });

  // TestTCPProxyStop, TestUDPProxyStop, TestTCPProxyUpdateDelete, TestUDPProxyUpdateDelete
  test('that is deleted is captured no more at once, and its proxy port closes', async () => {
    const { node, portal } = await makeNode(protocol);
    const proxyAddress = node.proxyAddress(portal);
    expect(await node.ask(portal, 'x')).toBe('backend: x');

    await node.apply();

    expect(node.leadsTo(portal)).toBeUndefined();
    expect(node.listeners.openCount).toBe(0);
    await node.portClosed(protocol, proxyAddress);
  });

  // TestTCPProxyUpdateDeleteUpdate, TestUDPProxyUpdateDeleteUpdate
  test.each([
    { name: 'at once', isClosedBetween: false },
    { name: 'after its proxy port has closed', isClosedBetween: true },
  ])('that is deleted and comes back $name works again', async ({ isClosedBetween }) => {
    const { node, portal } = await makeNode(protocol);
    const proxyAddress = node.proxyAddress(portal);
    await node.apply();
    if (isClosedBetween) await node.portClosed(protocol, proxyAddress);

    await node.apply(makeEchoService(protocol));

    expect(await node.ask(portal, 'again')).toBe('backend: again');
  });

  // TestTCPProxyUpdatePort, TestUDPProxyUpdatePort
  test('that changes its port is found at the new one, not at the old one, on the same listener', async () => {
    const { node, portal } = await makeNode(protocol);
    const before = node.leadsTo(portal);

    await node.apply(makeEchoService(protocol, 100));

    expect(node.leadsTo(portal)).toBeUndefined();
    expect(node.leadsTo({ ...portal, port: 100 })).toBe(before);
    expect(await node.ask({ ...portal, port: 100 }, 'moved')).toBe('backend: moved');
    await node.apply(makeEchoService(protocol, 80));
    expect(await node.ask(portal, 'back')).toBe('backend: back');
  });

  // TestProxyUpdatePublicIPs
  test('follows its externalIPs, and keeps its clusterIP and its listener', async () => {
    const { node, portal } = await makeNode(protocol);
    const before = node.leadsTo(portal);

    await node.apply(
      makeEchoService(protocol, 80, ({ spec }) => {
        spec.externalIPs = ['192.0.2.1', '192.0.2.2'];
      }),
    );

    for (const address of ['192.0.2.1', '192.0.2.2', CLUSTER_IP]) {
      expect(node.leadsTo({ ...portal, address })).toBe(before);
    }
    expect(await node.ask({ ...portal, address: '192.0.2.2' }, 'x')).toBe('backend: x');
    await node.apply(
      makeEchoService(protocol, 80, ({ spec }) => {
        spec.externalIPs = ['192.0.2.2'];
      }),
    );
    expect(node.leadsTo({ ...portal, address: '192.0.2.1' })).toBeUndefined();
    expect(node.leadsTo({ ...portal, address: '192.0.2.2' })).toBe(before);
  });

  // TestProxyUpdatePortal
  test.each(['', 'None'])(
    'whose clusterIP becomes %j is gone, and a real address brings it back',
    async (none) => {
      const { node, portal } = await makeNode(protocol);
      const withClusterIP = (clusterIP: string) =>
        makeEchoService(protocol, 80, ({ spec }) => {
          spec.clusterIP = clusterIP;
        });

      await node.apply(withClusterIP(none));
      expect(node.leadsTo(portal)).toBeUndefined();
      expect(node.listeners.openCount).toBe(0);
      await node.apply(withClusterIP('10.96.0.77'));

      expect(await node.ask({ ...portal, address: '10.96.0.77' }, 'x')).toBe('backend: x');
      expect(node.leadsTo(portal)).toBeUndefined();
    },
  );

  // TestOnServiceAddChangeMap
  test.each([
    { name: 'that is added and deleted', between: [makeEchoService(protocol, 81)], after: [] },
    {
      name: 'that is deleted and added',
      before: [makeEchoService(protocol)],
      between: [],
      after: [makeEchoService(protocol)],
    },
    {
      name: 'that is changed and changed back',
      before: [makeEchoService(protocol)],
      between: [makeEchoService(protocol, 81)],
      after: [makeEchoService(protocol)],
    },
  ])('$name before a sync leads to no work', async ({ before = [], between, after }) => {
    const node = new UserspaceNode();
    node.setEndpoints('echo', 'p', protocol, [await openEcho(protocol, 'backend')]);
    await node.apply(...before);
    const restores = node.kernel.restores.length;
    const ports = node.listeners.proxyPorts();

    node.update(...between);
    node.update(...after);
    await node.sync();

    expect(node.kernel.restores.length).toBe(restores);
    expect(node.listeners.proxyPorts()).toEqual(ports);
  });

  // TestNoopEndpointSlice
  test('whose endpoints are told again, unchanged, runs nothing', async () => {
    const { node, portal } = await makeNode(protocol);
    const calls = node.kernel.calls.length;

    await node.applyAgain();

    expect(node.kernel.calls.length).toBe(calls);
    expect(await node.ask(portal, 'x')).toBe('backend: x');
  });

  test('takes its backends in turn, and an endpoint change runs nothing', async () => {
    const { node, portal } = await makeNode(protocol);
    const calls = node.kernel.calls.length;

    node.setEndpoints('echo', 'p', protocol, [
      await openEcho(protocol, 'one'),
      await openEcho(protocol, 'two'),
    ]);
    await node.applyAgain();

    const answers: string[] = [];
    for (let turn = 0; turn < 4; turn += 1) answers.push(await node.ask(portal, ''));
    expect(answers.slice(0, 2).toSorted()).toEqual(['one: ', 'two: ']);
    expect(answers.slice(2)).toEqual(answers.slice(0, 2));
    expect(node.kernel.calls.length).toBe(calls);
  });

  test('without endpoints is rejected, and carried again when one appears', async () => {
    const { node, portal } = await makeNode(protocol);
    const endpoint = await openEcho(protocol, 'new');

    node.setEndpoints('echo', 'p', protocol, []);
    await node.applyAgain();
    expect(node.leadsTo(portal)).toBe('rejected');
    node.setEndpoints('echo', 'p', protocol, [endpoint]);
    await node.applyAgain();

    expect(await node.ask(portal, 'x')).toBe('new: x');
  });

  test('leaves no session open when its clients have gone', async () => {
    const node = new UserspaceNode({ udpRepliedTimeoutMs: 1500, udpUnrepliedTimeoutMs: 1500 });
    node.setEndpoints('echo', 'p', protocol, [await openEcho(protocol, 'backend')]);
    await node.apply(makeEchoService(protocol));
    const portal = { address: CLUSTER_IP, port: 80, protocol };

    await Promise.all(Array.from({ length: 20 }, async () => node.ask(portal, 'x')));

    await waitFor(() => node.sessionsActive === 0, { timeoutMs: 20_000, what: 'all sessions to end' });
    expect(node.forwarder.statistics().servicePorts.map(({ sessionsTotal }) => sessionsTotal)).toEqual([20]);
  });
});

// TestUDPProxyTimeout
test('a UDP session ends when its client is silent, not before', async () => {
  const node = new UserspaceNode({ udpUnrepliedTimeoutMs: 800, udpRepliedTimeoutMs: 800 });
  node.setEndpoints('echo', 'p', 'UDP', [await openEcho('UDP', 'backend')]);
  await node.apply(makeEchoService('UDP'));

  const startedAt = performance.now();
  await node.ask({ address: CLUSTER_IP, port: 80, protocol: 'UDP' }, 'x');
  await waitFor(() => node.sessionsActive === 0, { timeoutMs: 10_000, what: 'the session to end' });

  expect(performance.now() - startedAt).toBeGreaterThanOrEqual(795);
  expect(node.forwarder.statistics().servicePorts[0]?.closes.idle).toBe(1);
});

describe('an established TCP connection', () => {
  test.each<{ name: string; after: readonly ReturnType<typeof makeService>[] }>([
    { name: 'the deletion of its Service', after: [] },
    { name: 'a change of its port', after: [makeEchoService('TCP', 100)] },
  ])('survives $name', async ({ after }) => {
    const { node, portal } = await makeNode('TCP');
    const proxyAddress = node.proxyAddress(portal);
    const client = await node.connect(portal);
    await client.text('backend: ');

    await node.apply(...after);
    if (after.length === 0) await node.portClosed('TCP', proxyAddress);
    client.send('still here');

    await client.text('backend: still here');
  });

  test('survives the loss of its endpoint, while new ones go elsewhere', async () => {
    const { node, portal } = await makeNode('TCP');
    const client = await node.connect(portal);
    await client.text('backend: ');

    node.setEndpoints('echo', 'p', 'TCP', [await openEcho('TCP', 'new')]);
    await node.applyAgain();
    client.send('still here');

    await client.text('backend: still here');
    expect(await node.ask(portal, 'x')).toBe('new: x');
  });
});

describe('backends that do not answer', () => {
  test('one of two that refuses costs no client anything', async () => {
    const node = new UserspaceNode();
    const closed = await closedTcpPort();
    node.setEndpoints('echo', 'p', 'TCP', [
      makeEndpoint(closed.address, closed.port),
      await openEcho('TCP', 'alive'),
    ]);
    await node.apply(makeEchoService('TCP'));

    const portal = { address: CLUSTER_IP, port: 80, protocol: 'TCP' } as const;
    const answers = await Promise.all(Array.from({ length: 20 }, async () => node.ask(portal, 'x')));

    expect(new Set(answers)).toEqual(new Set(['alive: x']));
  });

  test('one of two that is a black hole fails no client, and none waits for a second time-out', async () => {
    const node = new UserspaceNode();
    const blackHole = await openBlackHole();
    node.setEndpoints('echo', 'p', 'TCP', [
      makeEndpoint(blackHole.address, blackHole.port),
      await openEcho('TCP', 'alive'),
    ]);
    await node.apply(makeEchoService('TCP'));

    const portal = { address: CLUSTER_IP, port: 80, protocol: 'TCP' } as const;
    const answers = await Promise.all(Array.from({ length: 50 }, async () => node.ask(portal, 'x')));

    expect(new Set(answers)).toEqual(new Set(['alive: x']));
    const [statistics] = node.forwarder.statistics().servicePorts;
    // Each turn of the two gives the black hole one of two clients; each of those is dialled once more.
    expect(statistics?.dials.timeout).toBe(25);
    expect(statistics?.dialRetries).toBe(25);
  });

  test('when all refuse the client is reset', async () => {
    const node = new UserspaceNode();
    const closed = await closedTcpPort();
    node.setEndpoints('echo', 'p', 'TCP', [makeEndpoint(closed.address, closed.port)]);
    await node.apply(makeEchoService('TCP'));

    const client = await node.connect({ address: CLUSTER_IP, port: 80, protocol: 'TCP' });

    expect(await client.failed()).toBe('ECONNRESET');
    expect(node.logger.withMessage('Clients refused')).toHaveLength(1);
  });
});
