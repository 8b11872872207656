/**
 * The objects of one resource as the API server last told them. Level-triggered: writers say what is, readers
 * compare with what they were handed before. So a change that reverts itself before anybody looked was none.
 */
import { isDeepStrictEqual } from 'node:util';
import type { Problem } from '../../errors.ts';
import { TRIGGER_TIME_ANNOTATION, compareText } from '../../model/endpoint.ts';
import { type Resource, decodeObject, namelessObject, objectKey } from './resource.ts';

/** What has metadata.annotations, which say nothing about traffic of their own. */
interface Annotated {
  readonly metadata?: object;
}

export class ObjectStore<T extends Annotated> {
  readonly #resource: Resource<T>;
  readonly #objects = new Map<string, T>();
  readonly #problems = new Map<string, readonly Problem[]>();
  /** What was handed out, by key, and which keys may differ from that by now. */
  readonly #handedOut = new Map<string, T>();
  readonly #dirty = new Set<string>();
  #list: readonly T[] = [];

  constructor(resource: Resource<T>) {
    this.#resource = resource;
  }

  get size(): number {
    return this.#objects.size;
  }

  /** Malformed objects: of each the last good version stays in use, where there was one. */
  get problems(): readonly Problem[] {
    return [...this.#problems.values()].flat();
  }

  /** A whole list was read: what is not in it is gone. */
  replace(raws: readonly unknown[]): void {
    const absent = new Set([...this.#objects.keys(), ...this.#problems.keys()]);
    for (const raw of raws) absent.delete(this.set(raw));
    for (const key of absent) this.#delete(key);
  }

  /** Added or changed. Gives the key it is known by. */
  set(raw: unknown): string {
    const key = objectKey(raw);
    if (key === undefined) {
      this.#problems.set('', [namelessObject(this.#resource.kind, raw)]);
      return '';
    }
    const decoded = decodeObject(this.#resource, raw, key);
    if ('problems' in decoded) {
      this.#problems.set(key, decoded.problems);
      return key;
    }
    this.#problems.delete(key);
    this.#objects.set(key, decoded.object);
    this.#dirty.add(key);
    return key;
  }

  remove(raw: unknown): void {
    const key = objectKey(raw);
    if (key !== undefined) this.#delete(key);
  }

  /** Sorted by key. The same list while nothing differs, and in it the same object for each that does not. */
  take(): readonly T[] {
    let isChanged = false;
    for (const key of this.#dirty) isChanged = this.#handOut(key) || isChanged;
    this.#dirty.clear();
    if (isChanged) {
      const inOrder = [...this.#handedOut].sort(([a], [b]) => compareText(a, b));
      this.#list = inOrder.map(([, object]) => object);
    }
    return this.#list;
  }

  #handOut(key: string): boolean {
    const before = this.#handedOut.get(key);
    const now = this.#objects.get(key);
    if (now === undefined) return this.#handedOut.delete(key);
    if (before !== undefined && isSame(before, now)) return false;
    this.#handedOut.set(key, now);
    return true;
  }

  #delete(key: string): void {
    this.#problems.delete(key);
    this.#objects.delete(key);
    this.#dirty.add(key);
  }
}

/** The trigger time of a slice is renewed by every write; alone it is no change (kube-proxy compares the same way). */
function isSame<T extends Annotated>(a: T, b: T): boolean {
  return isDeepStrictEqual(withoutTriggerTime(a), withoutTriggerTime(b));
}

/** Without any other annotation it is as one that never had annotations. */
function withoutTriggerTime<T extends Annotated>(object: T): T {
  const { annotations, ...metadata }: Readonly<Record<string, unknown>> = { ...object.metadata };
  if (typeof annotations !== 'object' || annotations === null) return object;
  const others = Object.entries(annotations).filter(([name]) => name !== TRIGGER_TIME_ANNOTATION);
  const kept = others.length === 0 ? {} : { annotations: Object.fromEntries(others) };
  return { ...object, metadata: { ...metadata, ...kept } };
}
