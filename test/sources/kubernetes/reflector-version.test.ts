/** Resource versions: what is asked with which, and what is done when the server does not know one any more. */
import { describe, expect, test } from 'vitest';
import type { ResourceName } from '../../../src/sources/kubernetes/api-statistics.ts';
import { type FakeApiServer, faults } from '../../support/fake-api-server.ts';
import { makeService } from '../../support/objects.ts';
import {
  type SourceUnderTest,
  endInPeace,
  expire,
  keysOf,
  openWatch,
  startSeededServer,
  startSyncedSource,
  withMetadata,
} from '../../support/source-under-test.ts';

const TOO_LARGE = faults.status(504, {
  message: 'Too large resource version: 900, current: 104',
  causes: [{ reason: 'ResourceVersionTooLarge', message: 'Too large resource version' }],
});
const RESOURCES = ['services', 'endpointslices', 'nodes'] as const;

/** The parameters of the lists of that resource, but for the selectors. */
function listQueries(server: FakeApiServer, resource: ResourceName = 'services'): object[] {
  return server.requestsOf(resource, 'list').map(({ query }) => {
    const { labelSelector: _labels, fieldSelector: _fields, ...rest } = Object.fromEntries(query);
    return rest;
  });
}

/** Objects enough for two pages. */
function putMany(server: FakeApiServer, count: number): void {
  for (let index = 0; index < count; index += 1) server.put('services', makeService(`many-${index}`));
}

/** The watch of Services has told nothing for half of the watchdog's minute when it is reset; until the next is open. */
async function cutSilent(source: SourceUnderTest, server: FakeApiServer): Promise<void> {
  await source.observed(() => source.statistics.of('services').isWatching, 'the watch');
  server.skipSeen();
  source.clock.advance(30_000);
  openWatch(server, 'services').reset();
  await server.nextWatch('services');
}

describe('what is asked', () => {
  test.each(RESOURCES)('the first list of %s takes what the server has at hand', async (resource) => {
    await using server = await startSeededServer();
    await using _source = await startSyncedSource(server);

    expect(listQueries(server, resource)).toEqual([{ resourceVersion: '0' }]);
  });

  test.each([
    ['30', 0],
    ['38', 0.499],
    ['47', 0.999],
  ])('a watch goes on from the list, with bookmarks, for %s seconds', async (timeoutSeconds, random) => {
    await using server = await startSeededServer();
    await using _source = await startSyncedSource(server, { random: () => random, stallTimeoutMs: 60_000 });

    for (const resource of RESOURCES) {
      const { query } = openWatch(server, resource);
      expect(Object.fromEntries(query)).toMatchObject({
        watch: '1',
        allowWatchBookmarks: 'true',
        resourceVersion: '104',
        timeoutSeconds,
      });
    }
  });

  test('after a bookmark a watch is asked for 300 seconds, of that resource and no other', async () => {
    await using server = await startSeededServer();
    await using source = await startSyncedSource(server, { stallTimeoutMs: 60_000 });
    server.skipSeen();
    endInPeace(source, server, 'services');
    openWatch(server, 'nodes').end();

    expect((await server.nextWatch('services')).query.get('timeoutSeconds')).toBe('300');
    expect((await server.nextWatch('nodes')).query.get('timeoutSeconds')).toBe('30');
    expect(source.failures()).toEqual([]);
  });

  test('after a bookmark a watch goes on from there', async () => {
    await using server = await startSeededServer();
    await using source = await startSyncedSource(server);
    server.skipSeen();
    server.advance(50);
    server.bookmark('services');
    openWatch(server, 'services').reset();

    expect((await server.nextWatch('services')).query.get('resourceVersion')).toBe('154');
    await source.caughtUp();
    expect(source.tellings).toHaveLength(1);
    expect(source.statistics.of('services').events.get('BOOKMARK')).toBe(1);
  });

  test('without bookmarks a watch goes on from the last event, and nothing is missed', async () => {
    await using server = await startSeededServer({ withholdBookmarks: true });
    await using source = await startSyncedSource(server);
    server.skipSeen();
    server.put('services', makeService('new'));
    server.advance(50);
    server.bookmark('services');
    openWatch(server, 'services').reset();
    server.remove('services', 'default/db');

    expect((await server.nextWatch('services')).query.get('resourceVersion')).toBe('105');
    await source.caughtUp();
    expect(source.lists('services')).toEqual({ initial: 1 });
  });

  test('where watches told nothing for half a minute, two are followed by a list, and four by the next', async () => {
    await using server = await startSeededServer({ withholdBookmarks: true });
    await using source = await startSyncedSource(server, { stallTimeoutMs: 60_000 });
    for (let count = 1; count <= 7; count += 1) await cutSilent(source, server);
    await source.caughtUp();

    expect(source.lists('services')).toEqual({ initial: 1, silent: 2 });
    const fresh = { resourceVersion: '104' };
    expect(listQueries(server)).toEqual([{ resourceVersion: '0' }, fresh, fresh]);
    expect(source.tellings).toHaveLength(1);
    expect(source.failureLines().map(({ level }) => level)).toEqual(Array.from({ length: 7 }, () => 'debug'));
  });

  test('where watches break early nothing is listed: they had no time to tell anything', async () => {
    await using server = await startSeededServer({ withholdBookmarks: true });
    await using source = await startSyncedSource(server);
    for (let count = 1; count <= 7; count += 1) {
      server.skipSeen();
      openWatch(server, 'services').reset();
      await server.nextWatch('services');
    }
    await source.caughtUp();

    expect(source.lists('services')).toEqual({ initial: 1 });
    expect(source.failures()).toHaveLength(7);
  });
});

