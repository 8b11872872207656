/** Choices, whatever happened before: the balancer with every scheduler beside what can be said of it in a few words. */
import * as fc from 'fast-check';
import assert from 'node:assert/strict';
import { describe, expect, test } from 'vitest';
import { Balancer } from '../../src/balancer/balancer.ts';
import { SCHEDULERS, type SchedulerName } from '../../src/model/service-policy.ts';
import { holds } from '../support/property.ts';
import { Random } from '../support/random.ts';
import { NO_AFFINITY, clientIP, makeEndpoints } from '../support/snapshots.ts';
import { keyOf } from './balancer-fixture.ts';

const EJECTION_MS = 1000;
const TRIAL_MS = 500;
const TIMEOUT_MS = 10_000;
const ALL = [1, 2, 3, 4];

interface Step {
  readonly kind: 'pick' | 'eject' | 'answer' | 'fail' | 'exhaust' | 'set' | 'end';
  readonly client: string;
  readonly last: number;
  /** Those that are there, or those that are left out of a choice. */
  readonly some: readonly number[];
  /** Before the step. */
  readonly passesMs: number;
}

const KINDS = ['pick', 'pick', 'pick', 'eject', 'eject', 'answer', 'fail', 'exhaust', 'set', 'end'] as const;

const steps: fc.Arbitrary<readonly Step[]> = fc.array(
  fc.record({
    kind: fc.constantFrom(...KINDS),
    client: fc.constantFrom('c1', 'c2', 'c3'),
    last: fc.constantFrom(...ALL),
    some: fc.subarray(ALL),
    passesMs: fc.constantFrom(0, 0, 1, 499, 500, 1000, 4000, 10_001),
  }),
  { minLength: 20, maxLength: 60 },
);

function open(scheduler: SchedulerName, hasAffinity: boolean, seed = 1): Balancer {
  const random = new Random(seed);
  const balancer = new Balancer({
    affinityCapacity: 100,
    random: () => random.next(),
    scheduler,
    ejection: { timeMs: EJECTION_MS, trialMs: TRIAL_MS },
  });
  balancer.setAffinity(hasAffinity ? clientIP(TIMEOUT_MS) : NO_AFFINITY);
  return balancer;
}

function picked(
  balancer: Balancer,
  client: string,
  now: number,
  excluded: readonly number[] = [],
): string | undefined {
  const keys = new Set(excluded.map(keyOf));
  return balancer.pick({ client, destination: '10.96.0.10' }, now, keys)?.key;
}

/** The balancer, what may happen to it, and what may be said of it without knowing how it works. */
class Observed {
  readonly balancer: Balancer;
  #present: readonly string[] = [];
  /** Until when an endpoint is certainly left out. */
  readonly #outUntil = new Map<string, number>();
  readonly #sessions: string[] = [];

  constructor(balancer: Balancer) {
    this.balancer = balancer;
  }

