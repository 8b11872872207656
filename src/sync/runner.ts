/**
 * Runs one task, never twice at a time, with bounded frequency (kube-proxy
 * `pkg/proxy/runner/bounded_frequency_runner.go`). Guarantees:
 *
 * 1. After `request()` a run starts: at once while there have been no more than one run per `minIntervalMs` and
 *    `burst - 1` besides, else as soon as that is so. Runs that had nothing to do are not counted. Requests during a
 *    run lead to exactly one more.
 * 2. The first run that starts once `periodMs` have passed since the last periodic one is periodic; without any
 *    request one is started for that. Requests, however many, do not put it off.
 * 3. After a failure a run starts after `retryMs`, doubling up to `maxRetryMs`; a request does not wait for
 *    that. A success resets it.
 */
import type { Clock, MonotonicMs } from '../clock.ts';
import type { Logger } from '../log.ts';

/** Timers count whole milliseconds and may be early by the fraction that this clock sees. */
const TIMER_EARLY_MS = 2;

export interface RunnerOptions {
  readonly minIntervalMs: number;
  /** How many runs may follow each other at once after a rest; 1 or more. */
  readonly burst: number;
  readonly periodMs: number;
  readonly retryMs: number;
  readonly maxRetryMs: number;
}

export interface RunnerDeps {
  readonly clock: Clock;
  readonly logger: Logger;
  /** `isPeriodic`: the periodic look is due. Resolves with whether it did anything. A rejection is logged and retried. */
  readonly task: (run: { readonly isPeriodic: boolean }) => Promise<boolean>;
}

export class Runner {
  readonly #deps: RunnerDeps;
  readonly #options: RunnerOptions;
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> | undefined;
  /** When every run so far is paid for, one each `minIntervalMs`. */
  #paidAt: MonotonicMs = Number.NEGATIVE_INFINITY;
  /** Of the first run: there is nothing to look after yet. */
  #lastPeriodic: MonotonicMs | undefined;
  #isRequested = false;
  #failures = 0;
  #isClosed = false;

  constructor(deps: RunnerDeps, options: RunnerOptions) {
    this.#deps = deps;
    this.#options = options;
  }

  request(): void {
    this.#isRequested = true;
    if (this.#running === undefined) this.#schedule();
  }

  /** Resolves when the run under way has ended; at once when there is none. */
  async settled(): Promise<void> {
    await this.#running;
  }

  /** No further run starts; resolves when the one under way has ended. Idempotent. */
  async close(): Promise<void> {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    await this.#running;
  }

  #schedule(): void {
    clearTimeout(this.#timer);
    if (this.#isClosed) return;
    const delay = this.#delayMs();
    if (delay <= 0) this.#start();
    else this.#timer = setTimeout(() => this.#start(), delay);
  }

  #delayMs(): number {
    const { burst, minIntervalMs, periodMs, retryMs, maxRetryMs } = this.#options;
    const now = this.#deps.clock.now();
    if (this.#isRequested) return this.#paidAt - (burst - 1) * minIntervalMs - now;
    if (this.#failures > 0) return Math.min(retryMs * 2 ** (this.#failures - 1), maxRetryMs);
    return (this.#lastPeriodic ?? now) + periodMs - now;
  }

  #start(): void {
    this.#isRequested = false;
    const now = this.#deps.clock.now();
    this.#lastPeriodic ??= now;
    const isPeriodic = now - this.#lastPeriodic >= this.#options.periodMs - TIMER_EARLY_MS;
    if (isPeriodic) this.#lastPeriodic = now;
    // Set before the task's first step, which may itself ask for another run.
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#running = promise;
    void this.#run(isPeriodic, now).then(resolve);
  }

  async #run(isPeriodic: boolean, startedAt: MonotonicMs): Promise<void> {
    const paidBefore = this.#paidAt;
    this.#paidAt = Math.max(paidBefore, startedAt) + this.#options.minIntervalMs;
    try {
      const hasDone = await this.#deps.task({ isPeriodic });
      if (!hasDone) this.#paidAt = paidBefore;
      this.#failures = 0;
    } catch (error) {
      this.#failures += 1;
      this.#deps.logger.error({ error, failures: this.#failures }, 'Sync failed, will be retried');
    } finally {
      this.#running = undefined;
      this.#schedule();
    }
  }
}
