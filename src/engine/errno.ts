/** What the system's errors mean to a dial and to a listener, for every engine. The one place where errno names are read. */
import { ProxyError, errnoOf } from '../errors.ts';
import type { DialFailure, ListenerSpec } from './engine.ts';

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

/** EPIPE: it had accepted, ended and reset before the dial was noticed. */
const REFUSALS: ReadonlySet<string> = new Set(['ECONNREFUSED', 'ECONNRESET', 'EPIPE']);

export function errnoText(error: unknown): string {
  return errnoOf(error) ?? 'UNKNOWN';
}

export function dialFailureFromErrno(errno: string): DialFailure {
  const fault = LOCAL.get(errno);
  if (fault !== undefined) return fault;
  if (errno === 'ETIMEDOUT') return 'timeout';
  return REFUSALS.has(errno) ? 'refused' : 'unreachable';
}

/** What `Engine.open` rejects with; `cause` is the system's error. */
export function openFault({ protocol, port, addresses }: ListenerSpec, cause: unknown): ProxyError {
  const where = `${protocol} port ${port} on ${addresses.join(', ')}`;
  return new ProxyError('ERR_LISTENER_OPEN', `cannot listen on ${where}`, { cause });
}

/** What `Engine.setAddresses` rejects with; `cause` is the system's error. */
export function addressesFault(addresses: readonly string[], cause: unknown): ProxyError {
  return new ProxyError('ERR_LISTENER_OPEN', `cannot listen on all of ${addresses.join(', ')}`, { cause });
}
