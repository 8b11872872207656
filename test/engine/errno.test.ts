import { expect, test } from 'vitest';
import { dialFailureFromErrno, errnoText } from '../../src/engine/errno.ts';

test.each([
  { failure: 'noSourcePort', errnos: ['EADDRNOTAVAIL'] },
  { failure: 'noDescriptor', errnos: ['EMFILE', 'ENFILE'] },
  { failure: 'local', errnos: ['ENOBUFS', 'ENOMEM', 'EAFNOSUPPORT'] },
  { failure: 'refused', errnos: ['ECONNREFUSED', 'ECONNRESET', 'EPIPE'] },
  { failure: 'unreachable', errnos: ['EHOSTUNREACH', 'ENETUNREACH', 'EACCES', 'EPERM'] },
  { failure: 'timeout', errnos: ['ETIMEDOUT'] },
])('a dial that ends with one of $errnos is $failure', ({ failure, errnos }) => {
  expect(errnos.map(dialFailureFromErrno)).toEqual(errnos.map(() => failure));
});

test("an error that is not the system's has no errno of its own", () => {
  expect(errnoText(Object.assign(new Error('x'), { code: 'ECONNREFUSED' }))).toBe('ECONNREFUSED');
  expect(errnoText(new Error('x'))).toBe('UNKNOWN');
});
