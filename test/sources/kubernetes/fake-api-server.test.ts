/** The lists and watches of the fake API server itself: what its users take for granted. */
import { describe, expect, test } from 'vitest';
import { makeService, makeSlice } from '../../support/objects.ts';
import { Client, SERVICES, SLICES_V1, SLICES_V1BETA1, errnoAfter, start } from './fake-api-harness.ts';

const labelled = (name: string, labels: Record<string, string>) =>
  makeService(name, (service) => {
    service.metadata = { namespace: 'default', name, labels };
  });

describe('lists', () => {
  test('a list from 0 ignores the limit, and its items have no kind', async () => {
    const context = await start();
    for (const name of ['b', 'a', 'c']) context.server.put('services', makeService(name));

    const list = await new Client(context).list(SERVICES, { resourceVersion: '0', limit: '2' });

    expect(list).toMatchObject({ kind: 'ServiceList', metadata: { resourceVersion: '103' } });
    expect(list.items.map(({ kind, metadata }) => [kind, metadata.name])).toEqual([
      [undefined, 'a'],
      [undefined, 'b'],
      [undefined, 'c'],
    ]);
    expect(list.metadata.continue).toBeUndefined();
  });

  test('all pages of a list are of the moment of the first', async () => {
    const context = await start();
    const client = new Client(context);
    for (const name of ['a', 'b', 'c']) context.server.put('services', makeService(name));

    const first = await client.list(SERVICES, { limit: '2' });
    context.server.remove('services', 'default/c');
    const second = await client.list(SERVICES, { limit: '2', continue: first.metadata.continue ?? '' });

    expect(first.metadata).toMatchObject({ resourceVersion: '103', remainingItemCount: 1 });
    expect(second.metadata).toEqual({ resourceVersion: '103' });
    expect(second.items.map(({ metadata }) => metadata.name)).toEqual(['c']);
  });

  test('an expired continue token is answered with 410, and a token to go on without the snapshot', async () => {
    const context = await start();
    const client = new Client(context);
    for (const name of ['a', 'b', 'c']) context.server.put('services', makeService(name));
    const first = await client.list(SERVICES, { limit: '1' });
    context.server.remove('services', 'default/b');
    context.server.compact();

    const expired = await client.list(SERVICES, { limit: '1', continue: first.metadata.continue ?? '' });
    expect(expired).toMatchObject({ kind: 'Status', code: 410, reason: 'Expired' });

    const rest = await client.list(SERVICES, { limit: '1', continue: expired.metadata.continue ?? '' });
    expect(rest.metadata).toEqual({ resourceVersion: '104' });
    expect(rest.items.map(({ metadata }) => metadata.name)).toEqual(['c']);
  });

  test('a list from the future is answered with 504 and the cause', async () => {
    const context = await start();
    const { statusCode, headers, body } = await new Client(context).get(SERVICES, { resourceVersion: '101' });

    expect(statusCode).toBe(504);
    expect(headers['retry-after']).toBe('1');
    expect(await body.json()).toMatchObject({
      reason: 'Timeout',
      message: 'Too large resource version: 101, current: 100',
      details: { causes: [{ reason: 'ResourceVersionTooLarge' }], retryAfterSeconds: 1 },
    });
  });

  test.each([
    ['!proxy', ['a', 'c']],
    ['proxy', ['b']],
    ['app=web', ['a', 'b']],
    ['app=web,!proxy', ['a']],
  ])('the labelSelector %s gives %j', async (labelSelector, names) => {
    const context = await start();
    context.server.put('services', labelled('a', { app: 'web' }));
    context.server.put('services', labelled('b', { app: 'web', proxy: '' }));
    context.server.put('services', labelled('c', { app: 'db' }));

    const list = await new Client(context).list(SERVICES, { labelSelector });

    expect(list.items.map(({ metadata }) => metadata.name)).toEqual(names);
  });

  test('nodes are selected by name', async () => {
    const context = await start();
    for (const name of ['n1', 'n2']) context.server.put('nodes', { metadata: { name } });

    const list = await new Client(context).list('/api/v1/nodes', { fieldSelector: 'metadata.name=n2' });

    expect(list.items.map(({ metadata }) => metadata.name)).toEqual(['n2']);
  });

  test('a version of EndpointSlices that is not served is a 404 that was to be expected', async () => {
    const context = await start({ discovery: 'v1beta1' });
    const client = new Client(context);
    context.server.put('endpointslices', makeSlice('web', ['10.0.0.1']));

    expect(await client.list(SLICES_V1)).toMatchObject({ kind: 'Status', code: 404, reason: 'NotFound' });
    expect(await client.list(SLICES_V1BETA1)).toMatchObject({ apiVersion: 'discovery.k8s.io/v1beta1' });

    context.server.behaviour.discovery = 'v1';
    expect(await client.list(SLICES_V1)).toMatchObject({ apiVersion: 'discovery.k8s.io/v1' });
    expect(await client.list(SLICES_V1BETA1)).toMatchObject({ code: 404 });
  });
});

