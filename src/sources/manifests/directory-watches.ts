/**
 * Tells at once when something happens in the directories that hold manifests, as far as the kernel lets us: one
 * fs.watch (inotify) each. Directories, because editors and ConfigMap mounts replace files by rename. What it
 * misses (a bind mount, a write through a symlink, inotify exhausted) the poll of the source finds.
 */
import { watch as fsWatch } from 'node:fs';
import { stat } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import { errnoOf, errorText } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { isManifestName } from './manifest-files.ts';

/** Watches one directory. May throw; later faults go to `onError`. `name` is undefined when the kernel gave none. */
export type WatchDirectory = (
  directory: string,
  on: { readonly event: (name: string | undefined) => void; readonly error: (error: unknown) => void },
) => { close(): void };

export const watchDirectory: WatchDirectory = (directory, on) => {
  const watcher = fsWatch(directory, (_event, name) => on.event(name ?? undefined));
  watcher.on('error', on.error);
  return watcher;
};

interface Watched {
  /** Device, inode and birth: a directory of the same name may be another one. */
  readonly identity: string;
  close(): void;
}

/** `close()` ends everything; `ensure()` must not overlap itself. */
export class DirectoryWatches {
  readonly #watch: WatchDirectory;
  readonly #logger: Logger;
  readonly #onEvent: () => void;
  readonly #paths: readonly string[];
  readonly #watchedByDirectory = new Map<string, Watched>();
  #state: 'watching' | 'unavailable' | 'closed' = 'watching';

  constructor(
    deps: { readonly watch: WatchDirectory; readonly logger: Logger; readonly onEvent: () => void },
    options: { readonly paths: readonly string[] },
  ) {
    this.#watch = deps.watch;
    this.#logger = deps.logger;
    this.#onEvent = deps.onEvent;
    this.#paths = options.paths;
  }

  /** Watches the directories that exist now, anew where one was replaced. Idempotent; never rejects. */
  async ensure(): Promise<void> {
    for (const path of this.#paths) {
      const itself = await directoryIdentity(path);
      const directory = itself === undefined ? dirname(path) : path;
      const identity = itself ?? (await directoryIdentity(directory));
      if (this.#state !== 'watching') return;
      if (identity !== undefined) this.#open(directory, identity);
    }
  }

  close(): void {
    this.#state = 'closed';
    this.#closeAll();
  }

  #open(directory: string, identity: string): void {
    const before = this.#watchedByDirectory.get(directory);
    if (before?.identity === identity) return;
    before?.close();
    this.#watchedByDirectory.delete(directory);
    try {
      const watcher = this.#watch(directory, {
        event: (name) => {
          if (this.#concerns(name)) this.#onEvent();
        },
        error: (error) => this.#fail(directory, error),
      });
      this.#watchedByDirectory.set(directory, { identity, close: () => watcher.close() });
    } catch (error: unknown) {
      this.#fail(directory, error);
    }
  }

  /** Other files of a directory are nobody's business; `..data` is how ConfigMap mounts swap their content. */
  #concerns(name: string | undefined): boolean {
    if (name === undefined || isManifestName(name) || name.startsWith('..')) return true;
    return this.#paths.some((path) => basename(path) === name);
  }

  /** A directory that has just gone is no fault; anything else means polling from here on. */
  #fail(directory: string, error: unknown): void {
    const errno = errnoOf(error);
    if (this.#state !== 'watching' || errno === 'ENOENT' || errno === 'ENOTDIR') return;
    this.#state = 'unavailable';
    this.#closeAll();
    this.#logger.warn({ directory, error: errorText(error) }, 'Cannot watch manifests, polling them instead');
  }

  #closeAll(): void {
    for (const watched of this.#watchedByDirectory.values()) watched.close();
    this.#watchedByDirectory.clear();
  }
}

async function directoryIdentity(path: string): Promise<string | undefined> {
  try {
    const { dev, ino, birthtimeNs, ...stats } = await stat(path, { bigint: true });
    return (stats.mode & 0o170000n) === 0o040000n ? [dev, ino, birthtimeNs].join(':') : undefined;
  } catch {
    return undefined;
  }
}
