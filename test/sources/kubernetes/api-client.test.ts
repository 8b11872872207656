/** The client of the API servers against real servers on loopback: what it asks, over which connections, and whom. */
import type { ServerResponse } from 'node:http';
import { describe, expect, test } from 'vitest';
import {
  FakeCredentials,
  type LoopbackApi,
  apiRequest,
  faultOf,
  json,
  makeClient,
  openLoopbackApi,
  status,
  urlOfNobody,
} from '../../support/loopback-api.ts';
import { useTestCertificates } from '../../support/test-ca.ts';
import { waitFor } from '../../support/wait.ts';

const certificates = useTestCertificates();

describe('a request', () => {
  test('says what it wants, who asks, and on whose behalf', async () => {
    const server = await openLoopbackApi(json({ kind: 'ServiceList' }));
    const credentials = new FakeCredentials();
    credentials.now = {
      headers: { authorization: 'Bearer abc', 'impersonate-user': 'x' },
      tls: {},
      tlsKey: '',
    };
    const { client } = makeClient([server.url], { credentials });
    const answer = await client.getJson(
      apiRequest({ path: '/api/v1/services', query: { labelSelector: '!a,b=c', limit: '500' } }),
    );
    expect(answer).toEqual({ kind: 'ServiceList' });
    const { searchParams } = new URL(server.requests[0]?.url ?? '', server.url);
    expect([...searchParams]).toEqual([
      ['labelSelector', '!a,b=c'],
      ['limit', '500'],
    ]);
    expect(server.requests).toMatchObject([
      {
        method: 'GET',
        url: expect.stringMatching(/^\/api\/v1\/services\?/) as string,
        headers: {
          accept: 'application/json',
          authorization: 'Bearer abc',
          'impersonate-user': 'x',
          'user-agent': `kube-userspace-proxy/1.2.3 (${process.platform}/${process.arch})`,
          host: server.url.host,
        },
      },
    ]);
  });

  test('of nobody has no authorization', async () => {
    const server = await openLoopbackApi(json({}));
    await makeClient([server.url]).client.getJson(apiRequest());
    expect(server.requests[0]?.headers).not.toHaveProperty('authorization');
  });

  test('is not made when there are no credentials, and no server is blamed', async () => {
    const server = await openLoopbackApi(json({}));
    const credentials = new FakeCredentials();
    credentials.current = async () => Promise.reject(new Error('no token'));
    const { client, servers, statistics } = makeClient([server.url, await urlOfNobody()], { credentials });
    await expect(client.getJson(apiRequest())).rejects.toThrow('no token');
    expect(server.requests).toEqual([]);
    expect(servers.current).toBe(server.url);
    expect(statistics.requests).toEqual([]);
  });
});

