/** What the kernel says of itself, on the kernel the tests run on. */
import { existsSync } from 'node:fs';
import { expect, test } from 'vitest';
import { hasIPv6, localPortRange } from '../../src/host/kernel.ts';

test('the range of local ports is a range', () => {
  const { first, last } = localPortRange();
  expect(first).toBeGreaterThan(0);
  expect(last).toBeGreaterThan(first);
  expect(last).toBeLessThanOrEqual(65_535);
});

test('a kernel with an IPv6 interface has IPv6', () => {
  expect(hasIPv6()).toBe(existsSync('/proc/net/if_inet6'));
});
