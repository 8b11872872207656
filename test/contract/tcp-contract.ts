/** The engine contract for TCP sessions: decisions, dials, half-close, resets. */
import { describe, expect, test } from 'vitest';
import {
  closedTcpPort,
  connectTcp,
  echo,
  openBlackHole,
  openTcpBackend,
  sayName,
} from '../support/loopback-tcp.ts';
import { REFUSE, dialTo, later } from '../support/recording-policy.ts';
import { waitFor } from '../support/wait.ts';
import { type CreateEngine, EngineFixture, LOOPBACK, makeBytes } from './engine-fixture.ts';

const MIB = 1_048_576;

export function describeTcpContract(createEngine: CreateEngine): void {
  describe.each(['IPv4', 'IPv6'] as const)('TCP over %s', (family) => {
    test('a session carries bytes both ways, tells its client, and ends with fin', async () => {
      const fixture = new EngineFixture(createEngine);
      const backend = await openTcpBackend(LOOPBACK[family], echo);
      fixture.policy.decide = () => dialTo(backend);
      const listener = await fixture.listen('TCP', family);

      const client = await connectTcp(listener);
      client.send('hello');
      await client.text('hello');
      const clientAddress = client.address;
      client.end();
      await client.ended();

      const session = await fixture.session();
      expect(await fixture.closed(session)).toMatchObject({ cause: 'fin', bytesIn: 5, bytesOut: 5 });
      expect(fixture.policy.kindsOf(session)).toEqual(['opened', 'established', 'closed']);
      expect(fixture.policy.all('opened')).toEqual([
        { kind: 'opened', listener: listener.id, session, client: clientAddress },
      ]);
    });

    test('a dial to a port where nobody listens is refused, and the next answer is followed', async () => {
      const fixture = new EngineFixture(createEngine);
      const backend = await openTcpBackend(LOOPBACK[family], sayName('second'));
      const closed = await closedTcpPort(LOOPBACK[family]);
      fixture.policy.decide = ({ kind }) => dialTo(kind === 'opened' ? closed : backend);
      const listener = await fixture.listen('TCP', family);

      const client = await connectTcp(listener);
      await client.text('second');

      const session = await fixture.session();
      expect(await fixture.dialFailed(session)).toEqual({
        kind: 'dialFailed',
        session,
        failure: 'refused',
        errno: 'ECONNREFUSED',
      });
    });
  });

  describe('TCP decisions', () => {
    test('accepting does not wait for decisions, and answers come in any order', async () => {
      const fixture = new EngineFixture(createEngine);
      fixture.policy.decide = later;
      const backend = await openTcpBackend('127.0.0.1', echo);
      const listener = await fixture.listen('TCP');

      const clients = await Promise.all(Array.from({ length: 100 }, async () => connectTcp(listener)));
      await fixture.session(99);
      for (const { session } of fixture.policy.all('opened').toReversed()) {
        fixture.engine.answer(session, dialTo(backend));
      }

      for (const [index, client] of clients.entries()) client.send(`client ${index}`);
      await Promise.all(clients.map(async (client, index) => client.text(`client ${index}`)));
    });

    test('an answer from within the call that asks for it is as good as one that is returned', async () => {
      const fixture = new EngineFixture(createEngine);
      const backend = await openTcpBackend('127.0.0.1', sayName('second'));
      const closed = await closedTcpPort();
      fixture.policy.decide = ({ kind, session }) => {
        fixture.engine.answer(session, dialTo(kind === 'opened' ? closed : backend));
        return undefined;
      };

      await (await connectTcp(await fixture.listen('TCP'))).text('second');

      const session = await fixture.session();
      expect(fixture.policy.kindsOf(session).slice(0, 3)).toEqual(['opened', 'dialFailed', 'established']);
    });

    test('accepting does not wait for a dial', async () => {
      const fixture = new EngineFixture(createEngine);
      const blackHole = await openBlackHole();
      const backend = await openTcpBackend('127.0.0.1', sayName('served'));
      const listener = await fixture.listen('TCP');
      fixture.policy.decide = () => dialTo(blackHole);
      await connectTcp(listener);
      const waiting = await fixture.session();

      fixture.policy.decide = () => dialTo(backend);
      await (await connectTcp(listener)).text('served');

      expect(fixture.policy.kindsOf(waiting)).toEqual(['opened']);
    });

    test('a dial that nobody answers fails with timeout, not before its time-out', async () => {
      const fixture = new EngineFixture(createEngine);
      const blackHole = await openBlackHole();
      const backend = await openTcpBackend('127.0.0.1', sayName('second'));
      fixture.policy.decide = ({ kind }) => (kind === 'opened' ? dialTo(blackHole, 150) : dialTo(backend));
      const listener = await fixture.listen('TCP');

      await (await connectTcp(listener)).text('second');

      const session = await fixture.session();
      expect(fixture.policy.kindsOf(session).slice(0, 3)).toEqual(['opened', 'dialFailed', 'established']);
      expect(await fixture.dialFailed(session)).toMatchObject({ failure: 'timeout', errno: 'ETIMEDOUT' });
      const tookMs = fixture.policy.timeOf(session, 'dialFailed') - fixture.policy.timeOf(session, 'opened');
      expect(tookMs).toBeGreaterThanOrEqual(145);
    });

    test('a backend that answered while this process was busy is not taken for one that did not', async () => {
      const fixture = new EngineFixture(createEngine);
      const backend = await openTcpBackend('127.0.0.1', sayName('in time'));
      fixture.policy.decide = ({ kind }) => {
        if (kind === 'opened') process.nextTick(stall, 300);
        return kind === 'opened' ? dialTo(backend, 100) : REFUSE;
      };

      const client = await connectTcp(await fixture.listen('TCP'));

      await client.text('in time');
      expect(fixture.policy.all('dialFailed')).toEqual([]);
    });

    test('a dial to an address without a route is unreachable', async () => {
      const fixture = new EngineFixture(createEngine);
      fixture.policy.decide = ({ kind }) =>
        kind === 'opened' ? dialTo({ address: '255.255.255.255', port: 9 }) : undefined;
      await connectTcp(await fixture.listen('TCP'));

      expect(await fixture.dialFailed(await fixture.session())).toMatchObject({
        failure: 'unreachable',
        errno: 'ENETUNREACH',
      });
    });

    test('a failed dial that is not answered at once can be answered later', async () => {
      const fixture = new EngineFixture(createEngine);
      const backend = await openTcpBackend('127.0.0.1', sayName('late'));
      const closed = await closedTcpPort();
      fixture.policy.decide = ({ kind }) => (kind === 'opened' ? dialTo(closed) : undefined);
      const listener = await fixture.listen('TCP');
      const client = await connectTcp(listener);
      const session = await fixture.session();
      await fixture.dialFailed(session);

      fixture.engine.answer(session, dialTo(backend));

      await client.text('late');
    });

    test('an answer during a dial abandons that dial without an event', async () => {
      const fixture = new EngineFixture(createEngine);
      const blackHole = await openBlackHole();
      const backend = await openTcpBackend('127.0.0.1', sayName('instead'));
      fixture.policy.decide = () => dialTo(blackHole, 200);
      const listener = await fixture.listen('TCP');
      const client = await connectTcp(listener);
      const session = await fixture.session();

      fixture.engine.answer(session, dialTo(backend));

      await client.text('instead');
      client.end();
      await fixture.closed(session);
      // Long past the time-out of the first dial, had its timer been left.
      const startedAt = fixture.policy.timeOf(session, 'opened');
      await waitFor(() => performance.now() - startedAt > 300, { timeoutMs: 5000, what: '300 ms' });
      expect(fixture.policy.kindsOf(session)).toEqual(['opened', 'established', 'closed']);
    });

    test('a refused client is reset, and nothing was carried', async () => {
      const fixture = new EngineFixture(createEngine);
      fixture.policy.decide = later;
      const listener = await fixture.listen('TCP');
      const client = await connectTcp(listener);
      client.send('early');
      const session = await fixture.session();

      fixture.engine.answer(session, REFUSE);

      expect(await client.failed()).toBe('ECONNRESET');
      expect(await fixture.closed(session)).toMatchObject({ cause: 'refused', bytesIn: 0, bytesOut: 0 });
    });

    test('a refusal during a dial ends the session', async () => {
      const fixture = new EngineFixture(createEngine);
      const blackHole = await openBlackHole();
      fixture.policy.decide = () => dialTo(blackHole);
      const listener = await fixture.listen('TCP');
      const client = await connectTcp(listener);
      const session = await fixture.session();

      fixture.engine.answer(session, REFUSE);

      expect(await client.failed()).toBe('ECONNRESET');
      expect((await fixture.closed(session)).cause).toBe('refused');
    });

    test('an answer for a session that is established or gone is ignored', async () => {
      const fixture = new EngineFixture(createEngine);
      const backend = await openTcpBackend('127.0.0.1', echo);
      fixture.policy.decide = () => dialTo(backend);
      const listener = await fixture.listen('TCP');
      const client = await connectTcp(listener);
      const session = await fixture.session();
      await fixture.established(session);

      fixture.engine.answer(session, REFUSE);
      client.send('still here');
      await client.text('still here');
      client.end();
      await fixture.closed(session);
      fixture.engine.answer(session, dialTo(backend));

      expect(fixture.policy.kindsOf(session)).toEqual(['opened', 'established', 'closed']);
    });
  });

  describe('TCP half-close', () => {
    const content = makeBytes(MIB);

    test('a client that has ended still gets the whole answer', async () => {
      const fixture = new EngineFixture(createEngine);
      const backend = await openTcpBackend();
      fixture.policy.decide = () => dialTo(backend);
      const client = await connectTcp(await fixture.listen('TCP'));

      client.send(content);
      client.end();
      const server = await backend.peer();
      await server.ended();
      expect(server.received.equals(content)).toBe(true);
      expect(client.hasEnded).toBe(false);
      server.send(content);
      server.end();
      await client.ended();

      expect(client.received.equals(content)).toBe(true);
      const closed = await fixture.closed(await fixture.session());
      expect(closed).toMatchObject({ cause: 'fin', bytesIn: MIB, bytesOut: MIB });
    });

    test('a backend that has ended still gets everything from the client', async () => {
      const fixture = new EngineFixture(createEngine);
      const backend = await openTcpBackend();
      fixture.policy.decide = () => dialTo(backend);
      const client = await connectTcp(await fixture.listen('TCP'));
      const server = await backend.peer();

      server.send(content);
      server.end();
      await client.ended();
      expect(client.received.equals(content)).toBe(true);
      expect(server.hasEnded).toBe(false);
      client.send(content);
      client.end();
      await server.ended();

      expect(server.received.equals(content)).toBe(true);
      const closed = await fixture.closed(await fixture.session());
      expect(closed).toMatchObject({ cause: 'fin', bytesIn: MIB, bytesOut: MIB });
    });

    test('a client that sent and ended before its backend was up is served', async () => {
      const fixture = new EngineFixture(createEngine);
      const backend = await openTcpBackend('127.0.0.1', echo);
      fixture.policy.decide = later;
      const client = await connectTcp(await fixture.listen('TCP'));
      client.send('all I have to say');
      client.end();
      const session = await fixture.session();

      fixture.engine.answer(session, dialTo(backend));

      await client.ended();
      expect(client.received.toString()).toBe('all I have to say');
      expect((await fixture.closed(session)).cause).toBe('fin');
    });

    test('a half-closed session whose other direction stays silent ends with halfClose', async () => {
      const fixture = new EngineFixture(createEngine, { halfCloseTimeoutMs: 200 });
      const backend = await openTcpBackend();
      fixture.policy.decide = () => dialTo(backend);
      const client = await connectTcp(await fixture.listen('TCP'));
      const server = await backend.peer();

      client.end();

      const session = await fixture.session();
      expect((await fixture.closed(session)).cause).toBe('halfClose');
      expect(await client.failed()).toBe('ECONNRESET');
      // Node does not look for a reset after the end; a write finds it.
      const errno = await waitFor(
        () => {
          server.send('?');
          return server.errno;
        },
        { timeoutMs: 5000, what: 'the reset' },
      );
      expect(['ECONNRESET', 'EPIPE']).toContain(errno);
    });

    test('a half-closed session whose other direction speaks now and then lives on', async () => {
      const fixture = new EngineFixture(createEngine, { halfCloseTimeoutMs: 1000 });
      const backend = await openTcpBackend();
      fixture.policy.decide = () => dialTo(backend);
      const client = await connectTcp(await fixture.listen('TCP'));
      const server = await backend.peer();
      client.end();
      await server.ended();

      const startedAt = performance.now();
      const tick = setInterval(() => server.send('.'), 50);
      await waitFor(() => performance.now() - startedAt > 1500, {
        timeoutMs: 5000,
        what: '1.5 s of replies',
      });
      clearInterval(tick);
      server.end();
      await client.ended();

      expect((await fixture.closed(await fixture.session())).cause).toBe('fin');
    });

    test('an open session that stays silent does not end: the time-out is for half-closed ones', async () => {
      const fixture = new EngineFixture(createEngine, { halfCloseTimeoutMs: 100 });
      const backend = await openTcpBackend('127.0.0.1', echo);
      fixture.policy.decide = () => dialTo(backend);
      const client = await connectTcp(await fixture.listen('TCP'));
      const session = await fixture.session();
      await fixture.established(session);

      const startedAt = performance.now();
      await waitFor(() => performance.now() - startedAt > 400, { timeoutMs: 5000, what: '400 ms' });
      client.send('awake');

      await client.text('awake');
    });
  });

  describe('TCP resets', () => {
    test('a reset of the client reaches the backend as a reset, and harms no other session', async () => {
      const fixture = new EngineFixture(createEngine);
      const backend = await openTcpBackend();
      fixture.policy.decide = () => dialTo(backend);
      const listener = await fixture.listen('TCP');
      const client = await connectTcp(listener);
      const server = await backend.peer();
      const other = await connectTcp(listener);
      const otherServer = await backend.peer(1);

      client.reset();

      expect(await server.failed()).toBe('ECONNRESET');
      expect((await fixture.closed(await fixture.session())).cause).toBe('clientReset');
      other.send('unharmed');
      await otherServer.text('unharmed');
    });

    test('a reset of the backend reaches the client as a reset', async () => {
      const fixture = new EngineFixture(createEngine);
      const backend = await openTcpBackend();
      fixture.policy.decide = () => dialTo(backend);
      const client = await connectTcp(await fixture.listen('TCP'));
      const server = await backend.peer();
      client.send('hello');
      await server.text('hello');

      server.reset();

      expect(await client.failed()).toBe('ECONNRESET');
      const closed = await fixture.closed(await fixture.session());
      expect(closed).toMatchObject({ cause: 'backendReset', bytesIn: 5, bytesOut: 0 });
    });

    test('a reset reaches a side that has ended its own direction', async () => {
      const fixture = new EngineFixture(createEngine);
      const backend = await openTcpBackend();
      fixture.policy.decide = () => dialTo(backend);
      const client = await connectTcp(await fixture.listen('TCP'));
      const server = await backend.peer();
      client.end();
      await server.ended();

      server.reset();

      expect(await client.failed()).toBe('ECONNRESET');
      expect((await fixture.closed(await fixture.session())).cause).toBe('backendReset');
    });

    test.each([
      { name: 'while nothing is decided', isDialling: false, early: '' },
      { name: 'during a dial', isDialling: true, early: '' },
      { name: 'during a dial, with early data', isDialling: true, early: 'early' },
    ])('a client that resets $name ends its session at once', async ({ isDialling, early }) => {
      const fixture = new EngineFixture(createEngine);
      const blackHole = await openBlackHole();
      fixture.policy.decide = () => (isDialling ? dialTo(blackHole) : undefined);
      const client = await connectTcp(await fixture.listen('TCP'));
      if (early !== '') client.send(early);
      const session = await fixture.session();

      client.reset();

      expect(await fixture.closed(session)).toMatchObject({ cause: 'clientReset', bytesIn: 0 });
      expect(fixture.policy.kindsOf(session)).toEqual(['opened', 'closed']);
    });

    test('reset() resets both sides with cause stopped, and no other session', async () => {
      const fixture = new EngineFixture(createEngine);
      const backend = await openTcpBackend();
      fixture.policy.decide = () => dialTo(backend);
      const listener = await fixture.listen('TCP');
      const client = await connectTcp(listener);
      const server = await backend.peer();
      const other = await connectTcp(listener);
      const otherServer = await backend.peer(1);
      const session = await fixture.session();

      fixture.engine.reset([session]);

      expect(await client.failed()).toBe('ECONNRESET');
      expect(await server.failed()).toBe('ECONNRESET');
      expect((await fixture.closed(session)).cause).toBe('stopped');
      otherServer.send('unharmed');
      await other.text('unharmed');
      fixture.engine.reset([session]);
    });
  });
}

/** Keeps the event loop from turning. */
function stall(ms: number): void {
  const until = performance.now() + ms;
  while (performance.now() < until);
}
