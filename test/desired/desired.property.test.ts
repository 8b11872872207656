/** What is wanted, whatever the cluster says: endpoint sets by their rules, and nothing hangs on an order. */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { DesiredStateBuilder, buildDesiredState } from '../../src/desired/desired-state.ts';
import { endpointSetsOf, isLocal } from '../../src/desired/endpoint-sets.ts';
import type { Endpoint } from '../../src/model/endpoint.ts';
import { snapshotFromObjects } from '../../src/model/snapshot.ts';
import { holds } from '../support/property.ts';
import { Random } from '../support/random.ts';
import { randomClusterState } from '../support/random-cluster.ts';
import { makeNodeView } from '../support/rule-fixture.ts';
import { makeEndpoint } from '../support/snapshots.ts';

const PLACE = { nodeName: 'node1', zone: 'a' };

const endpoints: fc.Arbitrary<readonly Endpoint[]> = fc
  .uniqueArray(
    fc.record({
      last: fc.integer({ min: 1, max: 9 }),
      ready: fc.boolean(),
      serving: fc.boolean(),
      terminating: fc.boolean(),
      nodeName: fc.constantFrom('', 'node1', 'node2'),
      zoneHints: fc.subarray(['a', 'b']),
      nodeHints: fc.subarray(['node1', 'node2']),
    }),
    { maxLength: 6, selector: ({ last }) => last },
  )
  .map((all) =>
    all
      .toSorted((a, b) => a.last - b.last)
      .map(({ last, ...tweak }) => makeEndpoint(`10.0.0.${last}`, 80, tweak)),
  );

describe('the endpoints that may be used', () => {
  test('are some as long as anybody is ready, or serves while it terminates', () => {
    holds(endpoints, (all) => {
      const isUsable = ({ ready, serving, terminating }: Endpoint): boolean =>
        ready || (serving && terminating);
      const { cluster, local } = endpointSetsOf(all, PLACE);
      expect(cluster.length > 0).toBe(all.some(isUsable));
      expect(local.length > 0).toBe(all.some((one) => isLocal(one, PLACE) && isUsable(one)));
    });
  });

  test('are of those there are, in their order, the local ones of this node', () => {
    holds(endpoints, (all) => {
      const { cluster, local } = endpointSetsOf(all, PLACE);
      expect(cluster).toEqual(all.filter((one) => cluster.includes(one)));
      expect(local).toEqual(all.filter((one) => local.includes(one)));
      expect(local.every(({ nodeName }) => nodeName === 'node1')).toBe(true);
    });
  });

  test('are ready ones, unless nobody is ready: then all that serve while they terminate', () => {
    holds(endpoints, (all) => {
      const { cluster, local } = endpointSetsOf(all, PLACE);
      for (const [chosen, among] of [
        [cluster, all],
        [local, all.filter((one) => isLocal(one, PLACE))],
      ] as const) {
        const ready = among.filter((one) => one.ready);
        const leaving = among.filter(({ serving, terminating }) => serving && terminating);
        const allowed = ready.length > 0 ? ready : leaving;
        expect(chosen).toEqual(allowed.filter((one) => chosen.includes(one)));
        expect(ready.length > 0 || chosen.length === leaving.length).toBe(true);
      }
    });
  });

  test('follow hints only where every ready one has them, and never to nobody', () => {
    holds(endpoints, (all) => {
      const ready = all.filter((one) => one.ready);
      fc.pre(ready.length > 0);
      const { cluster } = endpointSetsOf(all, PLACE);
      const byNode = ready.filter(({ nodeHints }) => nodeHints.includes('node1'));
      const byZone = ready.filter(({ zoneHints }) => zoneHints.includes('a'));
      const haveNodes = ready.every(({ nodeHints }) => nodeHints.length > 0) && byNode.length > 0;
      const haveZones = ready.every(({ zoneHints }) => zoneHints.length > 0) && byZone.length > 0;
      expect(cluster).toEqual(haveNodes ? byNode : haveZones ? byZone : ready);
    });
  });
});

const seeds = fc.integer({ min: 1, max: 2 ** 31 });

describe('the desired state', () => {
  test('is the same in whatever order the objects are told', () => {
    holds(
      fc.tuple(seeds, seeds),
      ([seed, order]) => {
        const { services, endpointSlices } = randomClusterState(new Random(seed));
        const random = new Random(order);
        const node = makeNodeView();
        const [one, other] = [
          { services, endpointSlices },
          { services: random.shuffled(services), endpointSlices: random.shuffled(endpointSlices) },
        ].map((objects) => buildDesiredState(snapshotFromObjects(objects), node));
        expect({ ...other, problems: other?.problems.toSorted(byText) }).toEqual({
          ...one,
          problems: one?.problems.toSorted(byText),
        });
        expect([...(other?.listeners.keys() ?? [])]).toEqual([...(one?.listeners.keys() ?? [])]);
      },
      150,
    );
  });

  test('that is built from one cluster to the next is the one that is built from nothing', () => {
    holds(
      fc.array(seeds, { minLength: 2, maxLength: 4 }),
      (states) => {
        const builder = new DesiredStateBuilder();
        const node = makeNodeView();
        // Services of one, slices of all: most changes in a cluster are of slices only.
        const { services } = randomClusterState(new Random(states[0] ?? 1));
        const base = snapshotFromObjects({ services, endpointSlices: [] });
        for (const seed of states) {
          const { endpointSlices } = randomClusterState(new Random(seed));
          const { endpoints: known, problems } = snapshotFromObjects({ services: [], endpointSlices });
          const snapshot = { ...base, endpoints: known, problems };
          expect(builder.build(snapshot, node)).toEqual(buildDesiredState(snapshot, node));
        }
      },
      150,
    );
  });

  test('has for every listener that a portal leads to endpoints that are wanted for it, and no portal twice', () => {
    holds(
      seeds,
      (seed) => {
        const { services, endpointSlices } = randomClusterState(new Random(seed));
        const { capture, listeners } = buildDesiredState(
          snapshotFromObjects({ services, endpointSlices }),
          makeNodeView(),
        );
        const places = new Set<string>();
        for (const { kind, family, address, port, protocol, target } of capture.portals) {
          const place = `${family} ${protocol} ${kind === 'nodePort' ? `node ${address ?? ''}` : address} ${port}`;
          if (places.has(place)) throw new Error(`${place} stands twice`);
          places.add(place);
          const keys =
            target.kind === 'listener'
              ? [target.listener]
              : target.kind === 'split'
                ? [target.inside, ...(target.outside === undefined ? [] : [target.outside])]
                : [];
          for (const key of keys)
            expect(listeners.get(key)?.endpoints.length, `${place} to ${key}`).toBeGreaterThan(0);
        }
      },
      150,
    );
  });
});

function byText(a: object, b: object): number {
  return JSON.stringify(a) < JSON.stringify(b) ? -1 : 1;
}
