/** How long the reflector waits, and after what: with the real back-off, on a clock that the test moves. */
import { describe, expect, onTestFinished, test } from 'vitest';
import type { ApiBody } from '../../../src/sources/kubernetes/api-client.ts';
import { ApiError } from '../../../src/sources/kubernetes/api-error.ts';
import { ResourceStatistics } from '../../../src/sources/kubernetes/api-statistics.ts';
import { Backoff } from '../../../src/sources/kubernetes/backoff.ts';
import { Reflector } from '../../../src/sources/kubernetes/reflector.ts';
import { serviceResource } from '../../../src/sources/kubernetes/resource.ts';
import { RetryPause } from '../../../src/sources/kubernetes/retry-pause.ts';
import { ServerList } from '../../../src/sources/kubernetes/server-list.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { RecordingLogger } from '../../support/recording-logger.ts';

/** How one watch goes. */
interface Step {
  /** It is not even granted. */
  readonly refusedWith?: ApiError;
  /** How long it lives. */
  readonly livesMs?: number;
  /** It ends in peace, unless this is told. */
  readonly endsWith?: ApiError;
}

const refusal = new ApiError('ERR_API_STATUS', 'the API server answered 503', { status: 503 });
const breach = new ApiError('ERR_API_CONNECTION', 'the connection to the API server broke');
const tooOld = new ApiError('ERR_API_STATUS', 'too old', { status: 410 });
const busyFor = (retryAfterMs: number): ApiError =>
  new ApiError('ERR_API_STATUS', 'too many requests', { status: 429, retryAfterMs });

/** Counts what was to be waited, and does not wait. */
class UnhurriedPause extends RetryPause {
  readonly waits: number[] = [];

  override async wait(waitMs: number): Promise<void> {
    this.waits.push(waitMs);
  }
}

/** Lists are empty and always succeed; watches go as the script says, and after its end the next one stays. */
class ScriptedClient {
  readonly #clock: FakeClock;
  readonly #steps: Step[];
  readonly #exhausted = Promise.withResolvers<void>();
  lists = 0;

  constructor(clock: FakeClock, steps: readonly Step[]) {
    this.#clock = clock;
    this.#steps = [...steps];
  }

  /** The script is at its end. */
  get exhausted(): Promise<void> {
    return this.#exhausted.promise;
  }

  async getJson(): Promise<unknown> {
    this.lists += 1;
    return { kind: 'ServiceList', metadata: { resourceVersion: '7' }, items: [] };
  }

  async get({ signal }: { readonly signal: AbortSignal }): Promise<ApiBody> {
    const step = this.#steps.shift();
    if (step?.refusedWith !== undefined) throw step.refusedWith;
    return this.#body(step, signal);
  }

  async *#body(step: Step | undefined, signal: AbortSignal): ApiBody {
    // No watch is one that tells nothing.
    yield Buffer.from('{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"7"}}}\n');
    if (step === undefined) {
      this.#exhausted.resolve();
      await new Promise((_resolve, reject) => {
        signal.addEventListener('abort', () => reject(breach));
      });
    }
    this.#clock.advance(step?.livesMs ?? 0);
    if (step?.endsWith !== undefined) throw step.endsWith;
  }
}

/** What is waited when watches go like that. */
async function waitsFor(
  steps: readonly Step[],
  options: { random?: () => number; servers?: number } = {},
): Promise<{ waits: readonly number[]; lists: number; logger: RecordingLogger }> {
  const { random = () => 0, servers = 1 } = options;
  const clock = new FakeClock();
  const client = new ScriptedClient(clock, steps);
  const logger = new RecordingLogger();
  const urls = Array.from({ length: servers }, (_, index) => new URL(`https://192.0.2.${index + 1}`));
  const list = new ServerList({ random }, urls);
  const pause = new UnhurriedPause({ backoff: new Backoff({ random }), servers: list });
  const sink = { replace: (): void => {}, set: (): void => {}, remove: (): void => {} };
  const statistics = new ResourceStatistics();
  const reflector = new Reflector(
    { client, servers: list, clock, logger, random, pause, statistics, sink, onChange: () => {} },
    { resource: serviceResource(''), stallTimeoutMs: 60_000 },
  );
  const stop = new AbortController();
  const running = reflector.run(stop.signal);
  onTestFinished(async () => {
    stop.abort();
    await running;
  });
  await client.exhausted;
  return { waits: pause.waits, lists: client.lists, logger };
}

