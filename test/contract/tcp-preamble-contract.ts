/** The engine contract for what a backend gets before anything of the client: `Decision.preamble`. */
import { describe, expect, test } from 'vitest';
import {
  closedTcpPort,
  connectTcp,
  openBlackHole,
  openTcpBackend,
  sayName,
} from '../support/loopback-tcp.ts';
import { REFUSE, dialTo, dialWith, later } from '../support/recording-policy.ts';
import { type CreateEngine, EngineFixture, makeBytes } from './engine-fixture.ts';

/** No text, so that it would show if somebody took it for one. */
const PREAMBLE = Buffer.from('0d0a0d0a000d0a515549540aff', 'hex');
const KIB_64 = 65_536;

function afterPreamble(...parts: readonly (string | Buffer)[]): Buffer {
  return Buffer.concat([PREAMBLE, ...parts.map((part) => Buffer.from(part as string))]);
}

export function describeTcpPreambleContract(createEngine: CreateEngine): void {
  describe('a preamble', () => {
    test('reaches the backend of a client that never sends, once, and the answer reaches the client', async () => {
      const fixture = new EngineFixture(createEngine);
      const backend = await openTcpBackend('127.0.0.1', ({ socket }) => {
        socket.write('220 ready');
      });
      fixture.policy.decide = () => dialWith(PREAMBLE, backend);
      const client = await connectTcp(await fixture.listen('TCP'));

      await client.text('220 ready');
      const server = await backend.peer();
      await server.bytes(PREAMBLE.length);
      client.reset();

      const closed = await fixture.closed(await fixture.session());
      expect(closed).toMatchObject({ cause: 'clientReset', bytesIn: 0, bytesOut: 9 });
      await server.failed();
      expect(server.received).toEqual(PREAMBLE);
    });

    test('comes before what the client had sent before its backend was up', async () => {
      const fixture = new EngineFixture(createEngine);
      const backend = await openTcpBackend();
      fixture.policy.decide = later;
      const client = await connectTcp(await fixture.listen('TCP'));
      client.send('early');
      const session = await fixture.session();

      fixture.engine.answer(session, dialWith(PREAMBLE, backend));
      const server = await backend.peer();
      await server.bytes(PREAMBLE.length + 5);
      client.send(' and late');
      client.end();
      await server.ended();

      expect(server.received).toEqual(afterPreamble('early and late'));
    });

    test('comes before 64 KiB of the client, sent at once, and is not counted', async () => {
      const fixture = new EngineFixture(createEngine);
      const backend = await openTcpBackend();
      fixture.policy.decide = () => dialWith(PREAMBLE, backend);
      const content = makeBytes(KIB_64);
      const client = await connectTcp(await fixture.listen('TCP'));

      client.send(content);
      const server = await backend.peer();
      await server.bytes(PREAMBLE.length + KIB_64);
      const session = await fixture.session();
      expect([...fixture.engine.sessionBytes()]).toEqual([{ session, bytesIn: KIB_64, bytesOut: 0 }]);
      client.end();
      await server.ended();
      server.end();

      expect(server.received.equals(afterPreamble(content))).toBe(true);
      expect(await fixture.closed(session)).toMatchObject({ cause: 'fin', bytesIn: KIB_64, bytesOut: 0 });
    });

    test('comes before the end of a client that half-closes at once, which still gets its answer', async () => {
      const fixture = new EngineFixture(createEngine);
      const backend = await openTcpBackend();
      fixture.policy.decide = () => dialWith(PREAMBLE, backend);
      const client = await connectTcp(await fixture.listen('TCP'));

      client.end();
      const server = await backend.peer();
      await server.ended();
      expect(server.received).toEqual(PREAMBLE);
      server.send('still listening?');
      server.end();
      await client.ended();

      expect(client.received.toString()).toBe('still listening?');
      const closed = await fixture.closed(await fixture.session());
      expect(closed).toMatchObject({ cause: 'fin', bytesIn: 0, bytesOut: 16 });
    });

    test('that is absent or empty sends nothing', async () => {
      const fixture = new EngineFixture(createEngine);
      const backend = await openTcpBackend();
      const listener = await fixture.listen('TCP');
      for (const [index, decision] of [dialTo(backend), dialWith(new Uint8Array(), backend)].entries()) {
        fixture.policy.decide = () => decision;
        const client = await connectTcp(listener);
        const server = await backend.peer(index);

        client.end();
        await server.ended();
        server.end();

        expect(server.receivedBytes).toBe(0);
        expect((await fixture.closed(await fixture.session(index))).cause).toBe('fin');
      }
    });

    test('may be as large as 1 MiB', async () => {
      const fixture = new EngineFixture(createEngine);
      const backend = await openTcpBackend();
      const preamble = makeBytes(16 * KIB_64);
      fixture.policy.decide = () => dialWith(preamble, backend);
      const client = await connectTcp(await fixture.listen('TCP'));

      client.send('then this');
      client.end();
      const server = await backend.peer();
      await server.ended();

      expect(server.received.equals(Buffer.concat([preamble, Buffer.from('then this')]))).toBe(true);
    });

    test('belongs to its dial: the next attempt brings its own', async () => {
      const fixture = new EngineFixture(createEngine);
      const backend = await openTcpBackend();
      const closed = await closedTcpPort();
      fixture.policy.decide = ({ kind }) =>
        kind === 'opened'
          ? dialWith(Buffer.from('for the first'), closed)
          : dialWith(Buffer.from('for the second, '), backend);
      const client = await connectTcp(await fixture.listen('TCP'));

      client.send('hello');

      await (await backend.peer()).text('for the second, hello');
    });

    test('belongs to its dial: the next attempt may do without', async () => {
      const fixture = new EngineFixture(createEngine);
      const backend = await openTcpBackend();
      const closed = await closedTcpPort();
      fixture.policy.decide = ({ kind }) =>
        kind === 'opened' ? dialWith(PREAMBLE, closed) : dialTo(backend);
      const client = await connectTcp(await fixture.listen('TCP'));

      client.send('hello');

      await (await backend.peer()).text('hello');
    });

    test('of a dial that was abandoned goes nowhere', async () => {
      const fixture = new EngineFixture(createEngine);
      const blackHole = await openBlackHole();
      const backend = await openTcpBackend();
      fixture.policy.decide = () => dialWith(Buffer.from('abandoned'), blackHole);
      const client = await connectTcp(await fixture.listen('TCP'));
      client.send('hello');
      const session = await fixture.session();

      fixture.engine.answer(session, dialWith(Buffer.from('taken, '), backend));

      await (await backend.peer()).text('taken, hello');
    });

    test('is sent as it was when the decision was made to each of many sessions', async () => {
      const fixture = new EngineFixture(createEngine);
      const backend = await openTcpBackend();
      fixture.policy.decide = (event) => dialWith(Buffer.from(`session ${event.session}\n`), backend);
      const listener = await fixture.listen('TCP');

      const clients = await Promise.all(Array.from({ length: 50 }, async () => connectTcp(listener)));
      for (const client of clients) client.end();
      await backend.peer(49);
      for (const server of backend.peers) await server.ended();

      const expected = fixture.policy.all('opened').map(({ session }) => `session ${session}\n`);
      const received = backend.peers.map((server) => server.received.toString());
      expect(received.toSorted()).toEqual(expected.toSorted());
      for (const server of backend.peers) server.end();
    });

    test('that the backend resets before it has read it is a reset of the backend', async () => {
      const fixture = new EngineFixture(createEngine);
      const backend = await openTcpBackend('127.0.0.1', (peer) => peer.hold());
      fixture.policy.decide = () => dialWith(PREAMBLE, backend);
      const client = await connectTcp(await fixture.listen('TCP'));
      const server = await backend.peer();
      const session = await fixture.session();
      await fixture.established(session);

      server.reset();

      expect(await client.failed()).toBe('ECONNRESET');
      expect(await fixture.closed(session)).toMatchObject({ cause: 'backendReset', bytesIn: 0, bytesOut: 0 });
    });

    test('changes nothing for a backend that resets as soon as it accepts: its dial failed, or it reset', async () => {
      const fixture = new EngineFixture(createEngine);
      const backend = await openTcpBackend('127.0.0.1', (peer) => peer.reset());
      fixture.policy.decide = ({ kind }) => (kind === 'opened' ? dialWith(PREAMBLE, backend) : REFUSE);
      const client = await connectTcp(await fixture.listen('TCP'));

      expect(await client.failed()).toBe('ECONNRESET');

      const session = await fixture.session();
      const { cause } = await fixture.closed(session);
      const [dialFailed] = fixture.policy.all('dialFailed');
      expect(cause).toBe(dialFailed === undefined ? 'backendReset' : 'refused');
      expect(dialFailed?.failure ?? 'refused').toBe('refused');
    });

    test('of a session whose client has reset harms nobody', async () => {
      const fixture = new EngineFixture(createEngine);
      const backend = await openTcpBackend('127.0.0.1', sayName('served'));
      fixture.policy.decide = later;
      const listener = await fixture.listen('TCP');
      const client = await connectTcp(listener);
      const session = await fixture.session();
      client.reset();
      await fixture.closed(session);

      fixture.engine.answer(session, dialWith(PREAMBLE, backend));
      fixture.policy.decide = () => dialWith(PREAMBLE, backend);
      await (await connectTcp(listener)).text('served');

      expect(backend.peers).toHaveLength(1);
    });
  });
}
