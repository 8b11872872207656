/** How a balancer goes by its scheduler: which one it is, what a change of it keeps, and what sessions count. */
import { describe, expect, test } from 'vitest';
import { SCHEDULERS, type SchedulerName } from '../../src/model/service-policy.ts';
import { Random, seeds } from '../support/random.ts';
import { clientIP } from '../support/snapshots.ts';
import { BalancerFixture as Fixture, keyOf } from './balancer-fixture.ts';
import { clientsOf } from './scheduler-fixture.ts';

const STICKY = { affinity: clientIP(10_000) };
const CLIENTS = clientsOf(30);

describe('which scheduler it is', () => {
  test('a Service that names none gets the one of the options', () => {
    const fixture = new Fixture([1, 2, 3], { scheduler: 'lc' });
    fixture.begin(1);
    fixture.begin(2);

    fixture.balancer.setScheduler(undefined);

    expect(fixture.connects(2)).toEqual([3, 3]);
  });

  test('a Service that names one gets that, and when it stops to, the one of the options again', () => {
    const fixture = new Fixture([1, 2, 3]);
    fixture.begin(1);
    fixture.begin(2);

    fixture.balancer.setScheduler('lc');
    expect(fixture.connects(2)).toEqual([3, 3]);

    fixture.balancer.setScheduler(undefined);
    expect(fixture.connects(3)).toEqual([1, 2, 3]);
  });

  test.each(SCHEDULERS)('a change to %s takes effect with the next connection', (name) => {
    const fixture = new Fixture([1, 2, 3], { scheduler: name === 'rr' ? 'lc' : 'rr' });
    const fresh = new Fixture([1, 2, 3], { scheduler: name });

    fixture.balancer.setScheduler(name);

    const connected = (of: Fixture): unknown[] => CLIENTS.map((client) => of.connect(client));
    expect(connected(fixture)).toEqual(connected(fresh));
  });
});

describe('the scheduler it is already', () => {
  test.each([
    { name: 'by its name', again: 'rr' },
    { name: 'as the one of the options', again: undefined },
  ] as const)('keeps its position when it is set again $name', ({ again }) => {
    const fixture = new Fixture([1, 2, 3]);
    expect(fixture.connect()).toBe(1);

    fixture.balancer.setScheduler(again);

    expect(fixture.connects(3)).toEqual([2, 3, 1]);
  });

  test('another one starts anew, at random', () => {
    let random = 0;
    const fixture = new Fixture([1, 2, 3], { random: () => random });
    expect(fixture.connect()).toBe(1);
    random = 0.9;

    fixture.balancer.setScheduler('lc');

    expect(fixture.connects(3)).toEqual([3, 1, 2]);
  });
});

describe('a change of the scheduler', () => {
  test('keeps the endpoints, down to none', () => {
    const fixture = new Fixture([]);
    fixture.balancer.setScheduler('sh');
    expect(fixture.connect()).toBeUndefined();

    fixture.set(1);
    fixture.balancer.setScheduler('random');

    expect(fixture.connect()).toBe(1);
    expect(fixture.set(1)).toBe(false);
  });

  test('leaves clients tied where they are', () => {
    const fixture = new Fixture([1, 2, 3], STICKY);
    const before = CLIENTS.map((client) => fixture.connect(client));

    for (const name of SCHEDULERS) {
      fixture.balancer.setScheduler(name);
      expect(CLIENTS.map((client) => fixture.connect(client))).toEqual(before);
    }
  });

  test('keeps the sessions that were counted under one that does not look at them', () => {
    const fixture = new Fixture([1, 2, 3]);
    fixture.begin(1, 5);
    fixture.begin(2, 1);
    fixture.begin(3, 5);

    fixture.balancer.setScheduler('lc');

    expect(fixture.connects(3)).toEqual([2, 2, 2]);
  });
});

test.each(SCHEDULERS)('under %s affinity goes before the scheduler', (name) => {
  const fixture = new Fixture([1, 2, 3], { ...STICKY, scheduler: name });
  const home = fixture.connect('10.0.0.1') ?? 0;
  fixture.begin(home, 100);

  expect(fixture.connects(5, '10.0.0.1')).toEqual([home, home, home, home, home]);
});

test.each(SCHEDULERS)(
  'under %s a tied client whose endpoint is excluded goes where the scheduler says',
  (name) => {
    const fixture = new Fixture([1, 2], { ...STICKY, scheduler: name });
    const home = fixture.connect('10.0.0.1') ?? 0;

    expect(fixture.pick('10.0.0.1', [home])).toBe(home === 1 ? 2 : 1);
  },
);

describe('sessions', () => {
  test('count from their dial until their end', () => {
    const fixture = new Fixture([1, 2]);
    fixture.begin(1, 2);
    expect(fixture.sessionsOf(1)).toBe(2);
    expect(fixture.sessionsOf(2)).toBe(0);

    fixture.end(1);
    expect(fixture.sessionsOf(1)).toBe(1);
    fixture.end(1);
    expect(fixture.sessionsOf(1)).toBe(0);
  });

  test('are not what is picked: only what is dialled counts', () => {
    const fixture = new Fixture([1, 2], { scheduler: 'lc' });
    fixture.connects(3);

    expect([fixture.sessionsOf(1), fixture.sessionsOf(2)]).toEqual([0, 0]);
  });

  test('live on while their endpoint is out of the set, and end there', () => {
    const fixture = new Fixture([1, 2]);
    fixture.begin(1, 2);

    fixture.set(2);
    expect(fixture.sessionsOf(1)).toBe(2);
    fixture.end(1);
    fixture.set(1, 2);

    expect(fixture.sessionsOf(1)).toBe(1);
  });

  test('cannot end more often than they began', () => {
    const fixture = new Fixture([1]);
    fixture.begin(1);
    fixture.end(1);

    expect(() => fixture.end(1)).toThrow(keyOf(1));
    expect(fixture.sessionsOf(1)).toBe(0);
  });
});

test.each(seeds(10))(
  'through random edits of everything, sessions count right and lc goes by them (seed %i)',
  (seed) => {
    const random = new Random(seed);
    const all = [1, 2, 3, 4, 5, 6];
    const fixture = new Fixture(all, { random: () => random.next() });
    const open: number[] = [];
    let present: readonly number[] = all;
    let scheduler: SchedulerName | undefined;
    const countOf = (last: number): number => open.filter((one) => one === last).length;

    for (let step = 0; step < 1000; step += 1) {
      if (random.below(20) === 0) {
        present = all.filter(() => random.below(3) > 0);
        fixture.set(...present);
      }
      if (random.below(20) === 0) {
        scheduler = random.pick([undefined, ...SCHEDULERS]);
        fixture.balancer.setScheduler(scheduler);
      }
      const picked = fixture.pick(random.pick(CLIENTS));
      const fewest = Math.min(...present.map(countOf));
      const right = scheduler === 'lc' ? present.filter((last) => countOf(last) === fewest) : present;
      expect(present.length === 0 ? [undefined] : right).toContain(picked);
      if (picked !== undefined) {
        fixture.begin(picked);
        open.push(picked);
      }
      while (open.length > random.below(60)) {
        const [ended] = open.splice(random.below(open.length), 1);
        if (ended !== undefined) fixture.end(ended);
      }
      expect(all.map((last) => fixture.sessionsOf(last))).toEqual(all.map(countOf));
    }
  },
);
