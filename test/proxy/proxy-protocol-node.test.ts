/** The PROXY protocol from the annotation of a Service to the first bytes that a backend reads. */
import { describe, expect, test, vi } from 'vitest';
import type { SocketAddress } from '../../src/engine/engine.ts';
import {
  PROXY_PROTOCOL_ANNOTATION,
  PROXY_PROTOCOL_VERSIONS,
  type ProxyProtocolVersion,
} from '../../src/model/service-policy.ts';
import type { Protocol } from '../../src/model/service-port-name.ts';
import { type TcpBackend, type TcpPeer, closedTcpPort, openTcpBackend } from '../support/loopback-tcp.ts';
import { openUdpEcho } from '../support/loopback-udp.ts';
import { makeService } from '../support/objects.ts';
import { type ParsedHeader, parseProxyHeader } from '../support/proxy-protocol-parser.ts';
import { makeEndpoint } from '../support/snapshots.ts';
import { type PortalAddress, UserspaceNode } from './userspace-node.ts';

// Longer than any wait in a test, so that one that fails says for what it waited.
vi.setConfig({ testTimeout: 60_000 });

const CLUSTER_IP = '10.96.0.10';
const EXTERNAL_IP = '192.0.2.1';
const NODE_PORT = 30_080;

function at(address: string, port = 80): PortalAddress {
  return { address, port, protocol: 'TCP' };
}

const PORTALS = [at(CLUSTER_IP), at(EXTERNAL_IP), at('127.0.0.1', NODE_PORT)];

/** `default/web` with a clusterIP, an externalIP and a NodePort. */
function makeWeb(proxyProtocol: ProxyProtocolVersion | undefined, protocol: Protocol = 'TCP') {
  return makeService('web', (service) => {
    const { spec } = service;
    const annotations = proxyProtocol === undefined ? {} : { [PROXY_PROTOCOL_ANNOTATION]: proxyProtocol };
    service.metadata = { namespace: 'default', name: 'web', annotations };
    spec.type = 'NodePort';
    spec.clusterIP = CLUSTER_IP;
    spec.externalIPs = [EXTERNAL_IP];
    spec.ports = [{ name: 'p', port: 80, nodePort: NODE_PORT, protocol }];
  });
}

/** The node and a backend that only listens. */
async function makeNode(
  proxyProtocol: ProxyProtocolVersion | undefined,
): Promise<{ node: UserspaceNode; backend: TcpBackend }> {
  const node = new UserspaceNode();
  const backend = await openTcpBackend();
  node.setEndpoints('web', 'p', 'TCP', [makeEndpoint(backend.address, backend.port)]);
  await node.apply(makeWeb(proxyProtocol));
  return { node, backend };
}

function headerOf(version: ProxyProtocolVersion, from: SocketAddress, to: SocketAddress): ParsedHeader {
  const end = ({ address, port }: SocketAddress) => ({ address: address.split('.').map(Number), port });
  const line = `PROXY TCP4 ${from.address} ${to.address} ${from.port} ${to.port}\r\n`;
  return { kind: 'TCP4', from: end(from), to: end(to), length: version === 'v1' ? line.length : 28 };
}

/** Sends a text and ends. What the backend has got when the client has ended. */
async function say(text: string, client: TcpPeer, server: TcpPeer): Promise<Buffer> {
  client.send(text);
  client.end();
  await server.ended();
  return server.received;
}

