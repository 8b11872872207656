import { describe, expect, test } from 'vitest';
import type { Endpoint } from '../../src/model/endpoint.ts';
import type { SchedulerName } from '../../src/model/service-policy.ts';
import { Random, seeds } from '../support/random.ts';
import { BalancerFixture } from './balancer-fixture.ts';
import { SchedulerFixture, endpointsOf } from './scheduler-fixture.ts';

const NAMES = ['lc', 'sed', 'nq'] as const;
const CLIENT = '10.0.0.1';

const TEN = endpointsOf(10);
const SEVEN = endpointsOf(7);

function countsAt(endpoints: readonly Endpoint[], { sessions }: SchedulerFixture): number[] {
  return endpoints.map(({ key }) => sessions.of(key));
}

function spread(counts: readonly number[]): number {
  return Math.max(...counts) - Math.min(...counts);
}

/** Sessions that begin as `name` picks, while random ones end; `onBegan` sees the counts before and after each. */
function churn(
  name: SchedulerName,
  seed: number,
  onBegan: (before: readonly number[], after: readonly number[]) => void,
): SchedulerFixture {
  const random = new Random(seed);
  const fixture = new SchedulerFixture(name, TEN, random);
  const open: string[] = [];
  for (let session = 0; session < 10_000; session += 1) {
    const before = countsAt(TEN, fixture);
    open.push(fixture.begin(CLIENT));
    onBegan(before, countsAt(TEN, fixture));
    // On average one ends for each that begins, in bursts.
    for (let ends = random.below(10) === 0 ? random.below(20) : 0; ends > 0 && open.length > 0; ends -= 1) {
      const [ended = ''] = open.splice(random.below(open.length), 1);
      fixture.sessions.ended(ended);
    }
  }
  return fixture;
}

describe.each(NAMES)('%s', (name) => {
  test.each([
    { name: 'the one with the fewest', sessions: [3, 1, 2], excluded: [], expected: 2 },
    { name: 'an idle one rather than a busy one', sessions: [1, 1, 0], excluded: [], expected: 3 },
    { name: 'the first idle one in turn', sessions: [1, 0, 0], excluded: [], expected: 2 },
    { name: 'the first in turn of those with the fewest', sessions: [2, 1, 1], excluded: [], expected: 2 },
    { name: 'the one with the fewest of those not refused', sessions: [3, 1, 2], excluded: [2], expected: 3 },
    { name: 'a busy one when every idle one is refused', sessions: [5, 0, 0], excluded: [2, 3], expected: 1 },
  ])('it picks $name', ({ sessions, excluded, expected }) => {
    const fixture = new BalancerFixture([1, 2, 3], { scheduler: name });
    for (const [index, count] of sessions.entries()) fixture.begin(index + 1, count);

    expect(fixture.pick(CLIENT, excluded)).toBe(expected);
  });

  test('ties go in turn: idle endpoints are not always served from the first on', () => {
    const fixture = new BalancerFixture([1, 2, 3], { scheduler: name });

    expect(fixture.connects(7)).toEqual([1, 2, 3, 1, 2, 3, 1]);
  });

  test('the turn goes on behind the one picked, also when busy ones were passed over', () => {
    const fixture = new BalancerFixture([1, 2, 3, 4], { scheduler: name });
    fixture.begin(1);
    fixture.begin(2);

    expect(fixture.connects(4)).toEqual([3, 4, 3, 4]);
  });

  test('the turn survives a change of the set', () => {
    const fixture = new BalancerFixture([1, 3], { scheduler: name });
    expect(fixture.connect()).toBe(1);

    fixture.set(1, 2, 3);

    expect(fixture.connects(3)).toEqual([3, 1, 2]);
  });

  test('it starts at a random endpoint', () => {
    expect(new BalancerFixture([1, 2, 3], { scheduler: name, random: () => 0.5 }).connect()).toBe(2);
  });

  test('an endpoint that comes back with its old sessions is not taken for an idle one', () => {
    const fixture = new BalancerFixture([1, 2], { scheduler: name });
    fixture.begin(1, 2);
    fixture.begin(2);
    fixture.set(2);

    fixture.set(1, 2);

    expect(fixture.connects(2)).toEqual([2, 2]);
  });

  test('while sessions only begin, 10,000 of them never differ by more than one', () => {
    const fixture = new SchedulerFixture(name, SEVEN, new Random(1));
    let widest = 0;
    for (let session = 0; session < 10_000; session += 1) {
      fixture.begin(CLIENT);
      widest = Math.max(widest, spread(countsAt(SEVEN, fixture)));
    }
    expect(widest).toBe(1);
  });

  test.each(seeds(5))(
    'while the fullest lose sessions, 10,000 of them never differ by more than one (seed %i)',
    (seed) => {
      const random = new Random(seed);
      const fixture = new SchedulerFixture(name, SEVEN, random);
      let widest = 0;
      for (let session = 0; session < 10_000; session += 1) {
        fixture.begin(CLIENT);
        for (let ends = random.below(3); ends > 0; ends -= 1) {
          const counts = countsAt(SEVEN, fixture);
          const most = Math.max(...counts);
          const fullest = SEVEN.filter((_, index) => counts[index] === most);
          if (most > 0) fixture.sessions.ended(random.pick(fullest).key);
        }
        widest = Math.max(widest, spread(countsAt(SEVEN, fixture)));
      }
      expect(widest).toBe(1);
    },
  );

  // A random end may take the last but one session of the emptiest: no choice can prevent that gap, only close it.
  test.each(seeds(5))('while random ones end, none of 10,000 makes a gap wider (seed %i)', (seed) => {
    let widest = 0;
    let wrong = 0;
    churn(name, seed, (before, after) => {
      const picked = after.findIndex((count, index) => count !== before[index]);
      const isOneOfTheEmptiest = before[picked] === Math.min(...before);
      if (!isOneOfTheEmptiest || spread(after) > Math.max(spread(before), 1)) wrong += 1;
      widest = Math.max(widest, spread(before));
    });

    expect(wrong).toBe(0);
    // Else there was nothing to see.
    expect(widest).toBeGreaterThan(1);
  });

  test.each(seeds(5))(
    'a gap that random ends have made is closed by as many picks as it holds (seed %i)',
    (seed) => {
      const fixture = churn(name, seed, () => undefined);
      const counts = countsAt(TEN, fixture);
      const gap = counts.reduce((sum, count) => sum + Math.max(...counts) - count, 0);

      for (let pick = 0; pick < gap; pick += 1) fixture.begin(CLIENT);

      expect(spread(countsAt(TEN, fixture))).toBe(0);
    },
  );

  test.each(seeds(3))('without weights it chooses as lc does, session by session (seed %i)', (seed) => {
    const trace = (of: SchedulerName): string => {
      const counts: string[] = [];
      churn(of, seed, (_before, after) => counts.push(after.join()));
      return counts.join('\n');
    };

    expect(trace(name) === trace('lc')).toBe(true);
  });
});

test.each(seeds(3))('rr, which does not count sessions, does make gaps wider (seed %i)', (seed) => {
  let widened = 0;
  churn('rr', seed, (before, after) => {
    if (spread(after) > Math.max(spread(before), 1)) widened += 1;
  });

  expect(widened).toBeGreaterThan(0);
});
