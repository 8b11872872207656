/** A scheduler with its endpoints, and sessions that the test begins and ends. */
import { buildScheduler } from '../../src/balancer/build-scheduler.ts';
import type { Scheduler } from '../../src/balancer/scheduler.ts';
import { SessionCounts } from '../../src/balancer/session-counts.ts';
import type { Endpoint } from '../../src/model/endpoint.ts';
import type { SchedulerName } from '../../src/model/service-policy.ts';
import { Random } from '../support/random.ts';
import { makeEndpoint } from '../support/snapshots.ts';

export class SchedulerFixture {
  readonly scheduler: Scheduler;
  readonly sessions = new SessionCounts();

  constructor(name: SchedulerName, endpoints: readonly Endpoint[], random = new Random(1)) {
    this.scheduler = buildScheduler(name, {
      random: () => random.next(),
      sessionsOf: (key) => this.sessions.of(key),
    });
    this.scheduler.setEndpoints(endpoints);
  }

  /** The key picked, of a client that asked for 10.96.0.10 unless told; nobody is refused unless told. */
  pick(
    client: string,
    refused: ReadonlySet<string> = new Set(),
    destination = '10.96.0.10',
  ): string | undefined {
    return this.scheduler.pick({ client, destination }, ({ key }) => !refused.has(key))?.key;
  }

  /** A session that stays, and the key it went to. */
  begin(client: string): string {
    const key = this.pick(client);
    if (key === undefined) throw new Error('there is nobody to pick');
    this.sessions.began(key);
    return key;
  }
}

/** `count` endpoints, sorted by key. */
export function endpointsOf(count: number, family: 'IPv4' | 'IPv6' = 'IPv4'): Endpoint[] {
  return Array.from({ length: count }, (_, index) => makeEndpoint(addressOf(index, family), 8080)).sort(
    (a, b) => (a.key < b.key ? -1 : 1),
  );
}

function addressOf(index: number, family: 'IPv4' | 'IPv6'): string {
  return family === 'IPv4'
    ? `10.244.${Math.floor(index / 250)}.${(index % 250) + 2}`
    : `fd00:10:244::${(index + 2).toString(16)}`;
}

/** The last addresses of a cluster's pods: the hardest case of a hash, because they hardly differ. */
export function clientsOf(count: number, family: 'IPv4' | 'IPv6' = 'IPv4'): string[] {
  return Array.from({ length: count }, (_, index) =>
    family === 'IPv4'
      ? `10.200.${index >> 8}.${index & 255}`
      : `fd00:10:200::${(index >> 8).toString(16)}:${(index & 255).toString(16)}`,
  );
}

/** How often each value occurs. */
export function countsOf<T>(values: Iterable<T>): Map<T, number> {
  const counts = new Map<T, number>();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  return counts;
}

/**
 * What `unevenness` of an even spread stays below: chance exceeds it once in some ten thousand times. With fixed
 * inputs a test that compares with it says the same every time.
 */
export const EVEN = 5;

/**
 * How much less evenly `values` spread over `kinds` kinds than chance would spread them: by how many standard
 * deviations Pearson's chi-square is above its mean. Negative: more evenly.
 */
export function unevenness(values: readonly unknown[], kinds: number): number {
  const expected = values.length / kinds;
  const counts = [...countsOf(values).values()];
  const missing = (kinds - counts.length) * expected;
  const sum = counts.reduce((total, count) => total + (count - expected) ** 2 / expected, missing);
  return (sum - (kinds - 1)) / Math.sqrt(2 * (kinds - 1));
}