describe('a version that is too old', () => {
  test.each(['status', 'event'] as const)(
    'told as %s: one consistent list at once, which sees what was deleted meanwhile',
    async (goneAs) => {
      await using server = await startSeededServer({ goneAs });
      // Any pause would last for longer than the test may.
      await using source = await startSyncedSource(server, { backoff: { minMs: 60_000, maxMs: 60_000 } });
      endInPeace(source, server, 'services');
      server.remove('services', 'default/db');
      server.put('services', makeService('new'));
      server.compact();
      await source.caughtUp();

      expect(listQueries(server)).toEqual([{ resourceVersion: '0' }, { limit: '500' }]);
      expect(source.lists('services')).toEqual({ initial: 1, expired: 1 });
      expect(source.failures()).toEqual(['services watch ERR_API_STATUS']);
      expect(source.failureLines()).toMatchObject([{ level: 'debug', retryMs: 0 }]);
      expect(source.tellings).toHaveLength(2);
      expect(source.vanished).toEqual(['Service default/db']);
      expect(openWatch(server, 'services').query.get('resourceVersion')).toBe(String(server.resourceVersion));
    },
  );

  test('again and again is no reason to list as fast as the server answers', async () => {
    await using server = await startSeededServer();
    server.failNext({ resource: 'services', operation: 'watch', times: 6, with: faults.expired() });
    await using source = await startSyncedSource(server);

    expect(source.failureLines().map(({ retryMs }) => retryMs)).toEqual([0, 40, 50, 50, 50, 50]);
    expect(source.lists('services')).toEqual({ initial: 1, expired: 6 });
    const at = server.requestsOf('services', 'list').map((request) => request.at);
    expect((at[6] ?? 0) - (at[1] ?? 0)).toBeGreaterThan(230);
    expect(at).toHaveLength(7);
  });

  test('of one resource is no reason to list the others', async () => {
    await using server = await startSeededServer();
    await using source = await startSyncedSource(server);
    expire(server, 'endpointslices');
    server.put('services', makeService('new'));
    server.remove('endpointslices', 'default/web-ipv4');
    await source.caughtUp();

    expect(source.lists('endpointslices')).toEqual({ initial: 1, expired: 1 });
    expect(source.lists('services')).toEqual({ initial: 1 });
    expect(source.lists('nodes')).toEqual({ initial: 1 });
  });
});

describe('a consistent list', () => {
  test('is read in pages, all of which count', async () => {
    await using server = await startSeededServer();
    putMany(server, 1100);
    await using source = await startSyncedSource(server);
    expire(server, 'services');
    server.remove('services', 'default/many-1099');
    server.remove('services', 'default/many-0');
    await source.caughtUp();

    const page = { limit: '500', continue: expect.any(String) };
    expect(listQueries(server)).toEqual([{ resourceVersion: '0' }, { limit: '500' }, page, page]);
    expect(source.vanished).toEqual(['Service default/many-0', 'Service default/many-1099']);
    expect(source.failures()).toEqual(['services watch ERR_API_STATUS']);
  });

  test.each([
    ['whose continue token expires', faults.expired()],
    ['that changes between two pages', faults.otherVersion('7')],
  ])('%s is read again, whole, and without a failure', async (_name, fault) => {
    await using server = await startSeededServer();
    putMany(server, 600);
    await using source = await startSyncedSource(server);
    server.failNext({ resource: 'services', continued: true, with: fault });
    expire(server, 'services');
    server.remove('services', 'default/many-599');
    await source.caughtUp();

    const page = { limit: '500', continue: expect.any(String) };
    expect(listQueries(server)).toEqual([{ resourceVersion: '0' }, { limit: '500' }, page, {}]);
    expect(source.vanished).toEqual(['Service default/many-599']);
    expect(source.failures()).toEqual(['services watch ERR_API_STATUS']);
  });

  test.each([
    ['is reset', faults.resetAfter(1000), 'ERR_API_CONNECTION'],
    ['is answered with 500', faults.status(500), 'ERR_API_STATUS'],
    ['promises itself', faults.sameContinue(), 'ERR_API_RESPONSE'],
  ])('whose second page %s deletes nothing', async (_name, fault, code) => {
    await using server = await startSeededServer();
    putMany(server, 600);
    await using source = await startSyncedSource(server);
    server.failNext({ resource: 'services', operation: 'list', continued: true, with: fault });
    expire(server, 'services');
    server.remove('services', 'default/db');
    await source.caughtUp();

    expect(source.vanished).toEqual(['Service default/db']);
    expect(source.failures()).toEqual(['services watch ERR_API_STATUS', `services list ${code}`]);
  });
});

