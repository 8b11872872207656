/**
 * Affinity of a Service that lives: switched on and off, its time-out changed, its endpoints removed, failing or
 * terminating. The plain cases stand in `balancer.test.ts`.
 */
import { describe, expect, test } from 'vitest';
import { Random, seeds } from '../support/random.ts';
import { NO_AFFINITY, TERMINATING, clientIP, makeEndpoint, makeEndpoints } from '../support/snapshots.ts';
import { BalancerFixture as Fixture, keyOf } from './balancer-fixture.ts';

const TIMEOUT_MS = 10_000;
const STICKY = { affinity: clientIP(TIMEOUT_MS) };

describe('switched on', () => {
  test('it ties clients with their next connection, not by where they were before', () => {
    const fixture = new Fixture([1, 2, 3]);
    expect(fixture.connects(2, 'one')).toEqual([1, 2]);

    fixture.balancer.setAffinity(clientIP(TIMEOUT_MS));

    expect(fixture.balancer.affinityEntries).toBe(0);
    expect(fixture.connects(3, 'one')).toEqual([3, 3, 3]);
  });

  test('it ties a client whose dial was under way to the endpoint that answers', () => {
    const fixture = new Fixture([1, 2, 3]);
    expect(fixture.pick('one')).toBe(1);

    fixture.balancer.setAffinity(clientIP(TIMEOUT_MS));
    fixture.balancer.succeeded('one', keyOf(1), fixture.now);

    expect(fixture.connects(2, 'one')).toEqual([1, 1]);
  });

  test('again while it is on, it changes nothing', () => {
    const fixture = new Fixture([1, 2], STICKY);
    fixture.connect('one');

    fixture.balancer.setAffinity(clientIP(TIMEOUT_MS));

    expect(fixture.connect('one')).toBe(1);
  });
});

describe('switched off', () => {
  test('it spreads the next connections of a tied client', () => {
    const fixture = new Fixture([1, 2], STICKY);
    expect(fixture.connects(3, 'one')).toEqual([1, 1, 1]);

    fixture.balancer.setAffinity(NO_AFFINITY);

    expect(fixture.connects(4, 'one')).toEqual([2, 1, 2, 1]);
  });

  test('it ties nobody whose dial was under way, and takes no harm from one that fails', () => {
    const fixture = new Fixture([1, 2], STICKY);
    fixture.pick('one');
    fixture.pick('two');

    fixture.balancer.setAffinity(NO_AFFINITY);
    fixture.balancer.succeeded('one', keyOf(1), fixture.now);
    fixture.balancer.failed('two', keyOf(2));

    expect(fixture.balancer.affinityEntries).toBe(0);
  });

  test('what was ever forgotten for want of room stays counted, and counting goes on from there', () => {
    const fixture = new Fixture([1, 2], { ...STICKY, capacity: 1 });
    for (const client of ['one', 'two', 'three']) fixture.connect(client);
    expect(fixture.balancer.affinityEvictions).toBe(2);

    fixture.balancer.setAffinity(NO_AFFINITY);
    fixture.balancer.setAffinity(NO_AFFINITY);
    expect(fixture.balancer.affinityEvictions).toBe(2);

    fixture.balancer.setAffinity(clientIP(TIMEOUT_MS));
    for (const client of ['one', 'two']) fixture.connect(client);
    expect(fixture.balancer.affinityEvictions).toBe(3);
  });
});

describe('a changed time-out', () => {
  test('when shortened, frees those who have been away longer, and nobody else', () => {
    const fixture = new Fixture([1, 2, 3], STICKY);
    fixture.connect('away');
    fixture.now = 600;
    fixture.connect('here');
    fixture.now = 1000;

    fixture.balancer.setAffinity(clientIP(500));

    expect(fixture.connect('here')).toBe(2);
    expect(fixture.connect('away')).toBe(3);
  });

  test('when lengthened, keeps those who are tied for longer, from their last connection on', () => {
    const fixture = new Fixture([1, 2], STICKY);
    fixture.connect('one');
    fixture.now = TIMEOUT_MS / 2;

    fixture.balancer.setAffinity(clientIP(3 * TIMEOUT_MS));
    fixture.now = 3 * TIMEOUT_MS;

    expect(fixture.connect('one')).toBe(1);
    fixture.now += 3 * TIMEOUT_MS + 1;
    expect(fixture.connect('one')).toBe(2);
  });

  test('does not count as a connection', () => {
    const fixture = new Fixture([1, 2], STICKY);
    fixture.connect('one');
    fixture.now = TIMEOUT_MS - 1;

    fixture.balancer.setAffinity(clientIP(TIMEOUT_MS + 1));
    fixture.now = TIMEOUT_MS + 2;

    expect(fixture.connect('one')).toBe(2);
  });
});

