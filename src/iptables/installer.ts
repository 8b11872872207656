/**
 * Keeps the kernel's rules of one family equal to a RuleSet. It remembers what it wrote, so that a sync only
 * writes the chains that changed; when that memory cannot be trusted (start, a failed write, a foreign change)
 * it reads the kernel and rewrites every chain of ours.
 */
import type { IpFamily } from '../model/address.ts';
import type { Iptables } from './iptables.ts';
import type { KernelTable } from './kernel-table.ts';
import { type TableUpdate, renderFullUpdate, renderPartialUpdate } from './render.ts';
import type { RuleSet, TableName, TableRules } from './rule.ts';

export interface Installed {
  readonly kind: 'full' | 'partial' | 'unchanged';
  readonly rulesWritten: Readonly<Record<TableName, number>>;
}

export class RuleInstaller {
  readonly #iptables: Iptables;
  readonly #installed = new Map<TableName, TableRules>();

  constructor(iptables: Iptables) {
    this.#iptables = iptables;
  }

  get family(): IpFamily {
    return this.#iptables.family;
  }

  /**
   * Brings the given tables to `wanted` with one iptables-restore, or none when nothing differs. nat is
   * committed before filter: a Service that gets endpoints must be captured before its REJECT goes.
   * Rejects as `Iptables` does; the next call then starts from what the kernel holds.
   */
  async install(wanted: RuleSet, tables: readonly TableName[] = ['nat', 'filter']): Promise<Installed> {
    const isFull = tables.some((table) => !this.#installed.has(table));
    const updates = new Map<TableName, TableUpdate>();
    for (const table of tables) updates.set(table, await this.#update(table, wanted));
    const input = [...updates.values()].map((update) => update.text).join('');
    const written = (table: TableName): number => updates.get(table)?.rulesWritten ?? 0;
    const rulesWritten = { nat: written('nat'), filter: written('filter') };
    if (input === '') return { kind: 'unchanged', rulesWritten };
    try {
      await this.#iptables.restore(input);
    } catch (error) {
      this.#installed.clear();
      throw error;
    }
    for (const table of tables) this.#installed.set(table, wanted[table]);
    return { kind: isFull ? 'full' : 'partial', rulesWritten };
  }

  /**
   * Compares the kernel with what was last installed; true when somebody changed it, and then the next
   * `install` rewrites everything. False also while nothing is installed.
   */
  async verify(): Promise<boolean> {
    for (const [table, rules] of this.#installed) {
      const kernel = await this.#iptables.read(table);
      if (kernel.matches(rules)) continue;
      this.#installed.clear();
      return true;
    }
    return false;
  }

  async #update(table: TableName, wanted: RuleSet): Promise<TableUpdate> {
    const at = { table, family: this.family };
    const installed = this.#installed.get(table);
    if (installed !== undefined) return renderPartialUpdate(at, wanted[table], installed);
    const kernel: KernelTable = await this.#iptables.read(table);
    return renderFullUpdate(at, wanted[table], kernel);
  }
}
