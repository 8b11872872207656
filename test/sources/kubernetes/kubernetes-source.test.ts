/** What the source tells of what the API server has, when, and what it leaves out. */
import { describe, expect, test } from 'vitest';
import type { FakeApiServer } from '../../support/fake-api-server.ts';
import { faults } from '../../support/fake-api-server.ts';
import { makeService, makeSlice } from '../../support/objects.ts';
import {
  OUR_SELECTOR,
  type SourceUnderTest,
  annotated,
  expire,
  keysOf,
  openWatch,
  startSeededServer,
  startSource,
  startSyncedSource,
  withMetadata,
} from '../../support/source-under-test.ts';

const PROXY_NAME_LABEL = 'service.kubernetes.io/service-proxy-name';
const HEADLESS_LABEL = 'service.kubernetes.io/headless';

/** A Service with these labels. */
function labelled(name: string, labels: Record<string, string>): ReturnType<typeof makeService> {
  return makeService(name, withMetadata({ labels }));
}

/** Every telling takes so long that the next one is put off for a tenth of a second. */
const slowly = ({ clock }: SourceUnderTest): void => clock.advance(25);

async function eventsTaken(source: SourceUnderTest, count: number): Promise<void> {
  const { events } = source.statistics.of('services');
  const taken = (): number => [...events.values()].reduce((sum, one) => sum + one, 0);
  await source.observed(() => taken() >= count, `${count} events of Services`);
}

describe('the first telling', () => {
  test.each(['services', 'endpointslices', 'nodes'] as const)(
    'waits for %s: a list that is missing is not an empty one',
    async (resource) => {
      await using server = await startSeededServer();
      const missing = server.failNext({
        resource,
        operation: 'list',
        times: Infinity,
        with: faults.status(503),
      });
      await using source = await startSource(server);
      const others = (['services', 'endpointslices', 'nodes'] as const).filter((one) => one !== resource);
      for (const other of others) {
        await source.observed(() => source.statistics.of(other).isWatching, `a watch of ${other}`);
      }
      // What the others hear meanwhile is part of it.
      server.put('services', makeService('meanwhile'));
      server.put('endpointslices', makeSlice('meanwhile', ['10.1.0.9']));
      await source.observed(() => missing.hits >= 3, 'three attempts');
      expect([source.tellings, source.nodes]).toEqual([[], []]);

      missing.clear();
      await source.caughtUp();
      expect(source.tellings).toHaveLength(1);
      expect(source.nodes).toHaveLength(1);
      expect(source.logger.withMessage('Everything was listed once')).toMatchObject([
        { level: 'info', fields: { services: 3, endpointSlices: 2 } },
      ]);
    },
  );

  test('of a cluster without anything is a telling too', async () => {
    await using server = await startSeededServer();
    for (const name of ['default/web', 'default/db']) server.remove('services', name);
    server.remove('endpointslices', 'default/web-ipv4');
    await using source = await startSource(server);

    expect(await source.nextChange()).toEqual({
      objects: { services: [], endpointSlices: [] },
      problems: [],
    });
  });
});

