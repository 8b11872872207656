/**
 * Text of one file → its YAML documents as plain values. A syntax error costs the document it stands in, not the
 * others; values are trees of bounded size whatever aliases the text plays with. Pure; never throws.
 */
import { CORE_SCHEMA, YAMLException, loadAll, mergeTag } from 'js-yaml';
import { errorText } from '../../errors.ts';

export type ParsedDocument =
  /** `value` is undefined or null for an empty document; it may share parts, but walking it ends. */
  | { readonly number: number; readonly kind: 'value'; readonly value: unknown }
  | { readonly number: number; readonly kind: 'fault'; readonly message: string };

/** `<<` is merged as kubectl (sigs.k8s.io/yaml) does; booleans are YAML 1.2's: `yes` is text. */
const SCHEMA = CORE_SCHEMA.withTags(mergeTag);

/** What aliases may add to a file, in nodes: plenty for sharing a label map, nothing for a "billion laughs". */
const ALIAS_ALLOWANCE = 100_000;
/** js-yaml stops at 100 levels, but does not count through aliases. */
const MAX_DEPTH = 200;

/** The documents in order, numbered from 1 as they stand in the file. */
export function parseDocuments(text: string): readonly ParsedDocument[] {
  // Without aliases every node takes a character of its own, so this refuses no file that has none.
  const budget = { nodes: text.length + ALIAS_ALLOWANCE };
  const whole = tryLoad(text);
  const loaded =
    whole.kind === 'values' ? [whole] : splitDocuments(text).map(({ source, line }) => tryLoad(source, line));
  const documents: ParsedDocument[] = [];
  for (const part of loaded) {
    const number = documents.length + 1;
    if (part.kind === 'fault') documents.push({ number, kind: 'fault', message: part.message });
    else documents.push(...part.values.map((value, index) => boundedDocument(number + index, value, budget)));
  }
  return documents;
}

type Loaded =
  | { readonly kind: 'values'; readonly values: readonly unknown[] }
  | { readonly kind: 'fault'; readonly message: string };

function tryLoad(source: string, firstLine = 0): Loaded {
  try {
    return { kind: 'values', values: loadAll(source, { schema: SCHEMA }) };
  } catch (error: unknown) {
    return { kind: 'fault', message: faultText(error, firstLine) };
  }
}

/** The one place that knows js-yaml's errors. */
function faultText(error: unknown, firstLine: number): string {
  if (!(error instanceof YAMLException)) return errorText(error);
  if (error.mark === undefined) return error.reason;
  return `line ${firstLine + error.mark.line + 1}, column ${error.mark.column + 1}: ${error.reason}`;
}

/**
 * The text cut where `---` begins a line: YAML ends every document there, even inside a block scalar or quotes
 * (YAML 1.2.2, 9.1.2 and c-forbidden). What stands before the first `---` belongs to it when it is comments and
 * directives only.
 */
function splitDocuments(text: string): { source: string; line: number }[] {
  const parts: { source: string; line: number }[] = [];
  let line = 0;
  for (const source of text.split(/^(?=---(?:\s|$))/m)) {
    const first = parts.at(0);
    if (first !== undefined && parts.length === 1 && isPreamble(first.source)) first.source += source;
    else parts.push({ source, line });
    line += source.split('\n').length - 1;
  }
  return parts;
}

function isPreamble(source: string): boolean {
  return !source.startsWith('---') && source.split('\n').every((line) => /^(?:%.*|\s*(?:#.*)?)$/.test(line));
}

function boundedDocument(number: number, value: unknown, budget: { nodes: number }): ParsedDocument {
  if (isTreeWithin(value, budget)) return { number, kind: 'value', value };
  return { number, kind: 'fault', message: 'aliases make it circular, too deep or too large' };
}

/** Walks the value as the tree that its aliases stand for, and takes each node from the budget. No recursion. */
function isTreeWithin(root: unknown, budget: { nodes: number }): boolean {
  const pending: { node: unknown; depth: number }[] = [{ node: root, depth: 0 }];
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    budget.nodes -= 1;
    if (budget.nodes < 0 || next.depth > MAX_DEPTH) return false;
    if (typeof next.node !== 'object' || next.node === null) continue;
    for (const child of Object.values(next.node) as unknown[])
      pending.push({ node: child, depth: next.depth + 1 });
  }
  return true;
}
