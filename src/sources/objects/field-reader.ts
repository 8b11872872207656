/**
 * Type checks for values that came out of YAML or JSON, with the exact path of what is wrong. What passes may be used as
 * the type it was checked for; whether the value makes sense (a port of 70000) is the model's question. Pure.
 */

/** `field` is a path such as `spec.ports[0].port`; `message` goes on after it ("must be …"). */
export type Report = (field: string, message: string) => void;

/** Reports everything wrong below `path`. Never sees undefined. */
export type Check = (value: unknown, path: string, report: Report) => void;

export type JsonMap = Readonly<Record<string, unknown>>;

export function isJsonMap(value: unknown): value is JsonMap {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** What stands there, short enough for one line of log. */
export function valueText(value: unknown): string {
  if (value === undefined || value === null) return 'nothing';
  if (typeof value === 'number') return String(value);
  if (typeof value === 'object') return Array.isArray(value) ? 'a list' : 'a map';
  const json = JSON.stringify(value);
  return json.length > 60 ? `${json.slice(0, 60)}…` : json;
}

function checkThat(holds: (value: unknown) => boolean, what: string): Check {
  return (value, path, report) => {
    if (!holds(value)) report(path, `must be ${what}, got ${valueText(value)}`);
  };
}

export const text = checkThat((value) => typeof value === 'string', 'text');
export const nonEmptyText = checkThat((value) => typeof value === 'string' && value !== '', 'non-empty text');
export const integer = checkThat((value) => Number.isSafeInteger(value), 'an integer');
export const boolean = checkThat((value) => typeof value === 'boolean', 'true or false');
/** Kubernetes' IntOrString. */
export const integerOrText = checkThat(
  (value) => typeof value === 'string' || Number.isSafeInteger(value),
  'an integer or text',
);

export function listOf(item: Check): Check {
  return (value, path, report) => {
    if (!Array.isArray(value)) return report(path, `must be a list, got ${valueText(value)}`);
    for (const [index, element] of (value as unknown[]).entries()) item(element, `${path}[${index}]`, report);
  };
}

/** A map with any keys (labels, annotations, selectors). Of a key no API server would take the beginning names it. */
export function mapOf(item: Check): Check {
  return (value, path, report) => {
    if (!isJsonMap(value)) return report(path, `must be a map, got ${valueText(value)}`);
    for (const [key, element] of Object.entries(value)) {
      item(element, `${path}[${key.length > 320 ? `${key.slice(0, 320)}…` : key}]`, report);
    }
  };
}

/** A map whose known fields are checked and whose other fields pass. */
export function fieldsOf(known: Readonly<Record<string, Check>>, required: readonly string[] = []): Check {
  return (value, path, report) => {
    if (!isJsonMap(value)) return report(path, `must be a map, got ${valueText(value)}`);
    for (const [name, check] of Object.entries(known)) {
      const field = path === '' ? name : `${path}.${name}`;
      if (Object.hasOwn(value, name)) check(value[name], field, report);
      else if (required.includes(name)) report(field, 'is missing');
    }
  };
}

/** `metadata` of every object; `namespace` is filled in before it is checked. */
export const objectMeta = fieldsOf(
  {
    name: nonEmptyText,
    namespace: nonEmptyText,
    labels: mapOf(text),
    annotations: mapOf(text),
    creationTimestamp: text,
  },
  ['name'],
);
