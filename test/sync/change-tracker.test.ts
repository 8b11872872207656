/** What counts as one change, and which changes say when they began. */
import type { V1EndpointSlice } from '@kubernetes/client-node';
import { describe, expect, test } from 'vitest';
import type { SourceObjects } from '../../src/model/snapshot.ts';
import { ChangeTracker } from '../../src/sync/change-tracker.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { makeService, makeSlice } from '../support/objects.ts';

const ANNOTATION = 'endpoints.kubernetes.io/last-change-trigger-time';
const NO_CHANGE = { services: 0, endpointSlices: 0, triggers: [] };

class Fixture {
  readonly clock = new FakeClock();
  /** Of the tracker, in milliseconds since the epoch. */
  readonly startedAt = this.clock.wallTime();
  readonly tracker = new ChangeTracker({ clock: this.clock });

  update(tweak: Partial<SourceObjects>) {
    return this.tracker.update({ services: [], endpointSlices: [], ...tweak });
  }

  /** A slice of `web` that was triggered so long after the start. */
  slice(afterMs: number, ...addresses: readonly string[]): V1EndpointSlice {
    const text = new Date(this.startedAt + afterMs).toISOString();
    return makeSlice('web', addresses.length === 0 ? ['10.0.0.1'] : addresses, ({ metadata }) => {
      if (metadata !== undefined) metadata.annotations = { [ANNOTATION]: text };
    });
  }
}

describe('the count of changes', () => {
  const web = makeService('web');
  const api = makeService('api');

  test('of the first objects is all of them', () => {
    expect(
      new Fixture().update({ services: [web, api], endpointSlices: [makeSlice('web', ['10.0.0.1'])] }),
    ).toEqual({ services: 2, endpointSlices: 1, triggers: [] });
  });

  test('is 0 for the same objects, in the same list and in another', () => {
    const { tracker } = new Fixture();
    const objects: SourceObjects = { services: [web, api], endpointSlices: [makeSlice('web', ['10.0.0.1'])] };
    tracker.update(objects);

    expect(tracker.update(objects)).toEqual(NO_CHANGE);
    expect(tracker.update({ ...objects, services: [...objects.services] })).toEqual(NO_CHANGE);
  });

  test('has an object that is there in another version once', () => {
    const fixture = new Fixture();
    fixture.update({ services: [web, api] });

    expect(fixture.update({ services: [makeService('web'), api] }).services).toBe(1);
  });

  test('has what came and what went', () => {
    const fixture = new Fixture();
    fixture.update({ services: [web] });

    expect(fixture.update({ services: [api] }).services).toBe(2);
    expect(fixture.update({ services: [] }).services).toBe(1);
  });

  test('tells objects of one name in two namespaces apart', () => {
    const other = makeService('web', ({ metadata }) => {
      if (metadata !== undefined) metadata.namespace = 'other';
    });
    expect(new Fixture().update({ services: [web, other] }).services).toBe(2);
  });
});

describe('a trigger', () => {
  test('is what a new slice says of when the change began, for its family', () => {
    const fixture = new Fixture();
    expect(fixture.update({ endpointSlices: [fixture.slice(1500)] }).triggers).toEqual([
      { family: 'IPv4', at: fixture.startedAt + 1500 },
    ]);
    expect(fixture.update({ endpointSlices: [fixture.slice(2500, 'fd00:1::1')] }).triggers).toEqual([
      { family: 'IPv6', at: fixture.startedAt + 2500 },
    ]);
  });

  test('is what the new version of a slice says, and not again while it stays', () => {
    const fixture = new Fixture();
    fixture.update({ endpointSlices: [fixture.slice(1000)] });
    const next = [fixture.slice(3000, '10.0.0.1', '10.0.0.2')];

    expect(fixture.update({ endpointSlices: next }).triggers).toEqual([
      { family: 'IPv4', at: fixture.startedAt + 3000 },
    ]);
    expect(fixture.update({ endpointSlices: [...next] }).triggers).toEqual([]);
  });

  test.each<{ name: string; make: (fixture: Fixture) => V1EndpointSlice }>([
    { name: 'that says nothing', make: () => makeSlice('web', ['10.0.0.1']) },
    {
      name: 'that says nothing that can be read',
      make: () =>
        makeSlice('web', ['10.0.0.1'], ({ metadata }) => {
          if (metadata !== undefined) metadata.annotations = { [ANNOTATION]: 'yesterday' };
        }),
    },
    { name: 'that changed at the very start', make: (fixture) => fixture.slice(0) },
    { name: 'that changed before the start', make: (fixture) => fixture.slice(-60_000) },
    {
      name: 'of names instead of addresses',
      make: (fixture) => Object.assign(fixture.slice(1000), { addressType: 'FQDN' }),
    },
  ])('is not in a slice $name, which counts as a change all the same', ({ make }) => {
    const fixture = new Fixture();
    expect(fixture.update({ endpointSlices: [make(fixture)] })).toEqual({
      services: 0,
      endpointSlices: 1,
      triggers: [],
    });
  });

  test('is not in a slice that is gone: what it says is of an earlier change', () => {
    const fixture = new Fixture();
    fixture.update({ endpointSlices: [fixture.slice(1000)] });

    expect(fixture.update({})).toEqual({ services: 0, endpointSlices: 1, triggers: [] });
  });
});
