/** What the forwarder does when endpoints are dead and clients are too many. */
import { describe, expect, test } from 'vitest';
import type { EngineEvent, ListenerId, SessionId } from '../../src/engine/engine.ts';
import { SCHEDULERS } from '../../src/model/service-policy.ts';
import { makeEndpoints, makeServicePort } from '../support/snapshots.ts';
import { NO_LIMITS } from '../support/forwarder-options.ts';
import { ForwarderFixture, LISTENER, WEB_PORT } from './forwarder-fixture.ts';

const EJECTION = { timeMs: 1000, trialMs: 1000 };
const [FIRST, SECOND] = ['10.0.0.1:80', '10.0.0.2:80'];

function open(fixture: ForwarderFixture, count: number, client?: string): SessionId[] {
  return Array.from({ length: count }, () => fixture.sessions.open(LISTENER, client));
}

function endpointsOf(fixture: ForwarderFixture, sessions: readonly SessionId[]): (string | undefined)[] {
  return sessions.map((session) => fixture.sessions.endpointOf(session));
}

describe('when one of two endpoints does not answer', () => {
  const serving = (): ForwarderFixture =>
    ForwarderFixture.serving([1, 2], WEB_PORT, { balancer: { ejection: EJECTION } });

  test('whoever is dialled to it moves on with the first who noticed', () => {
    const fixture = serving();
    const sessions = open(fixture, 6);
    expect(endpointsOf(fixture, sessions)).toEqual([FIRST, SECOND, FIRST, SECOND, FIRST, SECOND]);
    fixture.sessions.failDial(sessions[0] as SessionId, 'timeout', 'ETIMEDOUT');
    expect(new Set(endpointsOf(fixture, sessions))).toEqual(new Set([SECOND]));
    expect(fixture.statistics).toMatchObject({ dialRetries: 3, ejections: 1, endpointsEjected: 1 });
  });

  test('whoever is established there stays', () => {
    const fixture = serving();
    const [established, dialled] = open(fixture, 3).filter((_, index) => index !== 1);
    fixture.sessions.establish(established as SessionId);
    fixture.sessions.failDial(dialled as SessionId, 'timeout');
    expect(fixture.sessions.endpointOf(established as SessionId)).toBe(FIRST);
  });

  test('nobody leaves the last endpoint in use, however often it fails', () => {
    const fixture = serving();
    const [one, two, three, four] = open(fixture, 4) as [SessionId, SessionId, SessionId, SessionId];
    fixture.sessions.failDial(one, 'timeout');
    fixture.sessions.failDial(two, 'timeout');
    expect(endpointsOf(fixture, [three, four])).toEqual([SECOND, SECOND]);
    expect(fixture.statistics).toMatchObject({ ejections: 1, endpointsEjected: 1 });
  });
});

test('who gives up at an endpoint that is ejected for it is refused once, though another one has come back', () => {
  const fixture = ForwarderFixture.serving([1, 2], WEB_PORT, {
    balancer: { ejection: { timeMs: 100, trialMs: 1000 } },
  });
  const [session] = open(fixture, 1) as [SessionId];
  const answerOthers = (): void => open(fixture, 2).forEach((other) => fixture.sessions.establish(other));
  fixture.clock.advance(250);
  fixture.sessions.failDial(session, 'timeout');
  fixture.clock.advance(150);
  answerOthers();
  fixture.clock.advance(100);
  fixture.sessions.failDial(session, 'timeout');
  fixture.clock.advance(120);
  answerOthers();
  fixture.clock.advance(130);
  expect(fixture.statistics.endpointsEjected).toBe(0);
  fixture.sessions.failDial(session, 'timeout');
  expect(fixture.sessions.closes.get(session)).toBe('refused');
  expect(fixture.statistics).toMatchObject({ ejections: 3, failures: { exhausted: 1 } });
});

test('UDP endpoints are left out again after an outage in which none could be reached', () => {
  const servicePort = makeServicePort({ name: 'web', protocol: 'UDP' });
  const fixture = ForwarderFixture.serving([1, 2], servicePort, { balancer: { ejection: EJECTION } });
  const [lost] = open(fixture, 1) as [SessionId];
  fixture.sessions.failDial(lost, 'unreachable', 'ENETUNREACH');
  fixture.sessions.failDial(lost, 'unreachable', 'ENETUNREACH');
  expect(fixture.statistics).toMatchObject({ endpointsEjected: 0, failures: { exhausted: 1 } });
  const [refused] = open(fixture, 1) as [SessionId];
  fixture.sessions.establish(refused);
  fixture.sessions.close(refused, 'backendRefused');
  expect(fixture.statistics.endpointsEjected).toBe(1);
});

