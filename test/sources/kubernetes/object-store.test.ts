/** The objects as they were last told: what is handed out, when it is another, and what becomes of broken ones. */
import type { V1EndpointSlice, V1Service } from '@kubernetes/client-node';
import { describe, expect, test } from 'vitest';
import { ObjectStore } from '../../../src/sources/kubernetes/object-store.ts';
import { endpointSliceResource } from '../../../src/sources/kubernetes/resource.ts';
import { makeSlice } from '../../support/objects.ts';
import { broken, named, service, services } from './stored-services.ts';

const TRIGGER_TIME = 'endpoints.kubernetes.io/last-change-trigger-time';

function slices(): ObjectStore<V1EndpointSlice> {
  return new ObjectStore(endpointSliceResource(''));
}

const namesIn = (list: readonly { metadata?: { name?: string } }[]): unknown[] =>
  list.map(({ metadata }) => metadata?.name);

const addressesIn = (list: readonly V1Service[]): unknown[] => list.map(({ spec }) => spec?.clusterIP);

describe('what is handed out', () => {
  test('is nothing at first, and the same nothing again', () => {
    const store = services();
    expect(store.take()).toEqual([]);
    expect(store.take()).toBe(store.take());
  });

  test('is sorted by namespace and name, whatever came first', () => {
    const store = services();
    for (const name of ['b', 'a-1', 'c', 'a']) store.set(service(name));
    store.set({ ...named('z'), metadata: { namespace: 'a-namespace', name: 'z' } });
    expect(namesIn(store.take())).toEqual(['z', 'a', 'a-1', 'b', 'c']);
    expect(store.size).toBe(5);
  });

  test('is the same list while nothing differs', () => {
    const store = services();
    store.replace([service('a'), service('b')]);
    const list = store.take();
    expect(store.take()).toBe(list);
    store.set(service('a'));
    store.replace([service('b'), service('a')]);
    expect(store.take()).toBe(list);
  });

  test('is another list when one object differs, and in it the same objects for those that do not', () => {
    const store = services();
    store.replace([service('a'), service('b')]);
    const before = store.take();
    store.set(service('b', '10.96.0.2'));
    const after = store.take();
    expect(after).not.toBe(before);
    expect(after[0]).toBe(before[0]);
    expect(addressesIn(after)).toEqual(['10.96.0.1', '10.96.0.2']);
    expect(addressesIn(before)).toEqual(['10.96.0.1', '10.96.0.1']);
  });

  test('is the same object also after its key was gone for a while that nobody looked at', () => {
    const store = services();
    store.set(service('a'));
    const before = store.take();
    store.remove(named('a'));
    store.set(service('a'));
    expect(store.take()).toBe(before);
  });

  test('is the same list after a change that reverted itself before anybody looked', () => {
    const store = services();
    store.set(service('a'));
    const before = store.take();
    store.set(service('a', '10.96.0.2'));
    store.set(service('b'));
    store.set(service('a'));
    store.remove(named('b'));
    expect(store.take()).toBe(before);
  });

  test('is another list when somebody looked in between', () => {
    const store = services();
    store.set(service('a'));
    const before = store.take();
    store.set(service('a', '10.96.0.2'));
    const between = store.take();
    store.set(service('a'));
    const after = store.take();
    expect(between).not.toBe(before);
    expect(after).not.toBe(before);
    expect(after).toEqual(before);
  });

  test('is the same when only what nobody reads has changed', () => {
    const store = services();
    store.set(service('a'));
    const before = store.take();
    const tweak = { resourceVersion: '7', labels: { a: 'b' }, annotations: { a: 'b' }, managedFields: [{}] };
    store.set({
      ...named('a'),
      spec: service('a').spec,
      metadata: { namespace: 'default', name: 'a', ...tweak },
    });
    expect(store.take()).toBe(before);
  });
});

describe('a whole list', () => {
  test('takes away what is not in it', () => {
    const store = services();
    store.replace([service('a'), service('b'), service('c')]);
    store.take();
    store.replace([service('b'), service('d')]);
    expect(namesIn(store.take())).toEqual(['b', 'd']);
    expect(store.size).toBe(2);
  });

  test('that is empty takes away everything', () => {
    const store = services();
    store.replace([service('a'), broken('x'), {}]);
    store.take();
    store.replace([]);
    expect(store.take()).toEqual([]);
    expect(store.problems).toEqual([]);
  });

  test('with an object twice has it as it stands last', () => {
    const store = services();
    store.replace([service('a', '10.96.0.1'), service('a', '10.96.0.2')]);
    expect(addressesIn(store.take())).toEqual(['10.96.0.2']);
  });
});

describe('a removal', () => {
  test('takes away the object of that name, whatever else was sent with it', () => {
    const store = services();
    store.set(service('a'));
    store.take();
    store.remove(broken('a'));
    expect(store.take()).toEqual([]);
  });

  test('of what is not there, or has no name, changes nothing', () => {
    const store = services();
    store.set(service('a'));
    const before = store.take();
    for (const raw of [named('b'), {}, null, 'a', { metadata: { name: 'a' } }]) store.remove(raw);
    expect(store.take()).toBe(before);
  });
});

