/**
 * Remembers which proxy port each listener had, in `<state-dir>/ports.json`, so that a restart takes the same
 * ones and conntrack's flows find us again. An optimisation: without it everything works, with fresh ports.
 */
import { join } from 'node:path';
import { ProxyError } from '../errors.ts';
import { StateFile } from './state-file.ts';

const FILE = 'ports.json';
const VERSION = 1;
/** No file of ours is larger: every proxy port of both protocols and families, with names as long as they may be. */
const MAX_FILE_BYTES = 16 * 1024 * 1024;

export class PortMemory {
  readonly #path: string;
  /** Without a directory nothing is kept. */
  readonly #file: StateFile | undefined;
  #written = '';
  /** The file that `#written` is in: another instance puts another one in its place. */
  #inode: number | undefined;

  constructor(stateDir: string | undefined) {
    this.#path = stateDir === undefined ? '' : join(stateDir, FILE);
    if (stateDir !== undefined) this.#file = new StateFile(this.#path, { maxBytes: MAX_FILE_BYTES });
  }

  /**
   * What the last instance had; empty when there is nothing to read. Rejects with `ERR_STATE_DIR` when it is unreadable, no
   * file, too large, or not what it should be.
   */
  async load(): Promise<ReadonlyMap<string, number>> {
    try {
      const text = await this.#file?.read();
      return text === undefined ? new Map() : portsFromJson(JSON.parse(text));
    } catch (error) {
      throw new ProxyError('ERR_STATE_DIR', `cannot read remembered proxy ports from ${this.#path}`, {
        cause: error,
      });
    }
  }

  /** Rejects with `ERR_STATE_DIR`. */
  async save(ports: ReadonlyMap<string, number>): Promise<void> {
    if (this.#file === undefined) return;
    const text = `${JSON.stringify({ version: VERSION, ports: Object.fromEntries(ports) }, undefined, 1)}\n`;
    try {
      if (text === this.#written && (await this.#file.inode()) === this.#inode) return;
      this.#inode = await this.#file.replace(text);
      this.#written = text;
    } catch (error) {
      throw new ProxyError('ERR_STATE_DIR', `cannot remember proxy ports in ${this.#path}`, { cause: error });
    }
  }

  /** Forgets everything. Rejects with `ERR_STATE_DIR`. */
  async remove(): Promise<void> {
    try {
      await this.#file?.remove();
      this.#written = '';
    } catch (error) {
      throw new ProxyError('ERR_STATE_DIR', `cannot remove ${this.#path}`, { cause: error });
    }
  }
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
