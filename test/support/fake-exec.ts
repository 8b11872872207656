/**
 * Stand-ins for the one door to other programs. `ScriptedExec` answers exactly the calls it was told of, in order;
 * `KernelExec` runs the iptables programs on tables in memory. Both fail closed: a call nobody foresaw throws.
 */
import type { Exec, ExecOptions, ExecResult } from '../../src/host/exec.ts';
import { NetfilterTables } from './netfilter-tables.ts';

export interface ExecCall {
  readonly command: string;
  readonly args: readonly string[];
  readonly options: ExecOptions;
}

export type ExecAnswer = Partial<ExecResult> | Error;

interface ScriptedCall {
  /** `iptables-save -t nat`: the command and its arguments. */
  readonly line: string;
  readonly answer: ExecAnswer | Promise<ExecAnswer>;
}

export class ScriptedExec {
  readonly calls: ExecCall[] = [];
  readonly #script: ScriptedCall[] = [];

  /** The next call must be this one. What the answer leaves out is success without output. */
  expect(line: string, answer: ExecAnswer | Promise<ExecAnswer> = {}): this {
    this.#script.push({ line, answer });
    return this;
  }

  /** How many of the expected calls have not come. */
  get remaining(): number {
    return this.#script.length;
  }

  readonly exec: Exec = async (command, args, options) => {
    this.calls.push({ command, args, options });
    const line = [command, ...args].join(' ');
    const next = this.#script.shift();
    if (next === undefined) throw new Error(`nobody expected \`${line}\``);
    if (next.line !== line) throw new Error(`expected \`${next.line}\`, not \`${line}\``);
    const answer = await next.answer;
    if (answer instanceof Error) throw answer;
    return { exitCode: 0, stdout: '', stderr: '', ...answer };
  };
}

/** `iptables-save -t <table>` and `iptables-restore --noflush -w 5` of both families, on tables in memory. */
export class KernelExec {
  readonly calls: ExecCall[] = [];
  readonly tables = { IPv4: new NetfilterTables(4), IPv6: new NetfilterTables(6) } as const;
  /** While set, every restore fails so and changes nothing. */
  restoreFault: ExecResult | undefined;

  readonly exec: Exec = async (command, args, options) => {
    this.calls.push({ command, args, options });
    const [, prefix, program] = /^(ip6?tables)-(save|restore)$/.exec(command) ?? [];
    const tables = prefix === 'ip6tables' ? this.tables.IPv6 : this.tables.IPv4;
    const [flag, table] = args;
    if (program === 'save' && args.length === 2 && flag === '-t' && table !== undefined) {
      return { exitCode: 0, stdout: tables.save(table), stderr: '' };
    }
    if (program === 'restore' && args.join(' ') === '--noflush -w 5' && options.input !== undefined) {
      if (this.restoreFault !== undefined) return this.restoreFault;
      try {
        tables.load(options.input);
        return { exitCode: 0, stdout: '', stderr: '' };
      } catch (error) {
        return { exitCode: 1, stdout: '', stderr: `${command}: ${(error as Error).message}\n` };
      }
    }
    throw new Error(`nobody expected \`${[command, ...args].join(' ')}\``);
  };

  /** The inputs of all restores so far. */
  get restores(): readonly string[] {
    return this.calls
      .filter(({ command }) => command.endsWith('-restore'))
      .map(({ options }) => options.input ?? '');
  }

  get reads(): number {
    return this.calls.filter(({ command }) => command.endsWith('-save')).length;
  }
}
