/** The affinity table beside one that is as simple as can be: a list, looked through from end to end. */
import * as fc from 'fast-check';
import assert from 'node:assert/strict';
import { expect, test } from 'vitest';
import { type AffinityTie, AffinityTable } from '../../src/balancer/affinity-table.ts';
import { holds } from '../support/property.ts';

const CAPACITY = 3;

/** The longest unused first. */
class ListTable {
  timeoutMs = 100;
  ties: AffinityTie[] = [];

  bind(client: string, endpointKey: string, now: number): void {
    this.ties = this.ties.filter((tie) => tie.client !== client && now - tie.lastUsed <= this.timeoutMs);
    this.ties.push({ client, endpointKey, lastUsed: now });
    this.ties = this.ties.slice(-CAPACITY);
  }

  endpointOf(client: string, now: number): string | undefined {
    const found = this.ties.find((tie) => tie.client === client);
    if (found === undefined || now - found.lastUsed <= this.timeoutMs) return found?.endpointKey;
    // Looked at and found to be over, it is over for good.
    this.ties = this.ties.filter((tie) => tie !== found);
    return undefined;
  }

  keep(isKept: (tie: AffinityTie) => boolean): void {
    this.ties = this.ties.filter(isKept);
  }
}

/** Both tables, and what may happen to them. */
class Tables {
  readonly plain = new ListTable();
  table = this.#open();

  bind({ client, endpointKey }: Step, now: number): void {
    const { changes } = this.table;
    this.table.bind(client, endpointKey, now);
    this.plain.bind(client, endpointKey, now);
    assert.equal(this.table.changes, changes + 1);
  }

  look({ client }: Step, now: number): void {
    const { changes } = this.table;
    assert.equal(this.table.endpointOf(client, now), this.plain.endpointOf(client, now));
    assert.equal(this.table.changes, changes);
  }

  release({ client, endpointKey }: Step): void {
    this.table.release(client, endpointKey);
    this.plain.keep((tie) => tie.client !== client || tie.endpointKey !== endpointKey);
  }

  retain({ endpointKey }: Step): void {
    this.table.retainEndpoints(new Set(['a', endpointKey]));
    this.plain.keep((tie) => tie.endpointKey === 'a' || tie.endpointKey === endpointKey);
  }

  changeTimeout({ timeoutMs }: Step): void {
    this.table.setTimeoutMs(timeoutMs);
    this.plain.timeoutMs = timeoutMs;
  }

  restart(_step: Step, now: number): void {
    const ties = [...this.table.ties(now)];
    this.table = this.#open();
    this.table.restore(ties, now);
    this.plain.keep((tie) => now - tie.lastUsed <= this.plain.timeoutMs);
  }

  #open(): AffinityTable {
    return new AffinityTable({ timeoutMs: this.plain.timeoutMs, capacity: CAPACITY });
  }
}

interface Step {
  readonly kind: 'bind' | 'look' | 'release' | 'retain' | 'changeTimeout' | 'restart';
  readonly client: string;
  readonly endpointKey: string;
  /** Before the step. */
  readonly passesMs: number;
  readonly timeoutMs: number;
}

const KINDS = [
  'bind',
  'bind',
  'bind',
  'look',
  'look',
  'release',
  'retain',
  'changeTimeout',
  'restart',
] as const;

const steps: fc.Arbitrary<readonly Step[]> = fc.array(
  fc.record({
    kind: fc.constantFrom(...KINDS),
    client: fc.constantFrom('c1', 'c2', 'c3', 'c4', 'c5'),
    endpointKey: fc.constantFrom('a', 'b', 'c'),
    passesMs: fc.constantFrom(0, 1, 40, 60, 99, 100, 101),
    timeoutMs: fc.constantFrom(50, 100, 200),
  }),
  { minLength: 10, maxLength: 40 },
);

test('whatever happens, every client is tied as in a plain list: for its time-out to the millisecond, restarts included', () => {
  holds(
    steps,
    (all) => {
      const tables = new Tables();
      let now = 0;
      for (const step of all) {
        now += step.passesMs;
        tables[step.kind](step, now);
        const { plain, table } = tables;
        const inForce = plain.ties.filter((tie) => now - tie.lastUsed <= plain.timeoutMs);
        expect([...table.ties(now)]).toEqual(inForce);
        expect(table.size).toBe(plain.ties.length);
      }
    },
    1000,
  );
});
