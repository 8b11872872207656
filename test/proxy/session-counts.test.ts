/**
 * What the balancer is told of sessions: each is at one endpoint, or at none, and the endpoint loses it once. The
 * balancer throws when a session ends that it does not know; one that never ends shows in the choices of `lc`.
 */
import { describe, expect, test } from 'vitest';
import type { CloseCause, DialFailure, EngineEvent, ListenerId, SessionId } from '../../src/engine/engine.ts';
import type { Protocol } from '../../src/model/service-port-name.ts';
import type { ServicePort } from '../../src/model/service-port.ts';
import { Random, seeds } from '../support/random.ts';
import { makeEndpoints, makeServicePort } from '../support/snapshots.ts';
import { ForwarderFixture, LISTENER } from './forwarder-fixture.ts';

/** The endpoint with the fewest sessions gets the next. */
function leastSessions(protocol: Protocol = 'TCP'): ServicePort {
  return makeServicePort({ name: 'web', protocol }, { scheduler: 'lc' });
}

/** Where the next sessions are dialled to, all kept. */
function nextEndpoints({ sessions }: ForwarderFixture, count: number): ReadonlySet<string | undefined> {
  return new Set(Array.from({ length: count }, () => sessions.endpointOf(sessions.open(LISTENER))));
}

/** Of `makeEndpoints`. */
function keysOf(...lasts: readonly number[]): ReadonlySet<string> {
  return new Set(makeEndpoints(...lasts).map(({ key }) => key));
}

describe.each(['TCP', 'UDP'] as const)('a %s session', (protocol) => {
  test('counts from its dial on, established or not', () => {
    const { sessions } = ForwarderFixture.serving([1, 2], leastSessions(protocol));
    const first = sessions.open(LISTENER);
    const second = sessions.open(LISTENER);
    sessions.establish(first);
    sessions.close(second);

    expect(sessions.endpointOf(sessions.open(LISTENER))).toBe('10.0.0.2:80');
  });

  test.each<{ name: string; end: (fixture: ForwarderFixture, session: SessionId) => void }>([
    {
      name: 'is closed',
      end: ({ sessions }, session) => {
        sessions.establish(session);
        sessions.close(session);
      },
    },
    {
      name: 'is closed during its dial',
      end: ({ sessions }, session) => sessions.close(session, 'clientReset'),
    },
    {
      name: 'is refused for a fault of this node',
      end: ({ sessions }, session) => sessions.failDial(session, 'local'),
    },
    {
      name: 'has been refused by everybody',
      end: ({ sessions }, session) => {
        for (let dial = 0; dial < 3; dial += 1) sessions.failDial(session, 'refused');
      },
    },
    {
      name: 'is refused because the last endpoint has gone',
      end: (fixture) => {
        fixture.set([], { servicePort: leastSessions(protocol) });
        fixture.set(makeEndpoints(1, 2, 3), { servicePort: leastSessions(protocol) });
      },
    },
    {
      name: 'is closed after its endpoint has gone and come back',
      end: (fixture, session) => {
        fixture.sessions.establish(session);
        const serving = makeEndpoints(1, 2, 3);
        fixture.set(makeEndpoints(2, 3), { servicePort: leastSessions(protocol), serving });
        fixture.set(serving, { servicePort: leastSessions(protocol) });
        fixture.sessions.close(session);
      },
    },
  ])('counts no more once it $name', ({ end }) => {
    const fixture = ForwarderFixture.serving([1, 2, 3], leastSessions(protocol));

    end(fixture, fixture.sessions.open(LISTENER));

    expect(nextEndpoints(fixture, 3)).toEqual(keysOf(1, 2, 3));
  });

  test('that fails at one endpoint counts at the next, and no more at the first', () => {
    const fixture = ForwarderFixture.serving([1, 2, 3], leastSessions(protocol));
    const session = fixture.sessions.open(LISTENER);
    expect(fixture.sessions.endpointOf(session)).toBe('10.0.0.1:80');

    fixture.sessions.failDial(session, 'timeout');

    expect(fixture.sessions.endpointOf(session)).toBe('10.0.0.2:80');
    expect(nextEndpoints(fixture, 2)).toEqual(keysOf(1, 3));
  });

  test('that is moved from an endpoint that is gone counts where it was moved to', () => {
    const fixture = ForwarderFixture.serving([1, 2, 3], leastSessions(protocol));
    const session = fixture.sessions.open(LISTENER);

    fixture.set(makeEndpoints(2, 3), { servicePort: leastSessions(protocol) });
    expect(fixture.sessions.endpointOf(session)).toBe('10.0.0.2:80');
    fixture.set(makeEndpoints(1, 2, 3), { servicePort: leastSessions(protocol) });

    expect(nextEndpoints(fixture, 2)).toEqual(keysOf(1, 3));
  });

  test('that dials its only endpoint again and again counts there once', () => {
    const fixture = ForwarderFixture.serving([1], leastSessions(protocol));
    const session = fixture.sessions.open(LISTENER);
    for (let dial = 0; dial < 3; dial += 1) fixture.sessions.failDial(session, 'timeout');
    fixture.sessions.establish(session);

    fixture.set(makeEndpoints(1, 2, 3), { servicePort: leastSessions(protocol) });

    expect(nextEndpoints(fixture, 2)).toEqual(keysOf(2, 3));
    fixture.sessions.close(session);
    expect(nextEndpoints(fixture, 1)).toEqual(keysOf(1));
  });
});

