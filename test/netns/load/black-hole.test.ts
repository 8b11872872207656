/**
 * A dead backend costs the clients of its Service one slow connection for each of its ejections. Counts only: what is
 * fast, and at which length of run, is for `bench/black-hole.ts`.
 */
import { describe, expect, test } from 'vitest';
import { runBlackHole } from '../../support/load-black-hole.ts';
import { ejectionFigures } from '../../support/load-ejections.ts';
import { canMakeNamespaces } from '../../support/netns-lab.ts';

const isLong = process.env['KUP_TEST_LONG'] === '1';
const SECONDS = isLong ? 60 : 5;
const PER_SECOND = isLong ? 200 : 100;

describe.skipIf(canMakeNamespaces() !== undefined)(
  'a Service of which one of two backends is black-holed',
  () => {
    test('fails no request, and lets one dial wait for the dead backend in each ejection period', {
      timeout: SECONDS * 1_000 + 90_000,
    }, async () => {
      const { healthy, dark, ...rest } = await runBlackHole({ seconds: SECONDS, perSecond: PER_SECOND });
      expect([healthy.failures, dark.failures]).toEqual([[], []]);
      expect(Object.keys(healthy.byBackend).toSorted()).toEqual(['pod1', 'pod2']);
      expect(dark.byBackend).toEqual({ pod2: SECONDS * PER_SECOND });
      const { periods } = ejectionFigures({ dark, ...rest });
      // Of 1 s, 2 s, and the beginning of one of 4 s.
      expect(periods.length).toBeGreaterThanOrEqual(2);
      expect(periods.map(({ timeouts }) => timeouts).filter((timeouts) => timeouts > 1)).toEqual([]);
    });
  },
);
