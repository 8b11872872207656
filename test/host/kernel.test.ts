/** What the kernel says of itself, on the kernel the tests run on. */
import { expect, test } from 'vitest';
import { localPortRange } from '../../src/host/kernel.ts';

test('the range of local ports is a range', () => {
  const { first, last } = localPortRange();
  expect(first).toBeGreaterThan(0);
  expect(last).toBeGreaterThan(first);
  expect(last).toBeLessThanOrEqual(65_535);
});
