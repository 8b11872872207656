/**
 * Our proxy as it is shipped: compiled JavaScript, without the type stripping of `node src/main.ts`, which would count
 * in its memory. Built aside, so that nobody's `dist` is touched.
 */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { cp, mkdir, readdir, rm, stat, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { BENCH_CACHE } from './compile.ts';

const execFileAsync = promisify(execFile);

const REPOSITORY = join(import.meta.dirname, '../..');
const DEADLINE_MS = 120_000;
const ADDON = 'build/Release/kup_engine.node';
const BUILD_PREFIX = 'proxy-';

/** A build for one run of a benchmark. */
export interface ProxyBuild extends AsyncDisposable {
  /** The program. */
  readonly main: string;
}

/**
 * Builds the working tree. The caller disposes of the build. Rejects with the compiler's words. The addon is copied as
 * it is: built anew meanwhile, it would change in the middle of a run.
 */
export async function buildProxy(): Promise<ProxyBuild> {
  await removeStaleBuilds();
  const root = join(BENCH_CACHE, `${BUILD_PREFIX}${process.pid}`);
  const build = {
    main: join(root, 'dist/main.js'),
    [Symbol.asyncDispose]: async () => rm(root, { recursive: true, force: true }),
  };
  try {
    await mkdir(root, { recursive: true });
    await symlink(join(REPOSITORY, 'package.json'), join(root, 'package.json'));
    const addon = join(REPOSITORY, 'native', ADDON);
    // Where there is none, the native engine says so itself.
    if (existsSync(addon)) await cp(addon, join(root, 'native', ADDON));
    await compile(join(root, 'dist'));
    return build;
  } catch (error: unknown) {
    await build[Symbol.asyncDispose]();
    throw error;
  }
}

async function compile(dist: string): Promise<void> {
  const tsc = join(REPOSITORY, 'node_modules/.bin/tsc');
  try {
    const argv = ['-p', 'tsconfig.build.json', '--outDir', dist];
    await execFileAsync(tsc, argv, { cwd: REPOSITORY, timeout: DEADLINE_MS });
  } catch (error: unknown) {
    const { stdout = '' } = error as { readonly stdout?: string };
    throw new Error(`the working tree does not compile (--main FILE measures another build)\n${stdout}`, {
      cause: error,
    });
  }
}

/** Those of benchmarks that were killed. */
async function removeStaleBuilds(): Promise<void> {
  for (const name of await readdir(BENCH_CACHE).catch(() => [])) {
    const pid = name.startsWith(BUILD_PREFIX) ? name.slice(BUILD_PREFIX.length) : '';
    if (pid !== '' && !existsSync(`/proc/${pid}`)) {
      await rm(join(BENCH_CACHE, name), { recursive: true, force: true });
    }
  }
}

/** In words, which source of the native engine is newer than what was built of it; undefined: none is. */
export async function describeStaleAddon(): Promise<string | undefined> {
  const native = join(REPOSITORY, 'native');
  const names = await readdir(native).catch(() => []);
  const built = await stat(join(native, ADDON)).catch(() => undefined);
  if (built === undefined) return undefined;
  for (const name of names.filter((each) => /\.(?:cc|h|gyp)$/.test(each))) {
    if ((await stat(join(native, name))).mtimeMs > built.mtimeMs) {
      return `native/${name} is newer than the addon that was measured (npm run build:native)`;
    }
  }
  return undefined;
}

/** Whether that build has the flag `--engine`. */
export async function hasEngineFlag(main: string): Promise<boolean> {
  const { stdout } = await execFileAsync(process.execPath, [main, '--help'], { timeout: DEADLINE_MS });
  return /--engine\b/.test(stdout);
}