describe('the time', () => {
  test('is that of the client address alone: one client does not renew another', () => {
    const fixture = new Fixture([1, 2], STICKY);
    fixture.connect('one');
    fixture.now = TIMEOUT_MS;
    fixture.connect('two');

    fixture.now = TIMEOUT_MS + 1;

    expect(fixture.balancer.affinityEntries).toBe(2);
    expect(fixture.connect('one')).toBe(1);
    expect(fixture.connect('two')).toBe(2);
  });

  test('is not renewed by a connection that lasts, however long', () => {
    const fixture = new Fixture([1, 2], STICKY);
    fixture.begin(fixture.connect('one') ?? 0);

    fixture.now = TIMEOUT_MS + 1;

    expect(fixture.connect('one')).toBe(2);
    expect(fixture.sessionsOf(1)).toBe(1);
  });
});

describe('an affine endpoint that is removed', () => {
  test('frees its clients, also when it comes back', () => {
    const fixture = new Fixture([1, 2, 3], STICKY);
    expect(fixture.connect('one')).toBe(1);

    fixture.set(2, 3);
    fixture.set(1, 2, 3);

    expect(fixture.connects(2, 'one')).toEqual([2, 2]);
  });

  test('in the same change as others come, moves nobody else', () => {
    const fixture = new Fixture([1, 2, 3], STICKY);
    const clients = ['one', 'two', 'three'];
    for (const client of clients) fixture.connect(client);

    fixture.set(2, 3, 4, 5);

    expect(clients.map((client) => fixture.connect(client))).toEqual([2, 2, 3]);
  });
});

describe('an affine endpoint that fails', () => {
  test('every time, is left for the one that answers, and not returned to when it recovers', () => {
    const fixture = new Fixture([1, 2], STICKY);
    fixture.connect('one');
    fixture.balancer.failed('one', keyOf(1));
    expect(fixture.pick('one', [1])).toBe(2);
    fixture.balancer.succeeded('one', keyOf(2), fixture.now);

    expect(fixture.connects(3, 'one')).toEqual([2, 2, 2]);
  });

  test('with all others, leaves the client tied to nobody', () => {
    const fixture = new Fixture([1, 2], STICKY);
    fixture.connect('one');
    for (const last of [1, 2]) {
      fixture.pick('one', last === 1 ? [] : [1]);
      fixture.balancer.failed('one', keyOf(last));
    }

    expect(fixture.balancer.affinityEntries).toBe(0);
  });

  test('that is the only one, gets the client again', () => {
    const fixture = new Fixture([1], STICKY);
    fixture.connect('one');
    fixture.balancer.failed('one', keyOf(1));

    expect(fixture.connects(2, 'one')).toEqual([1, 1]);
  });

  test('late, after the client was answered elsewhere, frees nobody', () => {
    const fixture = new Fixture([1, 2], STICKY);
    fixture.pick('one');
    fixture.balancer.succeeded('one', keyOf(2), fixture.now);

    fixture.balancer.failed('one', keyOf(1));

    expect(fixture.pick('one')).toBe(2);
  });
});

