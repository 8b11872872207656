/** What the reflector does next, and how long it waits before: with the real back-off, on a clock that the test moves. */
import { describe, expect, onTestFinished, test } from 'vitest';
import type { ApiBody, ApiRequest } from '../../../src/sources/kubernetes/api-client.ts';
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
  /** At its begin; a bookmark, unless told. */
  readonly tells?: 'bookmark' | 'event' | 'nothing';
  /** It ends in peace, unless this is told. */
  readonly endsWith?: ApiError;
}

const refusal = new ApiError('ERR_API_STATUS', 'the API server answered 503', { status: 503 });
const breach = new ApiError('ERR_API_CONNECTION', 'the connection to the API server broke');
const stall = new ApiError('ERR_API_STALLED', 'the API server has fallen silent');
const tooOld = new ApiError('ERR_API_STATUS', 'too old', { status: 410 });
const answered = (status: number): ApiError =>
  new ApiError('ERR_API_STATUS', `answered ${status}`, { status });
const busyFor = (retryAfterMs: number): ApiError =>
  new ApiError('ERR_API_STATUS', 'too many requests', { status: 429, retryAfterMs });

const LINES = {
  bookmark: '{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"7"}}}\n',
  event: '{"type":"ADDED","object":{"metadata":{"name":"a","namespace":"b","resourceVersion":"7"}}}\n',
  nothing: '',
};
/** As long as the watchdog waits, and half of it. */
const STALL_MS = 60_000;
const HALF_MS = STALL_MS / 2;

/** Counts what was to be waited, and does not wait. */
class UnhurriedPause extends RetryPause {
  readonly waits: number[] = [];

  override async wait(waitMs: number): Promise<void> {
    this.waits.push(waitMs);
  }
}

/** Lists are empty and always succeed; watches go as the script says, and after its end the next one stays, silent. */
class ScriptedClient {
  readonly #clock: FakeClock;
  readonly #steps: Step[];
  readonly #exhausted = Promise.withResolvers<void>();
  /** In order: a list, or the seconds that a watch was asked for. */
  readonly asked: ('list' | number)[] = [];

  constructor(clock: FakeClock, steps: readonly Step[]) {
    this.#clock = clock;
    this.#steps = [...steps];
  }

  /** The script is at its end. */
  get exhausted(): Promise<void> {
    return this.#exhausted.promise;
  }

  async getJson(): Promise<unknown> {
    this.asked.push('list');
    return { kind: 'ServiceList', metadata: { resourceVersion: '7' }, items: [] };
  }

  async get({ query, signal }: Pick<ApiRequest, 'query' | 'signal'>): Promise<ApiBody> {
    this.asked.push(Number(query['timeoutSeconds']));
    const step = this.#steps.shift();
    if (step?.refusedWith !== undefined) throw step.refusedWith;
    return this.#body(step, signal);
  }

  async *#body(step: Step | undefined, signal: AbortSignal): ApiBody {
    yield Buffer.from(LINES[step === undefined ? 'nothing' : (step.tells ?? 'bookmark')]);
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

interface Outcome {
  readonly waits: readonly number[];
  /** How many. */
  readonly lists: number;
  readonly asked: ScriptedClient['asked'];
  readonly statistics: ResourceStatistics;
  readonly logger: RecordingLogger;
}

/** What is waited, and done, when watches go like that. */
async function waitsFor(
  steps: readonly Step[],
  options: { random?: () => number; servers?: number } = {},
): Promise<Outcome> {
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
    { resource: serviceResource(''), stallTimeoutMs: STALL_MS },
  );
  const stop = new AbortController();
  const running = reflector.run(stop.signal);
  onTestFinished(async () => {
    stop.abort();
    await running;
  });
  await client.exhausted;
  const { asked } = client;
  const lists = asked.filter((one) => one === 'list').length;
  return { waits: pause.waits, lists, asked, statistics, logger };
}

