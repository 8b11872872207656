import { describe, expect, test } from 'vitest';
import { Random, seeds } from '../support/random.ts';
import { EVEN, SchedulerFixture, endpointsOf, unevenness } from './scheduler-fixture.ts';

const PICKS = 10_000;

function picks(fixture: SchedulerFixture, refused: readonly string[] = []): (string | undefined)[] {
  return Array.from({ length: PICKS }, () => fixture.pick('10.0.0.1', new Set(refused)));
}

describe.each([2, 3, 10, 250])('of %i endpoints', (size) => {
  test.each(seeds(3))('every one is as likely as every other (seed %i)', (seed) => {
    const fixture = new SchedulerFixture('random', endpointsOf(size), new Random(seed));

    expect(unevenness(picks(fixture), size)).toBeLessThan(EVEN);
  });
});

// To go on with the next one after a refused one would give that one twice as much.
test.each(seeds(3))('refused ones leave their share to all others alike (seed %i)', (seed) => {
  const endpoints = endpointsOf(6);
  const refused = endpoints.slice(1, 4).map(({ key }) => key);
  const fixture = new SchedulerFixture('random', endpoints, new Random(seed));

  expect(unevenness(picks(fixture, refused), 3)).toBeLessThan(EVEN);
});

test('as long as nobody is refused only the one picked is looked at, however many there are', () => {
  const { scheduler } = new SchedulerFixture('random', endpointsOf(250));
  let asked = 0;

  for (let pick = 0; pick < 100; pick += 1) {
    scheduler.pick({ client: '10.0.0.1', destination: '' }, () => {
      asked += 1;
      return true;
    });
  }

  expect(asked).toBe(100);
});

test('one pick says nothing about the next: unlike in turn, the same endpoint comes twice in a row', () => {
  const repeats = (name: 'random' | 'rr'): number => {
    const picked = picks(new SchedulerFixture(name, endpointsOf(4)));
    return picked.filter((key, index) => key === picked[index - 1]).length;
  };

  expect(repeats('rr')).toBe(0);
  expect(repeats('random')).toBeGreaterThan(PICKS / 4 - 250);
  expect(repeats('random')).toBeLessThan(PICKS / 4 + 250);
});