describe('connections', () => {
  // The undici client takes a socket again one turn of the loop after its last answer: a second one may be needed.
  test.for([
    { name: 'a success', code: 200 },
    { name: 'something else', code: 403 },
  ])(
    'are used again after an answer that is $name: many requests after each other need two',
    async ({ code }) => {
      const server = await openLoopbackApi(status(code, '{}'));
      const { client } = makeClient([server.url]);
      for (let count = 0; count < 30; count += 1) await client.getJson(apiRequest()).catch(() => undefined);
      expect(server.requests).toHaveLength(30);
      expect(server.connectionCount).toBeLessThanOrEqual(2);
    },
  );

  test('carry on with what they carry when the TLS material changes, and only new requests use new ones', async () => {
    let watch: ServerResponse | undefined;
    const server = await openLoopbackApi((response, { url }) => {
      response.writeHead(200);
      if (url === '/watch') {
        watch = response;
        response.write('one\n');
      } else response.end('{}');
    }, certificates().server);
    const { ca, alice, bob } = certificates();
    const credentials = new FakeCredentials();
    const { client } = makeClient([server.url], { credentials });
    credentials.now = { headers: {}, tls: { ca, ...alice }, tlsKey: 'alice' };
    const body = await client.get(apiRequest({ path: '/watch' }));
    const read = async (): Promise<string> => Buffer.from((await body.next()).value ?? []).toString();
    expect(await read()).toBe('one\n');
    credentials.now = { headers: {}, tls: { ca, ...bob }, tlsKey: 'bob' };
    await client.getJson(apiRequest());
    watch?.write('two\n');
    expect(await read()).toBe('two\n');
    expect(server.requests.map(({ clientName, connection }) => [clientName, connection])).toEqual([
      ['alice', 1],
      ['bob', 2],
    ]);
    watch?.end();
    expect((await body.next()).done).toBe(true);
  });

  test('are ended by close, and so is every request on them', async () => {
    let isAsked = false;
    const server = await openLoopbackApi(() => {
      isAsked = true;
    });
    const { client } = makeClient([server.url]);
    const asking = faultOf(client.getJson(apiRequest()));
    await waitFor(() => isAsked, { timeoutMs: 5000, what: 'the request' });
    await client.close();
    await client.close();
    expect((await asking).code).toBe('ERR_API_CONNECTION');
  });
});

describe('a 401', () => {
  test('is told to the credentials, and the next request has what they give then', async () => {
    const server = await openLoopbackApi((response, { headers }) => {
      response.writeHead(headers.authorization === 'Bearer new' ? 200 : 401).end('{}');
    });
    const credentials = new FakeCredentials();
    credentials.now = { headers: { authorization: 'Bearer old' }, tls: {}, tlsKey: '' };
    credentials.onRefused = () => {
      credentials.now = { headers: { authorization: 'Bearer new' }, tls: {}, tlsKey: '' };
    };
    const { client, servers } = makeClient([server.url, await urlOfNobody()], { credentials });
    expect(await faultOf(client.getJson(apiRequest()))).toMatchObject({
      code: 'ERR_API_STATUS',
      status: 401,
    });
    expect(await client.getJson(apiRequest())).toEqual({});
    expect(credentials.refusals).toBe(1);
    expect(servers.current).toBe(server.url);
  });

  test.for([200, 400, 403, 404, 429, 500])(
    'is something else than %i, which says nothing about credentials',
    async (code) => {
      const server = await openLoopbackApi(status(code, '{}'));
      const credentials = new FakeCredentials();
      const { client } = makeClient([server.url], { credentials });
      await client.getJson(apiRequest()).catch(() => undefined);
      expect(server.requests).toHaveLength(1);
      expect(credentials.refusals).toBe(0);
    },
  );
});

describe('an answer that is no success', () => {
  test('has the status, the reason and the words of the server, and what it asked to wait', async () => {
    const body = { kind: 'Status', reason: 'TooManyRequests', message: 'slow down', code: 429 };
    const server = await openLoopbackApi(status(429, JSON.stringify(body), { 'retry-after': '7' }));
    const fault = await faultOf(makeClient([server.url]).client.getJson(apiRequest()));
    expect(fault).toMatchObject({ status: 429, reason: 'TooManyRequests', retryAfterMs: 7000 });
    expect(fault.message).toBe('the API server answered 429: slow down');
  });

  test.for([
    { name: 'text', body: 'upstream is away\n', says: 'answered 502: upstream is away' },
    { name: 'nothing', body: '', says: 'answered 502' },
    { name: 'more than anybody wants to read', body: 'x'.repeat(1_000_000), says: 'answered 502' },
  ])('may be $name', async ({ body, says }) => {
    const server = await openLoopbackApi(status(502, body));
    const fault = await faultOf(makeClient([server.url]).client.getJson(apiRequest()));
    expect(fault).toMatchObject({ code: 'ERR_API_STATUS', status: 502 });
    expect(fault.message).toContain(says);
    expect(fault.message.length).toBeLessThan(500);
  });

  test('is not followed elsewhere, where the token does not belong', async () => {
    const other = await openLoopbackApi(json({}));
    const server = await openLoopbackApi(status(307, '', { location: other.url.href }));
    const fault = await faultOf(makeClient([server.url]).client.getJson(apiRequest()));
    expect(fault.status).toBe(307);
    expect(other.requests).toEqual([]);
  });

  test('of status 200 that is no JSON is understood as such', async () => {
    const server = await openLoopbackApi(status(200, '<html>log in</html>'));
    const fault = await faultOf(makeClient([server.url]).client.getJson(apiRequest()));
    expect(fault.code).toBe('ERR_API_RESPONSE');
  });
});