  pick({ client, some }: Step, now: number): void {
    const excluded = new Set(some.map(keyOf));
    const choice = picked(this.balancer, client, now, some);
    const allowed = this.#present.filter((key) => !excluded.has(key));
    assert.ok(choice === undefined ? allowed.length === 0 : allowed.includes(choice), `${choice}`);
    // Somebody who was never blamed since he came or answered last.
    const hasOther = allowed.some((key) => !this.#outUntil.has(key));
    assert.ok(!hasOther || choice === undefined || !this.#isOut(choice, now), `${choice} was left out`);
    if (choice === undefined) return;
    this.balancer.sessionBegan(choice);
    this.#sessions.push(choice);
  }

  eject({ last }: Step, now: number): void {
    const key = keyOf(last);
    const others = this.#present.filter((one) => one !== key && !this.#isOut(one, now));
    const isEjected = this.balancer.eject(key, now);
    assert.ok(!isEjected || (others.length > 0 && this.#present.includes(key)), `${key} is left out`);
    if (isEjected) this.#outUntil.set(key, now + EJECTION_MS);
  }

  answer({ client, last }: Step, now: number): void {
    this.balancer.succeeded(client, keyOf(last), now);
    this.balancer.reinstate(keyOf(last));
    this.#outUntil.delete(keyOf(last));
  }

  fail({ client, last }: Step): void {
    this.balancer.failed(client, keyOf(last));
  }

  exhaust(): void {
    this.balancer.exhausted();
    this.#outUntil.clear();
  }

  set({ some }: Pick<Step, 'some'>): void {
    this.balancer.setEndpoints(makeEndpoints(...some));
    this.#present = some.map(keyOf);
    for (const key of this.#outUntil.keys()) if (!this.#present.includes(key)) this.#outUntil.delete(key);
  }

  end(): void {
    const ended = this.#sessions.shift();
    if (ended !== undefined) this.balancer.sessionEnded(ended);
  }

  expectCounts(now: number): void {
    assert.equal(this.balancer.size, this.#present.length);
    assert.ok(this.balancer.ejectedAt(now) <= this.balancer.size);
    for (const key of ALL.map(keyOf))
      assert.equal(this.balancer.sessionsOf(key), this.#sessions.filter((one) => one === key).length);
  }

  #isOut(key: string, now: number): boolean {
    return (this.#outUntil.get(key) ?? 0) > now;
  }
}

function run(balancer: Balancer, all: readonly Step[]): void {
  const observed = new Observed(balancer);
  observed.set({ some: ALL });
  let now = 0;
  for (const step of all) {
    now += step.passesMs;
    observed[step.kind](step, now);
    observed.expectCounts(now);
  }
}

describe.each(SCHEDULERS)('by %s', (scheduler) => {
  test.each([
    { affinity: 'with', has: true },
    { affinity: 'without', has: false },
  ])(
    '$affinity affinity, whatever happened: somebody is chosen as long as anybody may be, never one that may not, one that was left out only for want of others, and the last one in use is never left out',
    ({ has }) => {
      holds(fc.tuple(steps, fc.nat(1000)), ([all, seed]) => run(open(scheduler, has, seed), all), 200);
    },
  );

  test('a client is tied to who answered it for its time-out, to the millisecond, while that one is there', () => {
    const visits = fc.array(
      fc.record({
        client: fc.constantFrom('c1', 'c2', 'c3'),
        passesMs: fc.constantFrom(0, 1, 4000, TIMEOUT_MS, TIMEOUT_MS + 1),
        gone: fc.option(fc.constantFrom(...ALL), { freq: 6 }),
      }),
      { maxLength: 30 },
    );
    holds(
      visits,
      (all) => {
        const balancer = open(scheduler, true);
        const tied = new Map<string, { key: string; at: number }>();
        let now = 0;
        for (const { client, passesMs, gone } of all) {
          now += passesMs;
          balancer.setEndpoints(makeEndpoints(...ALL.filter((last) => last !== gone)));
          for (const [one, { key }] of tied) if (gone !== null && key === keyOf(gone)) tied.delete(one);
          const tie = tied.get(client);
          const choice = picked(balancer, client, now);
          expect(tie === undefined || now - tie.at > TIMEOUT_MS || tie.key === choice).toBe(true);
          if (choice === undefined) continue;
          balancer.succeeded(client, choice, now);
          tied.set(client, { key: choice, at: now });
        }
      },
      200,
    );
  });
});

test('rr gives everybody who may be chosen the same number of turns, whoever is left out', () => {
  const turns = fc.record({
    lasts: fc.subarray([1, 2, 3, 4, 5, 6, 7], { minLength: 1 }),
    excluded: fc.subarray([1, 2, 3, 4, 5, 6, 7]),
    before: fc.nat(20),
    rounds: fc.integer({ min: 1, max: 5 }),
    seed: fc.nat(1000),
  });
  holds(turns, ({ lasts, excluded, before, rounds, seed }) => {
    const balancer = open('rr', false, seed);
    balancer.setEndpoints(makeEndpoints(...lasts));
    for (let count = 0; count < before; count += 1) picked(balancer, 'client', 0);
    const allowed = lasts.filter((last) => !excluded.includes(last)).map(keyOf);
    const choices = Array.from({ length: rounds * allowed.length }, () =>
      picked(balancer, 'client', 0, excluded),
    );
    for (const key of allowed) expect(choices.filter((choice) => choice === key)).toHaveLength(rounds);
  });
});