test('a UDP flow that is cut counts no more', () => {
  const servicePort = leastSessions('UDP');
  const fixture = ForwarderFixture.serving([1, 2, 3], servicePort);
  fixture.sessions.establish(fixture.sessions.open(LISTENER));
  fixture.set(makeEndpoints(2, 3), { servicePort });
  expect(fixture.sessions.closes.size).toBe(1);

  fixture.set(makeEndpoints(1, 2, 3), { servicePort });

  expect(nextEndpoints(fixture, 3)).toEqual(keysOf(1, 2, 3));
});

test('the sessions that are open count when a Service changes its scheduler', () => {
  const fixture = ForwarderFixture.serving([1, 2, 3]);
  const first = fixture.sessions.open(LISTENER);
  fixture.sessions.establish(first);
  for (const session of [fixture.sessions.open(LISTENER), fixture.sessions.open(LISTENER)]) {
    fixture.sessions.close(session);
  }

  fixture.set(makeEndpoints(1, 2, 3), { servicePort: leastSessions() });

  expect(nextEndpoints(fixture, 2)).toEqual(keysOf(2, 3));
});

test('a session that is refused counts no more for those decided in the same batch', () => {
  const { forwarder, clock } = ForwarderFixture.serving([1, 2, 3], leastSessions());
  const opened = (session: number): EngineEvent => ({
    kind: 'opened',
    listener: LISTENER as ListenerId,
    session: session as SessionId,
    client: { address: '192.168.1.1', port: 1 },
  });
  const failed = (session: number): EngineEvent => ({
    kind: 'dialFailed',
    session: session as SessionId,
    failure: 'local',
    errno: 'EMFILE',
  });

  const decisions = forwarder.handle(
    [opened(1), opened(2), opened(3), failed(2), opened(4), failed(1), opened(5)],
    clock.now(),
  );

  expect([4, 6].map((index) => decisions[index])).toMatchObject([
    { to: { address: '10.0.0.2' } },
    { to: { address: '10.0.0.1' } },
  ]);
});

const CAUSES: readonly CloseCause[] = [
  'fin',
  'clientReset',
  'backendReset',
  'idle',
  'evicted',
  'backendRefused',
];
const FAILURES: readonly DialFailure[] = ['refused', 'unreachable', 'timeout', 'local'];
const MAX_ENDPOINT = 5;

