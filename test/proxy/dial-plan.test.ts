/** Decision 9: in which order, how long each, and when to give up. */
import { describe, expect, test } from 'vitest';
import { Balancer } from '../../src/balancer/balancer.ts';
import type { DialFailure } from '../../src/engine/engine.ts';
import { type Attempt, DialPlan, dialBudget } from '../../src/proxy/dial-plan.ts';
import { makeEndpoints } from '../support/snapshots.ts';

const TIMEOUTS_MS = [250, 500, 1000, 2000];
const BUDGET_MS = 3750;

/** A connection whose dials end as the test says, with the clock in its hand. */
class Fixture {
  readonly #balancer = new Balancer({
    affinityCapacity: 10,
    random: () => 0,
    scheduler: 'rr',
    ejection: { timeMs: 0, trialMs: 0 },
  });
  readonly #plan: DialPlan;
  now = 1_000_000;
  isHopeless = false;
  readonly #startedAt = this.now;

  constructor(lasts: readonly number[], timeoutsMs: readonly number[] = TIMEOUTS_MS) {
    this.set(...lasts);
    this.#plan = new DialPlan(dialBudget(timeoutsMs), this.now);
  }

  set(...lasts: readonly number[]): void {
    this.#balancer.setEndpoints(makeEndpoints(...lasts));
  }

  get elapsedMs(): number {
    return this.now - this.#startedAt;
  }

  /** `2 for 250`: endpoint and time-out; or why it gives up. */
  next(): string {
    const attempt = this.#attempt();
    if (attempt.kind === 'giveUp') return attempt.reason;
    return `${attempt.endpoint.address.split('.')[3]} for ${attempt.timeoutMs}`;
  }

  /** Tries once and lets it fail, after its time-out or `afterMs`. */
  fail(failure: DialFailure, afterMs?: number): string {
    const attempt = this.#attempt();
    if (attempt.kind === 'giveUp') return attempt.reason;
    this.now += afterMs ?? (failure === 'timeout' ? attempt.timeoutMs : 0);
    this.#plan.failed(attempt.endpoint.key, failure);
    return `${attempt.endpoint.address.split('.')[3]} for ${attempt.timeoutMs}`;
  }

  /** Every attempt until it gives up, all failing alike. */
  all(failure: DialFailure): string[] {
    const attempts: string[] = [];
    for (let attempt = this.fail(failure); attempts.length < 100; attempt = this.fail(failure)) {
      attempts.push(attempt);
      if (!attempt.includes(' for ')) break;
    }
    return attempts;
  }

  #attempt(): Attempt {
    return this.#plan.next(
      {
        size: this.#balancer.size,
        isHopeless: this.isHopeless,
        has: (key) => this.#balancer.has(key),
        pick: (excluded) => this.#balancer.pick({ client: 'client', destination: '' }, this.now, excluded),
      },
      this.now,
    );
  }
}

test('without endpoints it gives up at once, with the reason', () => {
  expect(new Fixture([]).next()).toBe('no_endpoints');
});

describe('time-outs', () => {
  test.each([
    {
      name: 'a single endpoint is dialled once, for the whole budget',
      lasts: [1],
      expected: ['1 for 3750', 'exhausted'],
    },
    {
      name: 'two endpoints take turns, each pass with the next time-out, up to the budget',
      lasts: [1, 2],
      expected: [
        '1 for 250',
        '2 for 250',
        '1 for 500',
        '2 for 500',
        '1 for 1000',
        '2 for 1000',
        '1 for 250',
        'exhausted',
      ],
    },
    {
      name: 'three endpoints get at most three passes',
      lasts: [1, 2, 3],
      expected: [
        '1 for 250',
        '2 for 250',
        '3 for 250',
        '1 for 500',
        '2 for 500',
        '3 for 500',
        '1 for 1000',
        '2 for 500',
        'exhausted',
      ],
    },
  ])('$name', ({ lasts, expected }) => {
    const fixture = new Fixture(lasts);

    expect(fixture.all('timeout')).toEqual(expected);
    expect(fixture.elapsedMs).toBe(BUDGET_MS);
  });

  test('the last time-out holds for all further passes', () => {
    const fixture = new Fixture([1, 2], [100, 300]);

    expect(fixture.all('timeout')).toEqual(['1 for 100', '2 for 100', '1 for 200', 'exhausted']);
  });

  test('of more endpoints than fit into the budget only one more is tried, with a whole time-out', () => {
    const lasts = Array.from({ length: 20 }, (_, index) => index + 1);
    const fixture = new Fixture(lasts);

    const tried = lasts.slice(0, BUDGET_MS / 250 + 1);
    expect(fixture.all('timeout')).toEqual([...tried.map((last) => `${last} for 250`), 'exhausted']);
  });

  test('the first attempt at an endpoint is a whole one, also just before the budget ends', () => {
    const fixture = new Fixture([1, 2, 3], [250]);
    fixture.fail('refused', 249);

    expect(fixture.next()).toBe('2 for 250');
  });
});