describe('the trigger time of a slice', () => {
  function slice(annotations: Record<string, string> | undefined, address = '10.0.0.1'): V1EndpointSlice {
    return makeSlice('web', [address], (it) => {
      if (it.metadata !== undefined && annotations !== undefined) it.metadata.annotations = annotations;
    });
  }

  const early = { [TRIGGER_TIME]: '2026-11-21T08:00:00Z' };
  const late = { [TRIGGER_TIME]: '2026-11-21T09:00:00Z' };

  test.for([
    { name: 'that is another', before: early, after: late },
    { name: 'that is gone', before: early, after: undefined },
    { name: 'that is new', before: undefined, after: late },
    { name: 'that is gone, while the annotations stay', before: early, after: {} },
  ])('$name is no change by itself', ({ before, after }) => {
    const store = slices();
    store.set(slice(before));
    const list = store.take();
    store.set(slice(after));
    expect(store.take()).toBe(list);
  });

  test('is that of the change when there is one', () => {
    const store = slices();
    store.set(slice(early));
    store.take();
    store.set(slice(late, '10.0.0.2'));
    const [changed] = store.take();
    expect(changed?.endpoints?.[0]?.addresses).toEqual(['10.0.0.2']);
    expect(changed?.metadata?.annotations).toEqual(late);
  });
});

describe('a malformed object', () => {
  test('is a problem, and its last good version stays in use', () => {
    const store = services();
    store.set(service('a'));
    const before = store.take();
    store.set(broken('a'));
    expect(store.take()).toBe(before);
    expect(store.problems).toMatchObject([
      { code: 'ERR_API_OBJECT_INVALID', object: 'Service default/a', field: 'spec.ports' },
    ]);
  });

  test('that never was a good one is a problem and nothing else', () => {
    const store = services();
    store.replace([broken('a'), service('b')]);
    expect(namesIn(store.take())).toEqual(['b']);
    expect(store.problems).toHaveLength(1);
    expect(store.size).toBe(1);
  });

  test('is the last good version, also when nobody had looked at that yet', () => {
    const store = services();
    store.set(service('a', '10.96.0.1'));
    store.take();
    store.set(service('a', '10.96.0.2'));
    store.set(broken('a'));
    expect(addressesIn(store.take())).toEqual(['10.96.0.2']);
  });

  test('keeps its last good version through a whole list that has it malformed', () => {
    const store = services();
    store.replace([service('a'), service('b')]);
    store.replace([broken('a')]);
    expect(namesIn(store.take())).toEqual(['a']);
    expect(store.problems).toHaveLength(1);
  });

  test('that is mended is no problem any more', () => {
    const store = services();
    store.set(broken('a'));
    store.set(service('a'));
    expect(store.problems).toEqual([]);
    expect(namesIn(store.take())).toEqual(['a']);
  });

  test('that is broken in another way has only the new problem', () => {
    const store = services();
    store.set(broken('a'));
    store.set({ ...named('a'), spec: 7 });
    expect(store.problems.map(({ field }) => field)).toEqual(['spec']);
  });

  test('that is deleted is no problem any more, and nor is its last good version in use', () => {
    for (const remove of [
      (store: ObjectStore<V1Service>) => store.remove(broken('a')),
      (store: ObjectStore<V1Service>) => store.replace([]),
    ]) {
      const store = services();
      store.set(service('a'));
      store.set(broken('a'));
      remove(store);
      expect(store.problems).toEqual([]);
      expect(store.take()).toEqual([]);
    }
  });
});

test('an object nested deeper than any stack is reported, and keeps no other one out', () => {
  let nested: object = {};
  for (let depth = 0; depth < 50_000; depth += 1) nested = { nested };
  const store = services();
  store.replace([service('before'), { ...named('deep'), spec: { nested } }, service('later')]);
  expect(namesIn(store.take())).toEqual(['before', 'later']);
  expect(store.problems).toMatchObject([{ code: 'ERR_API_OBJECT_INVALID', object: 'Service default/deep' }]);
});

describe('an object without a name', () => {
  test('is a problem until a list comes without one', () => {
    const store = services();
    store.replace([service('a'), { kind: 'Service' }, null]);
    expect(store.problems).toMatchObject([{ object: 'Service without name', field: 'metadata.name' }]);
    expect(namesIn(store.take())).toEqual(['a']);
    store.replace([service('a'), 7]);
    expect(store.problems).toHaveLength(1);
    store.replace([service('a')]);
    expect(store.problems).toEqual([]);
  });

  test('takes nothing away', () => {
    const store = services();
    store.set(service('a'));
    store.set({});
    expect(namesIn(store.take())).toEqual(['a']);
  });
});

test('names and keys that objects of JavaScript have of their own are names and keys like any other', () => {
  const store = services();
  const names = ['__proto__', 'constructor', 'toString', 'hasOwnProperty'];
  const labelled = JSON.parse('{"__proto__":"x","constructor":"y"}') as Record<string, string>;
  for (const name of names) {
    store.set({
      metadata: { namespace: '__proto__', name, annotations: labelled },
      spec: { clusterIP: '10.96.0.1' },
    });
  }
  expect(namesIn(store.take())).toEqual(names.toSorted());
  expect(Object.keys(Object.prototype)).toEqual([]);
  for (const name of names) store.remove({ metadata: { namespace: '__proto__', name } });
  expect(store.take()).toEqual([]);
});
