import { describe, expect, test } from 'vitest';
import { SessionCounts } from '../../src/balancer/session-counts.ts';
import { Random, seeds } from '../support/random.ts';

test('an endpoint has the sessions that began and did not end', () => {
  const counts = new SessionCounts();
  for (const key of ['a', 'b', 'a', 'a']) counts.began(key);
  counts.ended('a');

  expect(['a', 'b', 'c'].map((key) => counts.of(key))).toEqual([2, 1, 0]);
});

test('an endpoint without sessions is not remembered', () => {
  const counts = new SessionCounts();
  counts.began('a');
  counts.began('b');

  counts.ended('a');

  expect(counts.size).toBe(1);
});

describe('a session that ends without having begun', () => {
  test('is refused when the endpoint never had one', () => {
    const counts = new SessionCounts();
    counts.began('b');

    expect(() => counts.ended('a')).toThrow('a session of a ended, but it has none');
    expect(counts.of('a')).toBe(0);
  });

  test('is refused when the only one has ended already', () => {
    const counts = new SessionCounts();
    counts.began('a');
    counts.ended('a');

    expect(() => counts.ended('a')).toThrow('a session of a ended');
    counts.began('a');
    expect(counts.of('a')).toBe(1);
  });
});

test.each(seeds(5))('10,000 random beginnings and ends leave nothing behind (seed %i)', (seed) => {
  const random = new Random(seed);
  const counts = new SessionCounts();
  const open: string[] = [];
  for (let step = 0; step < 10_000; step += 1) {
    const key = `endpoint ${random.below(50)}`;
    const index = open.indexOf(key);
    if (index >= 0 && random.below(2) === 0) {
      counts.ended(key);
      open.splice(index, 1);
    } else if (open.length < 100) {
      counts.began(key);
      open.push(key);
    }
    expect(counts.of(key)).toBe(open.filter((one) => one === key).length);
    expect(counts.size).toBe(new Set(open).size);
  }

  for (const key of open) counts.ended(key);

  expect(counts.size).toBe(0);
});
