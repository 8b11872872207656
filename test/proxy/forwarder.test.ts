/** The policy, from `opened` to `closed`, without a socket. */
import { describe, expect, test } from 'vitest';
import type { SessionId } from '../../src/engine/engine.ts';
import { TERMINATING, clientIP, makeEndpoint, makeEndpoints, makeServicePort } from '../support/snapshots.ts';
import { ForwarderFixture, LISTENER, WEB_PORT } from './forwarder-fixture.ts';

const STICKY_PORT = makeServicePort({ name: 'web' }, { sessionAffinity: clientIP(10_000) });
const UDP_PORT = makeServicePort({ name: 'dns', protocol: 'UDP' });

describe('a new session', () => {
  test('is dialled to the next endpoint, with the first time-out', () => {
    const { sessions } = ForwarderFixture.serving([1, 2]);

    const [first, second] = [sessions.open(LISTENER), sessions.open(LISTENER)];

    expect([first, second].map((session) => sessions.endpointOf(session))).toEqual([
      '10.0.0.1:80',
      '10.0.0.2:80',
    ]);
    expect(sessions.timeoutOf(first)).toBe(250);
  });

  test('without endpoints it is refused, counted, and told', () => {
    const fixture = ForwarderFixture.serving([]);

    const session = fixture.sessions.open(LISTENER);

    expect(fixture.sessions.closes.get(session)).toBe('refused');
    expect(fixture.statistics.failures).toEqual({ no_endpoints: 1, exhausted: 0, local: 0, overflow: 0 });
    expect(fixture.logger.at('warn').map(({ fields }) => fields['reason'])).toEqual(['no_endpoints']);
  });

  test('at a listener that nobody knows is refused, and counts nowhere', () => {
    const fixture = ForwarderFixture.serving([1]);

    const session = fixture.sessions.open(99);

    expect(fixture.sessions.closes.get(session)).toBe('refused');
    expect(fixture.statistics).toMatchObject({ sessionsTotal: 0, sessionsActive: 0 });
  });
});

describe('a failed dial', () => {
  test.each(['refused', 'unreachable', 'timeout'] as const)(
    'by %s leads to the next endpoint, and is counted',
    (failure) => {
      const { sessions, ...fixture } = ForwarderFixture.serving([1, 2]);
      const session = sessions.open(LISTENER);

      sessions.failDial(session, failure);

      expect(sessions.endpointOf(session)).toBe('10.0.0.2:80');
      const [statistics] = fixture.forwarder.statistics().servicePorts;
      expect(statistics?.dials).toEqual({
        ok: 0,
        refused: 0,
        unreachable: 0,
        timeout: 0,
        noSourcePort: 0,
        noDescriptor: 0,
        local: 0,
        [failure]: 1,
      });
      expect(statistics?.dialRetries).toBe(1);
    },
  );

  test('by a fault of this node refuses the client, and blames no endpoint', () => {
    const fixture = ForwarderFixture.serving([1, 2], STICKY_PORT);
    const first = fixture.sessions.open(LISTENER);
    fixture.sessions.establish(first);

    const second = fixture.sessions.open(LISTENER);
    fixture.sessions.failDial(second, 'local', 'EMFILE');

    expect(fixture.sessions.closes.get(second)).toBe('refused');
    expect(fixture.statistics.failures).toEqual({ no_endpoints: 0, exhausted: 0, local: 1, overflow: 0 });
    expect(fixture.statistics.dialRetries).toBe(0);
    expect(fixture.sessions.endpointOf(fixture.sessions.open(LISTENER))).toBe('10.0.0.1:80');
  });

  test('of every endpoint refuses the client', () => {
    const fixture = ForwarderFixture.serving([1, 2]);
    const session = fixture.sessions.open(LISTENER);

    fixture.sessions.failDial(session, 'refused');
    fixture.sessions.failDial(session, 'refused');

    expect(fixture.sessions.closes.get(session)).toBe('refused');
    expect(fixture.statistics.failures).toEqual({ no_endpoints: 0, exhausted: 1, local: 0, overflow: 0 });
    expect(fixture.statistics.closes.refused).toBe(1);
  });

  test('refusals are told once in ten seconds, with their number and the last failure', () => {
    const fixture = ForwarderFixture.serving([1]);
    const refuse = (): void => {
      fixture.sessions.failDial(fixture.sessions.open(LISTENER), 'refused');
    };

    refuse();
    refuse();
    refuse();
    fixture.clock.advance(9999);
    refuse();
    expect(fixture.logger.withMessage('Clients refused')).toHaveLength(1);
    fixture.clock.advance(1);
    refuse();

    expect(fixture.logger.withMessage('Clients refused').map(({ fields }) => fields)).toEqual([
      expect.objectContaining({ refused: 1, reason: 'exhausted' }),
      expect.objectContaining({
        servicePort: 'default/web',
        protocol: 'TCP',
        endpoints: 1,
        refused: 4,
        lastFailure: '10.0.0.1:80: ECONNREFUSED',
      }),
    ]);
  });
});