describe('later tellings', () => {
  test('keep the identity of objects and lists that did not change', async () => {
    await using server = await startSeededServer();
    await using source = await startSource(server);
    const { objects: first } = await source.nextChange();
    server.put('services', makeService('web', annotated('changed')));
    const { objects: second } = await source.nextChange();

    expect(second.endpointSlices).toBe(first.endpointSlices);
    expect(second.services[0]).toBe(first.services[0]);
    expect(second.services[1]).not.toBe(first.services[1]);

    // Also across a list, where every object was read anew.
    expire(server, 'services');
    expire(server, 'endpointslices');
    server.put('services', makeService('web', annotated('changed again')));
    const { objects: third } = await source.nextChange();
    await source.observed(() => source.lists('endpointslices').expired === 1, 'the list of slices');
    await source.caughtUp();
    expect(third.endpointSlices).toBe(first.endpointSlices);
    expect(third.services[0]).toBe(first.services[0]);
    expect(source.tellings).toHaveLength(3);
  });

  test('a burst of changes is told in a few calls, the last of which has all of it', async () => {
    await using server = await startSeededServer();
    const toldAt: number[] = [];
    const onTelling = (teller: SourceUnderTest): void => {
      slowly(teller);
      toldAt.push(performance.now());
    };
    await using source = await startSyncedSource(server, { onTelling });
    for (let index = 0; index < 200; index += 1) {
      server.put('services', makeService('web', annotated(String(index))));
      server.put('services', makeService(`s${index % 50}`, annotated(String(index))));
    }
    await source.caughtUp();

    expect(source.tellings.length).toBeLessThan(40);
    for (const [index, at] of toldAt.slice(1).entries())
      expect(at - (toldAt[index] ?? 0)).toBeGreaterThan(95);
    expect(source.statistics.of('services').events.get('MODIFIED')).toBe(350);
    expect(source.vanished).toEqual([]);
  });

  test('a change that reverts itself before it was told does nothing', async () => {
    await using server = await startSeededServer();
    await using source = await startSyncedSource(server, { onTelling: slowly });
    await source.nextChange();
    server.put('endpointslices', makeSlice('marker', ['10.1.0.9']));
    const { objects: before } = await source.nextChange();

    // That one was just told: the next telling is put off, and these all come before it.
    server.put('services', makeService('web', annotated('wrong')));
    server.put('services', makeService('web', annotated('Grüße 🦀')));
    server.put('services', makeService('gone'));
    server.remove('services', 'default/gone');
    await eventsTaken(source, 4);
    server.put('endpointslices', makeSlice('marker', ['10.1.0.10']));
    const { objects: after } = await source.nextChange();

    expect(after.services).toBe(before.services);
    await source.caughtUp();
    expect(source.vanished).toEqual([]);
  });

  test('an update of what nobody reads here tells nothing', async () => {
    await using server = await startSeededServer();
    await using source = await startSyncedSource(server);
    const [service, slice, node] = (['services', 'endpointslices', 'nodes'] as const).map((resource) => {
      const [object] = server.objects(resource).slice(-1);
      const metadata = object?.['metadata'] as { annotations?: object };
      const annotations = { ...metadata.annotations, 'example.com/touched': 'now' };
      return { ...object, metadata: { ...metadata, annotations, managedFields: [{ manager: 'kubectl' }] } };
    });
    server.put('services', service ?? {});
    server.put('endpointslices', slice ?? {});
    server.put('nodes', { ...node, status: { conditions: [{ type: 'Ready', status: 'True' }] } });
    const heard = (['services', 'endpointslices', 'nodes'] as const).map((name) =>
      source.statistics.of(name),
    );
    await source.observed(() => heard.every(({ events }) => events.get('MODIFIED') === 1), 'three events');
    server.put('services', makeService('marker'));
    await source.caughtUp();

    expect(source.tellings).toHaveLength(2);
    expect(source.nodes).toHaveLength(1);
  });
});

describe('selection', () => {
  function selectorsOf(server: FakeApiServer, resource: 'services' | 'endpointslices'): Set<string | null> {
    return new Set(server.requestsOf(resource).map(({ query }) => query.get('labelSelector')));
  }

  test.each([
    ['', OUR_SELECTOR],
    ['edge', `${PROXY_NAME_LABEL}=edge,!${HEADLESS_LABEL}`],
  ])('with the proxy name %j it is exactly %s', async (serviceProxyName, selector) => {
    await using server = await startSeededServer();
    server.put('services', labelled('ours', { [PROXY_NAME_LABEL]: 'edge' }));
    server.put('services', labelled('theirs', { [PROXY_NAME_LABEL]: 'other' }));
    server.put('services', labelled('headless', { [PROXY_NAME_LABEL]: 'edge', [HEADLESS_LABEL]: '' }));
    await using source = await startSource(server, { serviceProxyName });
    await source.caughtUp({ selector });
    expire(server, 'services');
    server.put('services', labelled('ours', { [PROXY_NAME_LABEL]: 'edge', changed: 'yes' }));
    await source.caughtUp({ selector });

    expect(keysOf(source.view)).toEqual(
      serviceProxyName === ''
        ? ['Service default/db', 'Service default/web', 'EndpointSlice default/web-ipv4']
        : ['Service default/ours'],
    );
    expect(selectorsOf(server, 'services')).toEqual(new Set([selector]));
    expect(selectorsOf(server, 'endpointslices')).toEqual(new Set([selector]));
    expect(server.requestsOf('services', 'watch').length).toBeGreaterThan(0);
  });

  test('a Service that is relabelled goes away, and comes back', async () => {
    await using server = await startSeededServer();
    await using source = await startSyncedSource(server);
    await source.nextChange();
    server.put('services', labelled('web', { [PROXY_NAME_LABEL]: 'other' }));
    expect(keysOf((await source.nextChange()).objects)).not.toContain('Service default/web');
    server.put('services', labelled('web', {}));
    expect(keysOf((await source.nextChange()).objects)).toContain('Service default/web');

    await source.caughtUp();
    const { events } = source.statistics.of('services');
    expect([events.get('ADDED'), events.get('MODIFIED'), events.get('DELETED')]).toEqual([1, 0, 1]);
    expect(source.failures()).toEqual([]);
  });
});