describe('an affine endpoint that terminates', () => {
  test('while others are ready is out of the set: its clients move, once', () => {
    const fixture = new Fixture([1, 2], STICKY);
    fixture.connect('one');

    fixture.set(2);

    expect(fixture.connects(3, 'one')).toEqual([2, 2, 2]);
  });

  test('with all others stays in the set: its clients stay', () => {
    const fixture = new Fixture([1, 2], STICKY);
    expect([fixture.connect('one'), fixture.connect('two')]).toEqual([1, 2]);

    const terminating = [1, 2].map((last) => makeEndpoint(`10.0.0.${last}`, 80, TERMINATING));
    expect(fixture.balancer.setEndpoints(terminating)).toBe(false);

    expect([fixture.connect('one'), fixture.connect('two')]).toEqual([1, 2]);
  });

  test('after all others went stays in the set, and loses its clients to the first ready one', () => {
    const fixture = new Fixture([1, 2], STICKY);
    expect([fixture.connect('one'), fixture.connect('two')]).toEqual([1, 2]);

    fixture.balancer.setEndpoints([makeEndpoint('10.0.0.1', 80, TERMINATING)]);
    expect([fixture.connect('one'), fixture.connect('two')]).toEqual([1, 1]);

    fixture.balancer.setEndpoints(makeEndpoints(3));
    expect([fixture.connect('one'), fixture.connect('two')]).toEqual([3, 3]);
  });
});

/** What the rules of affinity say, without a thought to cost. */
class Model {
  readonly #lastByClient = new Map<string, { endpoint: number; at: number }>();
  timeoutMs: number | undefined = TIMEOUT_MS;
  present: readonly number[] = [];

  /** Where the client must go, or undefined when it is free. */
  tieOf(client: string, now: number): number | undefined {
    const last = this.#lastByClient.get(client);
    const isTied = last !== undefined && this.timeoutMs !== undefined && now - last.at <= this.timeoutMs;
    return isTied && this.present.includes(last.endpoint) ? last.endpoint : undefined;
  }

  tie(client: string, endpoint: number, now: number): void {
    if (this.timeoutMs !== undefined) this.#lastByClient.set(client, { endpoint, at: now });
  }

  untie(isConcerned: (client: string, endpoint: number) => boolean): void {
    for (const [client, { endpoint }] of this.#lastByClient) {
      if (isConcerned(client, endpoint)) this.#lastByClient.delete(client);
    }
  }
}

test.each(seeds(20))(
  'through 2,000 random edits and connections every client is where the rules say (seed %i)',
  (seed) => {
    const random = new Random(seed);
    const all = [1, 2, 3, 4, 5];
    const fixture = new Fixture([], { random: () => random.next() });
    const model = new Model();
    const setEndpoints = (present: readonly number[]): void => {
      fixture.set(...present);
      model.present = present;
      if (present.length > 0) model.untie((_client, endpoint) => !present.includes(endpoint));
    };
    const setTimeoutMs = (timeoutMs: number | undefined): void => {
      // Whether a tie that has run out would hold again under a longer time-out is left open: here none is left.
      for (const client of CLIENTS) if (model.tieOf(client, fixture.now) === undefined) forget(client);
      fixture.balancer.setAffinity(timeoutMs === undefined ? NO_AFFINITY : clientIP(timeoutMs));
      model.timeoutMs = timeoutMs;
      if (timeoutMs === undefined) model.untie(() => true);
    };
    const forget = (client: string): void => {
      model.untie((one) => one === client);
      for (const last of all) fixture.balancer.failed(client, keyOf(last));
    };
    setEndpoints(all);
    setTimeoutMs(TIMEOUT_MS);

    let tied = 0;
    for (let step = 0; step < 2000; step += 1) {
      fixture.now += random.below(TIMEOUT_MS / 10);
      const dice = random.below(40);
      if (dice === 0) setEndpoints(all.filter(() => random.below(4) > 0));
      else if (dice === 1) setTimeoutMs(random.pick([undefined, TIMEOUT_MS / 4, TIMEOUT_MS, 2 * TIMEOUT_MS]));
      else connectAsModelled(random.pick(CLIENTS));
    }
    // Else there was nothing to see.
    expect(tied).toBeGreaterThan(100);

    function connectAsModelled(client: string): void {
      const tie = model.tieOf(client, fixture.now);
      const picked = fixture.pick(client);
      if (tie !== undefined) tied += 1;
      expect(picked).toBe(tie ?? picked);
      expect(picked === undefined).toBe(model.present.length === 0);
      if (picked === undefined) return;
      if (random.below(5) === 0) {
        fixture.balancer.failed(client, keyOf(picked));
        model.untie((one, endpoint) => one === client && endpoint === picked);
      } else {
        fixture.balancer.succeeded(client, keyOf(picked), fixture.now);
        model.tie(client, picked, fixture.now);
      }
    }
  },
);

const CLIENTS = ['one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight'];
