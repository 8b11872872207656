/** What a watch may suffer: no event is lost, and none is invented. Over real sockets. */
import { describe, expect, test } from 'vitest';
import { faults, statusObject } from '../../support/fake-api-server.ts';
import type { FakeWatch } from '../../support/fake-api-watch.ts';
import { makeService } from '../../support/objects.ts';
import {
  endInPeace,
  openWatch,
  startSeededServer,
  startSyncedSource,
  withMetadata,
} from '../../support/source-under-test.ts';

const REFUSED = { initial: 1, refused: 1 };
const CORRUPT = { initial: 1, corrupt: 1 };
const LISTED_ONCE = { initial: 1 };
const noVersion = { metadata: { name: 'ghost', namespace: 'default' } };
const noName = { metadata: { namespace: 'default', resourceVersion: '900' } };

/** Of every way to fail: what it is called, what it is counted as, and why there was another list, if at all. */
const failures = [
  ['is refused with 401', faults.status(401), 'ERR_API_STATUS', LISTED_ONCE],
  ['is refused with 403', faults.status(403), 'ERR_API_STATUS', LISTED_ONCE],
  ['is refused with 429', faults.tooManyRequests(), 'ERR_API_STATUS', LISTED_ONCE],
  ['is refused with 400', faults.status(400), 'ERR_API_STATUS', REFUSED],
  ['is refused with 404', faults.status(404), 'ERR_API_STATUS', REFUSED],
  ['is answered with 500', faults.status(500), 'ERR_API_STATUS', LISTED_ONCE],
  ['is answered with 503', faults.status(503), 'ERR_API_STATUS', LISTED_ONCE],
  ['is reset before its answer', faults.reset(), 'ERR_API_CONNECTION', LISTED_ONCE],
  ['is reset after its head', faults.resetAfter(0), 'ERR_API_CONNECTION', LISTED_ONCE],
  ['is reset in the middle of an event', faults.resetAfter(40), 'ERR_API_CONNECTION', LISTED_ONCE],
  ['is cut off in the middle of an event', faults.closeAfter(40), 'ERR_API_CONNECTION', LISTED_ONCE],
  ['ends in order in the middle of an event', faults.truncateAfter(40), 'ERR_API_CONNECTION', LISTED_ONCE],
  ['is empty', faults.empty(), 'ERR_API_CONNECTION', LISTED_ONCE],
  [
    'is ended with an ERROR event of 500',
    faults.errorEvent(statusObject({ code: 500 })),
    'ERR_API_STATUS',
    LISTED_ONCE,
  ],
  ['is ended with an ERROR event that says nothing', faults.errorEvent({}), 'ERR_API_STATUS', LISTED_ONCE],
  ['has a line that is no JSON', faults.badWatchLine(), 'ERR_API_RESPONSE', CORRUPT],
  ['has a line that is no event', faults.watchText('[]\n'), 'ERR_API_RESPONSE', CORRUPT],
  ['is a page of HTML, with 200', faults.html(), 'ERR_API_RESPONSE', CORRUPT],
  ['has an event of an unknown type', faults.unknownEvent(), 'ERR_API_RESPONSE', CORRUPT],
  ['has an event without a type', faults.malformedEvent({ object: noName }), 'ERR_API_RESPONSE', CORRUPT],
  ['has an event without an object', faults.malformedEvent({ type: 'ADDED' }), 'ERR_API_RESPONSE', CORRUPT],
  ['has text for an object', faults.malformedEvent(), 'ERR_API_RESPONSE', CORRUPT],
  [
    'has an object without version',
    faults.malformedEvent({ type: 'ADDED', object: noVersion }),
    'ERR_API_RESPONSE',
    CORRUPT,
  ],
  [
    'has an object without name',
    faults.malformedEvent({ type: 'DELETED', object: noName }),
    'ERR_API_RESPONSE',
    CORRUPT,
  ],
  [
    'has a bookmark without version',
    faults.malformedEvent({ type: 'BOOKMARK', object: { metadata: {} } }),
    'ERR_API_RESPONSE',
    CORRUPT,
  ],
  ['has a line longer than any event', faults.hugeLine(65 * 1024 * 1024), 'ERR_API_RESPONSE', CORRUPT],
] as const;

