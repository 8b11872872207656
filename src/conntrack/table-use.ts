/** How full the connection tracking table is, and the warning before it is full: then new connections are dropped. */
import type { Sysctls } from '../host/sysctl.ts';
import type { Logger } from '../log.ts';

export interface TableUse {
  readonly entries: number;
  readonly max: number;
}

const WARN_ABOVE = 0.9;
const WARN_AGAIN_BELOW = 0.8;

/** Undefined where the kernel does not tell, or knows no limit. */
export function readTableUse(sysctls: Pick<Sysctls, 'read'>): TableUse | undefined {
  const entries = sysctls.read('net.netfilter.nf_conntrack_count');
  const max = sysctls.read('net.netfilter.nf_conntrack_max');
  return entries === undefined || max === undefined ? undefined : { entries, max };
}

export class TableAlarm {
  readonly #logger: Logger;
  #isRaised = false;

  constructor(logger: Logger) {
    this.#logger = logger;
  }

  /** To be told from time to time: one warning when the table is nearly full, and not again before it was not. */
  check(use: TableUse | undefined): void {
    if (use === undefined || use.max === 0) return;
    const share = use.entries / use.max;
    if (share < WARN_AGAIN_BELOW) this.#isRaised = false;
    if (share <= WARN_ABOVE || this.#isRaised) return;
    this.#isRaised = true;
    this.#logger.warn(
      { ...use },
      'The connection tracking table is nearly full: when it is, the kernel drops new connections. This proxy needs two entries for each',
    );
  }
}
