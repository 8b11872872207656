/** One program of a control plane on a host of the lab: started, paused, ended and started again, with one log. */
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { basename } from 'node:path';
import type { Host } from './netns-host.ts';
import { waitFor } from './wait.ts';

const TAIL_CHARACTERS = 4_000;
const EXIT_DEADLINE_MS = 10_000;

export interface ProgramOptions {
  readonly argv: readonly [string, ...string[]];
  /** Where standard output and standard error are appended. A file, so that no program waits for its reader. */
  readonly logPath: string;
}

export class Program {
  readonly name: string;
  readonly logPath: string;
  readonly #host: Host;
  readonly #argv: readonly [string, ...string[]];
  #child: ChildProcess | undefined;
  #exited: Promise<unknown> = Promise.resolve();

  constructor(host: Host, options: ProgramOptions) {
    this.#host = host;
    this.#argv = options.argv;
    this.logPath = options.logPath;
    this.name = basename(options.argv[0]);
  }

  get isRunning(): boolean {
    return this.#child !== undefined && this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** Throws when it was not started. */
  get pid(): number {
    const pid = this.#child?.pid;
    if (pid === undefined) throw new Error(`${this.name} was not started`);
    return pid;
  }

  /** Throws when it is running. The lab kills it at the latest when it closes. */
  start(): void {
    if (this.isRunning) throw new Error(`${this.name} is running already`);
    const log = openSync(this.logPath, 'a');
    try {
      const child = this.#host.spawn(this.#argv, { stdio: ['ignore', log, log] });
      this.#exited = once(child, 'close').catch(() => undefined);
      this.#child = child;
    } finally {
      closeSync(log);
    }
  }

  /**
   * Waits until `isReady` says so. Rejects at once when the program has ended, and when the bound has passed, with
   * the end of its log.
   */
  async ready(what: string, isReady: () => Promise<boolean>, timeoutMs: number): Promise<void> {
    const hasSettled = async (): Promise<boolean> => !this.isRunning || (await isReady());
    try {
      await waitFor(hasSettled, { timeoutMs, what: `${this.name} ${what}` });
    } catch (error: unknown) {
      throw new Error(`${String(error)}\n${await this.logTail()}`, { cause: error });
    }
    if (!this.isRunning) throw new Error(`${this.name} has ended:\n${await this.logTail()}`);
  }

  /** Sends a signal. Throws when it is not running. */
  signal(signal: NodeJS.Signals): void {
    if (!this.isRunning) throw new Error(`${this.name} is not running`);
    this.#child?.kill(signal);
  }

  /** Ends it by that signal, if it runs; resolves when it has ended, rejects when it has not in time. */
  async end(signal: 'SIGKILL' | 'SIGTERM', timeoutMs = EXIT_DEADLINE_MS): Promise<void> {
    if (this.isRunning) this.signal(signal);
    let isOver = false;
    void this.#exited.then(() => {
      isOver = true;
    });
    try {
      await waitFor(() => isOver, { timeoutMs, what: `${this.name} to end by ${signal}` });
    } catch (error: unknown) {
      throw new Error(`${String(error)}\n${await this.logTail()}`, { cause: error });
    }
  }

  /** The last 4,000 characters it wrote, from the beginning of a line. */
  async logTail(): Promise<string> {
    const text = await readFile(this.logPath, 'utf8').catch(() => '');
    return text.length <= TAIL_CHARACTERS ? text : text.slice(-TAIL_CHARACTERS).replace(/^[^\n]*\n/, '');
  }
}
