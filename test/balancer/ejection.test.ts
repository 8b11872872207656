/** Who did not answer is left out for a while, comes back on trial, and is never the reason that nobody is left. */
import { describe, expect, test } from 'vitest';
import { Balancer } from '../../src/balancer/balancer.ts';
import { Ejections, MAX_EJECTION_MS } from '../../src/balancer/ejection.ts';
import { SCHEDULERS } from '../../src/model/service-policy.ts';
import { clientIP, makeEndpoints } from '../support/snapshots.ts';

const TRIAL_MS = 1_000;
const EJECTION = { timeMs: 1_000, trialMs: TRIAL_MS };
const [A, B, C] = ['10.0.0.1:80', '10.0.0.2:80', '10.0.0.3:80'];
const NOBODY = new Set<string>();
const REQUEST = { client: '10.244.1.9', destination: '' };

describe('an endpoint that failed', () => {
  test('is left out until its time is up', () => {
    const ejections = new Ejections(EJECTION);
    expect(ejections.failed(A, 0, 2)).toBe(true);
    expect([0, 999, 1000].map((now) => ejections.isOut(A, now))).toEqual([true, true, false]);
  });

  test('is left out by nobody when the time is 0', () => {
    const ejections = new Ejections({ ...EJECTION, timeMs: 0 });
    expect(ejections.failed(A, 0, 2)).toBe(false);
    expect([ejections.isOut(A, 0), ejections.total]).toEqual([false, 0]);
  });

  test('is left out once for all the dials that were under way', () => {
    const ejections = new Ejections(EJECTION);
    expect([0, 1, 500].map((now) => ejections.failed(A, now, 2))).toEqual([true, false, false]);
    expect([ejections.isOut(A, 1000), ejections.total]).toEqual([false, 1]);
  });

  test('is tried by one connection when its time is up, and the others go on without it', () => {
    const ejections = new Ejections(EJECTION);
    ejections.failed(A, 0, 2);
    expect(ejections.isOut(A, 1000)).toBe(false);
    ejections.chosen(A, 1000);
    expect([ejections.isOut(A, 1000), ejections.isOut(A, 1000 + TRIAL_MS - 1)]).toEqual([true, true]);
  });

  test('is left out twice as long each time its trial fails, 30 s at most', () => {
    const ejections = new Ejections(EJECTION);
    const times: number[] = [];
    let now = 0;
    for (let round = 0; round < 7; round += 1) {
      ejections.failed(A, now, 2);
      const begun = now;
      while (ejections.isOut(A, now)) now += 500;
      times.push(now - begun);
      ejections.chosen(A, now);
      now += 250;
    }
    expect(times).toEqual([1000, 2000, 4000, 8000, 16_000, MAX_EJECTION_MS, MAX_EJECTION_MS]);
  });

  test('is back for good when its trial is answered, and begins anew when it fails again', () => {
    const ejections = new Ejections(EJECTION);
    ejections.failed(A, 0, 2);
    ejections.chosen(A, 1000);
    ejections.succeeded(A);
    expect([ejections.isOut(A, 1001), ejections.isEmpty]).toEqual([false, true]);
    ejections.failed(A, 2000, 2);
    expect([ejections.isOut(A, 2999), ejections.isOut(A, 3000)]).toEqual([true, false]);
  });

  test('has passed a trial that brought no fault, which is all that UDP can tell', () => {
    const ejections = new Ejections(EJECTION);
    ejections.failed(A, 0, 2);
    ejections.chosen(A, 1000);
    expect(ejections.isOut(A, 1000 + TRIAL_MS)).toBe(false);
    ejections.failed(A, 5000, 2);
    expect([ejections.isOut(A, 5999), ejections.isOut(A, 6000)]).toEqual([true, false]);
  });

  test('comes back without a past after it has left the set', () => {
    const ejections = new Ejections(EJECTION);
    ejections.failed(A, 0, 2);
    ejections.retainEndpoints(new Map());
    expect([ejections.isOut(A, 1), ejections.countAt(1), ejections.total]).toEqual([false, 0, 1]);
  });

  test('is counted while it is left out or on trial', () => {
    const ejections = new Ejections(EJECTION);
    ejections.failed(A, 0, 2);
    expect([500, 1000].map((now) => ejections.countAt(now))).toEqual([1, 0]);
    ejections.chosen(A, 1000);
    expect([1500, 1000 + TRIAL_MS].map((now) => ejections.countAt(now))).toEqual([1, 0]);
  });
});

