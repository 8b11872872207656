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
    // The others, which are asked for two seconds, are then to have lived when they end.
    source.clock.advance(1000);
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
    // The first watches, which are asked for two seconds, are to have lived when they end.
    source.clock.advance(1000);
    const { events } = source.statistics.of('services');
    // More than two seconds of them after those: a stall would have been noticed.
    await source.observed(() => (events.get('BOOKMARK') ?? 0) >= 24, 'two dozen bookmarks', 25_000);

    expect(source.failures()).toEqual([]);
    expect(openWatch(server, 'services').query.get('timeoutSeconds')).toBe('300');
    expect(source.lists('services')).toEqual({ initial: 1 });
  });

  test('after bookmarks have come is renewed at once without a warning, and for a short time', async ({
    expect,
  }) => {
    await using server = await startSeededServer();
    await using source = await startSyncedSource(server, {
      ...STALL,
      // Any pause would last for longer than the test may.
      backoff: { minMs: 60_000, maxMs: 60_000 },
    });
    server.skipSeen();
    endInPeace(source, server, 'services');
    const long = await server.nextWatch('services');
    const short = await server.nextWatch('services', { timeoutMs: 20_000 });

    expect(long.query.get('timeoutSeconds')).toBe('300');
    expect(short.query.get('timeoutSeconds')).toBe('2');
    expect(source.failureLines().find(({ resource }) => resource === 'services')).toMatchObject({
      level: 'debug',
      retryMs: 0,
      error: { code: 'ERR_API_STALLED' },
    });
  });

  test('for good, granted again and again: nothing is lost, and after two it is listed', async ({
    expect,
  }) => {
    await using server = await startSeededServer();
    await using source = await startSyncedSource(server, STALL);
    const { watches: before } = source.statistics.of('services');
    server.skipSeen();
    openWatch(server, 'services').stall();
    source.clock.advance(1000);
    (await server.nextWatch('services', { timeoutMs: 20_000 })).stall();
    server.remove('services', 'default/db');
    server.put('services', makeService('new'));
    await source.observed(() => source.statistics.of('services').watches > before, 'the second watch');
    source.clock.advance(1000);
    await source.caughtUp({ timeoutMs: 20_000 });

    expect(source.lists('services')).toEqual({ initial: 1, silent: 1 });
    expect(source.vanished).toEqual(['Service default/db']);
    const ours = source.failures().filter((failure) => failure.startsWith('services '));
    expect(ours.slice(0, 2)).toEqual(['services watch ERR_API_STALLED', 'services watch ERR_API_STALLED']);
  });
});
