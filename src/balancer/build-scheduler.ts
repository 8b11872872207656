/** The scheduler of a name: the one place that knows which class does what IPVS calls so. */
import type { SchedulerName } from '../model/service-policy.ts';
import { AddressHash } from './address-hash.ts';
import { LeastSessions, type SessionsOf } from './least-sessions.ts';
import { RandomChoice } from './random-choice.ts';
import { type Random, RoundRobin } from './round-robin.ts';
import type { Scheduler } from './scheduler.ts';

export interface SchedulerDeps {
  readonly random: Random;
  readonly sessionsOf: SessionsOf;
}

/**
 * A scheduler without endpoints yet. `dh` where a listener serves several addresses (destination '') sends
 * everybody to one endpoint, as it does for a single address.
 */
export function buildScheduler(name: SchedulerName, deps: SchedulerDeps): Scheduler {
  switch (name) {
    case 'rr':
      return new RoundRobin(deps.random);
    case 'random':
      return new RandomChoice(deps.random);
    case 'lc':
    case 'sed':
    case 'nq':
      return new LeastSessions(deps);
    case 'sh':
      return new AddressHash(({ client }) => client);
    case 'dh':
      return new AddressHash(({ destination }) => destination);
  }
}
