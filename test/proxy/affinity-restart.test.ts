/** Affinity that an earlier instance left, as the forwarder takes it up. */
import { describe, expect, test } from 'vitest';
import type { AffinityTie } from '../../src/balancer/affinity-table.ts';
import { clientIP, makeEndpoints, makeServicePort } from '../support/snapshots.ts';
import { ForwarderFixture, LISTENER, WEB, WEB_PORT } from './forwarder-fixture.ts';

const TIMEOUT_MS = 10_000;
const servicePort = makeServicePort({ name: 'web' }, { sessionAffinity: clientIP(TIMEOUT_MS) });

function tie(client: string, last: number, lastUsed = 0): AffinityTie {
  return { client, endpointKey: `10.0.0.${last}:80`, lastUsed };
}

function restarted(ties: readonly AffinityTie[], pool = WEB): ForwarderFixture {
  const fixture = new ForwarderFixture();
  fixture.forwarder.restoreAffinity(new Map([[pool, ties]]));
  return fixture;
}

/** Clients and the last part of their endpoint's address. */
function tiesOf({ forwarder, clock }: ForwarderFixture): Record<string, number> {
  return Object.fromEntries(
    forwarder
      .affinity(clock.now())
      .flatMap(({ ties }) => [...ties])
      .map(({ client, endpointKey }) => [client, Number(/\.(\d+):/.exec(endpointKey)?.[1])]),
  );
}

describe('ties of an earlier instance', () => {
  test('are taken up when their pool appears, those of endpoints that are gone are not', () => {
    const fixture = restarted([tie('c1', 1), tie('c2', 2), tie('c3', 3)]);
    expect(tiesOf(fixture)).toEqual({});
    fixture.set(makeEndpoints(1, 3), { servicePort });
    expect(tiesOf(fixture)).toEqual({ c1: 1, c3: 3 });
  });

  test('are left out when their time has passed before their pool appeared', () => {
    const fixture = restarted([tie('late', 1, -1), tie('just', 1, 0)]);
    fixture.clock.advance(TIMEOUT_MS);
    fixture.set(makeEndpoints(1), { servicePort });
    expect(tiesOf(fixture)).toEqual({ just: 1 });
  });

  test('wait for the endpoints of a Service that has none yet', () => {
    const fixture = restarted([tie('c1', 1), tie('c2', 2)]);
    fixture.set([], { servicePort });
    fixture.set(makeEndpoints(2, 3), { servicePort });
    expect(tiesOf(fixture)).toEqual({ c2: 2 });
  });

  test('are no concern of another pool, nor of a Service without affinity', () => {
    const fixture = restarted([tie('c1', 1)]);
    fixture.set(makeEndpoints(1), { servicePort, key: 'other' });
    fixture.set(makeEndpoints(1), { servicePort: WEB_PORT });
    expect(tiesOf(fixture)).toEqual({});
    // Switched on later it begins with nobody, as ever.
    fixture.set(makeEndpoints(1), { servicePort });
    expect(tiesOf(fixture)).toEqual({});
  });

  test('are taken up once: a Service that went and came back begins anew', () => {
    const fixture = restarted([tie('c1', 1)]);
    fixture.set(makeEndpoints(1), { servicePort });
    fixture.forwarder.retainBackends(new Set());
    fixture.set(makeEndpoints(1), { servicePort });
    expect(tiesOf(fixture)).toEqual({});
  });

  test('are forgotten after the first sync when their Service is gone', () => {
    const fixture = restarted([tie('c1', 1)]);
    // Before anything is known nothing is gone.
    fixture.forwarder.retainBackends(new Set());
    fixture.set(makeEndpoints(1), { servicePort, key: 'other' });
    fixture.forwarder.retainBackends(new Set(['other']));
    fixture.set(makeEndpoints(1), { servicePort });
    expect(tiesOf(fixture)).toEqual({});
  });

  test('lead their clients to the same endpoint as before', () => {
    const fixture = restarted([tie('192.0.2.1', 3)]);
    fixture.set(makeEndpoints(1, 2, 3), { servicePort });
    fixture.bind();
    for (const [client, endpoint] of [
      ['192.0.2.1', '10.0.0.3:80'],
      ['192.0.2.2', '10.0.0.1:80'],
      ['192.0.2.1', '10.0.0.3:80'],
    ] as const) {
      expect(fixture.sessions.endpointOf(fixture.sessions.open(LISTENER, client))).toBe(endpoint);
    }
  });

  test('may come again while the pool lives, from an instance that is taken over from, as they are by then', () => {
    const fixture = restarted([tie('c1', 1, 0), tie('c2', 1, 5)]);
    fixture.set(makeEndpoints(1, 2), { servicePort });
    fixture.clock.advance(10);
    fixture.forwarder.restoreAffinity(new Map([[WEB, [tie('c1', 2, 7), tie('c2', 2, 3), tie('c3', 2, 8)]]]));
    expect(tiesOf(fixture)).toEqual({ c1: 2, c2: 1, c3: 2 });
  });
});

describe('the count of changes', () => {
  test('grows when a client is tied, and when ties go with their pool or with affinity', () => {
    const fixture = new ForwarderFixture();
    const counts: number[] = [];
    const note = (): void => void counts.push(fixture.forwarder.affinityChanges);
    note();
    fixture.set(makeEndpoints(1), { servicePort });
    fixture.bind();
    fixture.sessions.open(LISTENER);
    note();
    fixture.set(makeEndpoints(1));
    note();
    fixture.set(makeEndpoints(1), { servicePort });
    fixture.sessions.open(LISTENER);
    note();
    fixture.unbind();
    fixture.forwarder.retainBackends(new Set());
    note();
    expect(counts).toEqual(counts.toSorted((a, b) => a - b));
    expect(new Set(counts).size).toBe(counts.length);
  });

  test('stays when nothing happens to any client', () => {
    const fixture = ForwarderFixture.serving([1, 2]);
    const before = fixture.forwarder.affinityChanges;
    fixture.sessions.open(LISTENER);
    fixture.set(makeEndpoints(1));
    fixture.forwarder.retainBackends(new Set([WEB]));
    expect(fixture.forwarder.affinityChanges).toBe(before);
  });
});
