/**
 * One file of the state directory: read with care, since it may be anything, and replaced as a whole, so that a crash
 * leaves the old one or the new one. What it says, and that nobody depends on it, is for whoever uses it.
 */
import { mkdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { ProxyError, errnoOf } from '../errors.ts';

export class StateFile {
  readonly #path: string;
  /** Where a new file is written before it takes the place of the old one. */
  readonly #temporary: string;
  readonly #maxBytes: number;

  constructor(path: string, options: { readonly maxBytes: number }) {
    this.#path = path;
    this.#temporary = `${path}.new`;
    this.#maxBytes = options.maxBytes;
  }

  /**
   * The text; undefined when there is no file. Rejects with the system's error, and with `ERR_STATE_DIR` when it is no
   * file or too large.
   */
  async read(): Promise<string | undefined> {
    try {
      const facts = await stat(this.#path);
      // Whoever reads a pipe waits until somebody writes to it.
      if (!facts.isFile()) throw new ProxyError('ERR_STATE_DIR', 'not a file');
      if (facts.size > this.#maxBytes)
        throw new ProxyError('ERR_STATE_DIR', `${facts.size} bytes are too many`);
      return await readFile(this.#path, 'utf8');
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined;
      throw error;
    }
  }

  /** Resolves with what `inode` will say of it. Not to be called again before that. Rejects with the system's error. */
  async replace(text: string | AsyncIterable<string>): Promise<number> {
    try {
      await mkdir(dirname(this.#path), { recursive: true });
      // Whatever stands there, a pipe or a link to another file, is not written to.
      await rm(this.#temporary, { force: true, recursive: true });
      await writeFile(this.#temporary, text, { mode: 0o600, flag: 'wx' });
      const { ino } = await stat(this.#temporary);
      await rename(this.#temporary, this.#path);
      return ino;
    } catch (error) {
      // Where there is no room half a file takes it from others.
      await rm(this.#temporary, { force: true }).catch(() => undefined);
      throw error;
    }
  }

  /** Which file stands there now: another after somebody has replaced it; undefined: none that can be seen. */
  async inode(): Promise<number | undefined> {
    return stat(this.#path).then(
      ({ ino }) => ino,
      () => undefined,
    );
  }

  /** Rejects with the system's error. */
  async remove(): Promise<void> {
    await rm(this.#path, { force: true });
    await rm(this.#temporary, { force: true });
  }
}
