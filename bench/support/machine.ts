/** On what and of what the figures are. */
import { execFileSync } from 'node:child_process';
import { cpus, loadavg, release } from 'node:os';

export interface Machine {
  readonly cpus: number;
  readonly cpuModel: string;
  readonly kernel: string;
  readonly node: string;
  /** Short, with ` dirty` after it when the working tree differs; `unknown` outside a repository. */
  readonly commit: string;
  /** The load average of the last minute: how busy the machine was with something else. */
  readonly load: number;
}

export function describeMachine(): Machine {
  const [first] = cpus();
  return {
    cpus: cpus().length,
    cpuModel: first?.model ?? 'unknown',
    kernel: release(),
    node: process.version,
    commit: describeCommit(),
    load: loadavg()[0] ?? 0,
  };
}

function describeCommit(): string {
  const git = (...args: readonly string[]): string =>
    execFileSync('git', ['--no-optional-locks', ...args], {
      cwd: import.meta.dirname,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim();
  try {
    return `${git('rev-parse', '--short', 'HEAD')}${git('status', '--porcelain') === '' ? '' : ' dirty'}`;
  } catch {
    return 'unknown';
  }
}

export function renderMachine(machine: Machine): string {
  const { cpus: count, cpuModel, kernel, node, commit, load } = machine;
  return (
    `${count} CPUs (${cpuModel}), Linux ${kernel}, Node ${node}, commit ${commit}, ` +
    `load ${load.toFixed(1)} at the start`
  );
}
