/**
 * The keeper of one lab's network namespaces: a detached shell that is the only process to make them, and that
 * removes them all when its standard input ends.
 *
 *     test process ──stdin──▶ keeper (own session, ignores INT, TERM, HUP)
 *         ▲                     │ runs each script it is sent      (only here are namespaces made)
 *         └──────stdout─────────┘ at end of file: kills and deletes everything under its prefix
 *
 * The pipe ends by `close()`, and equally when the test process exits, crashes or is killed by SIGKILL, because
 * the kernel closes it. Nothing can be made after that: whoever would make it is the one who cleans up.
 */
import { execFile, spawn, spawnSync, type ChildProcessByStdio } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { Readable, Writable } from 'node:stream';
import { promisify } from 'node:util';

const execFileAsync = promisify(execFile);

const SCRIPT_DEADLINE_MS = 20_000;
const CLOSE_DEADLINE_MS = 20_000;

/**
 * `$1` is the prefix of the namespaces to keep. Lines are gathered until `;;run`, run by a fresh shell that stops
 * at the first error, and answered with that shell's output and a line `;;exit CODE`. Namespaces are deleted only
 * when they are empty (a namespace with processes lives on without a name), except in the last of 100 rounds.
 */
const KEEPER_SCRIPT = `
trap '' INT TERM HUP PIPE
prefix=$1
script=
while IFS= read -r line; do
  if [ "$line" = ';;run' ]; then
    output=$(sh -ec "$script" </dev/null 2>&1)
    printf '%s\\n;;exit %d\\n' "$output" "$?"
    script=
  else
    script="$script$line
"
  fi
done
exec >/dev/null 2>&1
kept() { ip netns list | while read -r name rest; do case $name in "$prefix"*) echo "$name" ;; esac; done; }
round=0
while [ "$round" -lt 100 ]; do
  names=$(kept)
  [ -z "$names" ] && exit 0
  round=$((round + 1))
  for name in $names; do
    for pid in $(ip netns pids "$name"); do kill -9 "$pid"; done
  done
  for name in $names; do
    if [ "$round" -eq 100 ] || [ -z "$(ip netns pids "$name")" ]; then ip netns del "$name"; fi
  done
  [ -z "$(kept)" ] && exit 0
  sleep 0.02
done
exit 1
`;

type KeeperProcess = ChildProcessByStdio<Writable, Readable, null>;

/** A request in flight: the keeper answers in order, one at a time. */
interface PendingScript {
  readonly script: string;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
  readonly timer: NodeJS.Timeout;
}

export class NamespaceKeeper {
  /** What the names of all this keeper's namespaces begin with; it ends with a hyphen. */
  readonly prefix: string;
  readonly #process: KeeperProcess;
  readonly #exited: Promise<number | null>;
  readonly #pending: PendingScript[] = [];
  #output = '';
  #closing: Promise<void> | undefined;

  constructor(prefix: string) {
    this.prefix = prefix;
    this.#process = spawn('sh', ['-c', KEEPER_SCRIPT, 'netns-keeper', prefix], {
      detached: true,
      stdio: ['pipe', 'pipe', 'ignore'],
    });
    this.#exited = new Promise((resolve) => {
      this.#process.once('exit', (code) => resolve(code));
      this.#process.once('error', () => resolve(null));
    });
    void this.#exited.then(() => this.#failAll('the namespace keeper has ended'));
    // A keeper that is gone shows as EPIPE here; its exit is what is reported.
    this.#process.stdin.on('error', () => undefined);
    this.#process.stdout.setEncoding('utf8');
    this.#process.stdout.on('data', (text: string) => this.#receive(text));
    this.#holdEventLoop(false);
  }

  /** Runs a POSIX shell script that stops at its first error; rejects with what it wrote. */
  async run(script: string): Promise<void> {
    if (this.#closing !== undefined) throw new Error('the namespace keeper is closed');
    this.#holdEventLoop(true);
    try {
      await new Promise<void>((resolve, reject) => {
        const timer = setTimeout(() => {
          this.#failAll(`no answer from the namespace keeper in ${SCRIPT_DEADLINE_MS} ms`);
        }, SCRIPT_DEADLINE_MS);
        this.#pending.push({ script, resolve, reject, timer });
        this.#process.stdin.write(`${script}\n;;run\n`);
      });
    } finally {
      if (this.#pending.length === 0) this.#holdEventLoop(false);
    }
  }

  /** Removes every namespace under the prefix with all processes in them, and resolves when they are gone. Idempotent. */
  async close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#holdEventLoop(true);
    this.#process.stdin.end();
    const code = await withDeadline(this.#exited, CLOSE_DEADLINE_MS, 'the namespace keeper to end');
    // Whoever killed the keeper took its job over to here.
    if (code !== 0) await reapNamespaces(this.prefix);
  }

  #receive(text: string): void {
    this.#output += text;
    for (;;) {
      const match = /(?:^|\n);;exit (\d+)\n/.exec(this.#output);
      if (match === null) return;
      const written = this.#output.slice(0, match.index).trim();
      this.#output = this.#output.slice(match.index + match[0].length);
      const request = this.#pending.shift();
      if (request === undefined) return;
      clearTimeout(request.timer);
      if (match[1] === '0') request.resolve();
      else request.reject(new Error(`exit ${match[1]}: ${written}\nin the script:\n${request.script}`));
    }
  }

  #failAll(message: string): void {
    for (const request of this.#pending.splice(0)) {
      clearTimeout(request.timer);
      request.reject(new Error(message));
    }
  }

  /** Idle, the keeper must not keep its owner's event loop alive: the end of the owner is what it waits for. */
  #holdEventLoop(hold: boolean): void {
    for (const handle of [this.#process, this.#process.stdin, this.#process.stdout]) {
      const { ref, unref } = handle as { ref?: () => unknown; unref?: () => unknown };
      (hold ? ref : unref)?.call(handle);
    }
  }
}