describe('when no endpoint answers anybody', () => {
  const all = Array.from({ length: 20 }, (_, index) => index + 1);
  /** Refuses every dial of that session; how many there were. */
  const refuseAll = (fixture: ForwarderFixture, session: SessionId): number => {
    let dials = 0;
    for (; fixture.sessions.endpointOf(session) !== undefined; dials += 1) {
      fixture.sessions.failDial(session, 'refused');
    }
    return dials;
  };

  test('the first client has tried them all, the next ones try a few each, until somebody answers', () => {
    const fixture = ForwarderFixture.serving(all, WEB_PORT, { balancer: { ejection: EJECTION } });
    const dials = Array.from({ length: 4 }, () => refuseAll(fixture, fixture.sessions.open(LISTENER)));
    expect(dials).toEqual([20, 8, 8, 8]);
    expect(fixture.statistics.endpointsEjected).toBe(0);
    const [session] = open(fixture, 1) as [SessionId];
    fixture.sessions.establish(session);
    expect(refuseAll(fixture, fixture.sessions.open(LISTENER))).toBe(20);
  });

  test.for(SCHEDULERS)(
    'the next ones come to whoever answers again, in turns, with the scheduler %s',
    (scheduler) => {
      const balancer = { ejection: EJECTION, scheduler };
      const fixture = ForwarderFixture.serving(all, WEB_PORT, { balancer });
      refuseAll(fixture, fixture.sessions.open(LISTENER));
      const tried = new Set<string | undefined>();
      for (let connections = 0; connections < 3; connections += 1) {
        const session = fixture.sessions.open(LISTENER);
        while (fixture.sessions.endpointOf(session) !== undefined) {
          tried.add(fixture.sessions.endpointOf(session));
          fixture.sessions.failDial(session, 'refused');
        }
      }
      expect(tried.size).toBe(all.length);
    },
  );

  test('a fault of this node is no reason to think so', () => {
    const fixture = ForwarderFixture.serving([1, 2], WEB_PORT, { balancer: { ejection: EJECTION } });
    const [session] = open(fixture, 1) as [SessionId];
    fixture.sessions.failDial(session, 'noSourcePort', 'EADDRNOTAVAIL');
    fixture.sessions.failDial(session, 'noSourcePort', 'EADDRNOTAVAIL');
    expect(fixture.statistics).toMatchObject({
      ejections: 0,
      failures: { local: 1, exhausted: 0 },
      dials: { noSourcePort: 2 },
    });
    expect(fixture.logger.lines.at(-1)?.fields).toMatchObject({
      reason: 'local',
      lastFailure: `${SECOND}: EADDRNOTAVAIL`,
    });
  });
});

test('where no source port is left towards one endpoint another is dialled, and nobody is blamed', () => {
  const fixture = ForwarderFixture.serving([1, 2], WEB_PORT, { balancer: { ejection: EJECTION } });
  const [session] = open(fixture, 1) as [SessionId];
  fixture.sessions.failDial(session, 'noSourcePort', 'EADDRNOTAVAIL');
  expect(fixture.sessions.endpointOf(session)).toBe(SECOND);
  fixture.sessions.establish(session);
  expect(fixture.statistics).toMatchObject({ ejections: 0, dials: { noSourcePort: 1, ok: 1 } });
});

describe('above the cap for connections', () => {
  const fixture = (): ForwarderFixture =>
    ForwarderFixture.serving([1, 2], WEB_PORT, { entrance: { ...NO_LIMITS, maxConnectionsPerService: 2 } });

  test('a client is reset, counted and told of, and room is made by who leaves', () => {
    const subject = fixture();
    const [one, two, three] = open(subject, 3) as [SessionId, SessionId, SessionId];
    expect(endpointsOf(subject, [one, two, three])).toEqual([FIRST, SECOND, undefined]);
    expect(subject.sessions.closes.get(three)).toBe('refused');
    expect(subject.statistics).toMatchObject({ sessionsActive: 2, failures: { overflow: 1 } });
    expect(subject.logger.lines.at(-1)?.fields).toMatchObject({ reason: 'overflow' });
    subject.sessions.establish(one);
    subject.sessions.close(one);
    expect(endpointsOf(subject, open(subject, 2))).toEqual([FIRST, undefined]);
  });

  test('what was refused takes no room', () => {
    const subject = fixture();
    open(subject, 100);
    for (const session of [1, 2] as SessionId[]) {
      subject.sessions.establish(session);
      subject.sessions.close(session);
    }
    expect(endpointsOf(subject, open(subject, 2))).not.toContain(undefined);
  });
});

