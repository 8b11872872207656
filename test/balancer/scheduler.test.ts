/** What holds for every scheduler; what makes each of them itself stands in the tests of their files. */
import { describe, expect, test } from 'vitest';
import { SCHEDULERS } from '../../src/model/service-policy.ts';
import { Random, seeds } from '../support/random.ts';
import { SchedulerFixture, clientsOf, endpointsOf } from './scheduler-fixture.ts';

const [FIRST = '', SECOND = '', THIRD = ''] = endpointsOf(3).map(({ key }) => key);
const CLIENTS = clientsOf(50);

describe.each(SCHEDULERS)('%s', (name) => {
  test('without endpoints it picks nobody', () => {
    expect(new SchedulerFixture(name, []).pick('10.0.0.1')).toBeUndefined();
  });

  test('when all are refused it picks nobody, and afterwards somebody again', () => {
    const fixture = new SchedulerFixture(name, endpointsOf(2));

    expect(fixture.pick('10.0.0.1', new Set([FIRST, SECOND]))).toBeUndefined();
    expect([FIRST, SECOND]).toContain(fixture.pick('10.0.0.1'));
  });

  test.each([1, 2, 3])('of %i endpoints the only one that is not refused gets everybody', (size) => {
    const keys = endpointsOf(size).map(({ key }) => key);
    for (const only of keys) {
      const fixture = new SchedulerFixture(name, endpointsOf(size));
      const refused = new Set(keys.filter((key) => key !== only));

      expect(new Set(CLIENTS.map((client) => fixture.pick(client, refused)))).toEqual(new Set([only]));
    }
  });

  test('an endpoint that comes is used and one that goes is not, from the next pick on', () => {
    const fixture = new SchedulerFixture(name, endpointsOf(2));
    const picked = (): Set<string | undefined> =>
      new Set(CLIENTS.map((client) => fixture.pick(client, new Set(), client)));
    expect(picked()).toEqual(new Set([FIRST, SECOND]));

    fixture.scheduler.setEndpoints(endpointsOf(3));
    expect(picked()).toEqual(new Set([FIRST, SECOND, THIRD]));

    fixture.scheduler.setEndpoints(endpointsOf(3).slice(1));
    expect(picked()).toEqual(new Set([SECOND, THIRD]));

    fixture.scheduler.setEndpoints([]);
    expect(picked()).toEqual(new Set([undefined]));
  });

  test('a start of many proxies does not send all their first clients to the same endpoint', () => {
    const first = CLIENTS.map((client, index) =>
      new SchedulerFixture(name, endpointsOf(3), new Random(index)).pick(client, new Set(), client),
    );

    expect(new Set(first)).toEqual(new Set([FIRST, SECOND, THIRD]));
  });

  test.each(seeds(10))('whatever changes (seed %i), who is picked is there and allowed', (seed) => {
    const random = new Random(seed);
    const all = endpointsOf(8);
    let endpoints = all;
    const fixture = new SchedulerFixture(name, all, random);
    const open: string[] = [];

    for (let step = 0; step < 500; step += 1) {
      if (random.below(5) === 0) {
        endpoints = all.filter(() => random.below(3) > 0);
        fixture.scheduler.setEndpoints(endpoints);
      }
      const refused = new Set(all.filter(() => random.below(3) === 0).map(({ key }) => key));
      const allowed = endpoints.map(({ key }) => key).filter((key) => !refused.has(key));
      const picked = fixture.pick(random.pick(CLIENTS), refused, random.pick(CLIENTS));
      expect(allowed.length === 0 ? [undefined] : allowed).toContain(picked);
      if (picked !== undefined) {
        fixture.sessions.began(picked);
        open.push(picked);
      }
      if (random.below(2) === 0) {
        const [ended] = open.splice(random.below(open.length), 1);
        if (ended !== undefined) fixture.sessions.ended(ended);
      }
    }
  });
});
