/** Kernel settings as files: read where they are, and written only where they are. */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { sysctls } from '../../src/host/sysctl.ts';

test('a setting is a whole number', () => {
  const text = readFileSync('/proc/sys/net/core/somaxconn', 'utf8');
  expect(sysctls.read('net.core.somaxconn')).toBe(Number(text));
});

test.each(['net.core.there_is_none', 'kernel.ostype', 'net.core'])(
  '%s is none, and reading it is no fault',
  (name) => {
    expect(sysctls.read(name)).toBeUndefined();
  },
);

test('one that is not there cannot be written, and is not made', () => {
  expect(() => sysctls.write('net.core.there_is_none', 1)).toThrowError(
    expect.objectContaining({
      code: 'ERR_SYSCTL_WRITE',
      message: 'cannot set net.core.there_is_none to 1',
    }),
  );
  expect(sysctls.read('net.core.there_is_none')).toBeUndefined();
});
