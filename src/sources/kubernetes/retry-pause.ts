/**
 * The pause between a failure and the next attempt: none while another server is left to try, else the back-off,
 * or what the server asked for. Where no server took the connection it ends as soon as one does: an outage of an
 * hour must not cost half a minute more.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { ApiError } from './api-error.ts';
import { type Backoff, MAX_BACKOFF_MS } from './backoff.ts';
import type { ServerList } from './server-list.ts';

export interface RetryPauseDeps {
  readonly backoff: Backoff;
  readonly servers: ServerList;
}

export class RetryPause {
  readonly #backoff: Backoff;
  readonly #servers: ServerList;
  /** Failures since every server was tried. */
  #tried = 0;
  /** What they say since then: that no server is there, that one is and is sick, or nothing for certain. */
  #verdict: 'outage' | 'sick' | 'open' = 'open';
  /** A probe has said since the last answer that a server is there: no other is believed until one has answered. */
  #hasProbed = false;
  /** No failure yet since the start, or since a watch that went well for a while. */
  #isFirst = true;

  constructor(deps: RetryPauseDeps) {
    this.#backoff = deps.backoff;
    this.#servers = deps.servers;
  }

  /** In a row, without those that another server was tried after. */
  get failures(): number {
    return this.#backoff.failures;
  }

  /** A watch went well for a while. Being answered is no success yet: the answer may be the fault. */
  succeeded(): void {
    this.#backoff.succeeded();
    this.#tried = 0;
    this.#isFirst = true;
  }

  /** A list or a watch was granted. After an outage the count begins anew: what fails now fails for another reason. */
  answered(): void {
    if (this.#verdict === 'outage') this.#backoff.succeeded();
    this.#verdict = 'open';
    this.#hasProbed = false;
  }

  /** Milliseconds to wait. `isRoutine`: counted, but not waited for. */
  failed(error: ApiError, { isRoutine }: { readonly isRoutine: boolean }): number {
    if (this.#tried === 0) this.#verdict = 'open';
    // A server that dies breaks its watches first. One that breaks what it has just granted is there, and sick.
    if (error.isUnreachable && this.#verdict === 'open') this.#verdict = 'outage';
    else if (!error.isUnreachable && (error.isAnswer || !this.#isFirst)) this.#verdict = 'sick';
    this.#isFirst = false;
    this.#tried += 1;
    if (error.isServerFault && this.#tried < this.#servers.size) return 0;
    this.#tried = 0;
    const waitMs = this.#backoff.failed();
    return isRoutine ? 0 : Math.max(waitMs, Math.min(error.retryAfterMs ?? 0, MAX_BACKOFF_MS));
  }

  /** Resolves after `waitMs`, or as soon as a server can be reached again, or when `signal` is aborted. */
  async wait(waitMs: number, signal: AbortSignal): Promise<void> {
    const cancel = new AbortController();
    const either = AbortSignal.any([signal, cancel.signal]);
    const time = delay(waitMs, undefined, { signal: either });
    // A server that is sick, beside one that is dead, takes connections all the time: that tells nothing.
    const isWorthProbing = this.#verdict === 'outage' && !this.#hasProbed && waitMs > 0;
    // Rejections mean that `signal` was aborted: nothing is left to wait for.
    await Promise.race(isWorthProbing ? [time, this.#reachable(either)] : [time]).catch(() => undefined);
    cancel.abort();
  }

  /** The server that came back deserves a fresh count: what it fails now it fails for another reason. */
  async #reachable(signal: AbortSignal): Promise<void> {
    await this.#servers.whenReachable(signal);
    signal.throwIfAborted();
    this.#hasProbed = true;
    this.#backoff.succeeded();
  }
}
