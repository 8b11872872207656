/** What Node's socket errors mean to a dial. The one place where errno names are read. */
import { errnoOf } from '../../errors.ts';
import type { DialFailure } from '../engine.ts';

/** Faults of this node; no endpoint is to blame. */
const LOCAL: ReadonlyMap<string, DialFailure> = new Map([
  ['EADDRNOTAVAIL', 'noSourcePort'],
  ['EMFILE', 'noDescriptor'],
  ['ENFILE', 'noDescriptor'],
  ['ENOBUFS', 'local'],
  ['ENOMEM', 'local'],
  ['EADDRINUSE', 'local'],
  ['EINVAL', 'local'],
  ['EAFNOSUPPORT', 'local'],
]);

export function errnoText(error: unknown): string {
  return errnoOf(error) ?? 'UNKNOWN';
}

export function dialFailureFromErrno(errno: string): DialFailure {
  const fault = LOCAL.get(errno);
  if (fault !== undefined) return fault;
  if (errno === 'ETIMEDOUT') return 'timeout';
  return errno === 'ECONNREFUSED' || errno === 'ECONNRESET' ? 'refused' : 'unreachable';
}