describe('affinity', () => {
  test('the client is tied to the endpoint that answered, not to the one that failed', () => {
    const { sessions } = ForwarderFixture.serving([1, 2, 3], STICKY_PORT);
    const session = sessions.open(LISTENER, '192.168.1.1');
    sessions.failDial(session, 'timeout');
    sessions.establish(session);

    const next = sessions.open(LISTENER, '192.168.1.1');

    expect(sessions.endpointOf(next)).toBe('10.0.0.2:80');
    expect(sessions.endpointOf(sessions.open(LISTENER, '192.168.1.2'))).toBe('10.0.0.3:80');
  });

  test('the time of an established session renews, that of a dial does not', () => {
    const { sessions, clock } = ForwarderFixture.serving([1, 2], STICKY_PORT);
    sessions.establish(sessions.open(LISTENER));
    clock.advance(8000);
    sessions.close(sessions.open(LISTENER), 'clientReset');
    clock.advance(2001);

    expect(sessions.endpointOf(sessions.open(LISTENER))).toBe('10.0.0.2:80');
  });

  test('a UDP backend that turns out not to be there frees its client', () => {
    const sticky = makeServicePort({ name: 'dns', protocol: 'UDP' }, { sessionAffinity: clientIP(10_000) });
    const { sessions } = ForwarderFixture.serving([1, 2], sticky);
    const first = sessions.open(LISTENER);
    sessions.establish(first);

    sessions.close(first, 'backendRefused');

    expect(sessions.endpointOf(sessions.open(LISTENER))).toBe('10.0.0.2:80');
  });

  test('any other end of a session leaves its client tied', () => {
    const { sessions } = ForwarderFixture.serving([1, 2], STICKY_PORT);
    const first = sessions.open(LISTENER);
    sessions.establish(first);

    sessions.close(first, 'backendReset');

    expect(sessions.endpointOf(sessions.open(LISTENER))).toBe('10.0.0.1:80');
  });
});

