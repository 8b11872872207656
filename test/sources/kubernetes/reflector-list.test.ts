/** What a list may suffer, and that nothing is acted on before one is complete. Over real sockets. */
import { describe, expect, test } from 'vitest';
import type { FakeApiServer } from '../../support/fake-api-server.ts';
import { faults } from '../../support/fake-api-server.ts';
import { makeService } from '../../support/objects.ts';
import {
  annotated,
  expire,
  keysOf,
  startSeededServer,
  startSource,
  startSyncedSource,
} from '../../support/source-under-test.ts';

const SOON = { backoff: { minMs: 2, maxMs: 10 } };
const withoutVersion = (list: object): object => ({ ...list, metadata: {} });
const withMore = (list: object): object => ({
  ...list,
  metadata: { resourceVersion: '104', continue: 7 },
});

/** Of every way to fail: what it is called, and what it is counted as. */
const failures = [
  ['is refused with 400', faults.status(400), 'ERR_API_STATUS'],
  ['is refused with 401', faults.status(401), 'ERR_API_STATUS'],
  ['is refused with 403', faults.status(403), 'ERR_API_STATUS'],
  ['is refused with 404', faults.status(404), 'ERR_API_STATUS'],
  ['is answered with 410', faults.expired(), 'ERR_API_STATUS'],
  ['is refused with 429', faults.tooManyRequests(), 'ERR_API_STATUS'],
  ['is answered with 500', faults.status(500), 'ERR_API_STATUS'],
  ['is answered with 503', faults.status(503), 'ERR_API_STATUS'],
  ['is answered with 503 and a page of HTML', faults.html(503), 'ERR_API_STATUS'],
  ['is answered with a redirect', faults.text('', { status: 302 }), 'ERR_API_STATUS'],
  ['is reset before its answer', faults.reset(), 'ERR_API_CONNECTION'],
  ['is reset after its head', faults.resetAfter(0), 'ERR_API_CONNECTION'],
  ['is reset in the middle', faults.resetAfter(300), 'ERR_API_CONNECTION'],
  ['is cut off in the middle', faults.closeAfter(300), 'ERR_API_CONNECTION'],
  ['is reset after its last byte', faults.resetAfter(1e6), 'ERR_API_CONNECTION'],
  ['ends in the middle as if it were whole', faults.truncateAfter(300), 'ERR_API_RESPONSE'],
  ['is empty', faults.empty(), 'ERR_API_RESPONSE'],
  ['is no JSON', faults.badJson(), 'ERR_API_RESPONSE'],
  ['is a page of HTML, with 200', faults.html(), 'ERR_API_RESPONSE'],
  ['is null', faults.text('null'), 'ERR_API_RESPONSE'],
  ['is of another kind', faults.wrongListKind(), 'ERR_API_RESPONSE'],
  ['has a map of items', faults.wrongItems({}), 'ERR_API_RESPONSE'],
  ['has no resource version', faults.list(withoutVersion), 'ERR_API_RESPONSE'],
  ['has a continue token that is none', faults.list(withMore), 'ERR_API_RESPONSE'],
] as const;

describe('a first list that fails', () => {
  test.each(failures)('%s: nothing is told before it was read again, whole', async (_name, fault, code) => {
    await using server = await startSeededServer();
    const scripted = server.failNext({ resource: 'services', operation: 'list', times: 2, with: fault });
    await using source = await startSource(server, SOON);
    await source.caughtUp();

    expect(scripted.hits).toBe(2);
    expect(source.tellings).toHaveLength(1);
    expect(source.failures()).toEqual([`services list ${code}`, `services list ${code}`]);
    expect(source.logger.withMessage('The API server cannot be listed, waiting for it')).toHaveLength(2);
    expect(server.requestsOf('services', 'list')).toHaveLength(3);
    expect(server.requestsOf('endpointslices', 'list')).toHaveLength(1);
  });
});

describe('a later list that fails', () => {
  test.each(failures)('%s: deletes nothing, and loses nothing', async (_name, fault, code) => {
    await using server = await startSeededServer();
    await using source = await startSyncedSource(server, SOON);
    const scripted = server.failNext({ resource: 'services', operation: 'list', times: 2, with: fault });

    expire(server, 'services');
    server.remove('services', 'default/db');
    server.put('services', makeService('new'));
    await source.observed(() => scripted.hits === 2, 'both faults');
    expect(keysOf(source.view)).toContain('Service default/db');
    await source.caughtUp();

    expect(source.tellings).toHaveLength(2);
    expect(source.vanished).toEqual(['Service default/db']);
    expect(source.failures()).toEqual([
      'services watch ERR_API_STATUS',
      `services list ${code}`,
      `services list ${code}`,
    ]);
    expect(source.lists('services')).toEqual({ initial: 1, expired: 3 });
    expect(source.lists('endpointslices')).toEqual({ initial: 1 });
  });

  test('and fails again and again is read less and less often', async () => {
    await using server = await startSeededServer();
    server.failNext({ resource: 'services', operation: 'list', times: 5, with: faults.status(500) });
    await using source = await startSyncedSource(server);

    expect(gapsOf(server, 'services').slice(0, 5)).toEqual(atLeast([20, 40, 50, 50, 50]));
    expect(source.failureLines().map(({ retryMs }) => retryMs)).toEqual([20, 40, 50, 50, 50]);
    expect(source.failureLines().map(({ failures: count }) => count)).toEqual([1, 2, 3, 4, 5]);
  });
});

