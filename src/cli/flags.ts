/**
 * A command line in pflag's grammar, driven by a table. Pure: takes the arguments, gives values or throws a
 * ProxyError that names the flag, the offending value and what would be accepted.
 *
 * `--flag value`, `--flag=value`, `--bool` (which never takes the next word), `--bool=false`, `-v4`, `-v=4`,
 * `-v 4`; `_` stands for `-` in names, as in every Kubernetes component; `--` ends the flags. A flag given twice:
 * the last one counts, slices add up (and the first replaces the default).
 */
import { ProxyError } from '../errors.ts';
import type { FlagType } from './flag-types.ts';

export interface FlagSpec<T> {
  readonly type: FlagType<T>;
  readonly default: T;
  /** One letter, for `-v`. */
  readonly shorthand?: string;
  readonly help: string;
  /** Heading under which `--help` shows it. */
  readonly group: string;
}

/** Makes flags that `--help` shows under this heading. */
export function flagIn(group: string) {
  return <T>(type: FlagType<T>, fallback: NoInfer<T>, help: string, shorthand?: string): FlagSpec<T> => ({
    type,
    default: fallback,
    help,
    group,
    ...(shorthand === undefined ? {} : { shorthand }),
  });
}

/** Flags by name, without the dashes. */
export type FlagTable = Readonly<Record<string, FlagSpec<unknown>>>;

export type FlagValues<T extends FlagTable> = {
  readonly [K in keyof T]: T[K] extends FlagSpec<infer V> ? V : never;
};

export interface ParsedFlags<T extends FlagTable> {
  /** A value for every flag of the table, the default where none was given. */
  readonly values: FlagValues<T>;
  /** Those that were given, extras included, by name. */
  readonly given: ReadonlyMap<string, unknown>;
}

/**
 * Parses `args` (without the program's name) by `table`; flags of `extras` are parsed too and appear in `given`
 * only. Throws `ERR_FLAG_UNKNOWN` for an unknown flag, `ERR_FLAG_VALUE` for everything else.
 */
export function parseFlags<T extends FlagTable>(
  args: readonly string[],
  table: T,
  extras: FlagTable = {},
): ParsedFlags<T> {
  const all: FlagTable = { ...extras, ...table };
  const given = new Map<string, unknown>();
  const words = [...args];
  for (let word = words.shift(); word !== undefined; word = words.shift()) {
    if (word === '--') refusePositional(words[0]);
    else if (word.startsWith('--')) takeLong(word.slice(2), words, { all, given });
    else if (word.startsWith('-') && word !== '-') takeShort(word.slice(1), words, { all, given });
    else refusePositional(word);
  }
  const values: Record<string, unknown> = {};
  for (const [name, spec] of Object.entries(table))
    values[name] = given.has(name) ? given.get(name) : spec.default;
  return { values: values as FlagValues<T>, given };
}

interface Parsing {
  readonly all: FlagTable;
  readonly given: Map<string, unknown>;
}

function refusePositional(word: string | undefined): void {
  if (word === undefined) return;
  throw new ProxyError(
    'ERR_FLAG_VALUE',
    `unexpected argument ${JSON.stringify(word)}: only flags are accepted`,
  );
}

function takeLong(body: string, rest: string[], { all, given }: Parsing): void {
  const equals = body.indexOf('=');
  const name = (equals < 0 ? body : body.slice(0, equals)).replaceAll('_', '-');
  const spec = Object.hasOwn(all, name) ? all[name] : undefined;
  if (spec === undefined) throw unknownFlag(`--${name}`, all);
  const value = equals < 0 ? (spec.type.bareValue ?? nextWord(name, spec, rest)) : body.slice(equals + 1);
  store(name, spec, { value, given });
}

/** `-v4`, `-v=4`, `-v 4`, and booleans in one word (`-hv4`). */
function takeShort(letters: string, rest: string[], { all, given }: Parsing): void {
  const letter = letters[0] ?? '';
  const after = letters.slice(1);
  const found = Object.entries(all).find(([, spec]) => spec.shorthand === letter);
  if (found === undefined) throw unknownFlag(`-${letters}`, all);
  const [name, spec] = found;
  if (after.startsWith('=')) return store(name, spec, { value: after.slice(1), given });
  if (spec.type.bareValue !== undefined) {
    store(name, spec, { value: spec.type.bareValue, given });
    return after === '' ? undefined : takeShort(after, rest, { all, given });
  }
  return store(name, spec, { value: after === '' ? nextWord(name, spec, rest) : after, given });
}

function nextWord(name: string, spec: FlagSpec<unknown>, rest: string[]): string {
  const word = rest.shift();
  if (word !== undefined) return word;
  throw new ProxyError('ERR_FLAG_VALUE', `--${name} needs a value: ${spec.type.accepts}`);
}

function store(
  name: string,
  { type }: FlagSpec<unknown>,
  to: { value: string; given: Map<string, unknown> },
): void {
  const parsed = type.parse(to.value);
  if (parsed === undefined) throw invalidFlag(name, to.value, `must be ${type.accepts}`);
  const before = to.given.get(name);
  to.given.set(
    name,
    before === undefined || type.append === undefined ? parsed : type.append(before, parsed),
  );
}

/** The one form of the message about a value, also for checks that need several flags. */
export function invalidFlag(name: string, value: string, why: string): ProxyError {
  return new ProxyError('ERR_FLAG_VALUE', `invalid argument ${JSON.stringify(value)} for --${name}: ${why}`);
}

function unknownFlag(flag: string, all: FlagTable): ProxyError {
  const wanted = flag.replace(/^-+/, '');
  const near = Object.keys(all)
    .map((name) => ({ name, distance: editDistance(wanted, name) }))
    .filter(({ name, distance }) => distance <= Math.min(3, name.length / 2))
    .sort((a, b) => a.distance - b.distance)[0];
  const hint = near === undefined ? '--help lists them' : `did you mean --${near.name}?`;
  return new ProxyError('ERR_FLAG_UNKNOWN', `unknown flag ${JSON.stringify(flag)}: ${hint}`);
}

/** Levenshtein's distance, one row at a time. */
function editDistance(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, index) => index);
  for (const [i, a] of from.split('').entries()) {
    const next = [i + 1];
    for (const [j, b] of to.split('').entries()) {
      next.push(Math.min((next[j] ?? 0) + 1, (row[j + 1] ?? 0) + 1, (row[j] ?? 0) + (a === b ? 0 : 1)));
    }
    row = next;
  }
  return row[to.length] ?? 0;
}