describe('a change of endpoints', () => {
  test('redials at once what was being dialled to an endpoint that is gone', () => {
    const fixture = ForwarderFixture.serving([1, 2]);
    const session = fixture.sessions.open(LISTENER);

    fixture.set(makeEndpoints(2));

    expect(fixture.sessions.endpointOf(session)).toBe('10.0.0.2:80');
    fixture.sessions.establish(session);
    expect(fixture.statistics).toMatchObject({ dialRetries: 0, sessionsActive: 1, dials: { ok: 1 } });
  });

  test('refuses at once what was being dialled when the last endpoint goes', () => {
    const fixture = ForwarderFixture.serving([1]);
    const sessions = [1, 2, 3].map(() => fixture.sessions.open(LISTENER));

    fixture.set([]);

    expect(sessions.map((session) => fixture.sessions.closes.get(session))).toEqual([
      'refused',
      'refused',
      'refused',
    ]);
    expect(fixture.statistics).toMatchObject({ sessionsActive: 0, failures: { no_endpoints: 3 } });
  });

  test('leaves alone what is being dialled to an endpoint that stays', () => {
    const fixture = ForwarderFixture.serving([1, 2]);
    const session = fixture.sessions.open(LISTENER);

    fixture.set(makeEndpoints(1, 3));

    expect(fixture.sessions.endpointOf(session)).toBe('10.0.0.1:80');
    expect(fixture.statistics.dialRetries).toBe(0);
  });

  test('leaves established TCP sessions alone, whatever becomes of their endpoint', () => {
    const fixture = ForwarderFixture.serving([1]);
    const session = fixture.sessions.open(LISTENER);
    fixture.sessions.establish(session);

    fixture.set([], { serving: [] });

    expect(fixture.sessions.closes.has(session)).toBe(false);
  });

  test('cuts the UDP flows of an endpoint that serves no more, and no others', () => {
    const fixture = ForwarderFixture.serving([1, 2], UDP_PORT);
    const [first, second] = [fixture.sessions.open(LISTENER), fixture.sessions.open(LISTENER)];
    for (const session of [first, second]) fixture.sessions.establish(session);

    fixture.set(makeEndpoints(2), { servicePort: UDP_PORT });

    expect(fixture.sessions.closes).toEqual(new Map([[first, 'stopped']]));
    expect(fixture.sessions.endpointOf(fixture.sessions.open(LISTENER))).toBe('10.0.0.2:80');
  });

  test('does not cut the UDP flows of an endpoint that begins to terminate, until it serves no more', () => {
    const fixture = ForwarderFixture.serving([1, 2], UDP_PORT);
    const session = fixture.sessions.open(LISTENER);
    fixture.sessions.establish(session);
    const ready = makeEndpoints(2);

    fixture.set(ready, {
      servicePort: UDP_PORT,
      serving: [makeEndpoint('10.0.0.1', 80, TERMINATING), ...ready],
    });
    expect(fixture.sessions.closes.size).toBe(0);
    fixture.set(ready, { servicePort: UDP_PORT });

    expect(fixture.sessions.closes).toEqual(new Map([[session, 'stopped']]));
  });

  test('a TCP Service may change its affinity while sessions are open', () => {
    const fixture = ForwarderFixture.serving([1, 2]);
    fixture.sessions.establish(fixture.sessions.open(LISTENER));

    fixture.set(makeEndpoints(1, 2), { servicePort: STICKY_PORT });
    fixture.sessions.establish(fixture.sessions.open(LISTENER));

    expect(fixture.sessions.endpointOf(fixture.sessions.open(LISTENER))).toBe('10.0.0.2:80');
    expect(fixture.statistics.affinityEntries).toBe(1);
  });
});

