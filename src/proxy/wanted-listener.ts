/** A listener as others ask for it, and what its faults mean. Pure. */
import { ProxyError, errnoOf } from '../errors.ts';
import type { IpFamily } from '../model/address.ts';
import type { Protocol } from '../model/service-port-name.ts';
import type { PortSpace } from './proxy-ports.ts';

export interface WantedListener {
  readonly key: string;
  readonly servicePortName: string;
  readonly protocol: Protocol;
  readonly family: IpFamily;
  /** As `ListenerSpec.addresses`. */
  readonly addresses: readonly string[];
}

export interface ListenerPort {
  readonly family: IpFamily;
  readonly protocol: Protocol;
  readonly port: number;
  readonly servicePortName: string;
}

/** The numbering that its port is of. */
export function spaceOf({ protocol, family }: WantedListener): PortSpace {
  return `${protocol}/${family}`;
}

/** The fault with the name of the Service port that it harms. */
export function faultOf(
  { servicePortName }: WantedListener,
  { code, message, cause }: ProxyError,
): ProxyError {
  return new ProxyError(code, `${servicePortName}: ${message}`, { cause });
}

/** Somebody else has the port. */
export function isClash(error: ProxyError): boolean {
  return errnoOf(error.cause) === 'EADDRINUSE';
}

export function isSame(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((value, index) => value === b[index]);
}