describe('above the number of concurrent dials', () => {
  const serving = (): ForwarderFixture =>
    ForwarderFixture.serving([1, 2], WEB_PORT, { maxConcurrentDials: 1 });

  test('a client waits, and is dialled for when the one before is answered', () => {
    const fixture = serving();
    const [one, two] = open(fixture, 2) as [SessionId, SessionId];
    expect(endpointsOf(fixture, [one, two])).toEqual([FIRST, '']);
    expect(fixture.forwarder.statistics().dialsWaiting).toBe(1);
    fixture.sessions.establish(one);
    expect(fixture.sessions.endpointOf(two)).toBe(SECOND);
    expect(fixture.forwarder.statistics().dialsWaiting).toBe(0);
  });

  test('or when the one before gives up or goes away', () => {
    const fixture = serving();
    const [one, two, three] = open(fixture, 3) as [SessionId, SessionId, SessionId];
    fixture.sessions.close(one, 'clientReset');
    expect(fixture.sessions.endpointOf(two)).toBe(SECOND);
    for (let dials = 0; dials < 2; dials += 1) fixture.sessions.failDial(two, 'refused');
    expect(fixture.sessions.endpointOf(two)).toBeUndefined();
    expect(fixture.sessions.endpointOf(three)).toMatch(/:80$/);
  });

  test('one who has waited for longer than dials may take is reset, and a thousand of them without overflow', () => {
    const fixture = serving();
    const sessions = open(fixture, 1001);
    fixture.clock.advance(751);
    fixture.sessions.establish(sessions[0] as SessionId);
    expect(new Set(endpointsOf(fixture, sessions.slice(1)))).toEqual(new Set([undefined]));
    expect(fixture.statistics.failures.overflow).toBe(1000);
  });

  test('one who waits for a Service that is deleted is refused, and who is dialled already is not', () => {
    const fixture = serving();
    const [one, two] = open(fixture, 2) as [SessionId, SessionId];
    fixture.unbind();
    fixture.forwarder.retainBackends(new Set());
    expect(endpointsOf(fixture, [one, two])).toEqual([FIRST, undefined]);
    expect(fixture.forwarder.statistics().dialsWaiting).toBe(0);
  });

  test('one who goes away while he waits is forgotten', () => {
    const fixture = serving();
    const [one, two, three] = open(fixture, 3) as [SessionId, SessionId, SessionId];
    fixture.sessions.close(two, 'clientReset');
    fixture.sessions.establish(one);
    expect(fixture.sessions.endpointOf(three)).toBe(SECOND);
  });

  test('endpoints that change meanwhile are those that he is dialled to', () => {
    const fixture = serving();
    const [one, two] = open(fixture, 2) as [SessionId, SessionId];
    fixture.set(makeEndpoints(3));
    expect(endpointsOf(fixture, [one, two])).toEqual(['10.0.0.3:80', '']);
    fixture.sessions.establish(one);
    expect(fixture.sessions.endpointOf(two)).toBe('10.0.0.3:80');
  });
});

test('a UDP flow above the cap displaces the longest idle, and waits for no dial', () => {
  const servicePort = makeServicePort({ name: 'web', protocol: 'UDP' });
  const fixture = ForwarderFixture.serving([1], servicePort, {
    maxConcurrentDials: 1,
    entrance: { ...NO_LIMITS, maxUdpSessions: 3 },
  });
  const sessions = ['10.9.0.1', '10.9.0.2', '10.9.0.3'].map((client) =>
    fixture.sessions.open(LISTENER, client),
  );
  for (const session of sessions) fixture.sessions.establish(session);
  fixture.clock.advance(1000);
  fixture.sessions.use(sessions[0] as SessionId);
  fixture.sessions.open(LISTENER, '10.9.0.4');
  expect([...fixture.sessions.closes]).toEqual([[sessions[1], 'evicted']]);
});

test('UDP flows that come in one batch displace one each, also where an engine reports their end later', () => {
  const servicePort = makeServicePort({ name: 'web', protocol: 'UDP' });
  const fixture = ForwarderFixture.serving([1], servicePort, {
    entrance: { ...NO_LIMITS, maxUdpSessions: 3 },
  });
  const evicted: SessionId[] = [];
  const opened = (id: number): EngineEvent => ({
    kind: 'opened',
    listener: LISTENER as ListenerId,
    session: id as SessionId,
    client: { address: '10.9.0.1', port: 1000 + id },
  });
  fixture.forwarder.attach({
    answer: () => {},
    reset: (sessions) => evicted.push(...sessions),
    lastUsed: () => 0,
    sessionBytes: () => [],
  });

  fixture.forwarder.handle([1, 2, 3].map(opened), 0);
  fixture.forwarder.handle([4, 5, 6].map(opened), 1);

  expect(evicted).toEqual([1, 2, 3]);
  const closed = evicted.map((session): EngineEvent => {
    return { kind: 'closed', session, cause: 'evicted', bytesIn: 0, bytesOut: 0 };
  });
  fixture.forwarder.handle(closed, 2);
  expect(fixture.statistics.sessionsActive).toBe(3);
  fixture.forwarder.handle([opened(7)], 3);
  expect(evicted).toEqual([1, 2, 3, 4]);
});
