/**
 * dgram resolves every address it is given, also literal ones, and calls back a tick later. All our addresses
 * are literal: hand them back at once.
 */
import { isIP } from 'node:net';

type LookupCallback = (error: NodeJS.ErrnoException | null, address: string, family: number) => void;

export function literalLookup(address: string, _options: unknown, callback: LookupCallback): void {
  callback(null, address, isIP(address));
}
