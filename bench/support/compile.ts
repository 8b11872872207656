/** The benchmarks' own programs in C and C++, compiled on the spot into the repository's `.cache`. */
import { execFile } from 'node:child_process';
import { mkdir, readdir, rename, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

const execFileAsync = promisify(execFile);

const SOURCES = join(import.meta.dirname, 'programs');
/** Everything that benchmarks build. */
export const BENCH_CACHE = join(import.meta.dirname, '../../.cache/bench');
const COMPILE_DEADLINE_MS = 60_000;
const COMPILERS = {
  c: { command: 'gcc', flags: [] },
  cc: { command: 'g++', flags: ['-std=c++17'] },
} as const;

/**
 * Compiles a file of `bench/support/programs` unless its program is newer than all of them, and gives the program's path. Rejects
 * with what the compiler says, or with what is missing.
 */
export async function compileProgram(source: `${string}.c` | `${string}.cc`): Promise<string> {
  const from = join(SOURCES, source);
  const name = source.replace(/\.cc?$/, '');
  const { command, flags } = COMPILERS[source.endsWith('.cc') ? 'cc' : 'c'];
  const program = join(BENCH_CACHE, name);
  if ((await modifiedAt(program)) > (await newestSource())) return program;
  await mkdir(BENCH_CACHE, { recursive: true });
  const part = `${program}.${process.pid}`;
  const argv = [...flags, '-O2', '-Wall', '-Wextra', '-o', part, from];
  try {
    await execFileAsync(command, argv, { timeout: COMPILE_DEADLINE_MS });
  } catch (error: unknown) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    throw new Error(`${command} is needed for ${source} (Debian: apt-get install g++)`, { cause: error });
  }
  // Whoever runs it meanwhile keeps the one he has.
  await rename(part, program);
  return program;
}

/** Headers are among them. */
async function newestSource(): Promise<number> {
  const names = await readdir(SOURCES);
  return Math.max(...(await Promise.all(names.map(async (name) => modifiedAt(join(SOURCES, name))))));
}

/** 0 when there is none. */
async function modifiedAt(path: string): Promise<number> {
  return stat(path).then(
    ({ mtimeMs }) => mtimeMs,
    () => 0,
  );
}