function times<T>(count: number, value: T): T[] {
  return Array.from({ length: count }, () => value);
}

describe('the pause after a failure', () => {
  test('doubles from 0.8 s, and is never longer than 30 s', async () => {
    const steps = times(8, { refusedWith: refusal });
    const shortest = [800, 1600, 3200, 6400, 12_800, 15_000, 15_000, 15_000];

    expect((await waitsFor(steps)).waits).toEqual(shortest);
    const { waits } = await waitsFor(steps, { random: () => 0.999_999 });
    expect(waits.map((ms) => Math.round(ms))).toEqual([
      1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000, 30_000,
    ]);
  });

  test.each([
    ['a watch that lived for a second', { livesMs: 1000, endsWith: breach }, [800, 1600, 800, 1600]],
    ['no watch that lived for less', { livesMs: 999, endsWith: breach }, [800, 1600, 3200, 6400]],
    ['no watch that was only granted', { livesMs: 0, endsWith: breach }, [800, 1600, 3200, 6400]],
    ['no list', { refusedWith: tooOld }, [800, 1600, 3200, 6400]],
  ])('begins anew after %s', async (_name, step, expected) => {
    const before = times(2, { refusedWith: refusal });
    const { waits } = await waitsFor([...before, step, { refusedWith: refusal }]);

    expect(waits).toEqual(expected);
  });

  test('is none after a watch that the server ended in peace', async () => {
    const { waits, lists, logger } = await waitsFor(times(20, { livesMs: 300_000 }));

    expect(waits).toEqual([]);
    expect(lists).toBe(1);
    expect(logger.at('warn')).toEqual([]);
  });

  test('is due after a watch that ended in peace, but at once', async () => {
    const { waits, lists } = await waitsFor(times(4, { livesMs: 999 }));

    expect(waits).toEqual([800, 1600, 3200, 6400]);
    expect(lists).toBe(1);
  });

  test('is none after the first version that was too old, and grows after each that follows', async () => {
    const { waits, lists } = await waitsFor(times(4, { refusedWith: tooOld }));

    expect(waits.filter((ms) => ms > 0)).toEqual([1600, 3200, 6400]);
    expect(lists).toBe(5);
  });

  test('is none after every version that was too old when the watch before it lived', async () => {
    const lived = { livesMs: 60_000, endsWith: tooOld };
    const { waits, lists } = await waitsFor(times(4, lived));

    expect(waits.filter((ms) => ms > 0)).toEqual([]);
    expect(lists).toBe(5);
  });

  test.each([
    ['what the server asks for', 5000, 5000],
    ['the back-off where that is longer', 100, 800],
    ['30 s at most', 3_600_000, 30_000],
  ])('is %s', async (_name, asked, expected) => {
    expect((await waitsFor([{ refusedWith: busyFor(asked) }])).waits).toEqual([expected]);
  });
});

describe('the pause where there is another server', () => {
  test('is due when all of them have failed', async () => {
    const { waits } = await waitsFor(times(7, { refusedWith: refusal }), { servers: 3 });

    expect(waits).toEqual([0, 0, 800, 0, 0, 1600, 0]);
  });

  test('is due after an answer that would be the same elsewhere', async () => {
    const forbidden = new ApiError('ERR_API_STATUS', 'forbidden', { status: 403 });
    const { waits } = await waitsFor(times(3, { refusedWith: forbidden }), { servers: 3 });

    expect(waits).toEqual([800, 1600, 3200]);
  });
});
