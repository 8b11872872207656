/**
 * Remembers which endpoint each client is tied to (ClientIP affinity), in `<state-dir>/affinity.json`, so that clients
 * come back to theirs after a restart. An optimisation: without it everything works, and clients are tied anew.
 *
 *     {"version":1,"savedAt":1790000000000,"pools":[
 *     {"pool":"default/web:http/TCP/IPv4/cluster","ties":[["10.0.0.7",0,1500]],"endpoints":["10.244.1.12:8080"]}]}
 *
 * A tie is a client, the number of its endpoint, and how many milliseconds old it was when it was saved. Since the
 * monotonic clock begins anew with each process, the time from saving to loading is the wall clock's. Whatever that does,
 * no tie gets younger than it was: put back it counts as no time at all, put forward ties are lost early.
 */
import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Clock, MonotonicMs } from '../clock.ts';
import { ProxyError } from '../errors.ts';
import { StateFile } from './state-file.ts';

const FILE = 'affinity.json';
const VERSION = 1;

/** Of all pools together; about 3 MB. Above it the newest are kept. */
export const MAX_REMEMBERED_TIES = 100_000;
/** No file of ours is larger: so many ties of IPv6 clients, each in a pool of its own. */
const MAX_FILE_BYTES = 32 * 1024 * 1024;
/** Between two turns of the event loop: about a millisecond (`test/host/affinity-memory.test.ts` counts the turns). */
const TIES_PER_TURN = 1_000;
/** Kubernetes allows no longer time-out (core/v1 `MaxClientIPServiceAffinitySeconds`). */
const MAX_AGE_S = 86_400;

export interface RememberedTie {
  readonly client: string;
  readonly endpointKey: string;
  readonly lastUsed: MonotonicMs;
}

/** One pool's ties. */
export interface PoolTies {
  readonly pool: string;
  /** How many there are, give or take a few. */
  readonly size: number;
  /** Walked over up to twice, in several turns of the event loop; a client that comes twice counts as it came last. */
  readonly ties: Iterable<RememberedTie>;
}

export class AffinityMemory {
  readonly #clock: Clock;
  readonly #path: string;
  /** Without a directory nothing is kept. */
  readonly #file: StateFile | undefined;

  constructor({ clock }: { readonly clock: Clock }, stateDir: string | undefined) {
    this.#clock = clock;
    this.#path = stateDir === undefined ? '' : join(stateDir, FILE);
    if (stateDir !== undefined) this.#file = new StateFile(this.#path, { maxBytes: MAX_FILE_BYTES });
  }