describe('refusals', () => {
  test.each(['refused', 'unreachable'] as const)('when all are %s it gives up at once', (failure) => {
    const fixture = new Fixture([1, 2, 3]);

    expect(fixture.all(failure)).toEqual(['1 for 250', '2 for 250', '3 for 3750', 'exhausted']);
    expect(fixture.elapsedMs).toBe(0);
  });

  test('a single endpoint that refuses is not dialled again', () => {
    const fixture = new Fixture([1]);

    expect(fixture.all('refused')).toEqual(['1 for 3750', 'exhausted']);
  });

  test('an endpoint that refused is left out of later passes', () => {
    const fixture = new Fixture([1, 2, 3]);
    expect([fixture.fail('timeout'), fixture.fail('refused'), fixture.fail('timeout')]).toEqual([
      '1 for 250',
      '2 for 250',
      '3 for 250',
    ]);

    expect([fixture.fail('timeout'), fixture.fail('timeout'), fixture.fail('timeout')]).toEqual([
      '1 for 500',
      '3 for 500',
      '1 for 1000',
    ]);
  });

  test('the last one that has not refused gets all the rest of the budget', () => {
    const fixture = new Fixture([1, 2]);
    fixture.fail('timeout');
    fixture.fail('refused');

    expect(fixture.fail('timeout')).toBe('1 for 3500');
    expect(fixture.next()).toBe('exhausted');
    expect(fixture.elapsedMs).toBe(BUDGET_MS);
  });

  test('a refusal by an endpoint that is gone does not make another the last one', () => {
    const fixture = new Fixture([1, 2, 3]);
    fixture.fail('refused');

    fixture.set(2, 3);

    expect(fixture.next()).toBe('2 for 250');
  });
});

describe('endpoints that come and go', () => {
  test('one that appears in the last attempt of the budget still gets its own, once', () => {
    const fixture = new Fixture([1, 2], [100]);
    expect(fixture.fail('timeout')).toBe('1 for 100');

    fixture.set(1, 2, 3, 4);

    const rest = [fixture.fail('timeout'), fixture.next()];
    expect(rest).toEqual(['2 for 100', 'exhausted']);
  });

  test('one that appears after all have refused is dialled', () => {
    const fixture = new Fixture([1, 2]);
    fixture.all('refused');

    fixture.set(1, 2, 3);

    expect(fixture.fail('refused')).toBe('3 for 3750');
    expect(fixture.next()).toBe('exhausted');
  });

  test('one that appears during a pass is part of it', () => {
    const fixture = new Fixture([1, 2]);
    fixture.fail('timeout');

    fixture.set(1, 2, 3);

    expect([fixture.fail('timeout'), fixture.fail('timeout'), fixture.fail('timeout')]).toEqual([
      '2 for 250',
      '3 for 250',
      '1 for 500',
    ]);
  });

  test('when all go there is nobody, and when one comes back it is dialled', () => {
    const fixture = new Fixture([1, 2]);
    fixture.fail('timeout');
    fixture.set();
    expect(fixture.next()).toBe('no_endpoints');

    fixture.set(2);

    expect(fixture.next()).toBe('2 for 3500');
  });
});
