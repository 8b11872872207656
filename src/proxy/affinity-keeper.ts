/**
 * Carries ClientIP affinity over a restart: brings what the last instance saved into the forwarder, and saves what the
 * forwarder has, every few seconds and at the end. A SIGKILL loses the ties of the last seconds, nothing else; without a
 * directory that can be written it loses all, and traffic goes on.
 */
import type { AffinityTie } from '../balancer/affinity-table.ts';
import type { Clock, MonotonicMs } from '../clock.ts';
import type { Logger } from '../log.ts';
import type { PoolAffinity } from './backend-pools.ts';

/** Between two looks whether there is anything to save. */
export const SAVE_INTERVAL_MS = 5_000;
/** After a save that failed: whatever it was will not be over in a moment. */
export const SAVE_RETRY_MS = 60_000;
/** Saving takes one part in so many of the time at most, however many ties there are. */
const MIN_PAUSE_FACTOR = 50;

/** Where ties are kept. Both reject with `ERR_STATE_DIR`. */
export interface AffinityStore {
  load(): Promise<ReadonlyMap<string, readonly AffinityTie[]>>;
  save(pools: readonly PoolAffinity[]): Promise<void>;
}

/** Who has the ties. */
export interface AffinityHolder {
  restoreAffinity(tiesByPool: ReadonlyMap<string, readonly AffinityTie[]>): void;
  affinity(now: MonotonicMs): readonly PoolAffinity[];
  /** As long as it is the same, all ties are. */
  readonly affinityChanges: number;
}

export interface AffinityKeeperDeps {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly store: AffinityStore;
  readonly holder: AffinityHolder;
  /** Of several instances on a node only the one that owns the state directory writes to it. */
  readonly isOwner: () => boolean;
}

export class AffinityKeeper {
  readonly #deps: AffinityKeeperDeps;
  #savedChanges = 0;
  /** Nobody else has saved since we brought in what was saved. */
  #hasAllOfPredecessor = false;
  #hasLoadFailed = false;
  #hasSaveFailed = false;
  #timer: NodeJS.Timeout | undefined;
  #saving: Promise<void> = Promise.resolve();
  #isClosed = false;

  constructor(deps: AffinityKeeperDeps) {
    this.#deps = deps;
  }

  /**
   * Brings in what is saved, for the pools that are there and for those that appear later; who was tied later by us stays.
   * Never rejects: a fault is a line in the log. To be called before the first Service is known; when this instance takes
   * over from a living one it is done again by itself, before the first save, and may be done sooner.
   */
  async restore(): Promise<void> {
    this.#hasAllOfPredecessor = this.#deps.isOwner();
    try {
      this.#deps.holder.restoreAffinity(await this.#deps.store.load());
      this.#hasLoadFailed = false;
    } catch (error) {
      if (!this.#hasLoadFailed) {
        this.#deps.logger.warn({ error }, 'Affinity of the last run is lost, clients are tied anew');
      }
      this.#hasLoadFailed = true;
    }
  }

  /** Saves from time to time until `close`. */
  start(): void {
    this.#wait(SAVE_INTERVAL_MS);
  }

  /** Saves for the last time. Idempotent. */
  async close(): Promise<void> {
    if (this.#isClosed) return this.#saving;
    this.#isClosed = true;
    clearTimeout(this.#timer);
    this.#saving = this.#saving.then(async () => this.#save());
    return this.#saving;
  }

  #wait(delayMs: number): void {
    if (this.#isClosed) return;
    this.#timer = setTimeout(() => {
      const startedAt = this.#deps.clock.now();
      this.#saving = this.#save().then(() => {
        const pauseMs = (this.#deps.clock.now() - startedAt) * MIN_PAUSE_FACTOR;
        this.#wait(Math.max(this.#hasSaveFailed ? SAVE_RETRY_MS : SAVE_INTERVAL_MS, pauseMs));
      });
    }, delayMs);
  }

  async #save(): Promise<void> {
    const { clock, holder, isOwner, logger, store } = this.#deps;
    if (!isOwner()) {
      this.#hasAllOfPredecessor = false;
      return;
    }
    if (!this.#hasAllOfPredecessor) await this.restore();
    // Read before: what changes while it is being saved may be in the file or not.
    const changes = holder.affinityChanges;
    if (changes === this.#savedChanges) return;
    try {
      await store.save(holder.affinity(clock.now()));
      this.#savedChanges = changes;
      this.#hasSaveFailed = false;
    } catch (error) {
      if (!this.#hasSaveFailed) logger.warn({ error }, 'Affinity will be lost with a restart');
      this.#hasSaveFailed = true;
    }
  }
}
