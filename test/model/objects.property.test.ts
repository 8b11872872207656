/** Whatever JSON stands where: one object is taken in or reported, by its name and field, and nothing ever throws. */
import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Problem } from '../../src/errors.ts';
import { nodeInfoFromNode } from '../../src/model/node.ts';
import { snapshotFromObjects } from '../../src/model/snapshot.ts';
import {
  decodeObject,
  endpointSliceResource,
  nodeResource,
  objectKey,
  serviceResource,
} from '../../src/sources/kubernetes/resource.ts';
import { holds } from '../support/property.ts';
import { Random } from '../support/random.ts';
import { randomClusterState } from '../support/random-cluster.ts';

const { services, endpointSlices, node } = randomClusterState(new Random(3));
const asJson = (object: object): object => JSON.parse(JSON.stringify(object)) as object;
const OBJECTS = [...services, ...endpointSlices, ...(node === undefined ? [] : [node])].map(asJson);

/** A path into one of the objects, counted, and what is to stand there. */
const spoiled = fc
  .record({
    object: fc.constantFrom(...OBJECTS),
    spoils: fc.array(
      fc.record({
        path: fc.array(fc.nat(12), { maxLength: 7 }),
        value: fc.oneof(
          fc.jsonValue(),
          fc.constantFrom('', 'None', '::1', '10.0.0.1', 0, 1, -1, 65_536, 1.5, null, [], {}, [null], true),
        ),
      }),
      { maxLength: 4 },
    ),
  })
  .map(({ object, spoils }) =>
    spoils.reduce<unknown>((whole, { path, value }) => put(whole, path, value), object),
  );

function put(whole: unknown, [step, ...rest]: readonly number[], value: unknown): unknown {
  if (step === undefined || typeof whole !== 'object' || whole === null) return value;
  const keys = Object.keys(whole);
  const key = keys[step % Math.max(1, keys.length)];
  if (key === undefined) return value;
  const inner = put((whole as Record<string, unknown>)[key], rest, value);
  if (Array.isArray(whole))
    return (whole as unknown[]).map((one, index) => (String(index) === key ? inner : one));
  return { ...whole, [key]: inner };
}

function expectNamed(problems: readonly Problem[], kind: string, key: string): void {
  for (const { code, object, field, message } of problems) {
    expect(code).toMatch(/^ERR_[A-Z_]+$/);
    expect(object).toBe(`${kind} ${key.replace(/^\//, '')}`);
    expect(field).not.toBe('');
    expect(message.length).toBeGreaterThan(5);
    expect(message.length).toBeLessThan(500);
  }
}

test('whatever JSON an object is, or holds, nothing throws, and what is wrong is told by name and field', () => {
  const resources = [serviceResource(''), endpointSliceResource('')] as const;
  holds(
    fc.oneof(
      { weight: 5, arbitrary: spoiled },
      { weight: 1, arbitrary: fc.jsonValue({ depthSize: 'large' }) },
    ),
    (raw) => {
      const key = objectKey(raw);
      if (key === undefined) return;
      for (const resource of resources) {
        const decoded = decodeObject<object>(resource as never, raw, key);
        if ('problems' in decoded) {
          if (decoded.problems.length === 0) throw new Error('refused without a word');
          // Of an object with a slash in its name the rest is cut: no API server has one.
          if (!/\/.*\//.test(key)) expectNamed(decoded.problems, resource.kind, key);
          continue;
        }
        const objects = {
          services: [],
          endpointSlices: [],
          [resource.name === 'services' ? 'services' : 'endpointSlices']: [decoded.object],
        };
        expectNamed(snapshotFromObjects(objects).problems, resource.kind, key);
      }
      const decoded = decodeObject(nodeResource('node1'), raw, key);
      if ('object' in decoded) nodeInfoFromNode(decoded.object);
    },
    2000,
  );
});