describe('the seats of listener keys', () => {
  test('a key that nothing is bound to is forgotten with its counts', () => {
    const fixture = ForwarderFixture.serving([1]);
    fixture.sessions.open(LISTENER);
    fixture.unbind();

    fixture.forwarder.retainBackends(new Set());

    expect(fixture.forwarder.statistics().servicePorts).toEqual([]);
  });

  test('a key that is wanted is kept, bound or not', () => {
    const fixture = ForwarderFixture.serving([1]);
    fixture.unbind();

    fixture.forwarder.retainBackends(new Set(['web']));

    expect(fixture.forwarder.statistics().servicePorts).toHaveLength(1);
  });

  test('a listener that drains keeps its endpoints', () => {
    const fixture = ForwarderFixture.serving([1]);

    fixture.forwarder.retainBackends(new Set());

    expect(fixture.sessions.endpointOf(fixture.sessions.open(LISTENER))).toBe('10.0.0.1:80');
  });

  test('a key that was removed and is wanted again gets its new endpoints, though its listener never closed', () => {
    const fixture = ForwarderFixture.serving([1]);
    fixture.forwarder.retainBackends(new Set());

    fixture.set(makeEndpoints(2));

    expect(fixture.sessions.endpointOf(fixture.sessions.open(LISTENER))).toBe('10.0.0.2:80');
  });

  test('a listener that is bound anew follows its key', () => {
    const fixture = ForwarderFixture.serving([1]);
    fixture.unbind();
    fixture.forwarder.retainBackends(new Set());
    fixture.set(makeEndpoints(2));

    fixture.bind(2);

    expect(fixture.sessions.endpointOf(fixture.sessions.open(2))).toBe('10.0.0.2:80');
    expect(fixture.sessions.closes.get(fixture.sessions.open(LISTENER))).toBe('refused');
  });

  test('a session that outlives its Service ends without disturbing the one that took its name', () => {
    const fixture = ForwarderFixture.serving([1]);
    const old = fixture.sessions.open(LISTENER);
    fixture.sessions.establish(old);
    fixture.unbind();
    fixture.forwarder.retainBackends(new Set());
    fixture.set(makeEndpoints(2));

    fixture.sessions.close(old);

    expect(fixture.statistics).toMatchObject({ sessionsTotal: 0, sessionsActive: 0 });
  });
});

describe('what is counted', () => {
  test('every session counts once when it opens and once when it ends, however it ends', () => {
    const fixture = ForwarderFixture.serving([1, 2]);
    const { sessions } = fixture;
    const ids = Array.from({ length: 6 }, () => sessions.open(LISTENER));
    const [fin, reset, idle, duringDial, refused, failed] = ids as [
      SessionId,
      SessionId,
      SessionId,
      SessionId,
      SessionId,
      SessionId,
    ];
    expect(fixture.statistics).toMatchObject({ sessionsTotal: 6, sessionsActive: 6 });

    for (const session of [fin, reset, idle]) sessions.establish(session);
    sessions.close(fin);
    sessions.close(reset, 'backendReset');
    sessions.close(idle, 'idle');
    sessions.close(duringDial, 'clientReset');
    sessions.failDial(refused, 'local');
    sessions.failDial(failed, 'refused');
    sessions.failDial(failed, 'refused');

    expect(fixture.statistics).toMatchObject({
      sessionsTotal: 6,
      sessionsActive: 0,
      dials: { ok: 3, refused: 2, local: 1 },
      closes: { fin: 1, backendReset: 1, idle: 1, clientReset: 1, refused: 2 },
      failures: { local: 1, exhausted: 1, no_endpoints: 0 },
    });
    expect(fixture.forwarder.statistics().sessionDuration.counts.reduce((sum, count) => sum + count)).toBe(6);
    expect(fixture.forwarder.statistics().dialDuration.counts.reduce((sum, count) => sum + count)).toBe(3);
  });

  test('bytes count while a session is open, and once only when it has ended', () => {
    const fixture = ForwarderFixture.serving([1]);
    const [first, second] = [fixture.sessions.open(LISTENER), fixture.sessions.open(LISTENER)];
    for (const session of [first, second]) fixture.sessions.establish(session);

    fixture.sessions.carry(first, 10, 100);
    fixture.sessions.carry(second, 1, 2);
    expect(fixture.statistics).toMatchObject({ bytesToBackend: 11, bytesFromBackend: 102 });
    fixture.sessions.close(first);
    expect(fixture.statistics).toMatchObject({ bytesToBackend: 11, bytesFromBackend: 102 });
    fixture.sessions.carry(second, 5, 0);

    expect(fixture.statistics).toMatchObject({ bytesToBackend: 16, bytesFromBackend: 102 });
  });

  test('durations run from the dial to the answer and from the opening to the end', () => {
    const { sessions, clock, forwarder } = ForwarderFixture.serving([1, 2]);
    const session = sessions.open(LISTENER);
    clock.advance(250);
    sessions.failDial(session, 'timeout');
    clock.advance(20);
    sessions.establish(session);
    clock.advance(30_000);
    sessions.close(session);

    expect(forwarder.statistics().dialDuration.sum).toBeCloseTo(0.02, 9);
    expect(forwarder.statistics().sessionDuration.sum).toBeCloseTo(30.27, 9);
  });

  test('a reading is a copy: what happens later does not change it', () => {
    const fixture = ForwarderFixture.serving([1]);
    const reading = fixture.statistics;
    const before = structuredClone(reading);

    fixture.sessions.failDial(fixture.sessions.open(LISTENER), 'refused');

    expect(reading).toEqual(before);
    expect(fixture.statistics).toMatchObject({
      sessionsTotal: 1,
      dials: { refused: 1 },
      failures: { exhausted: 1 },
      closes: { refused: 1 },
    });
  });

  test('each service port has its own counts', () => {
    const fixture = ForwarderFixture.serving([1]);
    fixture.set(makeEndpoints(7), { key: 'api', servicePort: makeServicePort({ name: 'api' }) });
    fixture.bind(2, 'api');

    fixture.sessions.open(2);

    const totals = fixture.forwarder
      .statistics()
      .servicePorts.map(({ name, sessionsTotal }) => `${name.name}: ${sessionsTotal}`);
    expect(totals).toEqual(['web: 0', 'api: 1']);
  });
});

