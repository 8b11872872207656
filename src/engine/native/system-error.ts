/** Errors of the system that reach us as a number of errno.h, made into what Node's own sockets throw. */
import { getSystemErrorMessage } from 'node:util';
import type { ListenerSpec } from '../engine.ts';
import { errnoName } from './protocol.ts';

/** With `code`, `errno` (negative), `syscall`, `port` and, where it can only be one, `address`. */
export function listenError(
  errno: number,
  { protocol, port, addresses }: Pick<ListenerSpec, 'protocol' | 'port' | 'addresses'>,
): Error {
  const syscall = protocol === 'TCP' ? 'listen' : 'bind';
  const address = addresses.length === 1 ? addresses[0] : undefined;
  const where = address === undefined ? `port ${port}` : `${address}:${port}`;
  const code = errnoName(errno);
  const error = new Error(`${syscall} ${code}: ${getSystemErrorMessage(-errno)} ${where}`);
  return Object.assign(error, {
    errno: -errno,
    code,
    syscall,
    port,
    ...(address === undefined ? {} : { address }),
  });
}

/** With `code`, `errno` (negative) and `syscall`. */
export function systemError(errno: number, syscall: string): Error {
  const code = errnoName(errno);
  const error = new Error(`${syscall} ${code}: ${getSystemErrorMessage(-errno)}`);
  return Object.assign(error, { errno: -errno, code, syscall });
}
