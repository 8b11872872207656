/** Ways to spoil things: bytes of a text, and values of a JSON tree. All that happens follows from the source of chance. */
import type { Random } from '../support/random.ts';

/** What YAML, JSON and the fields of our objects have a meaning for, and what others have stumbled over. */
const TOKENS: readonly string[] = [
  ['\n', '\r\n', '\r', '\t', ' ', '  ', '\u0000', '\uFEFF', '\u0085', '\u2028', '\u{1F984}', '\u0007'],
  ['---\n', '\n---\n', '...\n', '--- ', '%YAML 1.2\n', '%TAG ! tag:x,2000:\n', '# c\n', '#'],
  ['&a ', '*a', '&a [*a]', '<<: *a\n', '<<: [*a, *a]\n', '? ', ': ', '- ', '- - - ', '|\n', '>-\n', '|9\n'],
  ['{', '}', '[', ']', ',', '"', "'", '\\', '\\u', '\\x', '!!binary ', '!!str ', '!<x> ', '@', '`'],
  [
    'null',
    '~',
    'true',
    'no',
    '0',
    '-1',
    '0x10',
    '0o17',
    '1e400',
    '.inf',
    '-.nan',
    '65536',
    '99999999999999999999',
  ],
  [
    '__proto__',
    'constructor',
    'toString',
    'length',
    'apiVersion: v1\n',
    'kind: List\n',
    'items:\n',
    'kind: Service\n',
  ],
  ['{"type":"ADDED"', '"resourceVersion":"7"', '"object":', 'BOOKMARK', 'ERROR', 'null,', '{}', '[]'],
  ['10.96.0.10', '010.0.0.1', '::ffff:10.0.0.1', 'fe80::1%eth0', '0.0.0.0/0', '::/0', '1/33', '256.1.1.1'],
].flat();

/** Bytes that begin, continue and break characters of UTF-8. */
const BYTES = [
  0x00, 0x0a, 0x22, 0x5c, 0x7b, 0x7f, 0x80, 0xbf, 0xc0, 0xc3, 0xe2, 0xed, 0xf0, 0xf4, 0xfe, 0xff,
];

/** One value where another one stood: of every type, and at the edges of what a field may be. */
const VALUES: readonly unknown[] = [
  [null, true, false, 0, -1, 1, 80, 65_535, 65_536, 1.5, 1e21, 2 ** 53, Number.MIN_SAFE_INTEGER],
  [
    '',
    ' ',
    'x',
    '80',
    'None',
    'IPv6',
    'SCTP',
    'ClientIP',
    'Local',
    'a\nb',
    '"; -j ACCEPT',
    '\u0000',
    '\uD800',
  ],
  ['10.96.0.10', '010.0.0.1', '999.1.1.1', '::1', '::ffff:1.2.3.4', 'fd00::%1', '10.0.0.0/8', '0.0.0.0/33'],
  [[], {}, [[]], [null], [{}], { name: null }, { length: 3 }],
].flat();

export function randomBytes(random: Random, longest: number): Buffer {
  return Buffer.from(Array.from({ length: random.below(longest + 1) }, () => random.below(256)));
}

/** Text of one kind that is repeated: what a careless pattern or a quadratic loop would choke on. */
export function hugeText(random: Random, longest: number): string {
  const kind = random.pick([
    '1',
    '0',
    ' ',
    '.',
    ':',
    '1.',
    '0:',
    '/',
    '-',
    'a',
    '\\',
    '"',
    '\t',
    '€',
    '*a ',
    '\n',
  ]);
  return kind.repeat(random.below(longest) / kind.length);
}

type Spoil = (bytes: Buffer, random: Random) => Buffer;

function spliced(
  bytes: Buffer,
  at: { readonly start: number; readonly end: number },
  put: Uint8Array,
): Buffer {
  return Buffer.concat([bytes.subarray(0, at.start), put, bytes.subarray(at.end)]);
}

function someRange(
  bytes: Buffer,
  random: Random,
  longest: number,
): { readonly start: number; readonly end: number } {
  const start = random.below(bytes.length + 1);
  return { start, end: Math.min(bytes.length, start + random.below(longest)) };
}

function here(bytes: Buffer, random: Random): { readonly start: number; readonly end: number } {
  const start = random.below(bytes.length + 1);
  return { start, end: start };
}

const SPOILS: readonly Spoil[] = [
  // Twice, because they are likely to leave something that is taken in.
  (bytes, random) => spliced(bytes, here(bytes, random), Buffer.from(random.pick(TOKENS))),
  (bytes, random) => spliced(bytes, here(bytes, random), Buffer.from(random.pick(TOKENS))),
  (bytes, random) => spliced(bytes, someRange(bytes, random, 8), Buffer.from(random.pick(TOKENS))),
  (bytes, random) => spliced(bytes, someRange(bytes, random, 40), Buffer.alloc(0)),
  (bytes, random) => {
    const range = someRange(bytes, random, 200);
    return spliced(bytes, here(bytes, random), bytes.subarray(range.start, range.end));
  },
  (bytes, random) => spliced(bytes, someRange(bytes, random, 2), Buffer.from([random.pick(BYTES)])),
  (bytes, random) => bytes.subarray(0, random.below(bytes.length + 1)),
  (bytes, random) => spliced(bytes, here(bytes, random), randomBytes(random, 16)),
];

/** One to five of them in a row. */
export function spoiledBytes(bytes: Buffer, random: Random): Buffer {
  let spoiled = bytes;
  for (let left = 1 + random.below(5); left > 0; left -= 1) spoiled = random.pick(SPOILS)(spoiled, random);
  return spoiled;
}

/** A copy in which up to four values are others, are gone, or stand somewhere else. */
export function spoiledValue(value: unknown, random: Random): unknown {
  const copy = { root: structuredClone(value) };
  for (let left = 1 + random.below(4); left > 0; left -= 1) spoilOne(copy, random);
  return copy.root;
}

function spoilOne(root: object, random: Random): void {
  let parent = root as Record<string, unknown>;
  let key = 'root';
  for (;;) {
    const child = parent[key];
    const keys = typeof child === 'object' && child !== null ? Object.keys(child) : [];
    if (keys.length === 0 || random.below(5) === 0) break;
    parent = child as Record<string, unknown>;
    key = random.pick(keys);
  }
  const choice = random.below(8);
  if (choice === 0) delete parent[key];
  else if (choice === 1 && Array.isArray(parent[key]))
    (parent[key] as unknown[]).push((parent[key] as unknown[])[0] ?? null);
  // Defined, because to assign to `__proto__` is to do something else.
  else if (choice === 2) Object.defineProperty(parent, random.pick(['x', '__proto__', key]), field(random));
  else if (choice === 3) parent[key] = hugeText(random, 2000);
  else Object.defineProperty(parent, key, field(random));
}

function field(random: Random): PropertyDescriptor {
  const value = structuredClone(random.pick(VALUES));
  return { value, writable: true, enumerable: true, configurable: true };
}
