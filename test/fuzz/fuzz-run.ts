/** One run of one target in a thread of its own, watched: every input ends in time, and memory does not grow. */
import { Worker } from 'node:worker_threads';
import type { Random } from '../support/random.ts';
import { type FuzzTarget, type FuzzTargetName, randomOfInput } from './fuzz-target.ts';
import { manifestTarget } from './manifest-target.ts';
import { watchTarget } from './watch-target.ts';

/** For a machine under load; on a quiet one no input takes a tenth of a second. */
const MAX_INPUT_MS = 10_000;
/** Time without end looks like this from outside. */
const HANG_MS = 30_000;
const MAX_HEAP_MB = 512;
/** What may stay after a run that did not stay after a twentieth of it: what Node compiled and cached meanwhile. */
const MAX_GROWTH_BYTES = 24 * 1024 * 1024;

export interface FuzzTask {
  readonly name: FuzzTargetName;
  readonly seed: number;
  /** The number of the first input. */
  readonly first: number;
  readonly inputs: number;
  /** One Int32 that both threads see: the number of the input being taken in. */
  readonly current: SharedArrayBuffer;
}

export interface FuzzReport {
  readonly done: number;
  readonly elapsedMs: number;
  readonly slowestMs: number;
  /** Its number. */
  readonly slowest: number;
  /** After a full collection. */
  readonly heapBytes: number;
  readonly fault: string | undefined;
}

export interface FuzzOptions {
  readonly name: FuzzTargetName;
  readonly seed: number;
  readonly inputs: number;
  readonly first?: number;
  /** Twenty times in a run. */
  readonly onProgress?: (report: FuzzReport) => void;
}

/** Resolves with the last report; rejects with the number and the text of the input that broke a promise. */
export async function fuzz({ name, seed, inputs, first = 0, onProgress }: FuzzOptions): Promise<FuzzReport> {
  const current = new SharedArrayBuffer(4);
  const task: FuzzTask = { name, seed, first, inputs, current };
  const worker = new Worker(new URL('fuzz-worker.ts', import.meta.url), {
    workerData: task,
    resourceLimits: { maxOldGenerationSizeMb: MAX_HEAP_MB },
  });
  const reports: FuzzReport[] = [];
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const failed = (what: string): void => reject(faultOf(task, what));
  worker.on('message', (report: FuzzReport) => {
    reports.push(report);
    onProgress?.(report);
    if (report.fault !== undefined) failed(report.fault);
  });
  worker.on('error', (error) => failed(String(error)));
  worker.on('exit', (code) => (code === 0 ? resolve() : failed(`the thread ended with ${code}`)));
  const watchdog = watchForHang(current, () => failed(`no end within ${HANG_MS} ms`));
  try {
    await promise;
  } finally {
    clearInterval(watchdog);
    await worker.terminate();
  }
  const [begin, last] = [reports.at(0), reports.at(-1)];
  if (begin === undefined || last === undefined) throw new Error('no report');
  if (last.slowestMs > MAX_INPUT_MS) throw faultOf(task, `it took ${last.slowestMs} ms`, last.slowest);
  const growth = last.heapBytes - begin.heapBytes;
  if (growth > MAX_GROWTH_BYTES) throw new Error(`${growth} bytes stayed of ${inputs} inputs (seed ${seed})`);
  return last;
}

function watchForHang(current: SharedArrayBuffer, onHang: () => void): NodeJS.Timeout {
  const progress = new Int32Array(current);
  let seen = -1;
  return setInterval(() => {
    const now = Atomics.load(progress, 0);
    if (now === seen) onHang();
    seen = now;
  }, HANG_MS);
}

function faultOf({ name, seed, current }: FuzzTask, what: string, at?: number): Error {
  const index = at ?? Atomics.load(new Int32Array(current), 0);
  const target = name === 'manifest' ? manifestTarget : watchTarget;
  const input = inputText(target, randomOfInput(seed, index));
  const again = `npm run fuzz -- --target ${name} --seed ${seed} --first ${index} --inputs 1`;
  return new Error(`${name}, input ${index}: ${what}\n${again}\n${input.slice(0, 4000)}`);
}

/** A fault may be the generator's own: then there is no input to show. */
function inputText(target: FuzzTarget, random: Random): string {
  try {
    return target.describe(random);
  } catch (error) {
    return `no input: ${String(error)}`;
  }
}
