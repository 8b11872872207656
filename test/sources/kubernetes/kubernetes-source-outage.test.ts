/** API servers that go away and come back, one or several, and the end of the source in every state. */
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { readerTurn } from '../../support/fake-api-body.ts';
import type { FakeApiServer } from '../../support/fake-api-server.ts';
import { FakeApiServer as UnstartedServer, faults, statusObject } from '../../support/fake-api-server.ts';
import { makeService } from '../../support/objects.ts';
import {
  type SourceUnderTest,
  annotated,
  endInPeace,
  seed,
  startSeededServer,
  startSource,
  startSyncedSource,
} from '../../support/source-under-test.ts';

const RESOURCES = ['services', 'endpointslices', 'nodes'] as const;
/** So long that nothing that is waited for can be its end. */
const LONG = { minMs: 60_000, maxMs: 120_000 };

/** A seeded server that has a port, and refuses connections there. */
async function stoppedServer(): Promise<FakeApiServer> {
  const server = new UnstartedServer();
  await server.listen();
  await server.close();
  seed(server);
  return server;
}

/** Two servers with the same content. */
async function twoServers(): Promise<[FakeApiServer, FakeApiServer]> {
  return [await startSeededServer(), await startSeededServer()];
}

async function down(source: SourceUnderTest): Promise<void> {
  const all = [...source.statistics.resources.values()];
  await source.observed(() => all.every(({ downSince }) => downSince > 0), 'all watches to be broken');
}

describe('an outage', () => {
  test('at the start is waited for, and everything is told then', async () => {
    await using server = await stoppedServer();
    await using source = await startSource(server);
    await source.observed(() => source.failures().length >= 9, 'nine refusals');
    expect(source.tellings).toEqual([]);
    expect(new Set(source.failures())).toEqual(
      new Set(RESOURCES.map((resource) => `${resource} list ERR_API_UNREACHABLE`)),
    );

    await server.listen();
    await source.caughtUp();
    expect(source.tellings).toHaveLength(1);
    for (const resource of RESOURCES) expect(source.lists(resource)['initial']).toBeGreaterThan(1);
  });

  test('at the start ends when the server takes connections, however long the pause was to be', async () => {
    await using server = await stoppedServer();
    await using source = await startSource(server, { backoff: LONG });
    await source.observed(() => source.failures().length === 3, 'the first refusals');
    await server.listen();
    // The probe comes within half a second, and this is a tenth of the pause.
    await source.caughtUp({ timeoutMs: 6000 });

    expect(source.failureLines().map(({ retryMs }) => retryMs)).toEqual([60_000, 60_000, 60_000]);
    expect(source.failures()).toHaveLength(3);
    expect(source.tellings).toHaveLength(1);
  });

  test('takes nothing away, and what happened in it is told at its end', async () => {
    await using server = await startSeededServer();
    await using source = await startSyncedSource(server);
    const lastContact = source.clock.wallTime();
    source.clock.advance(7000);
    await server.close('reset');
    await down(source);
    for (const { downSince, isSynced, isWatching, lastContactAt } of source.statistics.resources.values()) {
      expect({ downSince, isSynced, isWatching, lastContactAt }).toEqual({
        downSince: lastContact,
        isSynced: true,
        isWatching: false,
        lastContactAt: lastContact,
      });
    }

    server.remove('services', 'default/db');
    server.put('services', makeService('new'));
    server.put('nodes', { metadata: { name: 'n1', labels: { zone: 'b' } } });
    const refused = source.failures().length;
    await source.observed(() => source.failures().length > refused + 5, 'some refusals');
    expect(source.tellings).toHaveLength(1);
    expect(source.nodes).toHaveLength(1);
    source.clock.advance(5000);
    await server.listen();
    await source.caughtUp();
    await source.observed(() => source.nodes.length === 2, 'the Node');

    expect(source.vanished).toEqual(['Service default/db']);
    expect(source.nodes[1]?.labels).toEqual({ zone: 'b' });
    for (const resource of RESOURCES) {
      expect(source.lists(resource)).toEqual({ initial: 1 });
      expect(source.statistics.of(resource)).toMatchObject({ downSince: 0, isWatching: true });
    }
    expect(source.logger.withMessage('Watching the API server again')).toMatchObject(
      RESOURCES.map(() => ({ level: 'info', fields: { downMs: 5000 } })),
    );
    expect(source.failures()).toContain('services watch ERR_API_CONNECTION');
    expect(source.failures()).toContain('services watch ERR_API_UNREACHABLE');
  });

  test('with a compaction in it ends with consistent lists', async () => {
    await using server = await startSeededServer();
    await using source = await startSyncedSource(server);
    await server.close();
    server.remove('services', 'default/db');
    server.put('services', makeService('new'));
    server.compact();
    await down(source);
    await server.listen();
    await source.caughtUp();

    for (const resource of RESOURCES) expect(source.lists(resource)).toEqual({ initial: 1, expired: 1 });
    expect(source.vanished).toEqual(['Service default/db']);
  });

  test('of another process that restarts at once is hardly one', async () => {
    await using server = await startSeededServer();
    await using source = await startSyncedSource(server);
    for (let count = 0; count < 3; count += 1) {
      const before = server.requestsOf('services', 'watch').length;
      await server.close('reset');
      server.put('services', makeService(`new-${count}`));
      await server.listen();
      await source.observed(() => server.requestsOf('services', 'watch').length > before, 'another watch');
      await source.caughtUp();
    }

    expect(source.vanished).toEqual([]);
    // What was known is gone on from; no watch that told something is taken for one that does not.
    expect(source.lists('services')).toEqual({ initial: 1 });
  });
});

