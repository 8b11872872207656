/** A balancer with the clock in the test's hand, and endpoints `10.0.0.<last>:80` by their last part. */
import { Balancer } from '../../src/balancer/balancer.ts';
import type { SchedulerName, SessionAffinity } from '../../src/model/service-policy.ts';
import { NO_AFFINITY, makeEndpoints } from '../support/snapshots.ts';

export interface BalancerSetting {
  readonly affinity?: SessionAffinity;
  readonly capacity?: number;
  readonly scheduler?: SchedulerName;
  readonly random?: () => number;
}

export class BalancerFixture {
  readonly balancer: Balancer;
  now = 0;

  /** Without affinity, `rr` from the first endpoint on, unless told. */
  constructor(lasts: readonly number[] = [], setting: BalancerSetting = {}) {
    const { affinity = NO_AFFINITY, capacity = 100, scheduler = 'rr', random = () => 0 } = setting;
    this.balancer = new Balancer({
      affinityCapacity: capacity,
      random,
      scheduler,
      ejection: { timeMs: 0, trialMs: 0 },
    });
    this.balancer.setAffinity(affinity);
    this.balancer.setEndpoints(makeEndpoints(...lasts));
  }

  set(...lasts: readonly number[]): boolean {
    return this.balancer.setEndpoints(makeEndpoints(...lasts));
  }

  /** The last part of the endpoint picked, or undefined; no word yet whether it answers. */
  pick(client = 'client', excluded: readonly number[] = []): number | undefined {
    const keys = new Set(excluded.map(keyOf));
    const picked = this.balancer.pick({ client, destination: '' }, this.now, keys);
    return picked === undefined ? undefined : Number(picked.address.split('.')[3]);
  }

  /** A connection that its endpoint answers. */
  connect(client = 'client'): number | undefined {
    const picked = this.pick(client);
    if (picked !== undefined) this.balancer.succeeded(client, keyOf(picked), this.now);
    return picked;
  }

  connects(count: number, client = 'client'): (number | undefined)[] {
    return Array.from({ length: count }, () => this.connect(client));
  }

  /** `count` sessions that are dialled to the endpoint and stay. */
  begin(last: number, count = 1): void {
    for (let begun = 0; begun < count; begun += 1) this.balancer.sessionBegan(keyOf(last));
  }

  end(last: number): void {
    this.balancer.sessionEnded(keyOf(last));
  }

  sessionsOf(last: number): number {
    return this.balancer.sessionsOf(keyOf(last));
  }
}

/** `10.0.0.<last>:80`. */
export function keyOf(last: number): string {
  return `10.0.0.${last}:80`;
}
