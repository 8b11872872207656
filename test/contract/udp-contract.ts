/** The engine contract for UDP sessions. */
import { describe, expect, test } from 'vitest';
import type { SocketAddress } from '../../src/engine/engine.ts';
import { type UdpPeer, closedUdpPort, exchange, openUdpEcho, openUdpPeer } from '../support/loopback-udp.ts';
import { REFUSE, dialTo, dialWith, later } from '../support/recording-policy.ts';
import { waitFor } from '../support/wait.ts';
import { type CreateEngine, EngineFixture, LOOPBACK, makeBytes } from './engine-fixture.ts';

const LARGEST = 65_507;
/** Enough for an engine with a thread of its own to be met at every moment of its turns. */
const FORGOTTEN_ROUNDS = 100;

export function describeUdpContract(createEngine: CreateEngine): void {
  describe.each(['IPv4', 'IPv6'] as const)('UDP over %s', (family) => {
    test.each([0, 1, 1472, 4096, 8192, LARGEST])(
      'a datagram of %i bytes arrives whole, and so does its echo',
      async (size) => {
        const fixture = new EngineFixture(createEngine);
        const backend = await openUdpEcho(LOOPBACK[family]);
        fixture.policy.decide = () => dialTo(backend);
        const listener = await fixture.listen('UDP', family);
        const client = await openUdpPeer(LOOPBACK[family]);
        const content = makeBytes(size);

        await client.send(content, listener);
        const reply = await client.datagram();

        expect(backend.datagrams.map(({ data }) => data.equals(content))).toEqual([true]);
        expect(reply.data.equals(content)).toBe(true);
        expect(reply.from).toEqual({ address: listener.address, port: listener.port });
        const { address, port } = client;
        expect(fixture.policy.all('opened').map((opened) => opened.client)).toEqual([{ address, port }]);
      },
    );

    test('datagrams keep their order and their borders, empty ones included', async () => {
      const fixture = new EngineFixture(createEngine);
      const backend = await openUdpEcho(LOOPBACK[family]);
      fixture.policy.decide = () => dialTo(backend);
      const listener = await fixture.listen('UDP', family);
      const client = await openUdpPeer(LOOPBACK[family]);
      const texts = Array.from({ length: 60 }, (_, index) => (index % 7 === 3 ? '' : `datagram ${index}`));

      await sendAll(client, texts, listener);
      await client.datagram(texts.length - 1);

      expect(backend.texts).toEqual(texts);
      expect(client.texts).toEqual(texts);
      expect(fixture.policy.all('opened')).toHaveLength(1);
      expect(fixture.engine.totals()).toMatchObject({
        datagramsIn: 60,
        datagramsOut: 60,
        datagramsDropped: 0,
      });
    });
  });

  describe('UDP sessions', () => {
    test('a preamble is ignored: the backend gets the datagrams of the client and nothing else', async () => {
      const fixture = new EngineFixture(createEngine);
      const backend = await openUdpEcho();
      fixture.policy.decide = () => dialWith(Buffer.from('PROXY'), backend);
      const listener = await fixture.listen('UDP');
      const client = await openUdpPeer();

      await client.send('hello', listener);
      await client.datagram();
      await fixture.engine.close(listener.id);

      expect(backend.texts).toEqual(['hello']);
      expect(client.texts).toEqual(['hello']);
      expect(await fixture.closed(await fixture.session())).toMatchObject({ bytesIn: 5, bytesOut: 5 });
    });

    test('a reply leaves from the address that its client used', async () => {
      const fixture = new EngineFixture(createEngine);
      const backend = await openUdpEcho();
      fixture.policy.decide = () => dialTo(backend);
      const { port } = await fixture.listen('UDP', 'IPv4', ['127.0.0.1', '127.0.0.2']);
      const client = await openUdpPeer();

      await client.send('to the second', { address: '127.0.0.2', port });
      await client.datagram();
      await client.send('to the first', { address: '127.0.0.1', port });
      await client.datagram(1);

      expect(client.datagrams.map(({ data, from }) => `${data.toString()}: ${from.address}`)).toEqual([
        'to the second: 127.0.0.2',
        'to the first: 127.0.0.1',
      ]);
      expect(fixture.policy.all('opened')).toHaveLength(2);
    });

    test('each client has its own session and gets its own replies', async () => {
      const fixture = new EngineFixture(createEngine);
      const backend = await openUdpEcho();
      fixture.policy.decide = () => dialTo(backend);
      const listener = await fixture.listen('UDP');
      const clients = await Promise.all(Array.from({ length: 10 }, async () => openUdpPeer()));

      for (const [index, client] of clients.entries()) await client.send(`client ${index}`, listener);
      for (const client of clients) await client.datagram();

      expect(clients.map(({ texts }) => texts)).toEqual(clients.map((_, index) => [`client ${index}`]));
      expect(new Set(backend.datagrams.map(({ from }) => from.port)).size).toBe(10);
    });

    test('what came before the backend was up is delivered in order, as far as 128 KiB reach', async () => {
      const fixture = new EngineFixture(createEngine);
      const backend = await openUdpPeer();
      fixture.policy.decide = later;
      const listener = await fixture.listen('UDP');
      const client = await openUdpPeer();
      const contents = Array.from({ length: 5 }, (_, index) => makeBytes(LARGEST - index));

      for (const [index, content] of contents.entries()) {
        await client.send(content, listener);
        await waitFor(() => fixture.engine.totals().datagramsIn === index + 1, {
          timeoutMs: 5000,
          what: `datagram ${index} to be taken`,
        });
      }
      fixture.engine.answer(await fixture.session(), dialTo(backend));
      await backend.datagram(1);
      await client.send('after', listener);
      await backend.datagram(2);

      expect(backend.datagrams[0]?.data.equals(contents[0] ?? Buffer.of())).toBe(true);
      expect(backend.datagrams[1]?.data.equals(contents[1] ?? Buffer.of())).toBe(true);
      expect(backend.texts[2]).toBe('after');
      expect(fixture.engine.totals().datagramsDropped).toBe(3);
    });

    test('bytes are those that were carried, and none for a session that never had a backend', async () => {
      const fixture = new EngineFixture(createEngine);
      const backend = await openUdpEcho('127.0.0.1', '>> ');
      fixture.policy.decide = () => dialTo(backend);
      const listener = await fixture.listen('UDP');
      const client = await openUdpPeer();
      await client.send('12345', listener);
      await client.datagram();
      const session = await fixture.session();
      expect([...fixture.engine.sessionBytes()]).toEqual([{ session, bytesIn: 5, bytesOut: 8 }]);

      fixture.engine.reset([session]);
      fixture.policy.decide = () => REFUSE;
      await client.send('nobody', listener);

      expect(await fixture.closed(session)).toMatchObject({ cause: 'stopped', bytesIn: 5, bytesOut: 8 });
      expect(await fixture.closed(await fixture.session(1))).toMatchObject({ bytesIn: 0, bytesOut: 0 });
    });

    test('a flow that is forgotten carries nothing that its client sends after that', async () => {
      const fixture = new EngineFixture(createEngine);
      const backend = await openUdpEcho();
      fixture.policy.decide = () => dialTo(backend);
      const listener = await fixture.listen('UDP');
      const client = await openUdpPeer();

      for (let round = 0; round < FORGOTTEN_ROUNDS; round += 1) {
        await exchange(client, listener, round + 1);
        fixture.engine.reset([await fixture.session(round)]);
      }

      await fixture.closed(await fixture.session(FORGOTTEN_ROUNDS - 1));
      expect(fixture.policy.all('closed')).toHaveLength(FORGOTTEN_ROUNDS);
    });

    test('a refused datagram is dropped, and the next one opens a new session', async () => {
      const fixture = new EngineFixture(createEngine);
      const backend = await openUdpEcho();
      fixture.policy.decide = () => REFUSE;
      const listener = await fixture.listen('UDP');
      const client = await openUdpPeer();
      await client.send('first', listener);
      expect((await fixture.closed(await fixture.session())).cause).toBe('refused');

      fixture.policy.decide = () => dialTo(backend);
      await client.send('second', listener);

      expect((await client.datagram()).data.toString()).toBe('second');
      expect(backend.texts).toEqual(['second']);
      expect(fixture.engine.totals().datagramsDropped).toBe(1);
    });

    test.each([
      { name: 'unreachable', family: 'IPv4', address: '255.255.255.255' },
      { name: 'local', family: 'IPv6', address: 'fe80::1' },
    ] as const)('a dial that fails at once is $name, and the next answer is followed', async (row) => {
      const fixture = new EngineFixture(createEngine);
      const backend = await openUdpEcho(LOOPBACK[row.family]);
      fixture.policy.decide = ({ kind }) =>
        kind === 'opened' ? dialTo({ address: row.address, port: 9 }) : dialTo(backend);
      const listener = await fixture.listen('UDP', row.family);
      const client = await openUdpPeer(LOOPBACK[row.family]);

      await client.send('hello', listener);

      expect((await client.datagram()).data.toString()).toBe('hello');
      const session = await fixture.session();
      expect((await fixture.dialFailed(session)).failure).toBe(row.name);
      expect(fixture.policy.kindsOf(session)).toEqual(['opened', 'dialFailed', 'established']);
    });

    test('a backend that is not there ends the session, and the next datagram opens a new one', async () => {
      const fixture = new EngineFixture(createEngine);
      const backend = await openUdpEcho();
      const closed = await closedUdpPort();
      fixture.policy.decide = () => dialTo(closed);
      const listener = await fixture.listen('UDP');
      const client = await openUdpPeer();
      await client.send('lost', listener);
      expect((await fixture.closed(await fixture.session())).cause).toBe('backendRefused');

      fixture.policy.decide = () => dialTo(backend);
      await client.send('found', listener);

      expect((await client.datagram()).data.toString()).toBe('found');
    });

    test('only the backend may answer: datagrams from others are not passed on', async () => {
      const fixture = new EngineFixture(createEngine);
      const backend = await openUdpEcho();
      const stranger = await openUdpPeer();
      fixture.policy.decide = () => dialTo(backend);
      const listener = await fixture.listen('UDP');
      const client = await openUdpPeer();
      await client.send('first', listener);
      await client.datagram();

      const outward = backend.datagrams[0]?.from;
      if (outward !== undefined) await stranger.send('forged', outward);
      await client.send('second', listener);
      await client.datagram(1);

      expect(client.texts).toEqual(['first', 'second']);
    });

    test('the policy can see who has been idle longest, and evict him while it lets another in', async () => {
      const fixture = new EngineFixture(createEngine);
      const backend = await openUdpEcho();
      fixture.policy.decide = () => dialTo(backend);
      const listener = await fixture.listen('UDP');
      const [first, second, third] = [await openUdpPeer(), await openUdpPeer(), await openUdpPeer()];
      await exchange(first, listener, 1);
      await exchange(second, listener, 1);
      await exchange(first, listener, 2);
      const sessions = [await fixture.session(0), await fixture.session(1)] as const;
      const [usedLast, usedFirst] = sessions.map((session) => fixture.engine.lastUsed(session) ?? Number.NaN);
      expect(usedFirst).toBeLessThan(usedLast ?? Number.NaN);
      fixture.policy.decide = () => {
        fixture.engine.reset([sessions[1]], 'evicted');
        return dialTo(backend);
      };

      await exchange(third, listener, 1);

      expect((await fixture.closed(sessions[1])).cause).toBe('evicted');
      expect(fixture.policy.all('closed')).toHaveLength(1);
      expect(fixture.engine.lastUsed(sessions[1])).toBeUndefined();
      await exchange(first, listener, 3);
      expect(fixture.policy.all('opened')).toHaveLength(3);
    });

    test('a session without a reply ends after the shorter time-out, one with a reply after the longer', async () => {
      const fixture = new EngineFixture(createEngine, {
        udpUnrepliedTimeoutMs: 600,
        udpRepliedTimeoutMs: 1800,
      });
      const silent = await openUdpPeer();
      const backend = await openUdpEcho();
      const listener = await fixture.listen('UDP');
      fixture.policy.decide = () => dialTo(silent);
      await (await openUdpPeer()).send('anybody?', listener);
      const unreplied = await fixture.session();
      fixture.policy.decide = () => dialTo(backend);
      await exchange(await openUdpPeer(), listener, 1);
      const replied = await fixture.session(1);

      expect((await fixture.closed(unreplied)).cause).toBe('idle');
      expect(fixture.policy.open).toEqual(new Set([replied]));
      expect((await fixture.closed(replied)).cause).toBe('idle');

      const lifeMs = (session: typeof replied): number =>
        fixture.policy.timeOf(session, 'closed') - fixture.policy.timeOf(session, 'opened');
      expect(lifeMs(unreplied)).toBeGreaterThanOrEqual(595);
      expect(lifeMs(replied)).toBeGreaterThanOrEqual(1795);
    });

    test('the datagrams of a client alone keep its session', async () => {
      const fixture = new EngineFixture(createEngine, { udpUnrepliedTimeoutMs: 1000 });
      const backend = await openUdpPeer();
      fixture.policy.decide = () => dialTo(backend);
      const listener = await fixture.listen('UDP');
      const client = await openUdpPeer();

      const startedAt = performance.now();
      await waitFor(
        async () => {
          await client.send('statsd', listener);
          return performance.now() - startedAt > 1500;
        },
        { timeoutMs: 5000, what: '1.5 s of one-way datagrams', intervalMs: 50 },
      );
      expect(fixture.policy.all('opened')).toHaveLength(1);
      expect(fixture.policy.all('closed')).toHaveLength(0);

      expect((await fixture.closed(await fixture.session())).cause).toBe('idle');
    });

    test('the replies of a backend alone keep a session', async () => {
      const fixture = new EngineFixture(createEngine, {
        udpUnrepliedTimeoutMs: 1000,
        udpRepliedTimeoutMs: 1000,
      });
      const backend = await openUdpPeer();
      fixture.policy.decide = () => dialTo(backend);
      const listener = await fixture.listen('UDP');
      const client = await openUdpPeer();
      await client.send('subscribe', listener);
      const { from } = await backend.datagram();

      const startedAt = performance.now();
      await waitFor(
        async () => {
          await backend.send('news', from);
          return performance.now() - startedAt > 1500;
        },
        { timeoutMs: 5000, what: '1.5 s of one-way replies', intervalMs: 50 },
      );

      expect(fixture.policy.all('closed')).toHaveLength(0);
    });

    test('new addresses are served, those that are gone are not, and the sessions on the others live on', async () => {
      const fixture = new EngineFixture(createEngine);
      const backend = await openUdpEcho();
      fixture.policy.decide = () => dialTo(backend);
      const { id, port } = await fixture.listen('UDP', 'IPv4', ['127.0.0.1', '127.0.0.2']);
      const client = await openUdpPeer();
      await exchange(client, { address: '127.0.0.1', port }, 1);
      await exchange(client, { address: '127.0.0.2', port }, 2);

      await fixture.engine.setAddresses(id, ['127.0.0.2', '127.0.0.3']);

      expect((await fixture.closed(await fixture.session())).cause).toBe('stopped');
      await exchange(client, { address: '127.0.0.3', port }, 3);
      await exchange(client, { address: '127.0.0.2', port }, 4);
      await client.send('to nobody', { address: '127.0.0.1', port });
      await exchange(client, { address: '127.0.0.2', port }, 5);
      expect(fixture.policy.all('opened')).toHaveLength(3);
      expect(client.datagrams.slice(2).map(({ from }) => from.address)).toEqual([
        '127.0.0.3',
        '127.0.0.2',
        '127.0.0.2',
      ]);
    });

    test('a listener without an address opens, and serves those that it is given later', async () => {
      const fixture = new EngineFixture(createEngine);
      const backend = await openUdpEcho();
      fixture.policy.decide = () => dialTo(backend);
      const { id, port } = await fixture.listen('UDP', 'IPv4', []);

      await fixture.engine.setAddresses(id, ['127.0.0.1']);
      await exchange(await openUdpPeer(), { address: '127.0.0.1', port }, 1);
      await fixture.engine.setAddresses(id, []);

      expect((await fixture.closed(await fixture.session())).cause).toBe('stopped');
    });

    test('a new address that is taken rejects, and what was served before is served on', async () => {
      const fixture = new EngineFixture(createEngine);
      const backend = await openUdpEcho();
      fixture.policy.decide = () => dialTo(backend);
      const { id, port } = await fixture.listen('UDP');
      await openUdpPeer('127.0.0.2', port);
      const client = await openUdpPeer();
      await exchange(client, { address: '127.0.0.1', port }, 1);

      const changing = fixture.engine.setAddresses(id, ['127.0.0.1', '127.0.0.2', '127.0.0.3']);

      await expect(changing).rejects.toMatchObject({
        code: 'ERR_LISTENER_OPEN',
        cause: { code: 'EADDRINUSE' },
      });
      await exchange(client, { address: '127.0.0.1', port }, 2);
      expect(fixture.policy.all('opened')).toHaveLength(1);
    });
  });
}

async function sendAll(client: UdpPeer, texts: readonly string[], to: SocketAddress): Promise<void> {
  for (const text of texts) await client.send(text, to);
}
