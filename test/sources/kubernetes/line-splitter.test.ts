/** Lines out of bytes that come in pieces of any size. */
import { describe, expect, test } from 'vitest';
import { LineSplitter, MAX_LINE_BYTES } from '../../../src/sources/kubernetes/line-splitter.ts';
import { Random, seeds } from '../../support/random.ts';

function linesOf(chunks: readonly Uint8Array[], splitter = new LineSplitter()): string[] {
  return chunks.flatMap((chunk) => [...splitter.push(chunk)]);
}

const bytes = (text: string): Buffer => Buffer.from(text);

/** In pieces of 0 to `longest` bytes. */
function cut(whole: Uint8Array, random: Random, longest: number): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  for (let start = 0; start < whole.length; ) {
    const length = random.below(longest + 1);
    pieces.push(whole.subarray(start, start + length));
    start += length;
  }
  return pieces;
}

describe('a stream is cut into lines', () => {
  test.for([
    { name: 'at every line feed', text: 'a\nb\nc\n', lines: ['a', 'b', 'c'] },
    { name: 'without the line that has not ended', text: 'a\nb', lines: ['a'] },
    { name: 'without empty lines', text: '\n\na\n\n\nb\n', lines: ['a', 'b'] },
    { name: 'without lines of white space', text: ' \n\t\r\na\n', lines: ['a'] },
    {
      name: 'with the characters of every script',
      text: 'grüß €\n日本語 🦄\n',
      lines: ['grüß €', '日本語 🦄'],
    },
    {
      name: 'not at other line ends that Unicode knows',
      text: 'a\u2028b\u0085c\n',
      lines: ['a\u2028b\u0085c'],
    },
  ])('$name', ({ text, lines }) => {
    expect(linesOf([bytes(text)])).toEqual(lines);
  });

  test('and a carriage return before the line feed harms no JSON', () => {
    const lines = linesOf([bytes('{"a":1}\r\n{"b":2}\r\n\r\n')]);
    expect(lines.map((line) => JSON.parse(line) as unknown)).toEqual([{ a: 1 }, { b: 2 }]);
  });

  test('and knows how much has come of the line that has not ended', () => {
    const splitter = new LineSplitter();
    expect(linesOf([bytes('a\nbc'), bytes('d€')], splitter)).toEqual(['a']);
    expect(splitter.pendingBytes).toBe(6);
    expect(linesOf([bytes('\n')], splitter)).toEqual(['bcd€']);
    expect(splitter.pendingBytes).toBe(0);
  });

  test('also where one piece brings many lines and is looked at only in part', () => {
    const [first] = new LineSplitter().push(bytes('a\nb\nc\n'));
    expect(first).toBe('a');
  });

  const ALPHABET = [
    'a',
    'Z',
    '"',
    '{',
    '}',
    ' ',
    '\t',
    'ü',
    '€',
    '日',
    '🦄',
    '\u2028',
    '\0',
    '\n',
    '\n',
    '\r\n',
    '\n\n',
  ];
  test.for(seeds(100))('equally, however it is cut into pieces (seed %i)', (seed) => {
    const random = new Random(seed);
    const text = `${Array.from({ length: random.below(200) }, () => random.pick(ALPHABET)).join('')}\n`;
    const expected = text.split('\n').filter((line) => line.trim() !== '');
    const whole = bytes(text);
    expect(linesOf([whole])).toEqual(expected);
    expect(linesOf(Array.from(whole, (byte) => Uint8Array.of(byte)))).toEqual(expected);
    for (const longest of [2, 5, 50]) expect(linesOf(cut(whole, random, longest))).toEqual(expected);
  });
});

describe('what is remembered of a line that has not ended is bounded', () => {
  const splitter = (maxBytes: number): LineSplitter => new LineSplitter({ maxBytes });

  test('to far more than any object is long', () => {
    expect(MAX_LINE_BYTES).toBe(67_108_864);
  });

  test('and a line of just that length passes', () => {
    expect(linesOf([bytes('12345'), bytes('67890'), bytes('\n')], splitter(10))).toEqual(['1234567890']);
  });

  test.for([
    { name: 'in one piece', chunks: ['12345678901'] },
    { name: 'in many pieces', chunks: ['1234', '5678', '901'] },
    { name: 'in bytes, not in characters', chunks: ['€€', '€€'] },
    { name: 'with its last piece', chunks: ['1234567890', '1\n'] },
  ])('one that is longer $name ends it, with an error that quotes nothing of it', ({ chunks }) => {
    const fault = (): unknown => linesOf(chunks.map(bytes), splitter(10));
    expect(fault).toThrow(expect.objectContaining({ code: 'ERR_API_RESPONSE' }) as Error);
    expect(fault).toThrow(/longer than 10 bytes$/);
  });

  test('and the lines before it were handed over', () => {
    const seen: string[] = [];
    expect(() => {
      for (const line of splitter(4).push(bytes('one\ntwo\nthree'))) seen.push(line);
    }).toThrow('longer than 4 bytes');
    expect(seen).toEqual(['one', 'two']);
  });

  test('and starts anew with each line, so that a stream may go on for ever', () => {
    const lines = splitter(8);
    for (let count = 0; count < 10_000; count += 1) {
      expect(linesOf([bytes('123'), bytes('456\n7')], lines)).toHaveLength(1);
      expect(linesOf([bytes('\n')], lines)).toEqual(['7']);
    }
    expect(lines.pendingBytes).toBe(0);
  });
});
