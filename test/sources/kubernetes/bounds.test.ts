/** What a server may send of any depth and any length, and what becomes of it. */
import { describe, expect, test } from 'vitest';
import { LineSplitter } from '../../../src/sources/kubernetes/line-splitter.ts';
import { ObjectStore } from '../../../src/sources/kubernetes/object-store.ts';
import { serviceResource } from '../../../src/sources/kubernetes/resource.ts';

function nested(depth: number, leaf: number): unknown {
  const deep = `${'{"a":'.repeat(depth)}${leaf}${'}'.repeat(depth)}`;
  const spec = `{"sessionAffinityConfig":{"unknown":${deep}}}`;
  return JSON.parse(`{"metadata":{"name":"web","namespace":"default"},"spec":${spec}}`);
}

test.each([100, 490, 510, 1000, 1500, 2000, 2500, 3000, 5000, 20_000])(
  'an object that is nested %i levels deep is taken in or refused, and comparing two of them harms nobody',
  (depth) => {
    const store = new ObjectStore(serviceResource(''));
    for (const leaf of [1, 2, 2]) {
      store.set(nested(depth, leaf));
      expect(store.take()).toHaveLength(depth < 500 ? 1 : 0);
    }
    expect(store.problems.map(({ message }) => message)).toEqual(
      depth < 500 ? [] : ['cannot be taken in: nested deeper than 500 levels'],
    );
  },
);

describe('a line', () => {
  const push = (splitter: LineSplitter, pieces: readonly Uint8Array[]): readonly string[] =>
    pieces.flatMap((piece) => [...splitter.push(piece)]);
  const bytesOf = (text: string): readonly Uint8Array[] =>
    Array.from(Buffer.from(text), (byte) => Buffer.from([byte]));

  test('that comes byte by byte is what it is in one piece, also where a shorter one follows', () => {
    const text = `${'€'.repeat(50_000)}\nshort\n`;
    expect(push(new LineSplitter(), bytesOf(text))).toEqual(push(new LineSplitter(), [Buffer.from(text)]));
  });

  test.each([
    { name: 'in one piece', piecesOf: (text: string) => [Buffer.from(text)] },
    { name: 'byte by byte', piecesOf: bytesOf },
  ])('that is too long is refused, $name as otherwise; one that is just not is taken', ({ piecesOf }) => {
    const splitter = new LineSplitter({ maxBytes: 10 });
    expect(push(splitter, piecesOf('0123456789\n'))).toEqual(['0123456789']);
    expect(() => push(splitter, piecesOf('0123456789X\n'))).toThrow('longer than 10 bytes');
  });
});
