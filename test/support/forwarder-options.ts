/** What a forwarder needs to be told, for tests that are about something else: no limits, nobody is ever ejected. */
import type { EntranceOptions } from '../../src/proxy/entrance.ts';
import type { ForwarderOptions } from '../../src/proxy/forwarder.ts';

/** Of nothing there is too much. */
export const NO_LIMITS: EntranceOptions = {
  descriptorLimit: Number.POSITIVE_INFINITY,
  descriptorReserve: 0,
  maxConnections: 0,
  maxConnectionsPerService: 0,
  maxUdpSessions: 1_000_000,
  maxUdpSessionsPerService: 0,
};

export function makeForwarderOptions({
  balancer,
  ...tweak
}: Partial<Omit<ForwarderOptions, 'balancer'>> & {
  readonly balancer?: Partial<ForwarderOptions['balancer']>;
} = {}): ForwarderOptions {
  return {
    dialTimeoutsMs: [250, 500],
    maxConcurrentDials: 1_000,
    entrance: NO_LIMITS,
    ...tweak,
    balancer: {
      affinityCapacity: 100,
      random: () => 0,
      scheduler: 'rr',
      ejection: { timeMs: 0, trialMs: 0 },
      ...balancer,
    },
  };
}
