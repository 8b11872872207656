/**
 * Keeps the kernel's rules of one family equal to a RuleSet. It remembers what it wrote, so that a sync only
 * writes the chains that changed; when that memory cannot be trusted (start, a failed write, a foreign change)
 * it reads the kernel and rewrites every chain of ours. Of several instances only the one with the highest generation
 * writes: every write is fenced by the canary (canary.ts), so an older one is refused by the kernel itself.
 */
import { ProxyError, isProxyError } from '../errors.ts';
import type { IpFamily } from '../model/address.ts';
import type { Stamp } from './canary.ts';
import { type ForeignChange, foreignChangeOf, gravest } from './foreign-change.ts';
import type { Iptables } from './iptables.ts';
import { type KernelTable, type RulesAhead, fingerprintOf, parseKernelTable } from './kernel-table.ts';
import {
  type InstalledTable,
  type TableUpdate,
  type UpdateContext,
  renderFullUpdate,
  renderPartialUpdate,
  renderRetirement,
  renderTakeover,
} from './render.ts';
import { type RuleSet, TABLES, type TableName } from './rule.ts';
import { Spellings } from './spellings.ts';
import { type TableText, renderTableText } from './table-text.ts';

/** Why everything was written: the first time of a generation, after a write that failed, or because of what somebody else did. */
export type RewriteReason = 'start' | 'failure' | ForeignChange;

export type Installed = {
  readonly rulesWritten: Readonly<Record<TableName, number>>;
} & ({ readonly kind: 'full'; readonly reason: RewriteReason } | { readonly kind: 'partial' | 'unchanged' });

export interface InstallerOptions {
  /**
   * Of this instance, an integer from 1 on; asked at every write. It never falls. When it rises this instance has become the
   * owner once more: everything is written again, for the reason `start`.
   */
  readonly generation: () => number;
}

/** What we know the kernel to hold. */
interface InForce extends InstalledTable {
  /** Of what iptables-save printed when it was last compared. */
  fingerprint?: string;
}

/** A write, whatever became of it. */
interface Attempt {
  readonly texts: ReadonlyMap<TableName, TableText>;
  readonly stamp: Stamp;
}

/** Rules of other programs before our jump in a built-in chain. */
export interface TableRulesAhead extends RulesAhead {
  readonly table: TableName;
}

export class RuleInstaller {
  readonly #iptables: Iptables;
  readonly #generation: () => number;
  #writes = 0;
  #lastStamp: Stamp = { generation: 0, write: 0 };
  readonly #inForce = new Map<TableName, InForce>();
  readonly #spellings = new Map<TableName, Spellings>(TABLES.map((table) => [table, new Spellings()]));
  readonly #rulesAhead = new Map<TableName, readonly RulesAhead[]>();
  /** Why the next full rewrite will be due. */
  #reason: RewriteReason = 'start';
  #isFormerRetired: boolean;

  constructor(iptables: Iptables, { generation }: InstallerOptions) {
    this.#iptables = iptables;
    this.#generation = generation;
    this.#isFormerRetired = iptables.former === undefined;
  }

  get family(): IpFamily {
    return this.#iptables.family;
  }

