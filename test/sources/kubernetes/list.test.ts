/** A complete list or none, from a client that answers exactly what it was told to. */
import { describe, expect, test } from 'vitest';
import type { ApiRequest } from '../../../src/sources/kubernetes/api-client.ts';
import { ApiError, apiErrorFromAnswer } from '../../../src/sources/kubernetes/api-error.ts';
import { type Freshness, type ObjectList, listObjects } from '../../../src/sources/kubernetes/list.ts';
import { serviceResource } from '../../../src/sources/kubernetes/resource.ts';
import { faultOf } from '../../support/loopback-api.ts';

const [ENDPOINT] = serviceResource('').endpoints;
const CONSISTENT: Freshness = { kind: 'consistent' };
const ANY: Freshness = { kind: 'any' };

/** Fails when it is asked once more than it has answers. */
class FakeClient {
  readonly asked: ApiRequest[] = [];
  readonly #answers: unknown[];

  constructor(...answers: readonly unknown[]) {
    this.#answers = [...answers];
  }

  get queries(): readonly unknown[] {
    return this.asked.map(({ query }) => query);
  }

  getJson = async (wanted: ApiRequest): Promise<unknown> => {
    this.asked.push(wanted);
    if (this.#answers.length === 0) throw new Error(`nobody expected ${JSON.stringify(wanted.query)}`);
    const answer = this.#answers.shift();
    if (answer instanceof Error) throw answer;
    return answer;
  };
}

interface PageParts {
  readonly items?: unknown;
  readonly version?: unknown;
  readonly next?: unknown;
}

function page({ items = [], version = '100', next }: PageParts = {}): object {
  return {
    kind: 'ServiceList',
    apiVersion: 'v1',
    metadata: { resourceVersion: version, continue: next },
    items,
  };
}

const expired = (): ApiError =>
  apiErrorFromAnswer({ status: 410, body: { reason: 'Expired' }, retryAfter: undefined });

async function list(client: FakeClient, freshness: Freshness = CONSISTENT): Promise<ObjectList> {
  const { signal } = new AbortController();
  return listObjects(client, { endpoint: ENDPOINT, query: { labelSelector: 'x' }, freshness, signal });
}

describe('how fresh a list is to be decides what is asked', () => {
  test.for<{ name: string; freshness: Freshness; query: object }>([
    { name: 'whatever is at hand', freshness: ANY, query: { resourceVersion: '0' } },
    {
      name: 'no older than what we have',
      freshness: { kind: 'notOlderThan', resourceVersion: '77' },
      query: { resourceVersion: '77' },
    },
    { name: 'as of now, in pages', freshness: CONSISTENT, query: { limit: '500' } },
  ])('$name', async ({ freshness, query }) => {
    const client = new FakeClient(page({ items: ['a', 'b'] }));
    expect(await list(client, freshness)).toEqual({ items: ['a', 'b'], resourceVersion: '100' });
    expect(client.asked).toMatchObject([
      { path: '/api/v1/services', query: { labelSelector: 'x', ...query }, silenceTimeoutMs: 30_000 },
    ]);
    expect(Object.keys(client.asked[0]?.query ?? {})).toHaveLength(2);
  });

  test('and who gives up gives up every request', async () => {
    const stop = new AbortController();
    const client = new FakeClient(page());
    await listObjects(client, { endpoint: ENDPOINT, query: {}, freshness: ANY, signal: stop.signal });
    expect(client.asked[0]?.signal.aborted).toBe(false);
    stop.abort();
    expect(client.asked[0]?.signal.aborted).toBe(true);
  });
});

describe('a list no older than a version that is too large for the server', () => {
  const NOT_OLDER: Freshness = { kind: 'notOlderThan', resourceVersion: '900' };
  const tooLarge = (): ApiError =>
    apiErrorFromAnswer({
      status: 504,
      body: { message: 'Too large resource version: 900' },
      retryAfter: '1',
    });

  test('is read as of now, in pages', async () => {
    const client = new FakeClient(
      tooLarge(),
      page({ items: [1], next: 't1', version: '50' }),
      page({ items: [2], version: '50' }),
    );
    expect(await list(client, NOT_OLDER)).toEqual({ items: [1, 2], resourceVersion: '50' });
    expect(client.queries).toEqual([
      { labelSelector: 'x', resourceVersion: '900' },
      { labelSelector: 'x', limit: '500' },
      { labelSelector: 'x', limit: '500', continue: 't1' },
    ]);
  });

  test.for([
    { name: 'whatever fails then', answers: [tooLarge(), expired()], status: 410 },
    { name: 'the same once more', answers: [tooLarge(), tooLarge()], status: 504 },
    {
      name: 'any other fault, without a second list',
      answers: [apiErrorFromAnswer({ status: 504, body: {}, retryAfter: undefined })],
      status: 504,
    },
  ])('fails with $name', async ({ answers, status }) => {
    const client = new FakeClient(...answers);
    expect(await faultOf(list(client, NOT_OLDER))).toBe(answers.at(-1));
    expect(answers.at(-1)?.status).toBe(status);
    expect(client.asked).toHaveLength(answers.length);
  });
});

describe('a list in pages', () => {
  test('is put together in order', async () => {
    const client = new FakeClient(
      page({ items: [1, 2], next: 't1' }),
      page({ items: [3], next: 't2' }),
      page({ items: [], next: 't3' }),
      page({ items: [4], next: '' }),
    );
    expect(await list(client)).toEqual({ items: [1, 2, 3, 4], resourceVersion: '100' });
    expect(client.queries).toEqual([
      { labelSelector: 'x', limit: '500' },
      ...['t1', 't2', 't3'].map((token) => ({ labelSelector: 'x', limit: '500', continue: token })),
    ]);
  });

  test('that changed between two pages is of no one moment: it is read again, whole', async () => {
    const client = new FakeClient(
      page({ items: [1], next: 't1' }),
      page({ items: [2], next: 't2', version: '101' }),
      page({ items: [1, 2, 3], version: '102' }),
    );
    expect(await list(client)).toEqual({ items: [1, 2, 3], resourceVersion: '102' });
    expect(client.queries[2]).toEqual({ labelSelector: 'x' });
  });

  test('whose token expired is read again, whole', async () => {
    const client = new FakeClient(
      page({ items: [1], next: 't1' }),
      expired(),
      page({ items: [7], version: '200' }),
    );
    expect(await list(client)).toEqual({ items: [7], resourceVersion: '200' });
    expect(client.queries[2]).toEqual({ labelSelector: 'x' });
  });

  test.for([
    {
      name: 'that expired on its first page, which has no token that could',
      answers: [expired()],
      status: 410,
    },
    {
      name: 'that broke on its second page',
      answers: [page({ next: 't1' }), apiErrorFromAnswer({ status: 500, body: {}, retryAfter: undefined })],
      status: 500,
    },
    {
      name: 'that expired even when it was read whole',
      answers: [page({ next: 't1' }), expired(), expired()],
      status: 410,
    },
  ])('$name fails so', async ({ answers, status }) => {
    const client = new FakeClient(...answers);
    expect(await faultOf(list(client))).toMatchObject({ code: 'ERR_API_STATUS', status });
    expect(client.asked).toHaveLength(answers.length);
  });

  test('that goes on with the token it was just asked with has no end', async () => {
    const client = new FakeClient(page({ next: 't1' }), page({ next: 't1' }));
    const fault = await faultOf(list(client));
    expect(fault).toMatchObject({ code: 'ERR_API_RESPONSE' });
    expect(fault.message).toContain('without end');
  });

  test('that always has another token is ended too', async () => {
    let count = 0;
    const getJson = async (): Promise<unknown> => {
      count += 1;
      return page({ items: [count], next: `t${count}` });
    };
    const { signal } = new AbortController();
    const fault = await faultOf(
      listObjects({ getJson }, { endpoint: ENDPOINT, query: {}, freshness: CONSISTENT, signal }),
    );
    expect(fault.message).toContain('without end');
    expect(count).toBe(10_000);
  });
});

describe('an answer is taken for a list', () => {
  test.for([
    {
      name: 'with items that are null, as Go writes an empty list',
      answer: page({ items: null }),
      items: [],
    },
    {
      name: 'without items',
      answer: { kind: 'ServiceList', metadata: { resourceVersion: '100' } },
      items: [],
    },
    { name: 'with continue null', answer: page({ items: [1], next: null }), items: [1] },
    {
      name: 'with items of any kind, which are checked one by one',
      answer: page({ items: [null, 7] }),
      items: [null, 7],
    },
  ])('$name', async ({ answer, items }) => {
    for (const freshness of [ANY, CONSISTENT]) {
      expect(await list(new FakeClient(answer), freshness)).toEqual({ items, resourceVersion: '100' });
    }
  });
});

describe('an answer is no list', () => {
  test.for([
    { name: 'when it is null', answer: null, says: 'it is nothing' },
    { name: 'when it is a list', answer: [], says: 'it is a list' },
    { name: 'when it is text', answer: 'services', says: 'it is "services"' },
    { name: 'when its kind is another', answer: { ...page(), kind: 'PodList' }, says: 'kind is "PodList"' },
    { name: 'when it is a Status', answer: { kind: 'Status', status: 'Failure' }, says: 'kind is "Status"' },
    { name: 'when it has no kind', answer: { ...page(), kind: undefined }, says: 'kind is nothing' },
    { name: 'when its items are a map', answer: page({ items: {} }), says: 'items is a map' },
    { name: 'when its items are text', answer: page({ items: 'web' }), says: 'items is "web"' },
    {
      name: 'without metadata',
      answer: { ...page(), metadata: undefined },
      says: 'metadata.resourceVersion is nothing',
    },
    {
      name: 'without a version',
      answer: { ...page(), metadata: {} },
      says: 'metadata.resourceVersion is nothing',
    },
    {
      name: 'with a version that is empty',
      answer: page({ version: '' }),
      says: 'metadata.resourceVersion is ""',
    },
    {
      name: 'with a version that is a number',
      answer: page({ version: 7 }),
      says: 'metadata.resourceVersion is 7',
    },
    { name: 'with a token that is no text', answer: page({ next: 7 }), says: 'metadata.continue is 7' },
  ])('$name', async ({ answer, says }) => {
    for (const freshness of [ANY, CONSISTENT]) {
      const fault = await faultOf(list(new FakeClient(answer), freshness));
      expect(fault).toMatchObject({ code: 'ERR_API_RESPONSE', status: undefined });
      expect(fault.message).toBe(`the API server answered /api/v1/services with no ServiceList: ${says}`);
    }
  });

  test.for<Freshness>([ANY, { kind: 'notOlderThan', resourceVersion: '9' }])(
    'when it is a part, and everything was asked for ($kind)',
    async (freshness) => {
      const fault = await faultOf(list(new FakeClient(page({ items: [1], next: 't1' })), freshness));
      expect(fault).toMatchObject({ code: 'ERR_API_RESPONSE' });
      expect(fault.message).toContain('a part of the list');
    },
  );

  test('when it is a part of what was read again, whole', async () => {
    const client = new FakeClient(page({ next: 't1' }), expired(), page({ items: [1], next: 't2' }));
    expect(await faultOf(list(client))).toMatchObject({ code: 'ERR_API_RESPONSE' });
  });
});

test('a fault of the client passes as it is', async () => {
  const error = new ApiError('ERR_API_UNREACHABLE', 'nobody there');
  for (const freshness of [ANY, CONSISTENT]) {
    expect(await faultOf(list(new FakeClient(error), freshness))).toBe(error);
  }
});