describe('watches', () => {
  test('a watch gets what it missed, and then what happens', async () => {
    const context = await start();
    context.server.put('services', makeService('a'));
    context.server.put('services', makeService('b'));
    context.server.put('endpointslices', makeSlice('b', ['10.0.0.1']));

    const watch = await new Client(context).watch(SERVICES, 101);
    context.server.put('services', makeService('a'));
    context.server.remove('services', 'default/b');

    expect(await watch.events(3)).toEqual(['ADDED b@102', 'MODIFIED a@104', 'DELETED b@105']);
  });

  test('an object that begins or ceases to match the selector is added or deleted', async () => {
    const context = await start();
    const watch = await new Client(context).watch(SERVICES, 100, { labelSelector: '!proxy' });
    context.server.put('services', labelled('a', { proxy: 'other' }));
    context.server.put('services', labelled('a', {}));
    context.server.put('services', labelled('a', { some: 'thing' }));
    context.server.put('services', labelled('a', { proxy: 'other' }));
    context.server.remove('services', 'default/a');
    context.server.bookmark();

    expect(await watch.events(4)).toEqual([
      'ADDED a@102',
      'MODIFIED a@103',
      'DELETED a@104',
      'BOOKMARK @105',
    ]);
  });

  test('a watch from before the compaction gets an ERROR event and ends', async () => {
    const context = await start();
    context.server.advance(5);
    context.server.compact();

    const watch = await new Client(context).watch(SERVICES, 104);
    expect(await watch.event()).toMatchObject({ type: 'ERROR', object: { code: 410, reason: 'Expired' } });
    expect(await watch.line()).toBeUndefined();
  });

  test('a watch from before the compaction is answered with 410 where that is wanted', async () => {
    const context = await start({ goneAs: 'status' });
    const client = new Client(context);
    context.server.advance(5);
    context.server.compact();

    expect((await client.watch(SERVICES, 104)).statusCode).toBe(410);
    expect((await client.watch(SERVICES, 105)).statusCode).toBe(200);
  });

  test('more changes than are remembered make a watch too old', async () => {
    const context = await start({ eventCapacity: 2, goneAs: 'status' });
    const client = new Client(context);
    for (const name of ['a', 'b', 'c']) context.server.put('services', makeService(name));

    expect((await client.watch(SERVICES, 100)).statusCode).toBe(410);
    expect(await (await client.watch(SERVICES, 101)).events(2)).toEqual(['ADDED b@102', 'ADDED c@103']);
  });

  test('a watch from after a restored state hears nothing before the store gets there', async () => {
    const context = await start();
    const watch = await new Client(context).watch(SERVICES, 100);
    context.server.setResourceVersion(50);
    context.server.put('services', makeService('unheard'));
    context.server.bookmark();
    context.server.advance(49);
    context.server.put('services', makeService('heard'));

    expect(await watch.events(1)).toEqual(['ADDED heard@101']);
  });

  test('bookmarks come on demand and at an interval, unless they are withheld', async () => {
    const context = await start({ bookmarkIntervalMs: 5, withholdBookmarks: true });
    const client = new Client(context);
    const watch = await client.watch(SLICES_V1, 100);
    context.server.bookmark();
    context.server.put('endpointslices', makeSlice('web', ['10.0.0.1']));
    expect(await watch.events(1)).toEqual(['ADDED web-ipv4@101']);

    context.server.behaviour.withholdBookmarks = false;
    expect(await watch.events(1)).toEqual(['BOOKMARK @101']);
  });

  test('a watch ends in order when its time has passed', async () => {
    const context = await start();
    const watch = await new Client(context).watch(SERVICES, 100, { timeoutSeconds: '1' });
    const handle = await context.server.nextWatch('services');

    expect(await watch.line()).toBeUndefined();
    await handle.closed;
    expect(context.server.watches()).toEqual([]);
  });

  test('text reaches the reader byte by byte, also within a character', async () => {
    const context = await start();
    const watch = await new Client(context).watch(SERVICES, 100);
    const handle = await context.server.nextWatch('services');
    const reading = watch.line();
    await handle.sendSplit('"Grüße"\n');

    await reading;
    expect(watch.chunks.map(({ length }) => length)).toEqual(Array.from({ length: 10 }, () => 1));
    expect(Buffer.concat(watch.chunks).toString()).toBe('"Grüße"\n');
  });

  test('a watch that was stalled loses what it held when it is reset, and sends it when it goes on', async () => {
    const context = await start();
    const client = new Client(context);
    const watches = [await client.watch(SERVICES, 100), await client.watch(SERVICES, 100)] as const;
    const [one, two] = [
      await context.server.nextWatch('services'),
      await context.server.nextWatch('services'),
    ];
    one.stall();
    two.stall();
    context.server.put('services', makeService('a'));
    one.reset();
    two.end();
    two.resume();

    expect(await errnoAfter(watches[0].line())).toBe('ECONNRESET');
    await one.closed;
    expect(await watches[1].events(1)).toEqual(['ADDED a@101']);
    expect(await watches[1].line()).toBeUndefined();
  });

  test('half a line is followed by a reset, a broken body or an end, as told', async () => {
    const context = await start();
    const client = new Client(context);
    const outcome = async (how: 'reset' | 'closeConnection' | 'end'): Promise<string> => {
      const watch = await client.watch(SERVICES, 100);
      const handle = await context.server.nextWatch('services');
      await handle.halfLine();
      handle[how]();
      const errno = await errnoAfter(watch.line());
      expect(Buffer.concat(watch.chunks).toString()).toMatch(/^\{"type":"ADDED"/);
      return errno;
    };

    expect(await outcome('reset')).toBe('ECONNRESET');
    expect(await outcome('closeConnection')).toBe('UND_ERR_SOCKET');
    expect(await outcome('end')).toBe('none');
  });
});
