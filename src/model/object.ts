/** What the conversions from API objects share: names, port numbers, and a value that comes with problems. Pure. */
import type { Problem, ProblemCode } from '../errors.ts';

/** A converted value and what had to be left out of it. */
export interface Checked<T> {
  readonly value: T;
  readonly problems: readonly Problem[];
}

/** Takes what is wrong with one field of the object that is being converted. */
export type Report = (field: string, message: string, code?: ProblemCode) => void;

const MAX_QUOTED_LENGTH = 100;

/** The text as it stands in an object, in quotes, short enough for one line of log. */
export function quoted(text: string): string {
  const isShort = text.length <= MAX_QUOTED_LENGTH;
  return isShort ? JSON.stringify(text) : `${JSON.stringify(text.slice(0, MAX_QUOTED_LENGTH))}…`;
}

/** RFC 1123 label, as Kubernetes requires of namespaces, Services and port names (apimachinery `validation`). */
export function isDnsLabel(text: string): boolean {
  return text.length <= 63 && /^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/.test(text);
}

export function isPortNumber(value: number): boolean {
  return Number.isInteger(value) && value >= 1 && value <= 65_535;
}

/** `Service default/web`, `Node n1`: how logs and problems name an object. `namespace` is '' where there is none. */
export function objectText(kind: string, namespace: string, name: string): string {
  return `${kind} ${shortName(namespace === '' ? name : `${namespace}/${name}`)}`;
}

/** Names in a file may be of any length; those of an API server are never longer than this. */
const MAX_NAME_LENGTH = 63 + 1 + 253;

/** `namespace/name`, short enough for one line of log. */
export function shortName(name: string): string {
  return name.length <= MAX_NAME_LENGTH ? name : `${name.slice(0, MAX_NAME_LENGTH)}…`;
}

export interface NamespacedName {
  readonly namespace: string;
  readonly name: string;
}

export function namespacedNameText({ namespace, name }: NamespacedName): string {
  return `${namespace}/${name}`;
}