describe('the own Node', () => {
  test('only it is asked for, and its labels, taints and deletion are told', async () => {
    await using server = await startSeededServer();
    server.put('nodes', { metadata: { name: 'n2', labels: { zone: 'b' } } });
    await using source = await startSyncedSource(server);
    const selectors = server.requestsOf('nodes').map(({ query }) => query.get('fieldSelector'));
    expect(selectors).toEqual(['metadata.name=n1', 'metadata.name=n1']);

    const told = async (node: object): Promise<unknown> => {
      const count = source.nodes.length;
      server.put('nodes', node);
      await source.observed(() => source.nodes.length > count, 'the Node');
      return source.nodes.at(-1);
    };
    expect(source.nodes).toMatchObject([{ name: 'n1', labels: { zone: 'a' }, isEligible: true }]);
    expect(await told({ metadata: { name: 'n1', labels: { zone: 'c' } } })).toMatchObject({
      labels: { zone: 'c' },
    });
    const taint = { key: 'ToBeDeletedByClusterAutoscaler', effect: 'NoSchedule' };
    const addresses = [{ type: 'InternalIP', address: '192.0.2.1' }];
    expect(
      await told({ metadata: { name: 'n1' }, spec: { taints: [taint] }, status: { addresses } }),
    ).toMatchObject({ isEligible: false, internalIPs: ['192.0.2.1'] });
    expect(await told({ metadata: { name: 'n1' } })).toMatchObject({ isEligible: true, internalIPs: [] });
    const deletionTimestamp = '2026-11-21T10:00:00Z';
    expect(await told({ metadata: { name: 'n1', deletionTimestamp } })).toMatchObject({ isEligible: false });
    expect(source.tellings).toHaveLength(1);
  });

  test('that is missing is told as such, with one warning, and comes later', async () => {
    await using server = await startSeededServer();
    const warnings = (): number => source.logger.at('warn').length;
    await using source = await startSyncedSource(server, { nodeName: 'absent' });
    server.put('nodes', { metadata: { name: 'other' } });
    server.put('services', makeService('new'));
    expire(server, 'nodes');
    await source.observed(() => source.lists('nodes').expired === 1, 'another list');
    await source.caughtUp();

    expect(source.nodes).toEqual([undefined]);
    expect(source.logger.at('warn')).toMatchObject([{ fields: { node: 'absent' } }]);
    server.put('nodes', { metadata: { name: 'absent' } });
    await source.observed(() => source.nodes.length === 2, 'the Node');
    expect(source.nodes[1]).toMatchObject({ name: 'absent' });
    server.remove('nodes', 'absent');
    await source.observed(() => source.nodes.length === 3, 'its end');
    expect(source.nodes[2]).toBeUndefined();
    expect(warnings()).toBe(2);
  });

  test('that becomes malformed stays as it was, and is reported', async () => {
    await using server = await startSeededServer();
    await using source = await startSyncedSource(server);
    await source.nextChange();
    server.put('nodes', { metadata: { name: 'n1', labels: { zone: 7 } } });

    expect((await source.nextChange()).problems).toMatchObject([{ object: 'Node n1' }]);
    expect(source.nodes).toHaveLength(1);
    expect(openWatch(server, 'nodes').isOpen).toBe(true);
  });
});
