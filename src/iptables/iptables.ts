/**
 * The iptables programs of one family, as three verbs. What their exit codes and messages mean is decided
 * here, once.
 */
import { ProxyError, isProxyError } from '../errors.ts';
import type { Exec, ExecResult } from '../host/exec.ts';
import type { IpFamily } from '../model/address.ts';
import { type KernelTable, parseKernelTable } from './kernel-table.ts';
import type { TableName } from './rule.ts';

/** Longer than `-w 5` can wait, for ten thousand rules on a busy node. */
const EXEC_TIMEOUT_MS = 30_000;
/** "Resource problem" in iptables' manual: mostly the xtables lock, held by another program. */
const EXIT_RESOURCE_PROBLEM = 4;

/** The two implementations of iptables, which keep separate rules in the same kernel. */
export type Flavour = 'nft' | 'legacy';

export interface IptablesOptions {
  /** Its own programs, `iptables-nft-save`; unless told those without a flavour in their name, `iptables-save`. */
  readonly flavour?: Flavour;
  /** The other flavour, where it holds something of ours from an earlier run. */
  readonly former?: Iptables;
}

export class Iptables {
  readonly family: IpFamily;
  /** As in the options. */
  readonly former: Iptables | undefined;
  readonly #exec: Exec;
  readonly #prefix: string;

  constructor(family: IpFamily, exec: Exec, { flavour, former }: IptablesOptions = {}) {
    this.family = family;
    this.former = former;
    this.#exec = exec;
    const name = family === 'IPv4' ? 'iptables' : 'ip6tables';
    this.#prefix = flavour === undefined ? name : `${name}-${flavour}`;
  }

  /** What the kernel holds of a table. Rejects as `save`, and with `ERR_IPTABLES_PARSE`. */
  async read(table: TableName): Promise<KernelTable> {
    return parseKernelTable(await this.save(table));
  }

  /** The text of a table, as it is printed. Rejects with `ERR_IPTABLES_UNAVAILABLE` when it cannot be read. */
  async save(table: TableName | 'mangle'): Promise<string> {
    const command = `${this.#prefix}-save`;
    const result = await this.#run(command, ['-t', table]);
    if (result.exitCode === 0) return result.stdout;
    throw new ProxyError('ERR_IPTABLES_UNAVAILABLE', `${command} -t ${table} failed: ${failureText(result)}`);
  }

  /**
   * Loads the input as a whole, each table at once. Rejects with `ERR_IPTABLES_LOCKED` when another program
   * held the lock for five seconds, with `ERR_IPTABLES_UNAVAILABLE` when the program is not there, else with
   * `ERR_IPTABLES_RESTORE` that quotes the line at fault.
   */
  async restore(input: string): Promise<void> {
    const command = `${this.#prefix}-restore`;
    const result = await this.#run(command, ['--noflush', '-w', '5'], input);
    if (result.exitCode === 0) return;
    const text = failureText(result);
    if (result.exitCode === EXIT_RESOURCE_PROBLEM && /lock/i.test(text)) {
      throw new ProxyError('ERR_IPTABLES_LOCKED', `${command}: ${text}`);
    }
    throw new ProxyError('ERR_IPTABLES_RESTORE', `${command}: ${text}${lineAtFault(text, input)}`);
  }

  async #run(command: string, args: readonly string[], input?: string): Promise<ExecResult> {
    const options = input === undefined ? {} : { input };
    try {
      return await this.#exec(command, args, { ...options, timeoutMs: EXEC_TIMEOUT_MS });
    } catch (error) {
      if (!isProxyError(error, 'ERR_EXEC_NOT_FOUND')) throw error;
      throw new ProxyError('ERR_IPTABLES_UNAVAILABLE', `${command} cannot be used`, { cause: error });
    }
  }
}

function failureText({ exitCode, stderr }: ExecResult): string {
  const text = stderr.trim().replaceAll(/\s*\n\s*/g, '; ');
  return `exit code ${exitCode}${text === '' ? '' : `: ${text}`}`;
}

/** `iptables-restore: line 7 failed` names the line of its input. */
function lineAtFault(text: string, input: string): string {
  const line = /line:? (\d+)/i.exec(text)?.[1];
  const content = line === undefined ? undefined : input.split('\n')[Number(line) - 1];
  return content === undefined ? '' : ` (line ${line} is: ${content})`;
}