describe.each(PROXY_PROTOCOL_VERSIONS)('a Service that asks for %s', (version) => {
  test('tells its backends which client connected to which of its addresses, before what the client says', async () => {
    const { node, backend } = await makeNode(version);
    for (const [index, portal] of PORTALS.entries()) {
      const client = await node.connect(portal);

      const received = await say('hello', client, await backend.peer(index));

      const header = parseProxyHeader(version, received);
      expect(header).toEqual(headerOf(version, client.address, portal));
      expect(received.subarray(header.length).toString()).toBe('hello');
    }
  });

  test('tells them also of a client that waits for the backend to speak first', async () => {
    const { node, backend } = await makeNode(version);
    const client = await node.connect(at(CLUSTER_IP));
    const server = await backend.peer();

    const expected = headerOf(version, client.address, at(CLUSTER_IP));
    await server.bytes(expected.length);
    server.send('220 ready');

    await client.text('220 ready');
    expect(parseProxyHeader(version, server.received)).toEqual(expected);
  });

  test('tells the backend that answers, when another has refused', async () => {
    const { node, backend } = await makeNode(version);
    const closed = await closedTcpPort();
    const endpoints = [closed, backend].map(({ address, port }) => makeEndpoint(address, port));
    node.setEndpoints('web', 'p', 'TCP', endpoints);
    await node.applyAgain();

    for (const index of [0, 1, 2, 3]) {
      const client = await node.connect(at(CLUSTER_IP));
      const received = await say('x', client, await backend.peer(index));
      expect(parseProxyHeader(version, received)).toEqual(headerOf(version, client.address, at(CLUSTER_IP)));
    }
  });

  test('and then asks for nothing: who is connected goes on, who comes brings no header', async () => {
    const { node, backend } = await makeNode(version);
    const early = await node.connect(at(CLUSTER_IP));
    const header = headerOf(version, early.address, at(CLUSTER_IP));
    const first = await backend.peer();
    await first.bytes(header.length);

    await node.apply(makeWeb(undefined));

    expect((await say('late', await node.connect(at(CLUSTER_IP)), await backend.peer(1))).toString()).toBe(
      'late',
    );
    const received = await say('still here', early, first);
    expect(received.subarray(header.length).toString()).toBe('still here');
  });
});

test('a Service that asks for a header while it lives: who is connected goes on without, who comes brings one', async () => {
  const { node, backend } = await makeNode(undefined);
  const early = await node.connect(at(CLUSTER_IP));
  const first = await backend.peer();

  await node.apply(makeWeb('v1'));
  const late = await node.connect(at(CLUSTER_IP));

  expect((await say('hello', late, await backend.peer(1))).toString()).toBe(
    `PROXY TCP4 127.0.0.1 ${CLUSTER_IP} ${late.address.port} 80\r\nhello`,
  );
  expect((await say('still here', early, first)).toString()).toBe('still here');
});

test('a Service that changes from v1 to v2 keeps its listeners', async () => {
  const { node, backend } = await makeNode('v1');
  const ports = node.listeners.proxyPorts();

  await node.apply(makeWeb('v2'));
  const client = await node.connect(at(CLUSTER_IP));

  expect(parseProxyHeader('v2', await say('x', client, await backend.peer()))).toEqual(
    headerOf('v2', client.address, at(CLUSTER_IP)),
  );
  expect(node.listeners.proxyPorts()).toEqual(ports);
});

test('a Service that asks for nothing sends its backends what the client says, and nothing else', async () => {
  const { node, backend } = await makeNode(undefined);
  for (const [index, portal] of PORTALS.entries()) {
    const received = await say('hello', await node.connect(portal), await backend.peer(index));

    expect(received.toString()).toBe('hello');
  }
  expect(node.listeners.openCount).toBe(1);
});

test('a UDP Service that asks for a header carries its datagrams as they are, on one listener', async () => {
  const node = new UserspaceNode();
  const backend = await openUdpEcho('127.0.0.1');
  node.setEndpoints('web', 'p', 'UDP', [makeEndpoint(backend.address, backend.port)]);
  await node.apply(makeWeb('v2', 'UDP'));

  expect(await node.ask({ ...at(CLUSTER_IP), protocol: 'UDP' }, 'hello')).toBe('hello');
  expect(backend.texts).toEqual(['hello']);
  expect(node.listeners.openCount).toBe(1);
});
