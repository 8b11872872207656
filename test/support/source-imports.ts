/** What the files of `src/` import, and their text without comments and strings, for the test of the architecture. */
import { readFileSync, readdirSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';

const SRC = join(import.meta.dirname, '..', '..', 'src');

export interface Import {
  /** A file of `src/` by its path there, or the specifier of a module from outside. */
  readonly target: string;
  readonly isOutside: boolean;
  /** Nothing of it is left at run time. */
  readonly isTypeOnly: boolean;
}

export interface SourceFile {
  /** Path below `src/`: `model/address.ts`. */
  readonly path: string;
  readonly lineCount: number;
  readonly imports: readonly Import[];
  /** Comments and strings are gone; line breaks are not. */
  readonly code: string;
}

/** Every file of `src/` as it is, in order of path. */
export function readSourceTexts(): readonly { readonly path: string; readonly text: string }[] {
  return readdirSync(SRC, { recursive: true, encoding: 'utf8' })
    .filter((path) => path.endsWith('.ts'))
    .sort()
    .map((path) => ({ path, text: readFileSync(join(SRC, path), 'utf8') }));
}

/** Every file of `src/`, in order of path. Throws on a way to import that is not understood. */
export function readSources(): readonly SourceFile[] {
  return readSourceTexts().map(({ path, text }) => ({
    path,
    lineCount: text.trimEnd().split('\n').length,
    imports: importsOf(text, path),
    code: withoutStrings(withoutComments(text)),
  }));
}

function importsOf(text: string, path: string): readonly Import[] {
  const code = withoutComments(text);
  const found: Import[] = [];
  const statement = /^(?:import|export)\s+(type\s)?([^'";]*?)\s*from\s+'([^']+)';/gm;
  for (const [, type, names = '', specifier = ''] of code.matchAll(statement)) {
    found.push(importOf(specifier, path, type !== undefined || hasOnlyTypes(names)));
  }
  // `await import('…')`, of what is only sometimes needed.
  const late = /\bimport\(\s*'([^']+)'\s*\)/g;
  for (const [, specifier = ''] of code.matchAll(late)) found.push(importOf(specifier, path, false));
  const unknown = /\b(?:import|require)\s*\(/.exec(code.replaceAll(late, ''));
  if (unknown !== null)
    throw new Error(`${path} imports in a way that this test does not follow: ${unknown[0]}`);
  const sideEffect = /^import\s+'([^']+)'/m.exec(code)?.[1];
  if (sideEffect !== undefined) found.push(importOf(sideEffect, path, false));
  return found;
}

/** `{ type A, type B }`. */
function hasOnlyTypes(names: string): boolean {
  const inside = /^\{([^}]*)\}$/.exec(names.trim())?.[1];
  if (inside === undefined) return false;
  return inside
    .split(',')
    .map((name) => name.trim())
    .filter((name) => name !== '')
    .every((name) => name.startsWith('type '));
}

function importOf(specifier: string, path: string, isTypeOnly: boolean): Import {
  const isOutside = !specifier.startsWith('.');
  const target = isOutside ? specifier : normalize(join(dirname(path), specifier));
  return { target, isOutside, isTypeOnly };
}

function withoutComments(text: string): string {
  return text
    .replaceAll(/\/\*[^]*?\*\//g, (comment) => comment.replaceAll(/[^\n]/g, ''))
    .replaceAll(/(^|\s)\/\/.*$/gm, '$1');
}

function withoutStrings(text: string): string {
  return text.replaceAll(/'(?:[^'\\\n]|\\.)*'/g, "''");
}