/** A prefix no other lab has: the process, when it began (pids come round again), and a random part. */
export function buildLabPrefix(): string {
  return `kup-${process.pid}-${startTimeOf(process.pid) ?? '0'}-${randomBytes(2).toString('hex')}-`;
}

/**
 * Removes the namespaces of labs whose process is gone, which their keepers have normally done already. Labs of
 * living processes are never touched. Assumes that all who share the list of namespaces see the same pids.
 */
export async function sweepStaleLabs(): Promise<void> {
  const stale = new Set<string>();
  for (const name of await listNamespaces()) {
    const match = /^(kup-(\d+)-([0-9a-z]+)-[0-9a-f]{4}-)/.exec(name);
    const [, prefix, pid, startTime] = match ?? [];
    if (prefix !== undefined && startTimeOf(Number(pid)) !== startTime) stale.add(prefix);
  }
  await Promise.all([...stale].map(reapNamespaces));
}

/** The names in `ip netns list`, sorted; those that begin with `prefix`, or all. */
export async function listNamespaces(prefix = ''): Promise<string[]> {
  const { stdout } = await execFileAsync('ip', ['netns', 'list'], { timeout: 10_000 });
  return stdout
    .split('\n')
    .map((line) => line.split(' ')[0] ?? '')
    .filter((name) => name !== '' && name.startsWith(prefix))
    .toSorted();
}

/** The keeper's clean-up alone: its script with an input that has ended. */
async function reapNamespaces(prefix: string): Promise<void> {
  const cleaner = spawn('sh', ['-c', KEEPER_SCRIPT, 'netns-keeper', prefix], { stdio: 'ignore' });
  const exited = new Promise<number | null>((resolve, reject) => {
    cleaner.once('exit', resolve);
    cleaner.once('error', reject);
  });
  const code = await withDeadline(exited, CLOSE_DEADLINE_MS, `the namespaces ${prefix}* to be removed`);
  if (code !== 0) throw new Error(`namespaces ${prefix}* still had processes after repeated SIGKILL`);
}

/** Whether a process runs. One that has ended does not, even if nobody has collected its status. */
export function isProcessAlive(pid: number): boolean {
  return startTimeOf(pid) !== undefined;
}

/** Field 22 of /proc/PID/stat in base 36, or undefined when there is no such process (a zombie is none). */
function startTimeOf(pid: number): string | undefined {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  } catch {
    return undefined;
  }
  // The second field is the program's name in brackets and may hold spaces.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return fields[0] === 'Z' ? undefined : Number(fields[19]).toString(36);
}

async function withDeadline<T>(promise: Promise<T>, timeoutMs: number, what: string): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error(`waited ${timeoutMs} ms for ${what}`)), timeoutMs);
  try {
    return await Promise.race([promise, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}

/** Why this process cannot make a lab, in words for a skipped test's message; undefined when it can. */
export function canMakeNamespaces(): string | undefined {
  if (process.getuid?.() !== 0) return 'not root: network namespaces need it';
  const answer = (command: string, ...args: string[]): string | undefined => {
    const result = spawnSync(command, args, { encoding: 'utf8', timeout: 10_000 });
    if (result.error !== undefined) return `${command} cannot be run: ${result.error.message}`;
    return result.status === 0 ? undefined : `${command} ${args.join(' ')} failed: ${result.stderr.trim()}`;
  };
  // A namespace gets its name by a bind mount, so that must be allowed as well.
  return (
    answer('ip', '-Version') ??
    answer('unshare', '--net', '--mount', 'true') ??
    answer('iptables', '--version')
  );
}
