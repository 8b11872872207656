/** What a process has cost so far, by /proc. */
import { execFileSync } from 'node:child_process';
import { readdir, readFile } from 'node:fs/promises';

let ticks: number | undefined;

/** Clock ticks in a second: the unit of /proc/<pid>/stat, 10 ms on most machines. */
function ticksPerSecond(): number {
  ticks ??= Number(execFileSync('getconf', ['CLK_TCK'], { encoding: 'utf8' }));
  return ticks;
}

/** What a process has used so far, with the children it has waited for. */
export interface CpuTime {
  readonly userMs: number;
  readonly systemMs: number;
}

/** User and system time of all its threads and of the children it has waited for, in milliseconds. */
export async function cpuMs(pid: number): Promise<number> {
  const { userMs, systemMs } = cpuOf(await statOf(pid));
  return userMs + systemMs;
}

/** The same of it and of all its descendants. */
export async function treeCpu(pid: number): Promise<CpuTime> {
  const [, ...below] = await treeOf(pid);
  // A descendant that has ended meanwhile is in its parent's account.
  const stats = await Promise.all([statOf(pid), ...below.map(async (each) => statOf(each).catch(() => []))]);
  const times = stats.map(cpuOf);
  return {
    userMs: times.reduce((sum, { userMs }) => sum + userMs, 0),
    systemMs: times.reduce((sum, { systemMs }) => sum + systemMs, 0),
  };
}

/** A process and its descendants that live. */
export async function treeOf(pid: number): Promise<number[]> {
  const all = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number);
  const parents = await Promise.all(
    all.map(async (each) =>
      statOf(each).then(
        ([, parent]): [number, number] => [each, Number(parent)],
        () => undefined,
      ),
    ),
  );
  const tree = [pid];
  // Children are found as they are added.
  for (const ancestor of tree) for (const entry of parents) if (entry?.[1] === ancestor) tree.push(entry[0]);
  return tree;
}

/** The fields of /proc/<pid>/stat from the third on. */
async function statOf(pid: number): Promise<readonly string[]> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
  // The name, in parentheses, may contain anything; what follows begins with the state, the third field.
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ');
}

function cpuOf(fields: readonly string[]): CpuTime {
  const [utime = 0, stime = 0, cutime = 0, cstime = 0] = fields.slice(11, 15).map(Number);
  const inMs = (sum: number): number => (sum * 1_000) / ticksPerSecond();
  return { userMs: inMs(utime + cutime), systemMs: inMs(stime + cstime) };
}

export interface Memory {
  readonly rssMiB: number;
  readonly peakRssMiB: number;
}

export async function memoryOf(pid: number): Promise<Memory> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return { rssMiB: mebibytes(status, 'VmRSS'), peakRssMiB: mebibytes(status, 'VmHWM') };
}

/** Resident memory of it and of all its descendants, and the part that no file stands behind. */
export async function treeMemory(
  pid: number,
): Promise<{ readonly rssMiB: number; readonly anonymousMiB: number }> {
  let rssMiB = 0;
  let anonymousMiB = 0;
  for (const each of await treeOf(pid)) {
    const status = await readFile(`/proc/${each}/status`, 'utf8');
    rssMiB += mebibytes(status, 'VmRSS');
    anonymousMiB += mebibytes(status, 'RssAnon');
  }
  return { rssMiB, anonymousMiB };
}

function mebibytes(status: string, field: string): number {
  return Number(new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm').exec(status)?.[1]) / 1_024;
}