  /** As the tables were last read: of each built-in chain that has a jump of ours, also those with none. */
  get rulesAhead(): readonly TableRulesAhead[] {
    return [...this.#rulesAhead].flatMap(([table, ahead]) => ahead.map((one) => ({ table, ...one })));
  }

  /**
   * Brings the given tables to `wanted` with one iptables-restore, or none when nothing differs. The tables are committed
   * one after another, in their order. Where the kernel refuses a change because somebody has changed our rules, they
   * are all written again, which is then the reason. Rejects as `Iptables` does, and with `ERR_OWNERSHIP_LOST` when the
   * kernel holds a higher generation; the next call then starts from what the kernel holds.
   */
  async install(wanted: RuleSet, tables: readonly TableName[] = TABLES): Promise<Installed> {
    const texts = new Map(tables.map((table) => [table, renderTableText(wanted[table], this.family)]));
    this.#distrustFormerGeneration();
    const installed = await this.#installTexts(texts);
    if (!this.#isFormerRetired && this.#isWhole) await this.#retireFormer();
    return installed;
  }

  /**
   * Compares the kernel with what was last installed, and tells what somebody else has changed; then the next `install`
   * rewrites everything. Undefined when all is well, and while nothing is installed. Rejects with `ERR_OWNERSHIP_LOST`
   * when the kernel holds a higher generation.
   */
  async verify(): Promise<ForeignChange | undefined> {
    this.#distrustFormerGeneration();
    const change = await this.#look();
    if (change !== undefined) this.#forget(change);
    return change;
  }

  get #isWhole(): boolean {
    return TABLES.every((table) => this.#inForce.has(table));
  }

  #nextStamp(): Stamp {
    this.#writes += 1;
    return { generation: this.#generation(), write: this.#writes };
  }

  /** Between a generation of ours and the next one another instance was the owner, and wrote what it liked. */
  #distrustFormerGeneration(): void {
    const generation = this.#generation();
    const isFormer = [...this.#inForce.values()].some(({ stamp }) => stamp.generation !== generation);
    if (isFormer) this.#forget('start');
  }

  /** A reason that is still to be served stays. */
  #forget(reason: RewriteReason): void {
    if (this.#isWhole) this.#reason = reason;
    this.#inForce.clear();
  }

  async #installTexts(texts: ReadonlyMap<TableName, TableText>): Promise<Installed> {
    const isFull = [...texts.keys()].some((table) => !this.#inForce.has(table));
    try {
      return await this.#write(texts);
    } catch (error) {
      // A write by another instance, or a flush, is what the fence refuses; anything else stays a fault.
      const change = await this.#changeBehind(error, texts);
      this.#forget(change ?? 'failure');
      if (isFull || change === undefined) throw error;
      return this.#write(texts);
    }
  }

  async #changeBehind(
    error: unknown,
    texts: ReadonlyMap<TableName, TableText>,
  ): Promise<ForeignChange | undefined> {
    if (!isProxyError(error, 'ERR_IPTABLES_RESTORE')) return undefined;
    try {
      for (const table of texts.keys()) {
        if (this.#inForce.has(table)) continue;
        const kernel = await this.#iptables.read(table);
        this.#expectOwnership(kernel, table, this.#generation());
      }
      return await this.#look({ texts, stamp: this.#lastStamp });
    } catch (fault) {
      this.#forget('failure');
      throw isProxyError(fault, 'ERR_OWNERSHIP_LOST') ? fault : error;
    }
  }

  async #write(texts: ReadonlyMap<TableName, TableText>): Promise<Installed> {
    const stamp = this.#nextStamp();
    this.#lastStamp = stamp;
    const isFull = [...texts.keys()].some((table) => !this.#inForce.has(table));
    const takeovers = await this.#takeOverOthers(texts, stamp);
    const updates = new Map<TableName, TableUpdate>();
    for (const [table, text] of texts) updates.set(table, await this.#update({ table, stamp }, text));
    const input = [...takeovers, ...updates.values()].map(({ text }) => text).join('');
    const written = (table: TableName): number => updates.get(table)?.rulesWritten ?? 0;
    const rulesWritten = { nat: written('nat'), filter: written('filter') };
    if (input === '') return { kind: 'unchanged', rulesWritten };
    await this.#iptables.restore(input);
    for (const [table, text] of texts) {
      const isRewritten = updates.get(table)?.text !== '';
      if (isRewritten) this.#inForce.set(table, { text, stamp });
      await this.#learnSpellings(table, text, isFull);
    }
    return isFull ? { kind: 'full', reason: this.#reason, rulesWritten } : { kind: 'partial', rulesWritten };
  }

  async #update(at: UpdateContext, wanted: TableText): Promise<TableUpdate> {
    const inForce = this.#inForce.get(at.table);
    if (inForce !== undefined) return renderPartialUpdate(at, wanted, inForce);
    const kernel = await this.#iptables.read(at.table);
    this.#expectOwnership(kernel, at.table, at.stamp.generation);
    const ahead = wanted.hooks.map((hook) =>
      kernel.isHookInPlace(hook) ? kernel.rulesAhead(hook.hook) : { hook: hook.hook, count: 0, first: '' },
    );
    this.#rulesAhead.set(at.table, ahead);
    return renderFullUpdate(at, wanted, kernel);
  }

  /**
   * With the first write of a generation the one before can write neither table any more, also where that write is about
   * one of them only. Nothing where nobody is to be kept out.
   */
  async #takeOverOthers(
    texts: ReadonlyMap<TableName, TableText>,
    stamp: Stamp,
  ): Promise<readonly TableUpdate[]> {
    const updates: TableUpdate[] = [];
    for (const table of TABLES) {
      if (texts.has(table) || this.#inForce.has(table)) continue;
      const kernel = await this.#iptables.read(table);
      this.#expectOwnership(kernel, table, stamp.generation);
      if (kernel.generation === undefined || kernel.generation === stamp.generation) continue;
      updates.push(renderTakeover({ table, stamp }, kernel));
    }
    return updates;
  }

  #expectOwnership(kernel: KernelTable, table: TableName, generation: number): void {
    if (kernel.generation === undefined || kernel.generation <= generation) return;
    throw new ProxyError(
      'ERR_OWNERSHIP_LOST',
      `the ${this.family} table ${table} belongs to generation ${kernel.generation}, this is ${generation}`,
    );
  }

  /** What others changed in the tables in force. `attempt`: a write that failed, and may have committed some of them. */
  async #look(attempt?: Attempt): Promise<ForeignChange | undefined> {
    const changes: (ForeignChange | undefined)[] = [];
    for (const [table, inForce] of this.#inForce) {
      const saved = await this.#iptables.save(table);
      const fingerprint = fingerprintOf(saved);
      if (fingerprint === inForce.fingerprint) continue;
      const kernel = parseKernelTable(saved);
      this.#expectOwnership(kernel, table, this.#generation());
      const change = this.#changeOf(table, kernel, inForce);
      const text = attempt?.texts.get(table);
      const isCommitted =
        attempt !== undefined &&
        text !== undefined &&
        this.#changeOf(table, kernel, { text, stamp: attempt.stamp }) === undefined;
      changes.push(isCommitted ? undefined : change);
      if (change === undefined) inForce.fingerprint = fingerprint;
      this.#rulesAhead.set(
        table,
        inForce.text.hooks.map(({ hook }) => kernel.rulesAhead(hook)),
      );
    }
    return gravest(changes);
  }

