/** EndpointSlices where the API server has them: discovery.k8s.io/v1, or v1beta1 before Kubernetes 1.21. */
import { describe, expect, test } from 'vitest';
import type { FakeApiServer } from '../../support/fake-api-server.ts';
import { faults } from '../../support/fake-api-server.ts';
import { makeSlice } from '../../support/objects.ts';
import {
  endInPeace,
  keysOf,
  servingSlice,
  startSeededServer,
  startSource,
  startSyncedSource,
} from '../../support/source-under-test.ts';

/** `v1 list`, `v1beta1 watch`, …, in order. */
function slicesAsked(server: FakeApiServer): string[] {
  return server
    .requestsOf('endpointslices')
    .map(({ path, operation }) => `${path.split('/')[3]} ${operation}`);
}

describe('discovery', () => {
  test('of a server that has v1 is v1, also where it has both', async () => {
    await using server = await startSeededServer({ discovery: 'both' });
    await using _source = await startSyncedSource(server);

    expect(slicesAsked(server)).toEqual(['v1 list', 'v1 watch']);
  });

  test.each(['status', 'text'] as const)(
    'of a server without v1 is v1beta1, without a pause and without a failure (404 as %s)',
    async (notServedAs) => {
      await using server = await startSeededServer({ discovery: 'v1beta1', notServedAs });
      await using source = await startSyncedSource(server, { backoff: { minMs: 60_000, maxMs: 60_000 } });
      server.put('endpointslices', servingSlice('late', ['10.1.0.9']));
      await source.caughtUp();

      expect(slicesAsked(server)).toEqual(['v1 list', 'v1beta1 list', 'v1beta1 watch']);
      expect(source.failures()).toEqual([]);
      expect(source.logger.withMessage('Asking for another version of the API')).toHaveLength(1);
    },
  );

  test('v1beta1 is told in the words of v1, in lists and in events', async () => {
    await using server = await startSeededServer({ discovery: 'v1beta1' });
    const beta = (name: string): object =>
      Object.assign(makeSlice(name, []), {
        endpoints: [
          {
            addresses: ['10.1.0.7'],
            conditions: { ready: true },
            topology: { 'kubernetes.io/hostname': 'n7', 'topology.kubernetes.io/zone': 'z' },
          },
        ],
      });
    server.put('endpointslices', beta('listed'));
    await using source = await startSource(server);
    await source.nextChange();
    server.put('endpointslices', beta('watched'));
    await source.nextChange();

    for (const name of ['listed', 'watched']) {
      const slice = source.view.endpointSlices.find(({ metadata }) => metadata?.name?.startsWith(name));
      expect(slice?.endpoints).toMatchObject([
        { nodeName: 'n7', zone: 'z', conditions: { ready: true, serving: true } },
      ]);
    }
  });

  test('goes back to v1 when v1beta1 goes away at run time, and nothing is lost meanwhile', async () => {
    await using server = await startSeededServer({ discovery: 'v1beta1' });
    await using source = await startSyncedSource(server);
    server.behaviour.discovery = 'v1';
    endInPeace(source, server, 'endpointslices');
    server.put('endpointslices', makeSlice('new', ['10.1.0.9']));
    await source.caughtUp();

    expect(slicesAsked(server)).toEqual([
      'v1 list',
      'v1beta1 list',
      'v1beta1 watch',
      'v1beta1 watch',
      'v1beta1 list',
      'v1 list',
      'v1 watch',
    ]);
    expect(source.failures()).toEqual([
      'endpointslices watch ERR_API_STATUS',
      'endpointslices list ERR_API_STATUS',
    ]);
    expect(source.vanished).toEqual([]);
  });

  test('that is nowhere is waited for, at the pace of the back-off', async () => {
    await using server = await startSeededServer();
    const absent = server.failNext({ resource: 'endpointslices', times: Infinity, with: faults.status(404) });
    await using source = await startSource(server);
    await source.observed(() => absent.hits >= 8, 'eight requests');
    expect(source.failureLines().map(({ retryMs }) => retryMs)).toEqual(
      [20, 40, 50, 50].slice(0, source.failures().length),
    );
    expect(source.tellings).toEqual([]);
    absent.clear();
    await source.caughtUp();

    expect(keysOf(source.view)).toContain('EndpointSlice default/web-ipv4');
    expect(slicesAsked(server).slice(0, 4)).toEqual(['v1 list', 'v1beta1 list', 'v1 list', 'v1beta1 list']);
  });
});