/** What a client does, a backend does, or the cluster, at random; kept in mind beside the forwarder. */
class Storm {
  readonly #random: Random;
  readonly #fixture: ForwarderFixture;
  readonly #servicePort: ServicePort;
  /** Open sessions. */
  readonly #dialling = new Set<SessionId>();
  readonly #established = new Set<SessionId>();
  #lasts: readonly number[] = [1, 2, 3];

  constructor(random: Random, protocol: Protocol) {
    this.#random = random;
    this.#servicePort = leastSessions(protocol);
    this.#fixture = ForwarderFixture.serving(this.#lasts, this.#servicePort);
  }

  /** What went wrong, or undefined. */
  step(): string | undefined {
    const { sessions, clock } = this.#fixture;
    const open = [...this.#dialling, ...this.#established];
    const action = this.#random.below(10);
    clock.advance(this.#random.below(400));
    let fault: string | undefined;
    if (action < 3) fault = this.#open();
    else if (action < 5 && this.#dialling.size > 0) this.#establish(this.#random.pick([...this.#dialling]));
    else if (action < 7 && this.#dialling.size > 0)
      sessions.failDial(this.#random.pick([...this.#dialling]), this.#random.pick(FAILURES));
    else if (action < 9 && open.length > 0)
      sessions.close(this.#random.pick(open), this.#random.pick(CAUSES));
    else this.#changeEndpoints();
    for (const session of sessions.closes.keys()) {
      this.#dialling.delete(session);
      this.#established.delete(session);
    }
    return fault;
  }

  /** Everybody goes. Returns the endpoints of three who come then. */
  end(): ReadonlySet<string | undefined> {
    for (const session of [...this.#dialling, ...this.#established]) this.#fixture.sessions.close(session);
    this.#fixture.set(makeEndpoints(1, 2, 3), { servicePort: this.#servicePort });
    return nextEndpoints(this.#fixture, 3);
  }

  get sessionsActive(): number {
    return this.#fixture.statistics.sessionsActive;
  }

  #establish(session: SessionId): void {
    this.#fixture.sessions.establish(session);
    this.#dialling.delete(session);
    this.#established.add(session);
  }

  /** The next session must go where the fewest are, by our own count. */
  #open(): string | undefined {
    const { sessions } = this.#fixture;
    const counts = new Map([...keysOf(...this.#lasts)].map((key) => [key, 0]));
    for (const session of [...this.#dialling, ...this.#established]) {
      const endpoint = sessions.endpointOf(session) ?? '';
      const count = counts.get(endpoint);
      if (count !== undefined) counts.set(endpoint, count + 1);
    }
    const session = sessions.open(LISTENER);
    if (counts.size === 0) return sessions.closes.has(session) ? undefined : 'dialled to nobody';
    this.#dialling.add(session);
    const endpoint = sessions.endpointOf(session) ?? 'nobody';
    const isRight = counts.get(endpoint) === Math.min(...counts.values());
    return isRight ? undefined : `to ${endpoint}, of ${JSON.stringify([...counts])}`;
  }

  #changeEndpoints(): void {
    const all = Array.from({ length: MAX_ENDPOINT }, (_, index) => index + 1);
    this.#lasts = all.filter(() => this.#random.below(3) > 0);
    const serving = all.filter((last) => this.#lasts.includes(last) || this.#random.below(2) === 0);
    this.#fixture.set(makeEndpoints(...this.#lasts), {
      servicePort: this.#servicePort,
      serving: makeEndpoints(...serving),
    });
  }
}

describe.each(['TCP', 'UDP'] as const)('whatever happens to %s sessions', (protocol) => {
  test.each(seeds(20))('the counts of their endpoints stay right (seed %i)', (seed) => {
    const storm = new Storm(new Random(seed), protocol);

    const faults = Array.from({ length: 400 }, () => storm.step()).filter((fault) => fault !== undefined);

    expect(faults).toEqual([]);
    expect(storm.end()).toEqual(keysOf(1, 2, 3));
    expect(storm.sessionsActive).toBe(3);
  });
});
