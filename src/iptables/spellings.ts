/**
 * How the iptables of this node prints a rule, where that is not the text by which we wrote it. The versions that we know
 * print our text; another may put matches in another order, and must not look like a foreign change for ever. Learned from
 * what is printed right after a write.
 */
import type { KernelTable } from './kernel-table.ts';
import type { TableText } from './table-text.ts';

export class Spellings {
  readonly #printedByWritten = new Map<string, string>();

  /** Some rule is printed in another way than it was written. */
  get areNeeded(): boolean {
    return this.#printedByWritten.size > 0;
  }

  /** Forgets everything before. `kernel` was read right after `written` was. */
  learn(written: TableText, kernel: KernelTable): void {
    this.#printedByWritten.clear();
    for (const [chain, rules] of written.chains) this.#learnRules(rules, kernel.chains.get(chain) ?? []);
    for (const { hook, spec } of written.hooks) {
      const jumps = kernel.jumpsIn(hook);
      this.#learnRules([spec], jumps.length === 1 ? jumps.map((jump) => jump.slice(hook.length + 1)) : []);
    }
  }

  isSame(written: string, printed: string): boolean {
    return written === printed || this.#printedByWritten.get(written) === printed;
  }

  areSame(written: readonly string[], printed: readonly string[]): boolean {
    if (written.length !== printed.length) return false;
    return written.every((rule, index) => this.isSame(rule, printed[index] ?? ''));
  }

  /** Another number of rules, or a rule with another target, is another program's work and not another spelling. */
  #learnRules(written: readonly string[], printed: readonly string[]): void {
    if (written.length !== printed.length) return;
    for (const [index, rule] of written.entries()) {
      const other = printed[index] ?? '';
      if (rule !== other && targetOf(rule) === targetOf(other)) this.#printedByWritten.set(rule, other);
    }
  }
}

function targetOf(rule: string): string {
  return rule.slice(rule.lastIndexOf(' -j ') + 1);
}
