/** Which families can be captured on this node: looked at once, at start. */
import { setTimeout as delay } from 'node:timers/promises';
import { ProxyError, isProxyError } from '../errors.ts';
import type { IpFamily } from '../model/address.ts';
import { type FlavourDeps, chooseIptables } from './flavour.ts';
import type { Iptables } from './iptables.ts';

/** A program that fails is tried this often before its family is given up. */
const TRIES = 4;
const RETRY_MS = 500;

/**
 * The iptables of each of the families that this node can capture. A family whose iptables is not installed, or fails at every
 * try, is left out with a warning. Rejects with `ERR_IPTABLES_UNAVAILABLE` when none works.
 */
export async function usableIptables(
  families: readonly IpFamily[],
  deps: FlavourDeps,
): Promise<readonly Iptables[]> {
  const open = await chooseIptables(deps);
  const usable: Iptables[] = [];
  let lastFault: unknown;
  for (const family of families) {
    const iptables = open(family);
    const fault = await faultOf(iptables);
    if (fault === undefined) {
      usable.push(iptables);
    } else {
      lastFault = fault;
      deps.logger.warn({ family, error: fault }, 'No Service traffic of this family is captured');
    }
  }
  if (usable.length > 0) return usable;
  throw new ProxyError('ERR_IPTABLES_UNAVAILABLE', 'iptables works for neither family', { cause: lastFault });
}

/** Why the program cannot be used; a fault that may pass is looked at again before it decides for good. */
async function faultOf(iptables: Iptables): Promise<unknown> {
  for (let tries = 1; ; tries += 1) {
    try {
      await iptables.read('nat');
      return undefined;
    } catch (error) {
      const isMissing = error instanceof ProxyError && isProxyError(error.cause, 'ERR_EXEC_NOT_FOUND');
      if (isMissing || tries === TRIES) return error;
      await delay(RETRY_MS);
    }
  }
}
