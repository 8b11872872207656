/**
 * Programs named like iptables' that stand before the real ones on PATH: they write down each call, and fail
 * while they are told to.
 */
import { execFileSync } from 'node:child_process';
import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const PROGRAMS = ['iptables-restore', 'ip6tables-restore', 'iptables-save', 'ip6tables-save'] as const;
export type IptablesProgram = (typeof PROGRAMS)[number];

export class IptablesWrapper implements AsyncDisposable {
  readonly #directory: string;

  private constructor(directory: string) {
    this.#directory = directory;
  }

  /** In a new directory. */
  static async create(): Promise<IptablesWrapper> {
    const wrapper = new IptablesWrapper(await mkdtemp(join(tmpdir(), 'kup-iptables-')));
    for (const program of PROGRAMS) await wrapper.#write(program);
    return wrapper;
  }

  /** For the process that is to use them. */
  get env(): NodeJS.ProcessEnv {
    return { ...process.env, PATH: `${this.#directory}:${process.env['PATH'] ?? ''}` };
  }

  /** How often they have been called, failed calls included. */
  async calls(...programs: readonly IptablesProgram[]): Promise<number> {
    const log = await readFile(join(this.#directory, 'calls'), 'utf8').catch(() => '');
    return log.split('\n').filter((name) => programs.some((program) => program === name)).length;
  }

  /** From here on they exit with 1, or with `exitCode`, and write `message` to standard error. */
  async fail(programs: readonly IptablesProgram[], message: string, exitCode = 1): Promise<void> {
    for (const program of programs) {
      await writeFile(
        join(this.#directory, `${program}.broken`),
        `echo '${message}' >&2; exit ${exitCode}\n`,
      );
    }
  }

  /** From here on they begin only after that time, also when whoever called them has ended by then. */
  async delay(programs: readonly IptablesProgram[], seconds: number): Promise<void> {
    for (const program of programs) {
      await writeFile(join(this.#directory, `${program}.broken`), `sleep ${seconds}\n`);
    }
  }

  /** From here on they work again. */
  async mend(): Promise<void> {
    for (const program of PROGRAMS) await rm(join(this.#directory, `${program}.broken`), { force: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.#directory, { recursive: true, force: true });
  }

  async #write(program: IptablesProgram): Promise<void> {
    const real = execFileSync('sh', ['-c', `command -v ${program}`], { encoding: 'utf8' }).trim();
    const own = join(this.#directory, program);
    const script = [
      '#!/bin/sh',
      `echo ${program} >>'${this.#directory}/calls'`,
      `[ ! -e '${own}.broken' ] || . '${own}.broken'`,
      `exec '${real}' "$@"`,
    ];
    await writeFile(own, `${script.join('\n')}\n`);
    await chmod(own, 0o755);
  }
}
