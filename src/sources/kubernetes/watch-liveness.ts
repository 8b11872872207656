/**
 * How long to ask for a watch, and what its end tells. A watch in which nothing happens looks like a dead one; what
 * tells them apart is a bookmark, or that the server ends the watch when its time is up. API servers promise no
 * bookmark where nothing happens (and 1.20 sends none): until one came, watches are asked for that end before the
 * watchdog would. Pure but for the chance that is passed in.
 */

/** client-go's: 5 to 10 minutes, so that the watches of many nodes do not end together. */
const LONG_WATCH_SECONDS = 300;
/** Of the watchdog's time, without bookmarks: from here to 1.6 times as much. */
const SHORT_WATCH_SHARE = 0.5;
/** A watch that ends within a second counts as one that failed. */
const MIN_WATCH_SECONDS = 2;
/** A connection that was cut after so long was idle, or its server is gone: the next attempt tells. */
const LONG_LIVED_MS = 10_000;
/** A list is due after so many silent watches. Where it did not end the silence, after twice as many, up to MAX. */
const MIN_SILENT_WATCHES = 2;
const MAX_SILENT_WATCHES = 32;

/** How a watch that was granted has ended. */
export interface WatchEnd {
  readonly how: 'peace' | 'stall' | 'other';
  readonly livedMs: number;
  /** What came in it. */
  readonly bookmarks: number;
  readonly events: number;
}

export class WatchLiveness {
  readonly #stallTimeoutMs: number;
  readonly #random: () => number;
  /** `proven`: a bookmark came. `refuted`: after that a watch was silent; then only one that came alone counts. */
  #bookmarks: 'unknown' | 'proven' | 'refuted' = 'unknown';
  /** In a row: the server may have lost sight of what we hold (its data was restored, its cache is stale). */
  #silent = 0;
  #silentLimit = MIN_SILENT_WATCHES;

  constructor(deps: { readonly random: () => number }, options: { readonly stallTimeoutMs: number }) {
    this.#random = deps.random;
    this.#stallTimeoutMs = options.stallTimeoutMs;
  }

  /** For the next watch. */
  timeoutSeconds(): number {
    if (this.#bookmarks === 'proven') return Math.floor(LONG_WATCH_SECONDS * (1 + this.#random()));
    const share = SHORT_WATCH_SHARE * (1 + 0.6 * this.#random());
    return Math.max(MIN_WATCH_SECONDS, Math.floor((share * this.#stallTimeoutMs) / 1000));
  }

  /** Is it an end that needs no pause and no word, because the next attempt will tell? Called for each, once. */
  watchEnded({ how, livedMs, bookmarks, events }: WatchEnd): { readonly isRoutine: boolean } {
    const wasLong = this.#bookmarks === 'proven';
    const isProof = bookmarks > 0 && (events === 0 || this.#bookmarks !== 'refuted');
    if (isProof) this.#bookmarks = 'proven';
    if (how === 'stall' && wasLong) this.#bookmarks = 'refuted';
    if (bookmarks + events > 0) {
      this.#silent = 0;
      this.#silentLimit = MIN_SILENT_WATCHES;
    } else if (livedMs >= this.#stallTimeoutMs * SHORT_WATCH_SHARE) {
      this.#silent += 1;
    }
    return { isRoutine: how === 'stall' ? wasLong : livedMs >= LONG_LIVED_MS };
  }

  /** Is it time for a list? The caller makes one then. */
  takeListDue(): boolean {
    if (this.#silent < this.#silentLimit) return false;
    this.#silent = 0;
    this.#silentLimit = Math.min(2 * this.#silentLimit, MAX_SILENT_WATCHES);
    return true;
  }
}
