/**
 * Backends are killed and brought back under load, and the only requests that fail are those that were under way on their
 * own connections. `bench/killed-backend.ts` is the same for as long as one likes, with figures.
 */
import { describe, expect, test } from 'vitest';
import { accountFor } from '../../support/load-accounting.ts';
import { runKilledBackend } from '../../support/load-killed-backend.ts';
import { canMakeNamespaces } from '../../support/netns-lab.ts';

const isLong = process.env['KUP_TEST_LONG'] === '1';
/** The short form has a tenth of the load: CI does other things at the same time. */
const LOAD = isLong
  ? { seconds: 180, keptPerSecond: 2_000, keptConnections: 64, freshPerSecond: 300 }
  : { seconds: 5, keptPerSecond: 200, keptConnections: 16, freshPerSecond: 40 };
const PACE = isLong ? { killEveryMs: 5_000, downMs: 2_500 } : { killEveryMs: 1_800, downMs: 400 };

describe.skipIf(canMakeNamespaces() !== undefined)(
  'while one of three backends after the other is killed',
  () => {
    test.for([
      { name: 'stays in the EndpointSlice', removesEndpoint: false },
      { name: 'leaves the EndpointSlice with it', removesEndpoint: true },
    ])(
      'no request fails but on its own connections, where its endpoint $name',
      {
        timeout: LOAD.seconds * 1_000 + 90_000,
      },
      async ({ removesEndpoint }) => {
        const { kept, fresh, kills } = await runKilledBackend({ ...LOAD, ...PACE, removesEndpoint });
        expect(kills.length).toBeGreaterThanOrEqual(1);
        expect(Object.keys(fresh.byBackend).toSorted()).toEqual(['pod1', 'pod2', 'pod3']);
        expect(accountFor([...kept.failures, ...fresh.failures], kills).unaccounted).toEqual([]);
        // What the dead took along was not the point of most requests.
        expect(kept.latencyMs.length).toBeGreaterThan(0.8 * kept.requests);
        expect(fresh.latencyMs.length).toBeGreaterThan(0.8 * fresh.requests);
      },
    );
  },
);
