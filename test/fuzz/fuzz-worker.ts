/**
 * The thread in which inputs are taken in, so that one that never ends or eats all memory can be ended from outside, by
 * its number. Its heap is looked at after full collections: what stays from input to input is a leak.
 */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { parentPort, workerData } from 'node:worker_threads';
import type { FuzzReport, FuzzTask } from './fuzz-run.ts';
import { type FuzzTarget, randomOfInput } from './fuzz-target.ts';
import { manifestTarget } from './manifest-target.ts';
import { watchTarget } from './watch-target.ts';

const REPORTS = 20;
const LOOK_EVERY = 64;
const SUSPICIOUS_MS = 1000;

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

function heapUsed(): number {
  collectGarbage();
  const { heapUsed: used, external } = process.memoryUsage();
  return used + external;
}

async function runAll({ name, seed, first, inputs, current }: FuzzTask): Promise<void> {
  const target = [manifestTarget, watchTarget].find((one) => one.name === name);
  if (target === undefined || parentPort === null) throw new Error(`no target ${name}`);
  const progress = new Int32Array(current);
  const startedAt = performance.now();
  let slowestMs = 0;
  let slowest = first;
  const report = (done: number, fault?: string): void => {
    const elapsedMs = performance.now() - startedAt;
    const message: FuzzReport = { done, elapsedMs, slowestMs, slowest, heapBytes: heapUsed(), fault };
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- threads have no origin
    parentPort?.postMessage(message);
  };
  const timeOf = async (one: FuzzTarget, index: number): Promise<number> => {
    const before = performance.now();
    await one.run(randomOfInput(seed, index));
    return performance.now() - before;
  };
  const step = Math.max(1, Math.floor(inputs / REPORTS));
  for (let index = first; index < first + inputs; index += 1) {
    Atomics.store(progress, 0, index);
    let tookMs: number;
    try {
      tookMs = await timeOf(target, index);
      // Once it may have been the machine.
      if (tookMs > SUSPICIOUS_MS) tookMs = Math.min(tookMs, await timeOf(target, index));
    } catch (error) {
      report(index - first, `${error instanceof Error ? error.stack : String(error)}`);
      return;
    }
    if (tookMs > slowestMs) [slowestMs, slowest] = [tookMs, index];
    // Promises alone never leave the turn, and timers and messages would wait for ever.
    if (index % LOOK_EVERY === 0) await new Promise((resolve) => void setTimeout(resolve));
    if ((index - first + 1) % step === 0) report(index - first + 1);
  }
}

await runAll(workerData as FuzzTask);