  #changeOf(table: TableName, kernel: KernelTable, installed: InstalledTable): ForeignChange | undefined {
    return foreignChangeOf(kernel, installed, this.#spellingsOf(table));
  }

  #spellingsOf(table: TableName): Spellings {
    const spellings = this.#spellings.get(table);
    if (spellings === undefined) throw new TypeError(`no table of ours: ${table}`);
    return spellings;
  }

  /** Costs a reading, so it is done only when what was written last did not read as we wrote it. */
  async #learnSpellings(table: TableName, text: TableText, isFull: boolean): Promise<void> {
    const spellings = this.#spellingsOf(table);
    const isInDoubt = isFull && (this.#reason === 'rules' || this.#reason === 'jump');
    if (isInDoubt || spellings.areNeeded) spellings.learn(text, await this.#iptables.read(table));
  }

  /** Two sets of rules must not be in force; the canary that stays keeps out whoever wrote the other one. */
  async #retireFormer(): Promise<void> {
    const { former } = this.#iptables;
    if (former === undefined) return;
    const stamp = this.#nextStamp();
    let input = '';
    for (const table of TABLES) {
      const kernel = await former.read(table);
      this.#expectOwnership(kernel, table, stamp.generation);
      if (kernel.isOurs) input += renderRetirement({ table, stamp }, kernel).text;
    }
    if (input !== '') await former.restore(input);
    this.#isFormerRetired = true;
  }
}
