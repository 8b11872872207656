/** What the conversions from API objects share: names, port numbers, and a value that comes with problems. Pure. */
import type { Problem, ProblemCode } from '../errors.ts';

/** A converted value and what had to be left out of it. */
export interface Checked<T> {
  readonly value: T;
  readonly problems: readonly Problem[];
}

/** Takes what is wrong with one field of the object that is being converted. */
export type Report = (field: string, message: string, code?: ProblemCode) => void;

/** RFC 1123 label, as Kubernetes requires of namespaces, Services and port names (apimachinery `validation`). */
export function isDnsLabel(text: string): boolean {
  return text.length <= 63 && /^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/.test(text);
}

export function isPortNumber(value: number): boolean {
  return Number.isInteger(value) && value >= 1 && value <= 65_535;
}

/** `Service default/web`, `Node n1`: how logs and problems name an object. `namespace` is '' where there is none. */
export function objectText(kind: string, namespace: string, name: string): string {
  return namespace === '' ? `${kind} ${name}` : `${kind} ${namespace}/${name}`;
}

export interface NamespacedName {
  readonly namespace: string;
  readonly name: string;
}

export function namespacedNameText({ namespace, name }: NamespacedName): string {
  return `${namespace}/${name}`;
}
