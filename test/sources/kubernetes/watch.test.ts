/** One watch, chunk by chunk: what it hands over, and how it ends. */
import { describe, expect, test } from 'vitest';
import { systemClock } from '../../../src/clock.ts';
import { ApiError } from '../../../src/sources/kubernetes/api-error.ts';
import type { ApiBody, ApiRequest } from '../../../src/sources/kubernetes/api-client.ts';
import { type WatchEvent, watchObjects } from '../../../src/sources/kubernetes/watch.ts';

const endpoint = { path: '/api/v1/services', listKind: 'ServiceList' };

function event(type: string, name: string, resourceVersion: string): string {
  return `${JSON.stringify({ type, object: { metadata: { name, resourceVersion } } })}\n`;
}

/** Answers every request with these chunks, and then ends or fails. */
class ChunkClient {
  readonly requests: ApiRequest[] = [];
  readonly #chunks: readonly Uint8Array[];
  readonly #fault: Error | undefined;
  /** Chunks that were read. */
  read = 0;
  isLeft = false;

  constructor(chunks: readonly (string | Uint8Array)[], fault?: Error) {
    this.#chunks = chunks.map((chunk) => (typeof chunk === 'string' ? Buffer.from(chunk) : chunk));
    this.#fault = fault;
  }

  async get(request: ApiRequest): Promise<ApiBody> {
    this.requests.push(request);
    return this.#body();
  }

  async *#body(): ApiBody {
    try {
      for (const chunk of this.#chunks) {
        this.read += 1;
        yield chunk;
      }
      if (this.#fault !== undefined) throw this.#fault;
    } finally {
      this.isLeft = true;
    }
  }
}

/** What the handler was told, in order: `established`, `received TYPE`, `TYPE name@version`. */
async function told(
  client: ChunkClient,
  options: { signal?: AbortSignal; onEvent?: (event: WatchEvent) => void } = {},
): Promise<{ told: string[]; outcome: unknown }> {
  const { signal = new AbortController().signal, onEvent } = options;
  const lines: string[] = [];
  const outcome = await watchObjects(
    { client, clock: systemClock },
    {
      endpoint,
      query: { labelSelector: '!a' },
      resourceVersion: '7',
      timeoutSeconds: 300,
      silenceTimeoutMs: 1000,
      signal,
    },
    {
      established: () => lines.push('established'),
      received: (type) => lines.push(`received ${type}`),
      event: (taken) => {
        const { name } = (taken.object as { metadata: { name?: string } }).metadata;
        lines.push(`${taken.type} ${name}@${taken.resourceVersion}`);
        onEvent?.(taken);
      },
    },
  ).then(
    () => 'ended',
    (error: unknown) => error,
  );
  return { told: lines, outcome };
}

/** Every way to cut it in two, and into single bytes. */
function everySplit(text: string): Uint8Array[][] {
  const bytes = Buffer.from(text);
  const splits = Array.from(bytes, (_, at) => [bytes.subarray(0, at), bytes.subarray(at)]);
  return [...splits, Array.from(bytes, (_, at) => bytes.subarray(at, at + 1))];
}

describe('a watch', () => {
  test('is asked for with bookmarks, a version, an end, and the selectors of its lists', async () => {
    const client = new ChunkClient([]);
    await told(client);

    expect(client.requests).toMatchObject([
      {
        path: '/api/v1/services',
        query: {
          labelSelector: '!a',
          watch: '1',
          allowWatchBookmarks: 'true',
          resourceVersion: '7',
          timeoutSeconds: '300',
        },
        silenceTimeoutMs: 1000,
      },
    ]);
  });

  test('ends in peace when the server ends it after a whole line, or before any', async () => {
    expect(await told(new ChunkClient([]))).toEqual({ told: ['established'], outcome: 'ended' });
    expect(await told(new ChunkClient([event('ADDED', 'a', '8')]))).toEqual({
      told: ['established', 'received ADDED', 'ADDED a@8'],
      outcome: 'ended',
    });
  });

  test('tells the same wherever its bytes are cut, also within a character', async () => {
    const text = `${event('ADDED', 'ü', '8')}\n${event('MODIFIED', '🦀', '9')}\r\n${event('DELETED', '日本', '10')}`;
    const whole = await told(new ChunkClient([text]));
    expect(whole.told.filter((line) => line.includes('@'))).toEqual([
      'ADDED ü@8',
      'MODIFIED 🦀@9',
      'DELETED 日本@10',
    ]);

    for (const chunks of everySplit(text)) expect(await told(new ChunkClient(chunks))).toEqual(whole);
  });

  test.each([0, 1, 20, 60])(
    'that ends %i bytes before the end of a line loses nothing silently',
    async (missing) => {
      const text = event('ADDED', 'a', '8') + event('ADDED', 'b', '9');
      const { told: lines, outcome } = await told(
        new ChunkClient([text.slice(0, text.length - 1 - missing)]),
      );

      expect(lines).toEqual(['established', 'received ADDED', 'ADDED a@8']);
      expect(outcome).toMatchObject({ code: 'ERR_API_CONNECTION', message: expect.stringMatching(/middle/) });
    },
  );

  test('that breaks fails with what broke it, after all whole events', async () => {
    const fault = new ApiError('ERR_API_CONNECTION', 'reset');
    const { told: lines, outcome } = await told(new ChunkClient([event('ADDED', 'a', '8'), '{"ty'], fault));

    expect(lines).toContain('ADDED a@8');
    expect(outcome).toBe(fault);
  });
});

