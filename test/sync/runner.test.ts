/** The three guarantees of the runner, on vitest's timers. */
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { systemClock } from '../../src/clock.ts';
import { Runner, type RunnerOptions } from '../../src/sync/runner.ts';
import { RecordingLogger } from '../support/recording-logger.ts';
import { waitFor } from '../support/wait.ts';

const OPTIONS: RunnerOptions = {
  minIntervalMs: 1000,
  burst: 1,
  periodMs: 30_000,
  retryMs: 2000,
  maxRetryMs: 10_000,
};

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  vi.useRealTimers();
});

/** A task whose runs take as long, and end as, the test says. */
class Fixture {
  readonly logger = new RecordingLogger();
  /** When runs started, in milliseconds since the fixture was made, and whether they were periodic. */
  readonly runs: { readonly at: number; readonly isPeriodic: boolean }[] = [];
  atOnce = 0;
  mostAtOnce = 0;
  durationMs = 0;
  fault: Error | undefined;
  /** What runs say of themselves. */
  hasDone = true;
  readonly #startedAt = systemClock.now();
  readonly runner: Runner;

  constructor(tweak: Partial<RunnerOptions> = {}) {
    this.runner = new Runner(
      { clock: systemClock, logger: this.logger, task: async (run) => this.#run(run) },
      { ...OPTIONS, ...tweak },
    );
  }

  get starts(): readonly number[] {
    return this.runs.map(({ at }) => at);
  }

  get elapsedMs(): number {
    return Math.round(systemClock.now() - this.#startedAt);
  }

  async until(elapsedMs: number): Promise<void> {
    await vi.advanceTimersByTimeAsync(elapsedMs - this.elapsedMs);
  }

  async #run({ isPeriodic }: { readonly isPeriodic: boolean }): Promise<boolean> {
    this.runs.push({ at: this.elapsedMs, isPeriodic });
    this.atOnce += 1;
    this.mostAtOnce = Math.max(this.mostAtOnce, this.atOnce);
    if (this.durationMs > 0) {
      const { promise, resolve } = Promise.withResolvers<void>();
      setTimeout(resolve, this.durationMs);
      await promise;
    }
    this.atOnce -= 1;
    if (this.fault !== undefined) throw this.fault;
    return this.hasDone;
  }
}

test('nothing runs before the first request', async () => {
  const fixture = new Fixture();

  await fixture.until(100_000);

  expect(fixture.runs).toEqual([]);
});

describe('requests', () => {
  test('the first one runs at once', () => {
    const fixture = new Fixture();

    fixture.runner.request();

    expect(fixture.runs).toEqual([{ at: 0, isPeriodic: false }]);
  });

  test('one soon after a run waits until the interval is over', async () => {
    const fixture = new Fixture();
    fixture.runner.request();
    await fixture.until(400);

    fixture.runner.request();
    await fixture.until(999);
    expect(fixture.starts).toEqual([0]);
    await fixture.until(1000);

    expect(fixture.starts).toEqual([0, 1000]);
  });

  test('one long after a run does not wait', async () => {
    const fixture = new Fixture();
    fixture.runner.request();
    await fixture.until(5000);

    fixture.runner.request();

    expect(fixture.starts).toEqual([0, 5000]);
  });

  test('with a burst of two, the second after a rest runs at once, and the third when the first is paid for', async () => {
    const fixture = new Fixture({ burst: 2 });
    await fixture.until(5000);
    for (const at of [5000, 5010, 5020]) {
      await fixture.until(at);
      fixture.runner.request();
    }
    await fixture.until(5999);
    expect(fixture.starts).toEqual([5000, 5010]);
    await fixture.until(6000);
    expect(fixture.starts).toEqual([5000, 5010, 6000]);
    fixture.runner.request();
    await fixture.until(20_000);

    expect(fixture.starts).toEqual([5000, 5010, 6000, 7000]);
  });

  test('one after a run that had nothing to do does not wait', async () => {
    const fixture = new Fixture();
    fixture.hasDone = false;
    for (const at of [0, 10, 20]) {
      await fixture.until(at);
      fixture.runner.request();
    }
    fixture.hasDone = true;
    for (const at of [30, 40]) {
      await fixture.until(at);
      fixture.runner.request();
    }
    await fixture.until(5000);

    expect(fixture.starts).toEqual([0, 10, 20, 30, 1030]);
  });

  test('a burst leads to one run', async () => {
    const fixture = new Fixture();
    fixture.runner.request();
    await fixture.until(100);

    for (let request = 0; request < 50; request += 1) fixture.runner.request();
    await fixture.until(20_000);

    expect(fixture.starts).toEqual([0, 1000]);
  });

  test('those during a run lead to exactly one more, and two never run at once', async () => {
    const fixture = new Fixture();
    fixture.durationMs = 3000;
    fixture.runner.request();
    for (const at of [500, 1000, 2999]) {
      await fixture.until(at);
      fixture.runner.request();
    }
    await fixture.until(29_000);

    expect(fixture.starts).toEqual([0, 3000]);
    expect(fixture.mostAtOnce).toBe(1);
  });

  test.each([0, 1000])(
    'a task that asks for another run in its first step gets exactly one, after it (interval %i ms)',
    async (minIntervalMs) => {
      const runs: string[] = [];
      const runner: Runner = new Runner(
        {
          clock: systemClock,
          logger: new RecordingLogger(),
          task: async () => {
            const isFirst = runs.length === 0;
            runs.push('start');
            if (isFirst) runner.request();
            const { promise, resolve } = Promise.withResolvers<void>();
            setTimeout(resolve, 2500);
            await promise;
            runs.push('end');
            return true;
          },
        },
        { ...OPTIONS, minIntervalMs },
      );

      runner.request();
      await vi.advanceTimersByTimeAsync(10_000);

      expect(runs).toEqual(['start', 'end', 'start', 'end']);
      await runner.close();
    },
  );

  test('without an interval every request runs at once', async () => {
    const fixture = new Fixture({ minIntervalMs: 0 });

    fixture.runner.request();
    await fixture.until(1);
    fixture.runner.request();
    await fixture.until(2);

    expect(fixture.starts).toEqual([0, 1]);
  });

  test('a steady stream of requests runs once in every interval', async () => {
    const fixture = new Fixture();
    for (let at = 0; at <= 5000; at += 100) {
      await fixture.until(at);
      fixture.runner.request();
    }

    expect(fixture.starts).toEqual([0, 1000, 2000, 3000, 4000, 5000]);
  });
});

describe('the period', () => {
  test('runs the task without a request, and such a run says so', async () => {
    const fixture = new Fixture();
    fixture.durationMs = 500;
    fixture.runner.request();

    await fixture.until(62_000);

    expect(fixture.runs).toEqual([
      { at: 0, isPeriodic: false },
      { at: 30_000, isPeriodic: true },
      { at: 60_000, isPeriodic: true },
    ]);
  });

  test('is not put off by requests: the first run when it is due is periodic', async () => {
    const fixture = new Fixture();
    for (let at = 0; at <= 64_000; at += 4000) {
      await fixture.until(at);
      fixture.runner.request();
    }

    expect(fixture.runs.filter(({ isPeriodic }) => isPeriodic).map(({ at }) => at)).toEqual([30_000, 60_000]);
  });

  test('on the real clock, whose timers may be early, every run without a request is periodic', async () => {
    vi.useRealTimers();
    const runs: boolean[] = [];
    const runner = new Runner(
      {
        clock: systemClock,
        logger: new RecordingLogger(),
        task: async ({ isPeriodic }) => {
          runs.push(isPeriodic);
          return true;
        },
      },
      { ...OPTIONS, minIntervalMs: 0, periodMs: 3 },
    );

    runner.request();
    await waitFor(() => runs.length > 100, { timeoutMs: 4000, what: '100 runs' });
    await runner.close();

    expect(runs.slice(1)).toEqual(runs.slice(1).map(() => true));
  });
});

describe('failures', () => {
  test('are retried after a pause that doubles up to its limit, and are told', async () => {
    const fixture = new Fixture();
    fixture.fault = new Error('iptables is locked');
    fixture.runner.request();

    await fixture.until(36_000);

    expect(fixture.starts).toEqual([0, 2000, 6000, 14_000, 24_000, 34_000]);
    expect(fixture.logger.withMessage('Sync failed, will be retried').map(({ fields }) => fields)).toEqual(
      [1, 2, 3, 4, 5, 6].map((failures) => ({ error: fixture.fault, failures })),
    );
  });

  test('that end let the period hold again, and the next one begins with the shortest pause', async () => {
    const fixture = new Fixture();
    fixture.fault = new Error('broken');
    fixture.runner.request();
    await fixture.until(2000);
    fixture.fault = undefined;
    await fixture.until(35_000);
    expect(fixture.starts).toEqual([0, 2000, 6000, 30_000]);

    fixture.fault = new Error('broken again');
    fixture.runner.request();
    await fixture.until(38_500);

    expect(fixture.starts).toEqual([0, 2000, 6000, 30_000, 35_000, 37_000]);
  });

  test('do not hold up a request', async () => {
    const fixture = new Fixture();
    fixture.fault = new Error('broken');
    fixture.runner.request();
    await fixture.until(1500);

    fixture.runner.request();

    expect(fixture.starts).toEqual([0, 1500]);
  });

  test('a request during a run that fails is served within the interval, not after the pause', async () => {
    const fixture = new Fixture({ retryMs: 8000 });
    fixture.fault = new Error('broken');
    fixture.durationMs = 300;
    fixture.runner.request();
    await fixture.until(100);
    fixture.runner.request();

    await fixture.until(1000);

    expect(fixture.starts).toEqual([0, 1000]);
  });
});

describe('close', () => {
  test('waits for the run under way, after which none starts', async () => {
    const fixture = new Fixture();
    fixture.durationMs = 500;
    fixture.runner.request();
    fixture.runner.request();
    let isClosed = false;
    const closing = fixture.runner.close().then(() => {
      isClosed = true;
    });

    await fixture.until(499);
    expect(isClosed).toBe(false);
    await fixture.until(500);
    await closing;
    fixture.runner.request();
    await fixture.until(100_000);

    expect(fixture.starts).toEqual([0]);
    expect(vi.getTimerCount()).toBe(0);
  });

  test('cancels a run that waits, and may be called twice', async () => {
    const fixture = new Fixture();
    fixture.runner.request();
    await fixture.until(10);
    fixture.runner.request();

    await fixture.runner.close();
    await fixture.runner.close();
    await fixture.until(100_000);

    expect(fixture.starts).toEqual([0]);
  });

  test('a run that fails while it closes does not make closing fail', async () => {
    const fixture = new Fixture();
    fixture.durationMs = 500;
    fixture.fault = new Error('broken');
    fixture.runner.request();

    const closing = fixture.runner.close();
    await fixture.until(500);

    await expect(closing).resolves.toBeUndefined();
  });
});

test('settled resolves with the end of the run under way, and at once without one', async () => {
  const fixture = new Fixture();
  await fixture.runner.settled();
  fixture.durationMs = 500;
  fixture.runner.request();
  await vi.advanceTimersByTimeAsync(1);
  let isSettled = false;
  const settled = fixture.runner.settled().then(() => (isSettled = true));
  await vi.advanceTimersByTimeAsync(400);
  expect(isSettled).toBe(false);
  await vi.advanceTimersByTimeAsync(200);
  await settled;
  expect(fixture.starts).toHaveLength(1);
});
