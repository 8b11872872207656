import { describe, expect, test } from 'vitest';
import { hashText, mix32 } from '../../src/balancer/text-hash.ts';

// The values that implementations of MurmurHash3 (x86, 32 bits) are compared by.
test.each([
  { text: '', seed: 0, expected: 0 },
  { text: '', seed: 1, expected: 0x514e_28b7 },
  { text: '', seed: 0xffff_ffff, expected: 0x81f1_6f39 },
  { text: 'a', seed: 0x9747_b28c, expected: 0x7fa0_9ea6 },
  { text: 'aa', seed: 0x9747_b28c, expected: 0x5d21_1726 },
  { text: 'aaa', seed: 0x9747_b28c, expected: 0x283e_0130 },
  { text: 'aaaa', seed: 0x9747_b28c, expected: 0x5a97_808a },
  { text: 'abc', seed: 0, expected: 0xb3dd_93fa },
  { text: 'test', seed: 0, expected: 0xba6b_d213 },
  { text: 'Hello, world!', seed: 0x9747_b28c, expected: 0x2488_4cba },
  { text: 'The quick brown fox jumps over the lazy dog', seed: 0, expected: 0x2e4f_f723 },
])('the hash of "$text" with seed $seed is that of MurmurHash3', ({ text, seed, expected }) => {
  expect(hashText(text, seed)).toBe(expected);
});

test('texts that differ in length only by what is nothing in a block do not share a hash', () => {
  expect(new Set(['', '\0', '\0\0', '\0\0\0', '\0\0\0\0'].map((text) => hashText(text, 1))).size).toBe(5);
});

describe('mixing', () => {
  test('one bit more or less turns half of the bits, give or take an eighth', () => {
    for (let bit = 0; bit < 32; bit += 1) {
      let turned = 0;
      for (let value = 1; value <= 1000; value += 1) {
        turned += bitsOf(mix32(value) ^ mix32(value ^ (1 << bit)));
      }
      expect(turned / 1000).toBeGreaterThan(12);
      expect(turned / 1000).toBeLessThan(20);
    }
  });

  test('it loses nothing: no two values become one', () => {
    expect(new Set(Array.from({ length: 100_000 }, (_, value) => mix32(value))).size).toBe(100_000);
  });
});

function bitsOf(value: number): number {
  let bits = 0;
  for (let rest = value >>> 0; rest > 0; rest >>>= 1) bits += rest & 1;
  return bits;
}
