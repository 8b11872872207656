/**
 * Remembers which proxy port each listener had, in `<state-dir>/ports.json`, so that a restart takes the same
 * ones and conntrack's flows find us again. An optimisation: without it everything works, with fresh ports.
 */
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ProxyError, errnoOf } from '../errors.ts';

const FILE = 'ports.json';
const VERSION = 1;

export class PortMemory {
  readonly #path: string | undefined;
  #written = '';

  /** Without a directory nothing is kept. */
  constructor(stateDir: string | undefined) {
    this.#path = stateDir === undefined ? undefined : join(stateDir, FILE);
  }

  /** What the last instance had; empty when there is nothing to read. Rejects with `ERR_STATE_DIR` when it is unreadable. */
  async load(): Promise<ReadonlyMap<string, number>> {
    if (this.#path === undefined) return new Map();
    try {
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
    if (text === this.#written) return;
    const temporary = temporaryOf(this.#path);
    try {
      await mkdir(join(this.#path, '..'), { recursive: true });
      await writeFile(temporary, text, { mode: 0o600 });
      await rename(temporary, this.#path);
      this.#written = text;
    } catch (error) {
      throw new ProxyError('ERR_STATE_DIR', `cannot remember proxy ports in ${this.#path}`, { cause: error });
    }
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