describe('the requests are counted by server and status', () => {
  test('and those without one as <error>', async () => {
    const codes = [200, 200, 410, 503];
    const server = await openLoopbackApi((response) => response.writeHead(codes.shift() ?? 500).end('{}'));
    const nobody = await urlOfNobody();
    const { client, statistics } = makeClient([server.url, nobody]);
    // The 503 puts the next server in use.
    for (let count = 0; count < 5; count += 1) await client.getJson(apiRequest()).catch(() => undefined);
    expect(statistics.requests).toEqual([
      { host: server.url.host, code: '200', count: 2 },
      { host: server.url.host, code: '410', count: 1 },
      { host: server.url.host, code: '503', count: 1 },
      { host: nobody.host, code: '<error>', count: 1 },
    ]);
  });
});

describe('of several servers', () => {
  const open = async (code: number): Promise<LoopbackApi> => openLoopbackApi(status(code, '{}'));

  test('the first is asked while it answers, the next once it fails, and so on in a ring', async () => {
    const [first, second] = [await open(500), await open(503)];
    const { client, servers } = makeClient([first.url, second.url, await urlOfNobody()]);
    const asked: string[] = [];
    for (let count = 0; count < 6; count += 1) {
      asked.push(servers.current.host);
      await faultOf(client.getJson(apiRequest()));
    }
    expect(asked.slice(3)).toEqual(asked.slice(0, 3));
    expect(new Set(asked).size).toBe(3);
    expect([first.requests.length, second.requests.length]).toEqual([2, 2]);
  });

  test('the one that works stays in use', async () => {
    const [first, second] = [await open(500), await open(200)];
    const { client } = makeClient([first.url, second.url]);
    await faultOf(client.getJson(apiRequest()));
    for (let count = 0; count < 3; count += 1) await client.getJson(apiRequest());
    expect([first.requests.length, second.requests.length]).toEqual([1, 3]);
  });

  test.for([400, 401, 403, 404, 410, 422, 429])(
    'the same is asked again after %i, which all would answer',
    async (code) => {
      const [first, second] = [await open(code), await open(200)];
      const { client, servers } = makeClient([first.url, second.url]);
      await faultOf(client.getJson(apiRequest()));
      expect(servers.current).toBe(first.url);
    },
  );

  test('the same is asked again when it knows no version as new as ours yet', async () => {
    const cause = { reason: 'ResourceVersionTooLarge', message: 'Too large resource version' };
    const body = { kind: 'Status', reason: 'Timeout', code: 504, details: { causes: [cause] } };
    const first = await openLoopbackApi(status(504, JSON.stringify(body)));
    const { client, servers } = makeClient([first.url, (await open(200)).url]);
    expect(await faultOf(client.getJson(apiRequest()))).toMatchObject({ isVersionTooLarge: true });
    expect(servers.current).toBe(first.url);
  });

  test('only one step is made for many requests that fail together', async () => {
    const [first, second, third] = [await open(500), await open(200), await open(200)];
    const { client, servers } = makeClient([first.url, second.url, third.url]);
    await Promise.all(Array.from({ length: 3 }, async () => faultOf(client.getJson(apiRequest()))));
    expect(servers.current).toBe(second.url);
  });
});
