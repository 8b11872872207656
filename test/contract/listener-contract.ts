/** The engine contract for listeners: open, close, and the end of the engine. */
import { describe, expect, test } from 'vitest';
import type { ListenerSpec } from '../../src/engine/engine.ts';
import { errnoOf, isProxyError } from '../../src/errors.ts';
import { connectTcp, echo, openBlackHole, openTcpBackend, sayName } from '../support/loopback-tcp.ts';
import { openUdpEcho, openUdpPeer } from '../support/loopback-udp.ts';
import { dialTo, later } from '../support/recording-policy.ts';
import { waitFor } from '../support/wait.ts';
import { type CreateEngine, EngineFixture, LOOPBACK, settled } from './engine-fixture.ts';

const BURST = 200;

export function describeListenerContract(createEngine: CreateEngine): void {
  describe('opening a listener', () => {
    test.each<{ name: string; spec: Omit<ListenerSpec, 'port'>; holder: 'TCP' | 'UDP' }>([
      {
        name: 'TCP',
        spec: { protocol: 'TCP', family: 'IPv4', addresses: ['127.0.0.1'] },
        holder: 'TCP',
      },
      {
        name: 'TCP on the wildcard',
        spec: { protocol: 'TCP', family: 'IPv4', addresses: ['0.0.0.0'] },
        holder: 'TCP',
      },
      {
        name: 'UDP',
        spec: { protocol: 'UDP', family: 'IPv4', addresses: ['127.0.0.1'] },
        holder: 'UDP',
      },
    ])('a taken $name port rejects with EADDRINUSE', async ({ spec, holder }) => {
      const fixture = new EngineFixture(createEngine);
      const { port } = holder === 'TCP' ? await openTcpBackend() : await openUdpPeer();

      const error = await fixture.engine.open({ ...spec, port }).then(
        () => undefined,
        (fault: unknown) => fault,
      );

      expect(isProxyError(error, 'ERR_LISTENER_OPEN')).toBe(true);
      expect(errnoOf((error as Error).cause)).toBe('EADDRINUSE');
    });

    test('an address that is not ours rejects with another errno', async () => {
      const fixture = new EngineFixture(createEngine);

      const opening = fixture.listen('UDP', 'IPv4', ['192.0.2.1']);

      await expect(opening).rejects.toMatchObject({
        code: 'ERR_LISTENER_OPEN',
        cause: { code: 'EADDRNOTAVAIL' },
      });
    });

    test('when the second of several addresses is taken, nothing stays open', async () => {
      const fixture = new EngineFixture(createEngine);
      const addresses = ['127.0.0.1', '127.0.0.2', '127.0.0.3'];
      // A port that is free on all of them.
      const { id, port } = await fixture.listen('UDP', 'IPv4', addresses);
      await fixture.engine.close(id);
      await openUdpPeer('127.0.0.2', port);

      const opening = fixture.engine.open({ protocol: 'UDP', family: 'IPv4', port, addresses });

      await expect(opening).rejects.toMatchObject({ cause: { code: 'EADDRINUSE' } });
      await openUdpPeer('127.0.0.1', port);
      await openUdpPeer('127.0.0.3', port);
    });

    test('a port that this engine holds cannot be opened again, and goes on as it was', async () => {
      const fixture = new EngineFixture(createEngine);
      const backend = await openTcpBackend('127.0.0.1', sayName('here'));
      fixture.policy.decide = () => dialTo(backend);
      const { port, ...listener } = await fixture.listen('TCP');

      const again = fixture.engine.open({
        protocol: 'TCP',
        family: 'IPv4',
        port,
        addresses: [listener.address],
      });

      await expect(again).rejects.toMatchObject({ cause: { code: 'EADDRINUSE' } });
      await (await connectTcp({ ...listener, port })).text('here');
    });

    test('the wildcards of both families and protocols share a port', async () => {
      const fixture = new EngineFixture(createEngine);
      const backend = await openTcpBackend('127.0.0.1', sayName('here'));
      fixture.policy.decide = () => dialTo(backend);
      const { port } = await fixture.listen('TCP', 'IPv6', ['::']);

      const ids = [
        await fixture.engine.open({ protocol: 'TCP', family: 'IPv4', port, addresses: ['0.0.0.0'] }),
        await fixture.engine.open({ protocol: 'UDP', family: 'IPv4', port, addresses: ['127.0.0.1'] }),
        await fixture.engine.open({ protocol: 'UDP', family: 'IPv6', port, addresses: ['::1'] }),
      ];

      expect(new Set(ids).size).toBe(3);
      await (await connectTcp({ address: LOOPBACK.IPv4, port })).text('here');
      await (await connectTcp({ address: LOOPBACK.IPv6, port })).text('here');
    });
  });

  describe('closing a listener', () => {
    test('every connection that the kernel has queued is served', async () => {
      const fixture = new EngineFixture(createEngine);
      const backend = await openTcpBackend('127.0.0.1', echo);
      fixture.policy.decide = () => dialTo(backend);
      const listener = await fixture.listen('TCP');

      const connecting = Array.from({ length: BURST }, async () => connectTcp(listener));
      // Node connects at the next tick; on loopback the kernel has them then.
      await new Promise<void>((resolve) => process.nextTick(resolve));
      await fixture.engine.close(listener.id);

      const clients = await Promise.all(connecting);
      for (const [index, client] of clients.entries()) client.send(`client ${index}`);
      await Promise.all(clients.map(async (client, index) => client.text(`client ${index}`)));
    });

    test('closing ends although new connections keep coming', async () => {
      const fixture = new EngineFixture(createEngine);
      const backend = await openTcpBackend('127.0.0.1', echo);
      fixture.policy.decide = () => dialTo(backend);
      const listener = await fixture.listen('TCP');
      const flood = async (): Promise<void> => {
        for (;;) {
          try {
            const client = await connectTcp(listener);
            client.send('x');
            await waitFor(() => client.receivedBytes > 0 || client.errno, {
              timeoutMs: 5000,
              what: 'an echo',
            });
            client.reset();
          } catch {
            return;
          }
        }
      };
      const floods = Array.from({ length: 8 }, flood);
      await fixture.session(20);

      await fixture.engine.close(listener.id);

      await Promise.all(floods);
      await expect(connectTcp(listener)).rejects.toMatchObject({ code: 'ECONNREFUSED' });
    });

    test('established connections live on, new ones are refused, and the port is free', async () => {
      const fixture = new EngineFixture(createEngine);
      const backend = await openTcpBackend('127.0.0.1', echo);
      fixture.policy.decide = () => dialTo(backend);
      const listener = await fixture.listen('TCP');
      const client = await connectTcp(listener);
      await fixture.established(await fixture.session());

      await fixture.engine.close(listener.id);

      await expect(connectTcp(listener)).rejects.toMatchObject({ code: 'ECONNREFUSED' });
      client.send('still here');
      await client.text('still here');
      const { address, port } = listener;
      await fixture.engine.open({ protocol: 'TCP', family: 'IPv4', port, addresses: [address] });
    });

    test('a session whose dial is under way lives on too', async () => {
      const fixture = new EngineFixture(createEngine);
      const backend = await openTcpBackend('127.0.0.1', sayName('late'));
      fixture.policy.decide = later;
      const listener = await fixture.listen('TCP');
      const client = await connectTcp(listener);
      const session = await fixture.session();

      await fixture.engine.close(listener.id);
      fixture.engine.answer(session, dialTo(backend));

      await client.text('late');
    });

    test('UDP sessions end with stopped, and the port is free', async () => {
      const fixture = new EngineFixture(createEngine);
      const backend = await openUdpEcho();
      fixture.policy.decide = () => dialTo(backend);
      const listener = await fixture.listen('UDP', 'IPv4', ['127.0.0.1', '127.0.0.2']);
      const client = await openUdpPeer();
      await client.send('hello', listener);
      await client.datagram();

      await fixture.engine.close(listener.id);

      expect((await fixture.closed(await fixture.session())).cause).toBe('stopped');
      await openUdpPeer('127.0.0.1', listener.port);
      await openUdpPeer('127.0.0.2', listener.port);
    });

    test('closing a listener twice, or one that never was, changes nothing', async () => {
      const fixture = new EngineFixture(createEngine);
      const listener = await fixture.listen('TCP');

      await fixture.engine.close(listener.id);
      await fixture.engine.close(listener.id);

      expect(fixture.policy.timed).toEqual([]);
    });
  });

  describe('the end of an engine', () => {
    test('shutdown resets every session, closes every listener and leaves nothing open', async () => {
      const blackHole = await openBlackHole();
      const backend = await openTcpBackend('127.0.0.1', echo);
      const udpBackend = await openUdpEcho();
      const udpClient = await openUdpPeer();
      await settled(() => socketHandles().length);
      const before = socketHandles();
      const fixture = new EngineFixture(createEngine);
      const tcp = await fixture.listen('TCP');
      const udp = await fixture.listen('UDP');
      fixture.policy.decide = () => dialTo(backend);
      const served = await connectTcp(tcp);
      await fixture.established(await fixture.session());
      fixture.policy.decide = () => dialTo(blackHole);
      const dialling = await connectTcp(tcp);
      await fixture.session(1);
      fixture.policy.decide = later;
      const undecided = await connectTcp(tcp);
      await fixture.session(2);
      fixture.policy.decide = () => dialTo(udpBackend);
      await udpClient.send('hello', udp);
      await udpClient.datagram();

      await fixture.engine.shutdown();
      await fixture.engine.shutdown();

      expect(fixture.policy.all('closed').map(({ cause }) => cause)).toEqual(Array(4).fill('stopped'));
      for (const client of [served, dialling, undecided]) expect(await client.failed()).toBe('ECONNRESET');
      await expect(connectTcp(tcp)).rejects.toMatchObject({ code: 'ECONNREFUSED' });
      await openUdpPeer('127.0.0.1', udp.port).then((peer) => peer.close());
      await waitFor(() => socketHandles().join() === before.join(), {
        timeoutMs: 5000,
        what: `the handles to be ${before.join()} again`,
      });
    });
  });
}

/** The sockets that keep this process alive. */
function socketHandles(): readonly string[] {
  return process
    .getActiveResourcesInfo()
    .filter((kind) => /TCP|UDP|Connect/.test(kind))
    .sort();
}
