/**
 * Says once for each built-in chain that another program's rules stand before our jump there. What they take never comes to
 * us. We do not fight for the first place: agents that insist on it would insert themselves again for ever.
 */
import type { TableRulesAhead } from '../iptables/installer.ts';
import type { Logger } from '../log.ts';
import type { IpFamily } from '../model/address.ts';

export class RulesAheadLog {
  readonly #logger: Logger;
  readonly #told = new Set<string>();

  constructor(logger: Logger) {
    this.#logger = logger;
  }

  update(family: IpFamily, rules: readonly TableRulesAhead[]): void {
    for (const { table, hook, count, first } of rules) {
      const place = `${family} ${table} ${hook}`;
      if (count === 0 || this.#told.has(place)) continue;
      this.#told.add(place);
      this.#logger.warn(
        { family, table, chain: hook, rules: count, first },
        'Rules of another program stand before ours',
      );
    }
  }
}
