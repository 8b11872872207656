/**
 * Interfaces on which REDIRECT fails, because they have no address of the packet's family (`nf_nat_redirect.c`): IPv4
 * packets are dropped; IPv6 ones go to the link-local address, where TCP works and the replies of UDP do not find back.
 * Said once for each, with the way out.
 */
import type { DesiredState } from '../desired/desired-state.ts';
import type { Logger } from '../log.ts';
import type { IpFamily, PerFamily } from '../model/address.ts';

const WHAT_FAILS: PerFamily<string> = { IPv4: 'Service traffic', IPv6: 'Service traffic by UDP' };

/** Names of pods' interfaces come and go for ever; above this many all may be told again. */
const MAX_TOLD = 4096;

export class UncapturableInterfaces {
  readonly #logger: Logger;
  #current: ReadonlySet<string> = new Set();
  /** Also those that have gone: an interface whose address flaps is not told again. */
  readonly #told = new Set<string>();

  constructor(logger: Logger) {
    this.#logger = logger;
  }

  get count(): number {
    return this.#current.size;
  }

  /** Only families in which something is captured count. */
  update(withoutAddress: PerFamily<readonly string[]>, desired: DesiredState): void {
    const families = new Set<IpFamily>(desired.capture.portals.map((portal) => portal.family));
    const next = new Set<string>();
    for (const family of families) {
      for (const name of withoutAddress[family]) {
        const key = `${family}/${name}`;
        next.add(key);
        if (this.#told.has(key)) continue;
        if (this.#told.size >= MAX_TOLD) this.#told.clear();
        this.#told.add(key);
        this.#logger.warn(
          { interface: name, family },
          `${WHAT_FAILS[family]} that enters by this interface is lost to REDIRECT: the interface has no address of ` +
            'that family. Start the proxy with --capture link-local, which needs none, or give it one',
        );
      }
    }
    this.#current = next;
  }
}
