/** Null in API objects. Pure. */
import { isJsonMap } from './field-reader.ts';

/**
 * The value without the fields and elements that are null: in the API null means absent, everywhere, and both
 * kubectl (`creationTimestamp: null`) and API servers (`endpoints: null`) write it. A copy.
 */
export function withoutNulls(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutNulls);
  if (!isJsonMap(value)) return value;
  // fromEntries defines: a key `__proto__` stays a key.
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, element]) => element !== undefined && element !== null)
      .map(([key, element]) => [key, withoutNulls(element)]),
  );
}
