/** What the conversions from API objects share: names, port numbers, and a value that comes with problems. Pure. */
import type { Problem } from '../errors.ts';

/** A converted value and what had to be left out of it. */
export interface Checked<T> {
  readonly value: T;
  readonly problems: readonly Problem[];
}

/** RFC 1123 label, as Kubernetes requires of namespaces, Services and port names (apimachinery `validation`). */
export function isDnsLabel(text: string): boolean {
  return text.length <= 63 && /^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/.test(text);
}

export function isPortNumber(value: number): boolean {
  return Number.isInteger(value) && value >= 1 && value <= 65_535;
}

/** `Service default/web`: how logs and problems name an object. */
export function objectText(kind: string, namespace: string, name: string): string {
  return `${kind} ${namespace}/${name}`;
}

export interface NamespacedName {
  readonly namespace: string;
  readonly name: string;
}

export function namespacedNameText({ namespace, name }: NamespacedName): string {
  return `${namespace}/${name}`;
}