describe('a server whose versions went back', () => {
  test('is seen by an event that is older than what is known: a consistent list', async () => {
    await using server = await startSeededServer();
    await using source = await startSyncedSource(server);
    server.setResourceVersion(50);
    server.remove('services', 'default/db');
    const object = { ...server.objects('services')[0], metadata: { name: 'x', resourceVersion: '51' } };
    await openWatch(server, 'services').event('MODIFIED', object);
    await source.caughtUp();

    expect(source.lists('services')).toEqual({ initial: 1, restored: 1 });
    expect(listQueries(server)).toEqual([{ resourceVersion: '0' }, { limit: '500' }]);
    expect(source.vanished).toEqual(['Service default/db']);
    expect(openWatch(server, 'services').query.get('resourceVersion')).toBe('51');
    server.put('services', makeService('later'));
    await source.caughtUp();
    expect(source.failures()).toEqual(['services watch ERR_API_STATUS']);
  });

  test('is seen by a bookmark that is older than what is known: a consistent list', async () => {
    await using server = await startSeededServer();
    await using source = await startSyncedSource(server);
    server.setResourceVersion(50);
    await openWatch(server, 'services').event('BOOKMARK', { metadata: { resourceVersion: '50' } });
    await source.observed(() => source.lists('services').restored === 1, 'the list');
    await source.caughtUp();

    expect(source.tellings).toHaveLength(1);
    expect(source.failures()).toEqual(['services watch ERR_API_STATUS']);
  });

  test('is seen by the list that follows silence: one step, which falls to a consistent list', async () => {
    await using server = await startSeededServer();
    await using source = await startSyncedSource(server, { stallTimeoutMs: 60_000 });
    server.setResourceVersion(50);
    server.remove('services', 'default/db');
    server.put('services', makeService('new'));
    for (const _ of ['first', 'second']) await cutSilent(source, server);
    await source.caughtUp();

    expect(listQueries(server)).toEqual([
      { resourceVersion: '0' },
      { resourceVersion: '104' },
      { limit: '500' },
    ]);
    expect(source.lists('services')).toEqual({ initial: 1, silent: 1 });
    expect(source.vanished).toEqual(['Service default/db']);
    expect(source.failures()).toEqual([
      'services watch ERR_API_CONNECTION',
      'services watch ERR_API_CONNECTION',
    ]);
  });

  test('is seen by the list that follows nonsense: one step, which falls to a consistent list', async () => {
    await using server = await startSeededServer();
    await using source = await startSyncedSource(server);
    server.setResourceVersion(50);
    server.remove('services', 'default/db');
    await openWatch(server, 'services').send('no JSON\n');
    await source.caughtUp();

    expect(listQueries(server)).toEqual([
      { resourceVersion: '0' },
      { resourceVersion: '104' },
      { limit: '500' },
    ]);
    expect(source.lists('services')).toEqual({ initial: 1, corrupt: 1 });
    expect(source.vanished).toEqual(['Service default/db']);
    expect(source.failures()).toEqual(['services watch ERR_API_RESPONSE']);
  });

  test('may say so to a watch too: a consistent list', async () => {
    await using server = await startSeededServer();
    await using source = await startSyncedSource(server);
    server.failNext({ resource: 'services', operation: 'watch', with: TOO_LARGE });
    endInPeace(source, server, 'services');
    server.remove('services', 'default/db');
    await source.caughtUp();

    expect(listQueries(server)).toEqual([{ resourceVersion: '0' }, { limit: '500' }]);
    expect(source.lists('services')).toEqual({ initial: 1, restored: 1 });
    expect(source.failures()).toEqual(['services watch ERR_API_STATUS']);
  });

  test('versions that are no numbers cannot be compared, and are taken as they come', async () => {
    await using server = await startSeededServer();
    await using source = await startSyncedSource(server);
    const service = makeService('odd', withMetadata({ resourceVersion: 'b' }));
    const before = makeService('odd', withMetadata({ resourceVersion: 'a' }));
    await openWatch(server, 'services').event('ADDED', service);
    await openWatch(server, 'services').event('DELETED', before);
    await openWatch(server, 'services').event('ADDED', before);
    await source.observed(() => source.statistics.of('services').events.get('ADDED') === 2, 'both');
    await source.observed(() => keysOf(source.view).includes('Service default/odd'), 'the Service');

    expect(source.failures()).toEqual([]);
  });
});
