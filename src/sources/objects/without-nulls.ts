/** Null in API objects. Pure. */
import { isJsonMap } from './field-reader.ts';

/** More than manifests may have (`parse-documents.ts`), and far more than any object of the API has. */
const MAX_DEPTH = 500;

/**
 * The value without the fields and elements that are null: in the API null means absent, everywhere, and both
 * kubectl (`creationTimestamp: null`) and API servers (`endpoints: null`) write it. A copy. Throws a RangeError on what is
 * nested deeper than MAX_DEPTH, so that whoever walks the copy after us, comparing it say, needs no care.
 */
export function withoutNulls(value: unknown): unknown {
  return copyOf(value, 0);
}

function copyOf(value: unknown, depth: number): unknown {
  if (depth > MAX_DEPTH) throw new RangeError(`nested deeper than ${MAX_DEPTH} levels`);
  if (Array.isArray(value)) return value.map((element) => copyOf(element, depth + 1));
  if (!isJsonMap(value)) return value;
  // fromEntries defines: a key `__proto__` stays a key.
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, element]) => element !== undefined && element !== null)
      .map(([key, element]) => [key, copyOf(element, depth + 1)]),
  );
}
