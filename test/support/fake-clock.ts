/** A clock that stands still until a test moves it. */
import type { Clock } from '../../src/clock.ts';

export class FakeClock implements Clock {
  #elapsedMs = 0;

  now(): number {
    return this.#elapsedMs;
  }

  wallTime(): number {
    return Date.UTC(2026, 10, 21) + this.#elapsedMs;
  }

  advance(ms: number): void {
    this.#elapsedMs += ms;
  }
}
