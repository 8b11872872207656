/** The store of objects against a naive model of it, under random changes. */
import type { V1Service } from '@kubernetes/client-node';
import { describe, expect, test } from 'vitest';
import type { ObjectStore } from '../../../src/sources/kubernetes/object-store.ts';
import { Random, seeds } from '../../support/random.ts';
import { broken, named, service, services } from './stored-services.ts';

describe('after any changes', () => {
  /** What a reader is to see, by name: the address, and whether there is a problem. */
  class Model {
    readonly addresses = new Map<string, string>();
    readonly problems = new Set<string>();

    set(name: string, address: string | undefined): void {
      if (address === undefined) this.problems.add(name);
      else {
        this.problems.delete(name);
        this.addresses.set(name, address);
      }
    }

    remove(name: string): void {
      this.problems.delete(name);
      this.addresses.delete(name);
    }

    get text(): string {
      return JSON.stringify([...this.addresses].sort(([a], [b]) => (a < b ? -1 : 1)));
    }
  }

  const NAMES = ['a', 'b', 'c', 'd', 'e'];
  const randomAddress = (random: Random): string | undefined =>
    random.next() < 0.2 ? undefined : `10.96.0.${random.below(3)}`;
  const objectOf = (name: string, address: string | undefined): object =>
    address === undefined ? broken(name) : service(name, address);

  function step(store: ObjectStore<V1Service>, model: Model, random: Random): void {
    const name = random.pick(NAMES);
    const chance = random.next();
    if (chance < 0.6) {
      const address = randomAddress(random);
      store.set(objectOf(name, address));
      model.set(name, address);
    } else if (chance < 0.85) {
      store.remove(named(name));
      model.remove(name);
    } else {
      const kept = random.shuffled(NAMES).slice(random.below(NAMES.length));
      const listed = kept.map((one) => [one, randomAddress(random)] as const);
      store.replace(listed.map(([one, address]) => objectOf(one, address)));
      for (const one of NAMES) if (!kept.includes(one)) model.remove(one);
      for (const [one, address] of listed) model.set(one, address);
    }
  }

  test.for(seeds(100))(
    'readers see what is so, and another list only when it is another (seed %i)',
    (seed) => {
      const random = new Random(seed);
      const [store, model] = [services(), new Model()];
      let list = store.take();
      let text = model.text;
      for (let look = 0; look < 40; look += 1) {
        for (let steps = random.below(6); steps > 0; steps -= 1) step(store, model, random);
        const next = store.take();
        const seen = next.map(({ metadata, spec }) => [metadata?.name, spec?.clusterIP]);
        expect(JSON.stringify(seen)).toBe(model.text);
        expect(next === list).toBe(model.text === text);
        // Of those that stayed as they were, the very same objects.
        const before = new Map(list.map((one) => [JSON.stringify(one), one]));
        expect(next.filter((one) => (before.get(JSON.stringify(one)) ?? one) !== one)).toEqual([]);
        expect(new Set(store.problems.map(({ object }) => object))).toEqual(
          new Set([...model.problems].map((name) => `Service default/${name}`)),
        );
        expect(store.size).toBe(model.addresses.size);
        list = next;
        text = model.text;
      }
    },
  );
});