describe('a watch that fails', () => {
  test.each(failures)('%s: nothing is lost, nothing is invented', async (_name, fault, code, lists) => {
    await using server = await startSeededServer();
    await using source = await startSyncedSource(server);
    const scripted = server.failNext({ resource: 'services', operation: 'watch', with: fault });

    endInPeace(source, server, 'services');
    server.remove('services', 'default/db');
    server.put('services', makeService('new'));
    await source.caughtUp();
    server.put('services', makeService('later'));
    await source.caughtUp();

    expect(scripted.hits).toBe(1);
    expect(source.vanished).toEqual(['Service default/db']);
    expect(source.failures()).toEqual([`services watch ${code}`]);
    expect(source.logger.at('warn')).toMatchObject([
      { message: 'The API server cannot be watched, serving what was known' },
    ]);
    expect(source.lists('services')).toEqual(lists);
    expect(source.lists('endpointslices')).toEqual(LISTED_ONCE);
    expect(source.statistics.of('services').downSince).toBe(0);
  });

  test('goes on from the last event that was whole', async () => {
    await using server = await startSeededServer();
    await using source = await startSyncedSource(server);
    const first = openWatch(server, 'services');
    server.put('services', makeService('whole'));
    const version = server.resourceVersion;
    await source.caughtUp();

    server.skipSeen();
    await first.halfLine();
    first.reset();

    expect((await server.nextWatch('services')).query.get('resourceVersion')).toBe(String(version));
    await source.caughtUp();
    expect(source.failures()).toEqual(['services watch ERR_API_CONNECTION']);
    expect(source.lists('services')).toEqual(LISTED_ONCE);
  });

  test('for good is tried less and less often', async () => {
    await using server = await startSeededServer();
    await using source = await startSyncedSource(server);
    server.failNext({ resource: 'services', operation: 'watch', times: 5, with: faults.status(503) });
    openWatch(server, 'services').reset();
    server.put('services', makeService('new'));
    await source.caughtUp();

    expect(source.failureLines().map(({ retryMs }) => retryMs)).toEqual([20, 40, 50, 50, 50, 50]);
    const at = server.requestsOf('services', 'watch').map((request) => request.at);
    // Five pauses lie between the second watch and the seventh: 40 and four times 50.
    expect((at[6] ?? 0) - (at[1] ?? 0)).toBeGreaterThan(230);
    expect(at).toHaveLength(7);
    expect(source.vanished).toEqual([]);
  });

  test('by ending at once, again and again, is tried less and less often', async () => {
    await using server = await startSeededServer();
    const empty = server.failNext({
      resource: 'services',
      operation: 'watch',
      times: 8,
      with: faults.empty(),
    });
    await using source = await startSyncedSource(server);

    expect(empty.hits).toBe(8);
    expect(source.failureLines().map(({ retryMs }) => retryMs)).toEqual([20, 40, 50, 50, 50, 50, 50, 50]);
    const at = server.requestsOf('services', 'watch').map((request) => request.at);
    expect((at[8] ?? 0) - (at[0] ?? 0)).toBeGreaterThan(340);
    expect(source.failures()).toEqual(Array.from({ length: 8 }, () => 'services watch ERR_API_CONNECTION'));
    // They had no time to tell anything: that they did not says nothing about what we hold.
    expect(source.lists('services')).toEqual(LISTED_ONCE);
  });

  test('with nothing but an ERROR event, again and again, is no reason to list', async () => {
    await using server = await startSeededServer();
    const sick = faults.errorEvent(statusObject({ code: 500 }));
    server.failNext({ resource: 'services', operation: 'watch', times: 4, with: sick });
    await using source = await startSyncedSource(server);

    expect(source.lists('services')).toEqual(LISTED_ONCE);
    expect(source.statistics.of('services').events.get('ERROR')).toBe(4);
    expect(source.failures()).toEqual(Array.from({ length: 4 }, () => 'services watch ERR_API_STATUS'));
  });

  test('with 429 is left alone for as long as the server asks', async () => {
    await using server = await startSeededServer();
    server.failNext({ resource: 'services', operation: 'watch', with: faults.tooManyRequests(1) });
    await using source = await startSyncedSource(server);

    const [first, second] = server.requestsOf('services', 'watch');
    expect((second?.at ?? 0) - (first?.at ?? 0)).toBeGreaterThan(995);
    expect(source.failures()).toEqual(['services watch ERR_API_STATUS']);
  });
});

describe('events of a watch', () => {
  const note = 'Grüße, 日本, 🦀';

  test.each([
    ['in single bytes', 1],
    ['in chunks that are no divisor of anything', 7],
  ])('are whole when they come %s, also within a character', async (_name, size) => {
    await using server = await startSeededServer();
    await using source = await startSyncedSource(server);
    const annotations = { 'userspace-proxy.io/note': note };
    const object = makeService('db', withMetadata({ annotations, resourceVersion: '900' }));
    const line = JSON.stringify({ type: 'MODIFIED', object });
    await openWatch(server, 'services').sendSplit(`${line}\n\r\n`, size);
    await source.nextChange();

    const { objects } = await source.nextChange();
    expect(objects.services[0]?.metadata?.annotations).toEqual({ 'userspace-proxy.io/note': note });
    expect(source.failures()).toEqual([]);
  });

  test('are all taken when many come in one chunk', async () => {
    await using server = await startSeededServer();
    await using source = await startSyncedSource(server);
    const watch: FakeWatch = openWatch(server, 'services');
    const lines = Array.from({ length: 50 }, (_, index) =>
      JSON.stringify({
        type: 'ADDED',
        object: makeService(`s${index}`, withMetadata({ resourceVersion: String(900 + index) })),
      }),
    );
    await watch.send(`${lines.join('\n')}\n`);
    await source.observed(() => source.view.services.length === 52, 'all Services');
    expect(source.statistics.of('services').events.get('ADDED')).toBe(50);
    expect(source.failures()).toEqual([]);
  });

  test('with a malformed object do not keep the others from being taken', async () => {
    await using server = await startSeededServer();
    await using source = await startSyncedSource(server);
    await source.nextChange();
    server.put('services', { metadata: { namespace: 'default', name: 'bad' }, spec: { ports: 7 } });
    expect((await source.nextChange()).problems).toMatchObject([{ object: 'Service default/bad' }]);
    server.put('services', makeService('good'));
    await source.observed(() => source.view.services.length === 3, 'the good one');
    server.remove('services', 'default/bad');
    await source.observed(() => source.tellings.at(-1)?.problems.length === 0, 'the end of the report');
    await source.caughtUp();

    expect(source.vanished).toEqual([]);
    expect(source.failures()).toEqual([]);
    expect(source.lists('services')).toEqual(LISTED_ONCE);
  });
});
