/**
 * Servers that fall silent in a watch: in real time, and side by side, because undici's timers are no finer than a
 * second.
 */
import { describe, test } from 'vitest';
import { faults } from '../../support/fake-api-server.ts';
import { makeService } from '../../support/objects.ts';
import {
  endInPeace,
  openWatch,
  startSeededServer,
  startSyncedSource,
} from '../../support/source-under-test.ts';

const STALL = { stallTimeoutMs: 1000 };
/** A stall is noticed within two seconds; a loaded machine may need more. */
const TIMEOUT = { timeout: 30_000 };

describe.concurrent('a watch that falls silent', TIMEOUT, () => {
  test('before its head is given up, and the next one tells what it missed', async ({ expect }) => {
    await using server = await startSeededServer({ bookmarkIntervalMs: 100 });
    await using source = await startSyncedSource(server, STALL);
    server.failNext({ resource: 'services', operation: 'watch', with: faults.stall() });
    endInPeace(source, server, 'services');
    server.remove('services', 'default/db');
    await source.caughtUp();

    expect(source.failures()).toEqual(['services watch ERR_API_STALLED']);
    expect(source.lists('services')).toEqual({ initial: 1 });
    expect(source.vanished).toEqual(['Service default/db']);
  });

  test('in the middle of an event is given up, and the next one tells it whole', async ({ expect }) => {
    await using server = await startSeededServer({ bookmarkIntervalMs: 100 });
    await using source = await startSyncedSource(server, STALL);
    const watch = openWatch(server, 'services');
    server.bookmark();
    await watch.halfLine();
    watch.stall();
    server.put('services', makeService('new'));
    server.remove('services', 'default/db');
    await source.caughtUp();

    expect(source.failures()).toEqual(['services watch ERR_API_STALLED']);
    expect(source.lists('services')).toEqual({ initial: 1 });
    expect(source.vanished).toEqual(['Service default/db']);
  });

  test('is no watch that is sound and hears bookmarks only', async ({ expect }) => {
    await using server = await startSeededServer({ bookmarkIntervalMs: 200 });
    await using source = await startSyncedSource(server, STALL);
    const { events } = source.statistics.of('services');
    // More than two seconds of them: a stall would have been noticed.
    await source.observed(() => (events.get('BOOKMARK') ?? 0) >= 14, 'fourteen bookmarks');

    expect(source.failures()).toEqual([]);
  });

  test('for good, granted again and again: nothing is lost, and every other time it is listed', async ({
    expect,
  }) => {
    await using server = await startSeededServer();
    await using source = await startSyncedSource(server, STALL);
    server.skipSeen();
    openWatch(server, 'services').stall();
    server.remove('services', 'default/db');
    const second = await server.nextWatch('services');
    second.stall();
    server.put('services', makeService('new'));
    await server.nextWatch('services');
    await source.caughtUp();

    expect(source.lists('services')['silent'] ?? 0).toBeLessThan(2);
    expect(source.vanished).toEqual(['Service default/db']);
    expect(new Set(source.failures().map((failure) => failure.split(' ').slice(1).join(' ')))).toEqual(
      new Set(['watch ERR_API_STALLED']),
    );
  });
});
