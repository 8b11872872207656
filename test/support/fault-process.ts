/** What a process uses, as the kernel counts it: for tests that say that nothing leaks and nothing spins. */
import { readdir, readFile } from 'node:fs/promises';

/** Of a clock tick in /proc/PID/stat: 100 a second on every Linux this runs on (USER_HZ). */
const TICK_MS = 10;

/** Descriptors that are open now. */
export async function openDescriptors(pid: number): Promise<number> {
  return (await readdir(`/proc/${pid}/fd`)).length;
}

/** Resident memory in bytes. */
export async function residentBytes(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  const kilobytes = /^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1];
  if (kilobytes === undefined) throw new Error(`no VmRSS in the status of ${pid}`);
  return Number(kilobytes) * 1_024;
}

/** CPU time since it began, user and system, all threads. */
export async function cpuTimeMs(pid: number): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, 'latin1');
  // The second field is the program's name in brackets and may hold spaces.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) * TICK_MS;
}

/**
 * The part of one core that a process takes while `ms` of real time pass: 1 is all of it. For what must be seen not to
 * happen there is nothing to wait for but time.
 */
export async function cpuShareOver(pid: number, ms: number): Promise<number> {
  const before = { cpuMs: await cpuTimeMs(pid), at: performance.now() };
  await passTime(ms);
  return ((await cpuTimeMs(pid)) - before.cpuMs) / (performance.now() - before.at);
}

/** Lets time pass in which something must not happen. */
export async function passTime(ms: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, ms));
}