/** Why it was listed, and how often; what never happened is left out. */
function reasonsOf({ statistics }: Outcome): object {
  return Object.fromEntries([...statistics.lists].filter(([, count]) => count > 0));
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

  test('grows where each watch is too old after less than a minute: lists are dear', async () => {
    for (const livesMs of [1100, 59_000]) {
      const { waits } = await waitsFor(times(4, { livesMs, endsWith: tooOld }));
      expect(waits.filter((ms) => ms > 0)).toEqual([1600, 3200, 6400]);
    }
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

describe('a watch is renewed at once, with no word but for debug,', () => {
  test.each([
    ['when it was cut after 10 s', [{ livesMs: 10_000, endsWith: breach }], 'ERR_API_CONNECTION'],
    [
      'when it was cut after 10 s in which it told nothing',
      [{ tells: 'nothing', livesMs: 10_000, endsWith: breach }],
      'ERR_API_CONNECTION',
    ],
    [
      'when it stalled, and the one before had a bookmark',
      [{ livesMs: 300_000 }, { tells: 'nothing', livesMs: STALL_MS, endsWith: stall }],
      'ERR_API_STALLED',
    ],
    ['when its version was too old', [{ livesMs: 2000, endsWith: tooOld }], 'ERR_API_STATUS'],
  ] as const)('%s, and it is counted', async (_name, steps, code) => {
    const { waits, statistics, logger } = await waitsFor(steps);

    expect(waits).toEqual([]);
    expect(logger.at('warn')).toEqual([]);
    expect(logger.lines.filter(({ fields }) => 'error' in fields)).toMatchObject([
      { level: 'debug', fields: { error: { code } } },
    ]);
    expect(statistics.failures.get(code)).toBe(1);
    expect(statistics).toMatchObject({ downSince: 0, isWatching: true });
  });

  test('every time that it was cut after a long life', async () => {
    const { waits, lists, statistics } = await waitsFor(times(20, { livesMs: 10_000, endsWith: breach }));

    expect(waits).toEqual([]);
    expect(lists).toBe(1);
    expect(statistics.failures.get('ERR_API_CONNECTION')).toBe(20);
  });

  test.each([
    ['when it was cut sooner', { livesMs: 9999, endsWith: breach }],
    ['when it stalled, and no bookmark ever came', { tells: 'nothing', livesMs: STALL_MS, endsWith: stall }],
    ['when it stalled in the very first watch, after a bookmark', { livesMs: STALL_MS, endsWith: stall }],
    ['when it was not granted, but met with silence', { refusedWith: stall }],
    ['when it ended with an ERROR event, however late', { livesMs: 300_000, endsWith: refusal }],
    [
      'when it ended with nonsense, however late',
      { livesMs: 300_000, endsWith: new ApiError('ERR_API_RESPONSE', 'nonsense') },
    ],
  ] as const)('but not %s: then it is a failure', async (_name, step) => {
    const { waits, logger } = await waitsFor([step]);

    expect(waits).toEqual([800]);
    expect(logger.at('warn')).toMatchObject([
      { message: 'The API server cannot be watched, serving what was known' },
    ]);
    expect(logger.withMessage('Watching the API server again')).toHaveLength(1);
  });

  test('but not when a failure came before: what lives for less than a second has ended none', async () => {
    const { waits } = await waitsFor([{ refusedWith: refusal }, { livesMs: 999, endsWith: tooOld }]);

    expect(waits).toEqual([800, 1600]);
  });
});

describe('watches are asked for', () => {
  test('so short a time that the server ends them before the watchdog would, until a bookmark came', async () => {
    const steps: Step[] = [
      { tells: 'nothing', livesMs: 20_000 },
      { tells: 'event', livesMs: 20_000 },
      { tells: 'bookmark', livesMs: 20_000 },
      { tells: 'nothing', livesMs: 20_000 },
    ];

    expect((await waitsFor(steps)).asked).toEqual(['list', 30, 30, 30, 300, 300]);
    const { asked } = await waitsFor(steps, { random: () => 0.999 });
    expect(asked).toEqual(['list', 47, 47, 47, 599, 599]);
  });

  test('a short time again after a long one that stalled, until a bookmark comes alone', async () => {
    const { asked } = await waitsFor([
      { livesMs: 30_000 },
      { livesMs: STALL_MS, endsWith: stall },
      { tells: 'event', livesMs: 30_000 },
      { tells: 'bookmark', livesMs: 30_000 },
    ]);

    expect(asked).toEqual(['list', 30, 300, 30, 30, 300]);
  });
});

describe('a list follows', () => {
  const silent: Step = { tells: 'nothing', livesMs: HALF_MS };

  test.each([
    ['ended in peace', silent],
    ['were cut', { ...silent, endsWith: breach }],
    ['stalled', { ...silent, livesMs: STALL_MS, endsWith: stall }],
  ])('two silent watches that %s, then four, then eight', async (_name, step) => {
    const outcome = await waitsFor(times(15, step));

    const at = outcome.asked.flatMap((one, index) => (one === 'list' ? [index] : []));
    expect(at).toEqual([0, 3, 8, 17]);
    expect(reasonsOf(outcome)).toEqual({ initial: 1, silent: 3 });
  });

  test.each([
    ['a bookmark', { tells: 'bookmark', livesMs: HALF_MS }],
    ['an event', { tells: 'event', livesMs: HALF_MS }],
  ] as const)('two silent watches again after %s', async (_name, heard) => {
    const outcome = await waitsFor([silent, heard, silent, silent, heard, silent, silent]);

    expect(reasonsOf(outcome)).toEqual({ initial: 1, silent: 2 });
    const at = outcome.asked.flatMap((one, index) => (one === 'list' ? [index] : []));
    expect(at).toEqual([0, 5, 9]);
  });

  test.each([
    ['ended in peace before half of the time of the watchdog', { tells: 'nothing', livesMs: HALF_MS - 1 }],
    ['ended at once', { tells: 'nothing', livesMs: 0 }],
    ['were cut at once', { tells: 'nothing', livesMs: 0, endsWith: breach }],
    ['were not granted', { refusedWith: refusal }],
    ['ended at once with an ERROR event', { tells: 'nothing', livesMs: 0, endsWith: refusal }],
  ] as const)('no watches that %s, however many', async (_name, step) => {
    expect(reasonsOf(await waitsFor(times(20, step)))).toEqual({ initial: 1 });
  });

  test('from the fourth failure in a row on a watch that is forbidden', async () => {
    const outcome = await waitsFor(times(6, { refusedWith: answered(403) }));

    expect(outcome.asked).toEqual(['list', 30, 30, 30, 30, 'list', 30, 'list', 30, 'list', 30]);
    expect(reasonsOf(outcome)).toEqual({ initial: 1, refused: 3 });
    expect(outcome.waits).toEqual([800, 1600, 3200, 6400, 12_800, 15_000]);
  });

  test('no watch that is forbidden now and then', async () => {
    const lived = { livesMs: 30_000 };
    const thrice = times(3, { refusedWith: answered(403) });

    expect(reasonsOf(await waitsFor([...thrice, lived, ...thrice, lived]))).toEqual({ initial: 1 });
  });

  test.each([401, 429, 500, 503])('no watch that is answered with %i, however often', async (status) => {
    expect(reasonsOf(await waitsFor(times(8, { refusedWith: answered(status) })))).toEqual({ initial: 1 });
  });
});

describe('the last contact was', () => {
  const START = new FakeClock().wallTime();
  const mute: Step = { tells: 'nothing', livesMs: 7000, endsWith: breach };

  test.each([
    ['the list, not a watch that was granted and told nothing', [mute, mute], 0],
    ['the list, not a watch that was refused', [mute, { refusedWith: refusal }], 0],
    ['a bookmark', [mute, { tells: 'bookmark', livesMs: 7000, endsWith: breach }], 7000],
    ['an event', [mute, { tells: 'event', livesMs: 7000, endsWith: breach }], 7000],
    ['the end in peace of a watch that told nothing', [mute, { tells: 'nothing', livesMs: 7000 }], 14_000],
    ['a later list', [mute, { tells: 'nothing', livesMs: 7000, endsWith: tooOld }], 14_000],
  ] as const)('%s', async (_name, steps, afterMs) => {
    const { statistics } = await waitsFor(steps);

    expect(statistics.lastContactAt - START).toBe(afterMs);
  });
});
