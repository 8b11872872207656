/**
 * The scratch directory of a control plane. etcd's log alone takes 64 MB, so it must not stay behind: a detached
 * shell removes it when its standard input ends, which the kernel sees to even if this process is killed.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Programs of the lab that are about to be killed may still make files: then it is tried again, for 10 s. */
const REMOVER_SCRIPT = `
trap '' INT TERM HUP PIPE
cat >/dev/null
round=0
while [ "$round" -lt 100 ]; do
  rm -rf "$1" 2>/dev/null && exit 0
  round=$((round + 1))
  sleep 0.1
done
exit 1
`;

export class ScratchDirectory {
  readonly path: string;
  readonly #remover: ChildProcess;
  readonly #removed: Promise<number | null>;

  private constructor(path: string) {
    this.path = path;
    this.#remover = spawn('sh', ['-c', REMOVER_SCRIPT, 'cluster-directory', path], {
      detached: true,
      stdio: ['pipe', 'ignore', 'ignore'],
    });
    this.#removed = new Promise((resolve, reject) => {
      this.#remover.once('exit', resolve);
      this.#remover.once('error', reject);
    });
    // Only `remove` hears of a failure.
    this.#removed.catch(() => undefined);
    this.#remover.stdin?.on('error', () => undefined);
    // Idle, neither may keep this process alive: its end is what the shell waits for.
    this.#remover.unref();
    const { stdin } = this.#remover as { stdin: { unref?: () => void } | null };
    stdin?.unref?.();
  }

  static async create(): Promise<ScratchDirectory> {
    // Short: the path of a unix socket in it has at most 107 octets.
    return new ScratchDirectory(await mkdtemp(join(tmpdir(), 'kup-cluster-')));
  }

  /** Resolves when the directory is gone. Idempotent. */
  async remove(): Promise<void> {
    this.#remover.ref();
    this.#remover.stdin?.end();
    if ((await this.#removed) !== 0) throw new Error(`${this.path} could not be removed`);
  }
}
