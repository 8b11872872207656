/** Servers that fall silent in a list: the 30 s that one is given pass on vitest's timers. */
import { beforeAll, describe, expect, test, vi } from 'vitest';
import { faults } from '../../support/fake-api-server.ts';
import { makeService } from '../../support/objects.ts';
import {
  expire,
  servingSlice,
  startSeededServer,
  startSource,
  startSyncedSource,
} from '../../support/source-under-test.ts';

// Once for the whole file, before anything is asked: undici goes on with the timer that it began with. They go on by
// themselves too, as the short ones must.
beforeAll(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'], shouldAdvanceTime: true });
});

describe('a list that falls silent', () => {
  test.each([
    ['before its head', faults.stall()],
    ['after its head', faults.stallAfter(0)],
    ['in the middle', faults.stallAfter(300)],
  ])('%s at the start is read again, and nothing is told before', async (_name, fault) => {
    await using server = await startSeededServer();
    server.failNext({ resource: 'services', operation: 'list', with: fault });
    await using source = await startSource(server, { stallTimeoutMs: 3_600_000 });
    await source.observed(() => server.watches().length === 2, 'the watches of the others');
    vi.advanceTimersByTime(28_000);
    server.put('endpointslices', servingSlice('web', ['10.1.0.9']));
    await source.observed(
      () => source.statistics.of('endpointslices').events.get('MODIFIED') === 1,
      'an event',
    );
    expect(source.failures()).toEqual([]);
    vi.advanceTimersByTime(5000);
    await source.caughtUp();

    expect(source.failures()).toEqual(['services list ERR_API_STALLED']);
    expect(source.tellings).toHaveLength(1);
  });

  test('in the middle, later, deletes nothing and loses nothing', async () => {
    await using server = await startSeededServer();
    await using source = await startSyncedSource(server, { stallTimeoutMs: 3_600_000 });
    const stalled = server.failNext({
      resource: 'services',
      operation: 'list',
      with: faults.stallAfter(300),
    });
    expire(server, 'services');
    server.remove('services', 'default/db');
    server.put('services', makeService('new'));
    await source.observed(() => stalled.hits === 1, 'the list');
    vi.advanceTimersByTime(33_000);
    await source.caughtUp();

    expect(source.vanished).toEqual(['Service default/db']);
    expect(source.failures()).toEqual(['services watch ERR_API_STATUS', 'services list ERR_API_STALLED']);
  });
});
