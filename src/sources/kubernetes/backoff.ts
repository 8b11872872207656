/**
 * How long to wait after a failure: from 0.8 s, doubled each time, jittered, 30 s at most (client-go
 * `tools/cache/reflector.go`). Jitter keeps the nodes of a cluster from coming back in one moment. Pure but for
 * the chance that is passed in.
 */
export const MIN_BACKOFF_MS = 800;
export const MAX_BACKOFF_MS = 30_000;

export interface BackoffOptions {
  /** The shortest wait; the second is twice as long. */
  readonly minMs: number;
  /** No wait is longer. */
  readonly maxMs: number;
}

export class Backoff {
  readonly #random: () => number;
  readonly #options: BackoffOptions;
  #failures = 0;

  /** `random`: 0 up to but not including 1. */
  constructor(
    deps: { readonly random: () => number },
    options: BackoffOptions = { minMs: MIN_BACKOFF_MS, maxMs: MAX_BACKOFF_MS },
  ) {
    this.#random = deps.random;
    this.#options = options;
  }

  /** In a row. */
  get failures(): number {
    return this.#failures;
  }

  /** Milliseconds to wait after one more failure: between half and whole of its step. */
  failed(): number {
    const { minMs, maxMs } = this.#options;
    const longest = Math.min(maxMs, 2 * minMs * 2 ** this.#failures);
    this.#failures += 1;
    return longest / 2 + (this.#random() * longest) / 2;
  }

  succeeded(): void {
    this.#failures = 0;
  }
}