describe('an event', () => {
  test.each([
    ['no JSON', '{"type":"ADDED",}', 'a line of a watch is no JSON', []],
    ['no object', '7', 'a watch event is 7', []],
    ['null', 'null', 'a watch event is nothing', []],
    ['of an unknown type', '{"type":"RENAMED","object":{}}', 'a watch event has the type "RENAMED"', []],
    ['of no type', '{"object":{}}', 'a watch event has the type nothing', []],
    ['of the type of a method', '{"type":"toString","object":{}}', 'has the type "toString"', []],
    ['without object', '{"type":"ADDED"}', 'metadata.resourceVersion nothing', ['received ADDED']],
    [
      'with a number for a version',
      '{"type":"ADDED","object":{"metadata":{"resourceVersion":8}}}',
      'metadata.resourceVersion 8',
      ['received ADDED'],
    ],
    [
      'with an empty version',
      '{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":""}}}',
      'metadata.resourceVersion ""',
      ['received BOOKMARK'],
    ],
  ])(
    'that is %s ends the watch as corrupt, and is not handed over',
    async (_name, line, message, received) => {
      const client = new ChunkClient([`${line}\n`, event('ADDED', 'after', '9')]);
      const { told: lines, outcome } = await told(client);

      expect(lines).toEqual(['established', ...received]);
      expect(outcome).toMatchObject({ code: 'ERR_API_RESPONSE', message: expect.stringContaining(message) });
      expect([client.read, client.isLeft]).toEqual([1, true]);
    },
  );

  test('ERROR ends the watch with the status it carries', async () => {
    const status = { code: 410, reason: 'Expired', message: 'too old', details: { retryAfterSeconds: 3 } };
    const line = JSON.stringify({ type: 'ERROR', object: status });
    const { told: lines, outcome } = await told(new ChunkClient([`${line}\n`]));

    expect(lines).toEqual(['established', 'received ERROR']);
    expect(outcome).toMatchObject({
      code: 'ERR_API_STATUS',
      status: 410,
      isExpired: true,
      retryAfterMs: 3000,
      message: 'the watch was ended with an error: too old',
    });
  });

  test.each([
    ['nothing', null],
    ['text', 'gone'],
    ['no code', { message: 'gone' }],
  ])('ERROR that carries %s ends the watch all the same', async (_name, object) => {
    const { outcome } = await told(new ChunkClient([`${JSON.stringify({ type: 'ERROR', object })}\n`]));

    expect(outcome).toMatchObject({ code: 'ERR_API_STATUS', status: undefined, isExpired: false });
  });

  test('that cannot be taken in is not blamed on the connection', async () => {
    const cause = new TypeError('a fault of ours');
    const { outcome } = await told(new ChunkClient([event('ADDED', 'a', '8')]), {
      onEvent: () => {
        throw cause;
      },
    });

    expect(outcome).toMatchObject({ code: 'ERR_API_RESPONSE', cause });
  });

  test('that its taker refuses ends the watch with the reason of the taker', async () => {
    const reason = new ApiError('ERR_API_STATUS', 'older');
    const { outcome } = await told(new ChunkClient([event('ADDED', 'a', '8')]), {
      onEvent: () => {
        throw reason;
      },
    });

    expect(outcome).toBe(reason);
  });
});
