/** The merge of EndpointSlices, compared with its rules said in three lines. */
import type { V1EndpointSlice } from '@kubernetes/client-node';
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type Endpoint, endpointsFromSlices } from '../../src/model/endpoint.ts';
import { SnapshotBuilder, snapshotFromObjects } from '../../src/model/snapshot.ts';
import { makeService, makeSlice } from '../support/objects.ts';
import { holds } from '../support/property.ts';

interface Listed {
  readonly last: number;
  readonly ready: boolean;
  readonly serving: boolean;
  readonly terminating: boolean;
  readonly nodeName: string;
}

interface Slice {
  readonly service: string;
  readonly name: number;
  readonly port: number;
  /** Each address once: a controller never lists one twice. */
  readonly endpoints: readonly Listed[];
}

const listed: fc.Arbitrary<Listed> = fc.record({
  last: fc.integer({ min: 1, max: 5 }),
  ready: fc.boolean(),
  serving: fc.boolean(),
  terminating: fc.boolean(),
  nodeName: fc.constantFrom('node1', 'node2'),
});

/** Few names, addresses and ports, so that they meet. */
const slice: fc.Arbitrary<Slice> = fc.record({
  service: fc.constantFrom('web', 'api'),
  name: fc.nat(9),
  port: fc.constantFrom(8080, 8081),
  endpoints: fc.uniqueArray(listed, { maxLength: 4, selector: ({ last }) => last }),
});
const slices = fc.uniqueArray(slice, { maxLength: 6, selector: ({ name }) => name });

function objectOf({ service, name, port, endpoints }: Slice): V1EndpointSlice {
  return makeSlice(service, ['10.0.0.1'], (object) => {
    Object.assign(object.metadata ?? {}, { name: `slice-${name}` });
    object.ports = [{ name: 'http', port, protocol: 'TCP' }];
    object.endpoints = endpoints.map(({ last, ready, serving, terminating, nodeName }) => ({
      addresses: [`10.0.0.${last}`],
      conditions: { ready, serving, terminating },
      nodeName,
    }));
  });
}

/** Of those that stand in several slices the last that does not terminate counts, else the first. */
function expected(all: readonly Slice[], service: string): readonly string[] {
  const candidates = all
    .filter((one) => one.service === service)
    .toSorted((a, b) => a.name - b.name)
    .flatMap(({ port, endpoints }) => endpoints.map((endpoint) => ({ ...endpoint, port })));
  return [...Map.groupBy(candidates, ({ last, port }) => `10.0.0.${last}:${port}`)]
    .map(([key, same]) => {
      const winner = same.findLast(({ terminating }) => !terminating) ?? same[0];
      return `${key} ${winner?.ready} ${winner?.serving} ${winner?.terminating} ${winner?.nodeName}`;
    })
    .toSorted();
}

function merged(objects: readonly V1EndpointSlice[], service: string): readonly Endpoint[] {
  const { value, problems } = endpointsFromSlices(objects);
  expect(problems).toEqual([]);
  const ofService = [...value].filter(([key]) => key.startsWith(`default/${service}:`));
  return ofService.flatMap(([, endpoints]) => endpoints);
}

const textOf = ({ key, ready, serving, terminating, nodeName }: Endpoint): string =>
  `${key} ${ready} ${serving} ${terminating} ${nodeName}`;

describe('endpoints of several slices', () => {
  test('are each there once, sorted, as the last slice has them that does not say terminating', () => {
    holds(slices, (all) => {
      for (const service of ['web', 'api']) {
        const endpoints = merged(all.map(objectOf), service);
        expect(endpoints.map(textOf)).toEqual(expected(all, service));
        expect(endpoints.map(({ key }) => key)).toEqual(endpoints.map(({ key }) => key).toSorted());
      }
    });
  });

  test('are the same in whatever order slices, and endpoints in them, come', () => {
    const shuffled = slices.chain((all) =>
      fc.record({
        all: fc.constant(all),
        others: fc
          .tuple(
            ...all.map((one) =>
              fc
                .shuffledSubarray([...one.endpoints], { minLength: one.endpoints.length })
                .map((endpoints) => ({ ...one, endpoints })),
            ),
          )
          .chain((others) => fc.shuffledSubarray(others, { minLength: others.length })),
      }),
    );
    holds(shuffled, ({ all, others }) => {
      expect(endpointsFromSlices(others.map(objectOf)).value).toEqual(
        endpointsFromSlices(all.map(objectOf)).value,
      );
    });
  });

  test('that move from slice to slice never flap: at no step is one of them away, or terminating', () => {
    const move = fc.record({
      rest: slices,
      from: fc.nat(9),
      to: fc.nat(9),
      endpoint: listed.map((one) => ({ ...one, ready: true, serving: true, terminating: false })),
      isLeftTerminating: fc.boolean(),
    });
    holds(move, ({ rest, from, to, endpoint, isLeftTerminating }) => {
      fc.pre(from !== to);
      const others = rest
        .filter(({ name }) => name !== from && name !== to)
        .map((one) => ({ ...one, endpoints: one.endpoints.filter(({ last }) => last !== endpoint.last) }));
      const at = (name: number, endpoints: readonly Listed[]): Slice => ({
        service: 'web',
        name,
        port: 8080,
        endpoints,
      });
      const old = { ...endpoint, terminating: isLeftTerminating };
      const steps = [
        [at(from, [endpoint])],
        [at(from, [old]), at(to, [endpoint])],
        [at(from, []), at(to, [endpoint])],
        [at(to, [endpoint])],
      ];
      for (const step of steps) {
        const all = merged([...others, ...step].map(objectOf), 'web');
        expect(all.filter(({ key }) => key === `10.0.0.${endpoint.last}:8080`).map(textOf)).toEqual([
          `10.0.0.${endpoint.last}:8080 true true false ${endpoint.nodeName}`,
        ]);
      }
    });
  });
});

test('a snapshot that is built from one change to the next is the one that is built from nothing', () => {
  const change = fc.record({
    put: fc.array(slice, { maxLength: 2 }),
    remove: fc.uniqueArray(fc.nat(9), { maxLength: 2 }),
    services: fc.subarray(['web', 'api', 'bad name']),
  });
  holds(fc.array(change, { minLength: 1, maxLength: 8 }), (changes) => {
    const builder = new SnapshotBuilder();
    const sliceByName = new Map<number, V1EndpointSlice>();
    const serviceByName = new Map<string, ReturnType<typeof makeService>>();
    let services: readonly ReturnType<typeof makeService>[] = [];
    for (const { put, remove, services: names } of changes) {
      for (const name of remove) sliceByName.delete(name);
      for (const one of put) sliceByName.set(one.name, objectOf(one));
      for (const name of names) if (!serviceByName.has(name)) serviceByName.set(name, makeService(name));
      const wanted = names.flatMap((name) => serviceByName.get(name) ?? []);
      // As a source does it: the same list as long as nothing in it is different.
      const isSame =
        wanted.length === services.length && wanted.every((one, index) => one === services[index]);
      if (!isSame) services = wanted;
      const objects = { services, endpointSlices: [...sliceByName.values()] };
      expect(builder.build(objects)).toEqual(snapshotFromObjects(structuredClone(objects)));
    }
  });
});
