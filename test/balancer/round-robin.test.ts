import { describe, expect, test } from 'vitest';
import { RoundRobin } from '../../src/balancer/round-robin.ts';
import type { PickRequest } from '../../src/balancer/scheduler.ts';
import { makeEndpoints } from '../support/snapshots.ts';

const everyone = (): boolean => true;
/** Round robin does not look at it. */
const ANYBODY: PickRequest = { client: '', destination: '' };

/** At its first endpoint, unless told. */
function makeRoundRobin(lasts: readonly number[], random = 0): RoundRobin {
  const roundRobin = new RoundRobin(() => random);
  roundRobin.setEndpoints(makeEndpoints(...lasts));
  return roundRobin;
}

/** The last parts of the next `count` picks. */
function picks(
  roundRobin: RoundRobin,
  count: number,
  excluded: readonly number[] = [],
): (number | undefined)[] {
  const keys = new Set(makeEndpoints(...excluded).map(({ key }) => key));
  return Array.from({ length: count }, () => {
    const picked = roundRobin.pick(ANYBODY, ({ key }) => !keys.has(key));
    return picked === undefined ? undefined : Number(picked.address.split('.')[3]);
  });
}

describe('where it starts', () => {
  test.each([
    { name: 'the lowest random number means the first', random: 0, expected: [1, 2, 3] },
    { name: 'one in the middle means the second', random: 0.5, expected: [2, 3, 1] },
    { name: 'the highest means the last', random: 0.999_999, expected: [3, 1, 2] },
  ])('$name', ({ random, expected }) => {
    expect(picks(makeRoundRobin([1, 2, 3], random), 3)).toEqual(expected);
  });

  test('many proxies do not all begin with the same endpoint', () => {
    const first = Array.from({ length: 200 }, () => {
      const roundRobin = new RoundRobin(Math.random);
      roundRobin.setEndpoints(makeEndpoints(1, 2, 3));
      return picks(roundRobin, 1)[0];
    });

    expect(new Set(first)).toEqual(new Set([1, 2, 3]));
  });
});

test.each([1, 2, 3, 7, 10])('over any number of picks %i endpoints differ by one at most', (size) => {
  const roundRobin = makeRoundRobin(
    Array.from({ length: size }, (_, index) => index + 1),
    0.4,
  );
  const counts = new Map<number | undefined, number>();

  for (let count = 1; count <= 3 * size + 1; count += 1) {
    const [picked] = picks(roundRobin, 1);
    counts.set(picked, (counts.get(picked) ?? 0) + 1);
    const all = Array.from({ length: size }, (_, index) => counts.get(index + 1) ?? 0);
    expect(Math.max(...all) - Math.min(...all)).toBeLessThanOrEqual(1);
  }
});

test.each([
  {
    name: 'an endpoint added before the position',
    before: [2, 4],
    taken: 1,
    after: [1, 2, 4],
    expected: [4, 1, 2],
  },
  {
    name: 'an endpoint added at the position',
    before: [1, 4],
    taken: 1,
    after: [1, 3, 4],
    expected: [4, 1, 3],
  },
  {
    name: 'an endpoint added behind everything',
    before: [1, 2],
    taken: 1,
    after: [1, 2, 3],
    expected: [2, 3, 1],
  },
  {
    name: 'an endpoint removed before the position',
    before: [1, 2, 3],
    taken: 2,
    after: [2, 3],
    expected: [3, 2],
  },
  {
    name: 'the endpoint at the position removed',
    before: [1, 2, 3],
    taken: 1,
    after: [1, 3],
    expected: [3, 1],
  },
  {
    name: 'the last endpoint at the position removed',
    before: [1, 2, 3],
    taken: 2,
    after: [1, 2],
    expected: [1, 2],
  },
  {
    name: 'the position and the one after it removed',
    before: [1, 2, 3, 4],
    taken: 1,
    after: [1, 4],
    expected: [4, 1],
  },
  { name: 'all but the one just picked removed', before: [1, 2, 3], taken: 1, after: [1], expected: [1, 1] },
  { name: 'the same endpoints again', before: [1, 2, 3], taken: 2, after: [1, 2, 3], expected: [3, 1, 2] },
])('it keeps its position over: $name', ({ before, taken, after, expected }) => {
  // Any use of randomness would show: it would start anew at the last one.
  let random = 0;
  const roundRobin = new RoundRobin(() => random);
  roundRobin.setEndpoints(makeEndpoints(...before));
  picks(roundRobin, taken);
  random = 0.999;

  roundRobin.setEndpoints(makeEndpoints(...after));

  expect(picks(roundRobin, expected.length)).toEqual(expected);
});

test('when all endpoints are replaced it starts anew at a random one', () => {
  let random = 0;
  const roundRobin = new RoundRobin(() => random);
  roundRobin.setEndpoints(makeEndpoints(1, 2, 3));
  random = 0.5;

  roundRobin.setEndpoints(makeEndpoints(4, 5, 6));

  expect(picks(roundRobin, 3)).toEqual([5, 6, 4]);
});

describe('nobody to pick', () => {
  test('without endpoints it picks nothing', () => {
    expect(picks(new RoundRobin(() => 0), 1)).toEqual([undefined]);
    expect(picks(makeRoundRobin([]), 1)).toEqual([undefined]);
  });

  test('when all are excluded it picks nothing and keeps its position', () => {
    const roundRobin = makeRoundRobin([1, 2, 3]);
    picks(roundRobin, 1);

    expect(picks(roundRobin, 1, [1, 2, 3])).toEqual([undefined]);
    expect(picks(roundRobin, 1)).toEqual([2]);
  });

  test('a set that becomes empty and comes back is served again', () => {
    const roundRobin = makeRoundRobin([1, 2]);
    roundRobin.setEndpoints([]);
    expect(picks(roundRobin, 1)).toEqual([undefined]);

    roundRobin.setEndpoints(makeEndpoints(1, 2));

    expect(picks(roundRobin, 2)).toEqual([1, 2]);
  });
});

test('an excluded endpoint is passed over, and the position is behind the one picked', () => {
  const roundRobin = makeRoundRobin([1, 2, 3]);

  expect(picks(roundRobin, 1, [1])).toEqual([2]);
  expect(roundRobin.pick(ANYBODY, everyone)?.address).toBe('10.0.0.3');
});