describe('a server that is busy', () => {
  test('is left alone for as long as it asks with Retry-After', async () => {
    await using server = await startSeededServer();
    server.failNext({ resource: 'services', operation: 'list', with: faults.tooManyRequests(1) });
    await using source = await startSyncedSource(server);

    expect(gapsOf(server, 'services')[0]).toBeGreaterThan(995);
    expect(source.failures()).toEqual(['services list ERR_API_STATUS']);
  });

  test('is asked again after the back-off when it asks for nothing', async () => {
    await using server = await startSeededServer();
    server.failNext({ resource: 'services', operation: 'list', with: faults.tooManyRequests() });
    await using source = await startSyncedSource(server);

    expect(source.failureLines()).toMatchObject([{ error: { status: 429 }, retryMs: 20 }]);
  });
});

describe('objects of a list', () => {
  test('null instead of items is an empty list', async () => {
    await using server = await startSeededServer();
    server.remove('endpointslices', 'default/web-ipv4');
    server.failNext({ resource: 'endpointslices', with: faults.wrongItems(null) });
    await using source = await startSyncedSource(server);

    expect(source.view.endpointSlices).toEqual([]);
    expect(source.failures()).toEqual([]);
  });

  test('a malformed one is reported, and all others are served', async () => {
    await using server = await startSeededServer();
    server.put('services', { metadata: { namespace: 'default', name: 'bad' }, spec: { ports: 'many' } });
    await using source = await startSource(server);
    const { objects, problems } = await source.nextChange();

    expect(keysOf(objects)).toEqual([
      'Service default/db',
      'Service default/web',
      'EndpointSlice default/web-ipv4',
    ]);
    expect(problems).toMatchObject([
      { code: 'ERR_API_OBJECT_INVALID', object: 'Service default/bad', field: 'spec.ports' },
    ]);
    expect(source.failures()).toEqual([]);
  });

  test('one that becomes malformed stays as it was, until it is sound again or gone', async () => {
    await using server = await startSeededServer();
    await using source = await startSyncedSource(server);
    const { objects: before } = await source.nextChange();
    server.put('services', { metadata: { namespace: 'default', name: 'web' }, spec: { clusterIP: 7 } });
    const malformed = await source.nextChange();
    expect(malformed.objects).toBe(before);
    expect(malformed.problems).toMatchObject([{ object: 'Service default/web', field: 'spec.clusterIP' }]);

    // A list has it too: there is no other version of it.
    expire(server, 'services');
    server.put('services', makeService('marker'));
    const listed = await source.nextChange();
    expect(listed.objects.services).toContain(before.services[1]);
    expect(listed.problems).toEqual(malformed.problems);

    server.put('services', makeService('web', annotated('mended')));
    expect((await source.nextChange()).problems).toEqual([]);
    await source.caughtUp();
    server.put('services', { metadata: { namespace: 'default', name: 'web' }, spec: { clusterIP: 7 } });
    expect((await source.nextChange()).problems).toHaveLength(1);
    server.remove('services', 'default/web');
    expect((await source.nextChange()).problems).toEqual([]);
    await source.caughtUp();
    expect(source.vanished).toEqual(['Service default/web']);
  });

  test('one without a name is reported, and a list without it ends the report', async () => {
    await using server = await startSeededServer();
    const nameless = (list: object): object => ({ ...list, items: [{ metadata: {} }] });
    server.failNext({ resource: 'endpointslices', with: faults.list(nameless) });
    await using source = await startSource(server);
    expect((await source.nextChange()).problems).toMatchObject([{ object: 'EndpointSlice without name' }]);

    await source.observed(() => source.isWatching, 'all to be watched');
    expire(server, 'endpointslices');
    expect((await source.nextChange()).problems).toEqual([]);
    await source.caughtUp();
  });
});

/** Milliseconds between the lists of that resource. */
function gapsOf(server: FakeApiServer, resource: 'services'): number[] {
  const at = server.requestsOf(resource, 'list').map((request) => request.at);
  return at.slice(1).map((time, index) => time - (at[index] ?? 0));
}

/** A timer may fire within the millisecond before its time. */
function atLeast(minima: readonly number[]): unknown[] {
  return minima.map((minimum) => expect.toSatisfy((gap: number) => gap > minimum - 2, `over ${minimum}`));
}
