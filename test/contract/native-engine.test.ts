/** The engine in C++ under the contract of every engine, and what only one that reports in batches promises. */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import type { EngineEvent } from '../../src/engine/engine.ts';
import { NativeEngine } from '../../src/engine/native/native-engine.ts';
import { connectTcp, echo, openTcpBackend } from '../support/loopback-tcp.ts';
import { exchange, openUdpEcho, openUdpPeer } from '../support/loopback-udp.ts';
import { addonUnderTest, isAddonBuilt } from '../support/native-addon.ts';
import { waitFor } from '../support/wait.ts';
import { dialTo } from '../support/recording-policy.ts';
import { describeEngineContract } from './engine-contract.ts';
import { type CreateEngine, EngineFixture } from './engine-fixture.ts';

const BURST = 64;

describe.skipIf(!isAddonBuilt())('built', () => {
  const createNative: CreateEngine = (deps, options) => new NativeEngine(deps, options, addonUnderTest());

  describeEngineContract('NativeEngine', createNative);

  test('a UDP listener has one socket, however many addresses it has, and the same one when they change', async () => {
    const fixture = new EngineFixture(createNative);
    const backend = await openUdpEcho();
    fixture.policy.decide = () => dialTo(backend);
    const addresses = Array.from({ length: 40 }, (_, index) => `127.0.0.${index + 1}`);
    const { id, port } = await fixture.listen('UDP', 'IPv4', addresses);
    const client = await openUdpPeer();
    const sockets = udpSocketsOn(port);
    expect(sockets).toEqual([expect.stringMatching(/^00000000 /)]);

    await fixture.engine.setAddresses(id, [...addresses.slice(1), '127.0.0.99']);

    await exchange(client, { address: '127.0.0.99', port }, 1);
    await exchange(client, { address: '127.0.0.40', port }, 2);
    expect(client.datagrams.map(({ from }) => from.address)).toEqual(['127.0.0.99', '127.0.0.40']);
    expect(udpSocketsOn(port)).toEqual(sockets);
    await fixture.engine.setAddresses(id, []);
    expect(udpSocketsOn(port)).toEqual([]);
    const counts = [addresses, ['127.0.0.1'], []].map((listed) =>
      fixture.engine.socketsFor({ protocol: 'UDP', addresses: listed }),
    );
    expect([...counts, fixture.engine.socketsFor({ protocol: 'TCP', addresses: [] })]).toEqual([1, 1, 0, 1]);
  });

  test('a UDP session goes on when its address, which was the only one, gets company', async () => {
    const fixture = new EngineFixture(createNative);
    const backend = await openUdpEcho();
    fixture.policy.decide = () => dialTo(backend);
    const { id, ...listener } = await fixture.listen('UDP');
    const client = await openUdpPeer();
    await exchange(client, listener, 1);
    expect(udpSocketsOn(listener.port)).toEqual([expect.stringMatching(/^0100007F /)]);

    await fixture.engine.setAddresses(id, ['127.0.0.1', '127.0.0.2']);

    await exchange(client, listener, 2);
    expect(fixture.policy.all('opened')).toHaveLength(1);
    await exchange(client, { ...listener, address: '127.0.0.2' }, 3);
    await waitFor(() => udpSocketsOn(listener.port).length === 1, {
      timeoutMs: 10_000,
      what: 'the former socket to close',
    });
  });

  test.each([16, 64])(
    'connections that come while the policy is busy are decided in one call, at most %i of them',
    async (maxUnreported) => {
      const calls: (readonly EngineEvent['kind'][])[] = [];
      const createEngine: CreateEngine = ({ clock, policy }, options) => {
        const handle: typeof policy.handle = (events, now) => {
          calls.push(events.map(({ kind }) => kind));
          return policy.handle(events, now);
        };
        return new NativeEngine(
          { clock, policy: { handle } },
          { ...options, maxUnreported },
          addonUnderTest(),
        );
      };
      const fixture = new EngineFixture(createEngine);
      const backend = await openTcpBackend('127.0.0.1', echo);
      fixture.policy.decide = () => dialTo(backend);
      const listener = await fixture.listen('TCP');

      const connecting = Array.from({ length: BURST }, async () => connectTcp(listener));
      // Node connects at the next tick. From then on its loop stands still until the engine has accepted them.
      await new Promise<void>((resolve) => process.nextTick(resolve));
      const deadline = performance.now() + 10_000;
      while ([...fixture.engine.sessionBytes()].length < maxUnreported && performance.now() < deadline);
      const accepted = [...fixture.engine.sessionBytes()].length;
      const clients = await Promise.all(connecting);
      for (const [index, client] of clients.entries()) client.send(`client ${index}`);
      await Promise.all(clients.map(async (client, index) => client.text(`client ${index}`)));

      expect(accepted).toBe(maxUnreported);
      expect(calls[0]).toEqual(Array(maxUnreported).fill('opened'));
    },
  );
});

/** The IPv4 UDP sockets on a local port: the address as the kernel writes it, and the inode. */
function udpSocketsOn(port: number): readonly string[] {
  const suffix = `:${port.toString(16).toUpperCase().padStart(4, '0')}`;
  const rows = readFileSync('/proc/net/udp', 'utf8').split('\n').slice(1);
  return rows
    .map((row) => row.trim().split(/\s+/))
    .filter(([, local]) => local?.endsWith(suffix))
    .map((columns) => `${columns[1]?.slice(0, 8)} ${columns[9]}`);
}