  /**
   * What the last instance saved, by pool; empty when there is nothing to read. The ages are right as of now. Rejects with
   * `ERR_STATE_DIR` when the file is unreadable, too large, cut off, or not what it should be.
   */
  async load(): Promise<ReadonlyMap<string, readonly RememberedTie[]>> {
    try {
      const text = await this.#file?.read();
      return text === undefined ? new Map() : tiesFromJson(JSON.parse(text), this.#clock);
    } catch (error) {
      throw new ProxyError('ERR_STATE_DIR', `cannot read remembered affinity from ${this.#path}`, {
        cause: error,
      });
    }
  }

  /**
   * Gives way to the event loop every thousand ties. Not to be called again before it is done. Rejects with
   * `ERR_STATE_DIR`.
   */
  async save(pools: readonly PoolTies[]): Promise<void> {
    try {
      await this.#file?.replace(renderInTurns(pools, this.#clock));
    } catch (error) {
      throw new ProxyError('ERR_STATE_DIR', `cannot remember affinity in ${this.#path}`, { cause: error });
    }
  }

  /** Forgets everything. Rejects with `ERR_STATE_DIR`. */
  async remove(): Promise<void> {
    try {
      await this.#file?.remove();
    } catch (error) {
      throw new ProxyError('ERR_STATE_DIR', `cannot remove ${this.#path}`, { cause: error });
    }
  }
}

async function* renderInTurns(pools: readonly PoolTies[], clock: Clock): AsyncGenerator<string> {
  const now = clock.now();
  const savedAt = Math.round(clock.wallTime());
  const maxAgeS = await ageThatFits(pools, now);
  let room = MAX_REMEMBERED_TIES;
  let visited = 0;
  let text = `{"version":${VERSION},"savedAt":${savedAt},"pools":[`;
  let separator = '\n';
  for (const { pool, ties } of pools) {
    const numberByEndpoint = new Map<string, number>();
    text += `${separator}{"pool":${JSON.stringify(pool)},"ties":[`;
    separator = ',\n';
    let comma = '';
    for (const { client, endpointKey, lastUsed } of ties) {
      visited += 1;
      if (visited % TIES_PER_TURN === 0) {
        yield text;
        text = '';
        await nextTurn();
      }
      const ageMs = Math.max(0, Math.round(now - lastUsed));
      if (secondsOf(ageMs) > maxAgeS) continue;
      if (room === 0) break;
      room -= 1;
      const number = numberByEndpoint.get(endpointKey) ?? numberByEndpoint.size;
      numberByEndpoint.set(endpointKey, number);
      text += `${comma}[${JSON.stringify(client)},${number},${ageMs}]`;
      comma = ',';
    }
    text += `],"endpoints":${JSON.stringify([...numberByEndpoint.keys()])}}`;
  }
  yield `${text}]}\n`;
}

/** The age in whole seconds up to which all ties together are as many as there is room for; 0 when not even those are. */
async function ageThatFits(pools: readonly PoolTies[], now: MonotonicMs): Promise<number> {
  const total = pools.reduce((sum, { size }) => sum + size, 0);
  if (total <= MAX_REMEMBERED_TIES) return MAX_AGE_S;
  const countByAge = new Uint32Array(MAX_AGE_S + 1);
  let visited = 0;
  for (const { ties } of pools) {
    for (const { lastUsed } of ties) {
      const ageS = secondsOf(now - lastUsed);
      countByAge[ageS] = (countByAge[ageS] ?? 0) + 1;
      visited += 1;
      if (visited % TIES_PER_TURN === 0) await nextTurn();
    }
  }
  let sum = 0;
  const firstTooMany = countByAge.findIndex((count) => {
    sum += count;
    return sum > MAX_REMEMBERED_TIES;
  });
  return firstTooMany === -1 ? MAX_AGE_S : Math.max(0, firstTooMany - 1);
}

function secondsOf(ageMs: number): number {
  return Math.min(MAX_AGE_S, Math.max(0, Math.floor(ageMs / 1000)));
}

/** A tie that makes no sense is left out; what is no list of ties at all throws `ERR_STATE_DIR`. */
function tiesFromJson(json: unknown, clock: Clock): ReadonlyMap<string, readonly RememberedTie[]> {
  const state = json as { version?: unknown; savedAt?: unknown; pools?: unknown } | null;
  if (state?.version !== VERSION || typeof state.savedAt !== 'number' || !Array.isArray(state.pools)) {
    throw new ProxyError('ERR_STATE_DIR', `not a list of ties of version ${VERSION}`);
  }
  const awayMs = Math.max(0, clock.wallTime() - state.savedAt);
  const savedAt = clock.now() - awayMs;
  const tiesByPool = new Map<string, readonly RememberedTie[]>();
  for (const one of state.pools as readonly unknown[]) {
    const { pool, ties, endpoints } = (one ?? {}) as { pool?: unknown; ties?: unknown; endpoints?: unknown };
    if (typeof pool !== 'string' || !Array.isArray(ties) || !Array.isArray(endpoints)) continue;
    tiesByPool.set(
      pool,
      ties.flatMap((tie: unknown) => tieFromJson(tie, { endpoints, savedAt })),
    );
  }
  return tiesByPool;
}

function tieFromJson(
  tie: unknown,
  { endpoints, savedAt }: { readonly endpoints: readonly unknown[]; readonly savedAt: MonotonicMs },
): readonly RememberedTie[] {
  if (!Array.isArray(tie)) return [];
  const [client, number, ageMs] = tie as readonly unknown[];
  const endpointKey = typeof number === 'number' ? endpoints[number] : undefined;
  if (typeof client !== 'string' || typeof endpointKey !== 'string') return [];
  if (typeof ageMs !== 'number' || !(ageMs >= 0)) return [];
  return [{ client, endpointKey, lastUsed: savedAt - ageMs }];
}
