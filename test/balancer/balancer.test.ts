/**
 * The behaviour that kube-proxy 1.20.2 tests in `pkg/proxy/userspace/roundrobin_test.go`, upstream's name beside
 * each, and what goes beyond it.
 */
import { describe, expect, test } from 'vitest';
import { NO_AFFINITY, clientIP } from '../support/snapshots.ts';
import { BalancerFixture as Fixture, keyOf } from './balancer-fixture.ts';

const TIMEOUT_MS = 10_000;
const STICKY = { affinity: clientIP(TIMEOUT_MS) };

describe('round robin', () => {
  // TestLoadBalanceFailsWithNoEndpoints
  test('without endpoints there is nobody to pick', () => {
    expect(new Fixture().pick()).toBeUndefined();
    expect(new Fixture([], STICKY).pick()).toBeUndefined();
  });

  // TestLoadBalanceWorksWithSingleEndpoint
  test('a single endpoint gets everything', () => {
    expect(new Fixture([1]).connects(4)).toEqual([1, 1, 1, 1]);
  });

  // TestLoadBalanceWorksWithMultipleEndpoints
  test('several endpoints get connections in turn', () => {
    expect(new Fixture([1, 2, 3]).connects(7)).toEqual([1, 2, 3, 1, 2, 3, 1]);
  });

  // TestLoadBalanceWorksWithMultipleEndpointsMultiplePorts
  test('the ports of a Service take turns independently', () => {
    const p = new Fixture([1, 2, 3]);
    const q = new Fixture([4, 5]);

    expect([
      p.connect(),
      p.connect(),
      q.connect(),
      p.connect(),
      q.connect(),
      q.connect(),
      p.connect(),
    ]).toEqual([1, 2, 4, 3, 5, 4, 1]);
  });

  // TestLoadBalanceWorksWithMultipleEndpointsAndUpdates
  test('updates take effect with the next connection, down to an empty list', () => {
    const fixture = new Fixture([1, 2, 3]);
    expect(fixture.connects(3)).toEqual([1, 2, 3]);

    fixture.set(8, 9);
    expect(fixture.connects(4)).toEqual([8, 9, 8, 9]);

    fixture.set();
    expect(fixture.connect()).toBeUndefined();
  });

  // TestLoadBalanceWorksWithServiceRemoval
  test('one Service that loses its endpoints does not disturb another', () => {
    const foo = new Fixture([1, 2, 3]);
    const bar = new Fixture([4, 5, 6]);
    expect([foo.connect(), bar.connect(), foo.connect(), bar.connect()]).toEqual([1, 4, 2, 5]);

    foo.set();

    expect(foo.connect()).toBeUndefined();
    expect(bar.connects(4)).toEqual([6, 4, 5, 6]);
  });

  test('only a change of the set counts as a change', () => {
    const fixture = new Fixture([1, 2]);

    expect(fixture.set(1, 2)).toBe(false);
    expect(fixture.set(1, 3)).toBe(true);
    expect(fixture.set(1)).toBe(true);
    expect(fixture.set()).toBe(true);
    expect(fixture.set()).toBe(false);
  });

  test('an excluded endpoint is not picked, and when all are excluded nobody is', () => {
    const fixture = new Fixture([1, 2]);

    expect(fixture.pick('client', [1])).toBe(2);
    expect(fixture.pick('client', [1, 2])).toBeUndefined();
  });
});