describe('events that mean nothing to it', () => {
  test('sessions that nobody knows are ignored', () => {
    const { forwarder, clock, ...fixture } = ForwarderFixture.serving([1]);
    const session = 99 as SessionId;

    const decisions = forwarder.handle(
      [
        { kind: 'dialFailed', session, failure: 'refused', errno: 'ECONNREFUSED' },
        { kind: 'established', session },
        { kind: 'closed', session, cause: 'fin', bytesIn: 5, bytesOut: 5 },
      ],
      clock.now(),
    );

    expect(decisions).toEqual([undefined, undefined, undefined]);
    expect(fixture.logger.lines).toEqual([]);
    expect(forwarder.statistics().servicePorts[0]).toMatchObject({ sessionsActive: 0, bytesToBackend: 0 });
  });
});

test('a batch of events gets one answer each, in order', () => {
  const fixture = ForwarderFixture.serving([1, 2]);
  const opened = (session: number) =>
    ({
      kind: 'opened',
      listener: LISTENER as never,
      session: session as SessionId,
      client: { address: '192.168.1.1', port: 1 },
    }) as const;

  const decisions = fixture.forwarder.handle(
    [opened(1), { kind: 'established', session: 1 as SessionId }, opened(2)],
    fixture.clock.now(),
  );

  expect(decisions).toEqual([
    { kind: 'dial', to: { address: '10.0.0.1', port: 80 }, timeoutMs: 250 },
    undefined,
    { kind: 'dial', to: { address: '10.0.0.2', port: 80 }, timeoutMs: 250 },
  ]);
  expect(WEB_PORT.port).toBe(80);
});

test('a client with affinity that gives up before its endpoint answers is free to go elsewhere', () => {
  const servicePort = makeServicePort(
    { name: 'web' },
    { sessionAffinity: { kind: 'ClientIP', timeoutMs: 60_000 } },
  );
  const fixture = ForwarderFixture.serving([1, 2], servicePort);
  const first = fixture.sessions.open(LISTENER, '192.168.1.1');
  const tiedTo = fixture.sessions.endpointOf(first);
  fixture.sessions.close(first, 'clientReset');

  const second = fixture.sessions.open(LISTENER, '192.168.1.1');
  expect(fixture.sessions.endpointOf(second)).not.toBe(tiedTo);
});
