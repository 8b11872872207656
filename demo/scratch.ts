/**
 * The demo's scratch directory: made, and removed, by a shell that waits for the end of its standard input. The pipe
 * ends by `close()`, and equally when the demo is killed by SIGKILL, because the kernel closes it.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

/** Removal is tried again while a process that is about to be killed may still write there. */
const SCRIPT = `
trap '' INT TERM HUP PIPE
directory=$(mktemp -d "$1.XXXXXX") || exit 1
echo "$directory"
cat >/dev/null
for round in 1 2 3 4 5 6 7 8 9 10; do
  rm -rf "$directory" 2>/dev/null && exit 0
  sleep 0.1
done
exit 1
`;

export interface Scratch extends AsyncDisposable {
  readonly directory: string;
  /** Removes the directory with all that is in it, and resolves when it has gone. Idempotent. */
  close(): Promise<void>;
}

/** Rejects when the directory cannot be made. */
export async function openScratch(): Promise<Scratch> {
  const keeper = spawn('sh', ['-c', SCRIPT, 'demo-scratch', join(tmpdir(), 'kup-demo')], {
    detached: true,
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const exited = once(keeper, 'exit');
  const [directory] = (await Promise.race([once(createInterface(keeper.stdout), 'line'), exited])) as [
    string | number,
  ];
  if (typeof directory !== 'string') throw new Error(`cannot make a directory in ${tmpdir()}`);
  const close = async (): Promise<void> => {
    keeper.stdin.end();
    await exited;
  };
  return { directory, close, [Symbol.asyncDispose]: close };
}