describe.each(SCHEDULERS)('the balancer with %s', (scheduler) => {
  const make = (...lasts: readonly number[]): Balancer => {
    const balancer = new Balancer({ affinityCapacity: 10, random: () => 0, scheduler, ejection: EJECTION });
    balancer.setEndpoints(makeEndpoints(...lasts));
    return balancer;
  };
  const picks = (balancer: Balancer, now: number, count = 20): ReadonlySet<string | undefined> =>
    new Set(
      Array.from(
        { length: count },
        (_, index) =>
          balancer.pick({ client: `10.9.0.${index}`, destination: `10.8.0.${index}` }, now, NOBODY)?.key,
      ),
    );

  test('sends nobody to an endpoint that is left out', () => {
    const balancer = make(1, 2, 3);
    balancer.eject(A, 0);
    expect(picks(balancer, 1).has(A)).toBe(false);
  });

  test('sends everybody somewhere when all are left out', () => {
    const balancer = make(1, 2);
    for (const key of [A, B]) balancer.eject(key, 0);
    expect(picks(balancer, 1).has(undefined)).toBe(false);
  });

  test('never leaves the only endpoint out', () => {
    const balancer = make(1);
    balancer.eject(A, 0);
    expect(picks(balancer, 1)).toEqual(new Set([A]));
  });

  test('gives an endpoint that was left out one connection on trial', () => {
    const balancer = make(1, 2);
    balancer.eject(A, 0);
    const keys = Array.from(
      { length: 200 },
      (_, index) =>
        balancer.pick({ client: `10.9.0.${index}`, destination: `10.8.0.${index}` }, 1000, NOBODY)?.key,
    );
    expect(keys.filter((key) => key === A)).toEqual([A]);
    expect(balancer.ejectedAt(1000)).toBe(1);
  });

  test('never ejects the last endpoint in use', () => {
    const balancer = make(1, 2, 3);
    expect([A, B, C].map((key) => balancer.eject(key, 0))).toEqual([true, true, false]);
    expect(picks(balancer, 1)).toEqual(new Set([C]));
    // A trial is due, but nothing says that it would be passed.
    expect(balancer.eject(C, 1000)).toBe(false);
    expect(balancer.ejections).toBe(2);
  });

  test('uses all of them at once, when everybody has failed and somebody answers again', () => {
    const balancer = make(1, 2, 3);
    for (const key of [A, B, C]) balancer.eject(key, 0);
    balancer.exhausted();
    expect([balancer.isHopeless, balancer.ejectedAt(1)]).toEqual([true, 0]);
    // Nobody stands out by failing now.
    expect([A, B, C].map((key) => balancer.eject(key, 1))).toEqual([false, false, false]);
    balancer.reinstate(B);
    expect([balancer.isHopeless, balancer.ejectedAt(2)]).toEqual([false, 0]);
    expect(balancer.eject(A, 2)).toBe(true);
  });
});

describe('a client that is tied to an endpoint which is left out', () => {
  test('goes elsewhere, and back while nobody else has answered it', () => {
    const balancer = new Balancer({
      affinityCapacity: 10,
      random: () => 0,
      scheduler: 'rr',
      ejection: EJECTION,
    });
    balancer.setEndpoints(makeEndpoints(1, 2));
    balancer.setAffinity(clientIP(10_000));
    balancer.succeeded(REQUEST.client, A, 0);
    balancer.eject(A, 0);
    expect(balancer.pick(REQUEST, 1, NOBODY)?.key).toBe('10.0.0.2:80');
    expect(balancer.pick(REQUEST, 1000, NOBODY)?.key).toBe(A);
  });

  test('stays where it was answered', () => {
    const balancer = new Balancer({
      affinityCapacity: 10,
      random: () => 0,
      scheduler: 'rr',
      ejection: EJECTION,
    });
    balancer.setEndpoints(makeEndpoints(1, 2));
    balancer.setAffinity(clientIP(10_000));
    balancer.succeeded(REQUEST.client, A, 0);
    balancer.eject(A, 0);
    balancer.succeeded(REQUEST.client, '10.0.0.2:80', 1);
    balancer.reinstate(A);
    expect(balancer.pick(REQUEST, 2000, NOBODY)?.key).toBe('10.0.0.2:80');
  });
});
