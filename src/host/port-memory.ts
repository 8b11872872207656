/**
 * Remembers which proxy port each listener had, in `<state-dir>/ports.json`, so that a restart takes the same
 * ones and conntrack's flows find us again. An optimisation: without it everything works, with fresh ports.
 */
import { mkdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ProxyError, errnoOf } from '../errors.ts';

const FILE = 'ports.json';
const VERSION = 1;
/** No file of ours is larger: every proxy port of both protocols and families, with names as long as they may be. */
const MAX_FILE_BYTES = 16 * 1024 * 1024;

export class PortMemory {
  readonly #path: string | undefined;
  #written = '';
  /** The file that `#written` is in: another instance puts another one in its place. */
  #inode: number | undefined;

  /** Without a directory nothing is kept. */
  constructor(stateDir: string | undefined) {
    this.#path = stateDir === undefined ? undefined : join(stateDir, FILE);
  }

  /**
   * What the last instance had; empty when there is nothing to read. Rejects with `ERR_STATE_DIR` when it is unreadable, no
   * file, too large, or not what it should be.
   */
  async load(): Promise<ReadonlyMap<string, number>> {
    if (this.#path === undefined) return new Map();
    try {
      const { size, isFile } = await factsOf(this.#path);
      // Whoever reads a pipe waits until somebody writes to it.
      if (!isFile) throw new ProxyError('ERR_STATE_DIR', 'not a file');
      if (size > MAX_FILE_BYTES) throw new ProxyError('ERR_STATE_DIR', `${size} bytes are too many`);
      return portsFromJson(JSON.parse(await readFile(this.#path, 'utf8')));
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return new Map();
      throw new ProxyError('ERR_STATE_DIR', `cannot read remembered proxy ports from ${this.#path}`, {
        cause: error,
      });
    }
  }

  /** Replaces the file as a whole, so that a crash leaves the old one or the new one. Rejects with `ERR_STATE_DIR`. */
  async save(ports: ReadonlyMap<string, number>): Promise<void> {
    if (this.#path === undefined) return;
    const text = `${JSON.stringify({ version: VERSION, ports: Object.fromEntries(ports) }, undefined, 1)}\n`;
    const temporary = temporaryOf(this.#path);
    try {
      if (text === this.#written && (await this.#isStillOurs(this.#path))) return;
      await mkdir(join(this.#path, '..'), { recursive: true });
      await writeFile(temporary, text, { mode: 0o600 });
      const { inode } = await factsOf(temporary);
      await rename(temporary, this.#path);
      this.#inode = inode;
      this.#written = text;
    } catch (error) {
      // Where there is no room half a file takes it from others.
      await rm(temporary, { force: true }).catch(() => undefined);
      throw new ProxyError('ERR_STATE_DIR', `cannot remember proxy ports in ${this.#path}`, { cause: error });
    }
  }

  async #isStillOurs(path: string): Promise<boolean> {
    return factsOf(path).then(
      ({ inode }) => inode === this.#inode,
      () => false,
    );
  }

  /** Forgets everything. Rejects with `ERR_STATE_DIR`. */
  async remove(): Promise<void> {
    if (this.#path === undefined) return;
    try {
      await rm(this.#path, { force: true });
      await rm(temporaryOf(this.#path), { force: true });
      this.#written = '';
    } catch (error) {
      throw new ProxyError('ERR_STATE_DIR', `cannot remove ${this.#path}`, { cause: error });
    }
  }
}

async function factsOf(path: string): Promise<{ inode: number; size: number; isFile: boolean }> {
  const file = await stat(path);
  return { inode: file.ino, size: file.size, isFile: file.isFile() };
}

/** Where a new file is written before it takes the place of the old one. */
function temporaryOf(path: string): string {
  return `${path}.new`;
}

function portsFromJson(json: unknown): ReadonlyMap<string, number> {
  const state = json as { version?: unknown; ports?: unknown } | null;
  if (state?.version !== VERSION || typeof state.ports !== 'object' || state.ports === null) {
    throw new ProxyError('ERR_STATE_DIR', `not a list of ports of version ${VERSION}`);
  }
  const entries = Object.entries(state.ports).filter(
    (entry): entry is [string, number] =>
      Number.isInteger(entry[1]) && Number(entry[1]) > 0 && Number(entry[1]) < 65_536,
  );
  return new Map(entries);
}
