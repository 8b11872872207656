/**
 * The `conntrack` program: which flows there are, and the deletion of some. What its exit codes and messages mean is
 * decided here, once. Output is never held: a table may have millions of entries.
 */
import { ProxyError, isProxyError } from '../errors.ts';
import type { ExecEachLine } from '../host/exec.ts';
import type { IpFamily } from '../model/address.ts';
import type { Protocol } from '../model/service-port-name.ts';
import { type Flow, parseFlow } from './flow.ts';

/** A dump of a million entries takes about three seconds of an idle core. */
const TIMEOUT_MS = 60_000;
/** Each deletion is a dump too. So many share one program and its time-out. */
const DELETIONS_PER_PROGRAM = 16;
/** What `conntrack` answers to options that it does not know. */
const EXIT_BAD_OPTIONS = 2;
/** What `conntrack -D` answers when no flow matched. */
const EXIT_NONE_DELETED = 1;

export interface FlowClass {
  readonly family: IpFamily;
  readonly protocol: Protocol;
}

export class ConntrackProgram {
  readonly #exec: ExecEachLine;
  /** `--load-file` came with conntrack-tools 1.4.7. */
  #hasLoadFile = true;

  constructor(exec: ExecEachLine) {
    this.#exec = exec;
  }

  /**
   * Calls `onFlow` with every flow of the class that may be stale: of TCP only those to which nobody has answered.
   * Rejects with `ERR_CONNTRACK_LIST`, or as the program could not be run.
   */
  async list(flows: FlowClass, onFlow: (flow: Flow) => void, signal: AbortSignal): Promise<void> {
    const args = ['-L', ...argumentsOf(flows)];
    const onLine = (line: string): void => {
      const flow = parseFlow(line);
      if (flow !== undefined) onFlow(flow);
    };
    const { exitCode, stderr } = await this.#exec('conntrack', args, {
      onLine,
      timeoutMs: TIMEOUT_MS,
      signal,
    });
    if (exitCode === 0) return;
    throw new ProxyError('ERR_CONNTRACK_LIST', failureText(args, exitCode, stderr));
  }

  /**
   * Deletes what each of the selections matches within the class, and tells how many flows those were. Rejects with
   * `ERR_CONNTRACK_DELETE`, or as the program could not be run.
   */
  async delete(
    flows: FlowClass,
    selections: readonly (readonly string[])[],
    signal: AbortSignal,
  ): Promise<number> {
    const deletions = selections.map((selection) => ['-D', ...argumentsOf(flows), ...selection]);
    let deleted = 0;
    for (let at = 0; at < deletions.length; at += DELETIONS_PER_PROGRAM) {
      const some = deletions.slice(at, at + DELETIONS_PER_PROGRAM);
      deleted += this.#hasLoadFile ? await this.#deleteTogether(some, signal) : 0;
      // Said no just now, or before.
      if (!this.#hasLoadFile) deleted += await this.#deleteSingly(some, signal);
    }
    return deleted;
  }

  async #deleteTogether(deletions: readonly (readonly string[])[], signal: AbortSignal): Promise<number> {
    const args = ['--load-file', '-'];
    const input = deletions.map((words) => `${words.join(' ')}\n`).join('');
    const { deleted, exitCode, stderr } = await this.#run(args, signal, input);
    if (exitCode === EXIT_BAD_OPTIONS) this.#hasLoadFile = false;
    else if (exitCode !== 0) throw deletionFault(args, exitCode, stderr);
    return deleted;
  }

  async #deleteSingly(deletions: readonly (readonly string[])[], signal: AbortSignal): Promise<number> {
    let total = 0;
    for (const args of deletions) {
      const { deleted, exitCode, stderr } = await this.#run(args, signal);
      const isNone = exitCode === EXIT_NONE_DELETED && /\b0 flow entries/.test(stderr);
      if (exitCode !== 0 && !isNone) throw deletionFault(args, exitCode, stderr);
      total += deleted;
    }
    return total;
  }

  /** Every flow that is deleted is printed. */
  async #run(
    args: readonly string[],
    signal: AbortSignal,
    input = '',
  ): Promise<{ deleted: number; exitCode: number; stderr: string }> {
    let deleted = 0;
    const onLine = (line: string): void => void (deleted += parseFlow(line) === undefined ? 0 : 1);
    const result = await this.#exec('conntrack', args, { onLine, input, timeoutMs: TIMEOUT_MS, signal });
    return { ...result, deleted };
  }
}

/** No such program: nothing that is asked of it will ever work. */
export function isProgramMissing(error: unknown): boolean {
  return isProxyError(error, 'ERR_EXEC_NOT_FOUND');
}

function argumentsOf({ family, protocol }: FlowClass): readonly string[] {
  const state = protocol === 'TCP' ? ['--state', 'SYN_SENT'] : [];
  return ['-f', family === 'IPv4' ? 'ipv4' : 'ipv6', '-p', protocol.toLowerCase(), ...state];
}

function deletionFault(args: readonly string[], exitCode: number, stderr: string): ProxyError {
  return new ProxyError('ERR_CONNTRACK_DELETE', failureText(args, exitCode, stderr));
}

function failureText(args: readonly string[], exitCode: number, stderr: string): string {
  return `conntrack ${args.join(' ')} failed with ${exitCode}: ${stderr.trim()}`;
}