describe('ClientIP affinity', () => {
  // TestStickyLoadBalanceWorksWithNewServiceCalledFirst
  test('a client stays where it is, when affinity was known before the endpoints', () => {
    const fixture = new Fixture([], STICKY);
    expect(fixture.connect('one')).toBeUndefined();

    fixture.set(1, 2);

    expect([...fixture.connects(2, 'one'), ...fixture.connects(2, 'two'), fixture.connect('one')]).toEqual([
      1, 1, 2, 2, 1,
    ]);
  });

  // TestStickyLoadBalanceWorksWithNewServiceCalledSecond
  test('a client stays where it is, when the endpoints were known before affinity', () => {
    const fixture = new Fixture([1, 2]);

    fixture.balancer.setAffinity(clientIP(TIMEOUT_MS));

    expect([...fixture.connects(2, 'one'), ...fixture.connects(2, 'two'), fixture.connect('one')]).toEqual([
      1, 1, 2, 2, 1,
    ]);
  });

  test('without affinity a client does not stay', () => {
    expect(new Fixture([1, 2]).connects(3)).toEqual([1, 2, 1]);
  });

  test('clients share endpoints in turn when they outnumber them', () => {
    const fixture = new Fixture([1, 2], STICKY);

    const clients = ['one', 'two', 'three', 'four'];

    expect(clients.map((client) => fixture.connect(client))).toEqual([1, 2, 1, 2]);
    expect(clients.map((client) => fixture.connect(client))).toEqual([1, 2, 1, 2]);
  });

  // TestStickyLoadBalanceWorksWithMultipleEndpointsRemoveOne
  test('when an endpoint goes only its own clients move', () => {
    const fixture = new Fixture([1, 2, 3], STICKY);
    expect(['one', 'two', 'three'].map((client) => fixture.connect(client))).toEqual([1, 2, 3]);

    fixture.set(1, 2);
    const moved = fixture.connect('three');
    expect([1, 2]).toContain(moved);
    expect(['one', 'two', 'three'].map((client) => fixture.connect(client))).toEqual([1, 2, moved]);

    fixture.set(1, 2, 4);
    expect(['one', 'two', 'three'].map((client) => fixture.connect(client))).toEqual([1, 2, moved]);
  });

  // TestStickyLoadBalanceWorksWithMultipleEndpointsAndUpdates
  test('when all endpoints are replaced every client moves, and stays at its new one', () => {
    const fixture = new Fixture([1, 2, 3], STICKY);
    fixture.connects(1, 'one');
    fixture.connects(1, 'two');

    fixture.set(4, 5);

    const first = ['one', 'two'].map((client) => fixture.connect(client));
    expect(first).toEqual([4, 5]);
    expect(['one', 'two'].map((client) => fixture.connect(client))).toEqual(first);
    fixture.set();
    expect(fixture.connect('one')).toBeUndefined();
  });

  // TestStickyLoadBalanceWorksWithServiceRemoval
  test('a Service that loses its endpoints leaves the clients of another where they are', () => {
    const foo = new Fixture([1, 2, 3], STICKY);
    const bar = new Fixture([4, 5], STICKY);
    for (const client of ['one', 'two']) bar.connect(client);

    foo.set();

    expect(foo.connect('one')).toBeUndefined();
    expect(['one', 'two', 'one'].map((client) => bar.connect(client))).toEqual([4, 5, 4]);
  });

  // TestStickyLoadBalanceWorksWithEndpointFails
  test('a client whose endpoint fails is tied to the one that answers instead', () => {
    const fixture = new Fixture([1, 2, 3], STICKY);
    fixture.connect('one');
    expect(fixture.pick('one')).toBe(1);

    fixture.balancer.failed('one', keyOf(1));
    expect(fixture.pick('one', [1])).toBe(2);
    fixture.balancer.failed('one', keyOf(2));
    expect(fixture.pick('one', [1, 2])).toBe(3);
    fixture.balancer.succeeded('one', keyOf(3), fixture.now);

    expect(fixture.connects(3, 'one')).toEqual([3, 3, 3]);
  });

  test('a failure of one client leaves the others at that endpoint', () => {
    const fixture = new Fixture([1, 2], STICKY);
    expect(['one', 'two', 'three'].map((client) => fixture.connect(client))).toEqual([1, 2, 1]);

    fixture.balancer.failed('one', keyOf(1));

    expect(fixture.connect('three')).toBe(1);
  });

  test('a failure does not renew', () => {
    const fixture = new Fixture([1, 2], STICKY);
    fixture.connect('one');
    fixture.now = TIMEOUT_MS - 1;
    // Its connection is tried at its endpoint, and nobody ever says that it was answered.
    expect(fixture.pick('one')).toBe(1);

    fixture.now = TIMEOUT_MS + 1;

    expect(fixture.pick('one')).toBe(2);
  });

  test('every connection that is answered renews', () => {
    const fixture = new Fixture([1, 2], STICKY);
    for (let connection = 0; connection < 5; connection += 1) {
      expect(fixture.connect('one')).toBe(1);
      fixture.now += TIMEOUT_MS;
    }

    fixture.now += 1;

    expect(fixture.connect('one')).toBe(2);
  });

  test('the first connections of a client stay together, though none has been answered yet', () => {
    const fixture = new Fixture([1, 2, 3], STICKY);

    expect([fixture.pick('one'), fixture.pick('one'), fixture.pick('one')]).toEqual([1, 1, 1]);
    expect(fixture.pick('two')).toBe(2);
  });

  test('of two connections that failed at one endpoint both go to the same next one', () => {
    const fixture = new Fixture([1, 2, 3], STICKY);
    fixture.pick('one');
    fixture.pick('one');

    fixture.balancer.failed('one', keyOf(1));
    expect(fixture.pick('one', [1])).toBe(2);
    fixture.balancer.failed('one', keyOf(1));

    expect(fixture.pick('one', [1])).toBe(2);
  });

  test('an exclusion alone does not untie a client', () => {
    const fixture = new Fixture([1, 2], STICKY);
    fixture.connect('one');

    expect(fixture.pick('one', [1])).toBe(2);

    expect(fixture.pick('one')).toBe(1);
  });

  // #25314
  test('a Service that has no endpoint for a moment keeps its clients where they were', () => {
    const fixture = new Fixture([1, 2, 3], STICKY);
    expect(['one', 'two', 'three'].map((client) => fixture.connect(client))).toEqual([1, 2, 3]);

    fixture.set();
    fixture.set(2, 3);

    expect(fixture.connect('three')).toBe(3);
    expect(fixture.connect('two')).toBe(2);
    expect([2, 3]).toContain(fixture.connect('one'));
  });

  test('an endpoint that is gone by the time it answers ties nobody', () => {
    const fixture = new Fixture([1, 2], STICKY);
    expect(fixture.pick('one')).toBe(1);
    fixture.set(2);

    fixture.balancer.succeeded('one', keyOf(1), fixture.now);

    expect(fixture.balancer.affinityEntries).toBe(0);
    expect(fixture.pick('one')).toBe(2);
  });

  test('a changed time-out holds at once', () => {
    const fixture = new Fixture([1, 2], STICKY);
    fixture.connect('one');
    fixture.now = 600;

    fixture.balancer.setAffinity(clientIP(500));

    expect(fixture.connect('one')).toBe(2);
  });

  test('affinity that is switched off frees everybody, also when it is switched on again', () => {
    const fixture = new Fixture([1, 2], STICKY);
    fixture.connect('one');
    fixture.balancer.setAffinity(NO_AFFINITY);
    expect(fixture.balancer.affinityEntries).toBe(0);
    expect(fixture.connects(2, 'one')).toEqual([2, 1]);

    fixture.balancer.setAffinity(clientIP(TIMEOUT_MS));

    expect(fixture.connects(2, 'one')).toEqual([2, 2]);
  });

  test('its table is capped, and tells what it forgot', () => {
    const fixture = new Fixture([1, 2, 3], { ...STICKY, capacity: 2 });
    for (const client of ['one', 'two', 'three']) fixture.connect(client);

    expect(fixture.balancer.affinityEntries).toBe(2);
    expect(fixture.balancer.affinityEvictions).toBe(1);
    expect(fixture.pick('three')).toBe(3);
  });
});
