/** What Node's socket errors mean to a dial. The one place where errno names are read. */
import { errnoOf } from '../../errors.ts';
import type { DialFailure } from '../engine.ts';

/** Faults of this node; no endpoint is to blame. */
const LOCAL = new Set([
  'EADDRNOTAVAIL',
  'EMFILE',
  'ENFILE',
  'ENOBUFS',
  'ENOMEM',
  'EADDRINUSE',
  'EINVAL',
  'EAFNOSUPPORT',
]);

export function errnoText(error: unknown): string {
  return errnoOf(error) ?? 'UNKNOWN';
}

export function dialFailureFromErrno(errno: string): DialFailure {
  if (LOCAL.has(errno)) return 'local';
  if (errno === 'ETIMEDOUT') return 'timeout';
  return errno === 'ECONNREFUSED' || errno === 'ECONNRESET' ? 'refused' : 'unreachable';
}