describe('two servers', () => {
  test('when the one in use dies the other is used at once, and stays in use', async () => {
    const [first, second] = await twoServers();
    await using _first = first;
    await using _second = second;
    await using source = await startSyncedSource(first, { otherServers: [second], backoff: LONG });
    expect(second.requests).toEqual([]);
    second.remove('services', 'default/db');
    second.put('services', makeService('new'));
    await first.close('reset');
    await source.caughtUp({ server: second });

    expect(source.vanished).toEqual(['Service default/db']);
    for (const resource of RESOURCES) expect(source.lists(resource)).toEqual({ initial: 1 });
    expect(source.failures().toSorted()).toEqual([
      'endpointslices watch ERR_API_CONNECTION',
      'nodes watch ERR_API_CONNECTION',
      'services watch ERR_API_CONNECTION',
    ]);
    await first.listen();
    const asked = first.requests.length;
    second.skipSeen();
    endInPeace(source, second, 'services');
    await second.nextWatch('services');
    expect(first.requests).toHaveLength(asked);
  });

  test('when the first cannot be reached at the start the second is asked at once', async () => {
    await using first = await stoppedServer();
    await using second = await startSeededServer();
    await using source = await startSource(first, { otherServers: [second], backoff: LONG });
    await source.caughtUp({ server: second });

    expect(source.failureLines().map(({ retryMs }) => retryMs)).toEqual([0, 0, 0]);
    expect(source.tellings).toHaveLength(1);
  });

  test('when both are away the one that comes back first is used, however long the pause was to be', async () => {
    const [first, second] = await twoServers();
    await using _first = first;
    await using _second = second;
    await second.close();
    await using source = await startSyncedSource(first, { otherServers: [second], backoff: LONG });
    await first.close('reset');
    await source.observed(() => source.failures().length === 6, 'both to have failed');
    expect(source.failures()).toContain('services watch ERR_API_UNREACHABLE');
    second.put('services', makeService('new'));
    await second.listen();
    await source.caughtUp({ server: second, timeoutMs: 6000 });

    expect(source.failures()).toHaveLength(6);
    expect(source.vanished).toEqual([]);
  });

  test.each([
    ['503 to everything', faults.status(503), 'ERR_API_STATUS'],
    ['resets to everything', faults.reset(), 'ERR_API_CONNECTION'],
    ['a page of HTML to everything', faults.html(), 'ERR_API_RESPONSE'],
    ['ERROR events to every watch', faults.errorEvent(statusObject({ code: 500 })), 'ERR_API_STATUS'],
    ['empty watches', { kind: 'watch-text', text: '', thenEnd: true } as const, 'ERR_API_CONNECTION'],
  ])('when the first has only %s the second is used', async (_name, fault, code) => {
    const [first, second] = await twoServers();
    await using _first = first;
    await using _second = second;
    first.failNext({ times: Infinity, with: fault });
    await using source = await startSource(first, { otherServers: [second], backoff: LONG });
    await source.caughtUp({ server: second, timeoutMs: 3000 });

    expect(second.watches()).toHaveLength(3);
    for (const failure of source.failures()) expect(failure).toContain(code);
  });
});

describe('the end', () => {
  async function closedPromptly(source: SourceUnderTest): Promise<void> {
    const startedAt = performance.now();
    await Promise.all([source.close(), source.close()]);
    await source.close();
    expect(performance.now() - startedAt).toBeLessThan(2000);
  }

  test.each([
    ['before a list is answered', faults.stall()],
    ['in the middle of a list', faults.stallAfter(20)],
  ])('comes at once %s', async (_name, fault) => {
    await using server = await startSeededServer();
    server.failNext({ operation: 'list', times: 3, with: fault });
    await using source = await startSource(server);
    await source.observed(() => server.requests.length === 3, 'three requests');
    await closedPromptly(source);

    expect(source.tellings).toEqual([]);
    expect(source.failures()).toEqual([]);
  });

  test('comes at once before a watch is answered, and while it is watching', async () => {
    await using server = await startSeededServer();
    server.failNext({ resource: 'nodes', operation: 'watch', with: faults.stall() });
    await using source = await startSource(server);
    await source.nextChange();
    await source.observed(
      () => server.watches().length === 2 && server.requestsOf('nodes', 'watch')[0],
      'watches',
    );
    await closedPromptly(source);
    await source.observed(() => server.watches().length === 0, 'the watches to end');
    server.put('services', makeService('new'));
    await readerTurn();

    expect(source.tellings).toHaveLength(1);
    expect(source.failures()).toEqual([]);
    expect(source.isWatching).toBe(false);
  });

  test('comes at once while it waits, with and without probes', async () => {
    await using server = await stoppedServer();
    await using other = await startSeededServer();
    other.failNext({ times: Infinity, with: faults.status(403) });
    await using unreachable = await startSource(server, { backoff: LONG });
    await using refused = await startSource(other, { backoff: LONG });
    for (const source of [unreachable, refused]) {
      await source.observed(() => source.failures().length === 3, 'the first failures');
      await closedPromptly(source);
    }
    await server.listen();

    expect(other.requests).toHaveLength(3);
    expect(server.connectionCount).toBe(0);
  });

  test('keeps what was about to be told from being told', async () => {
    await using server = await startSeededServer();
    await using source = await startSyncedSource(server, { onTelling: ({ clock }) => clock.advance(25) });
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    onTestFinished(() => void vi.useRealTimers());
    server.put('services', makeService('web', annotated('taken, but put off')));
    await source.observed(() => source.statistics.of('services').events.get('MODIFIED') === 1, 'the event');
    await closedPromptly(source);
    vi.advanceTimersByTime(10_000);

    expect(source.tellings).toHaveLength(1);
  });
});
