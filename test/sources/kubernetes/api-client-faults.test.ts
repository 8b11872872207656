/** The client of the API servers when connections break, fall silent or are given up, and which server is asked then. */
import type { ServerResponse } from 'node:http';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { errorText } from '../../../src/errors.ts';
import type { ApiError } from '../../../src/sources/kubernetes/api-error.ts';
import type { RequestCredentials } from '../../../src/sources/kubernetes/credentials.ts';
import {
  FakeCredentials,
  apiRequest,
  everythingIn,
  faultOf,
  json,
  makeClient,
  openLoopbackApi,
  urlOfNobody,
} from '../../support/loopback-api.ts';
import { openBlackHole } from '../../support/loopback-tcp.ts';
import { useTestCertificates } from '../../support/test-ca.ts';
import { waitFor } from '../../support/wait.ts';

const certificates = useTestCertificates();

describe('a connection that breaks or falls silent', () => {
  /** The head, `{`, and no more. */
  const half = (response: ServerResponse): void => {
    response.writeHead(200, { 'content-length': '100' }).write('{');
  };

  test.for([
    { name: 'is refused', open: urlOfNobody, code: 'ERR_API_UNREACHABLE', text: 'ECONNREFUSED' },
    {
      name: 'is of a name that does not exist',
      open: async () => new URL('http://kup-no-such-host.invalid:6443'),
      code: 'ERR_API_UNREACHABLE',
      text: 'kup-no-such-host.invalid',
    },
    {
      name: 'is reset before the answer',
      open: async () => (await openLoopbackApi((response) => response.socket?.resetAndDestroy())).url,
      code: 'ERR_API_CONNECTION',
      text: '',
    },
    {
      name: 'is cut in the answer',
      open: async () =>
        (
          await openLoopbackApi((response) => {
            response.writeHead(200, { 'content-length': '100' }).write('{', () => response.socket?.destroy());
          })
        ).url,
      code: 'ERR_API_CONNECTION',
      text: '',
    },
    {
      name: 'is reset in the answer',
      open: async () =>
        (
          await openLoopbackApi((response) => {
            response.writeHead(200).write('{', () => response.socket?.resetAndDestroy());
          })
        ).url,
      code: 'ERR_API_CONNECTION',
      text: '',
    },
    {
      name: 'says nothing',
      open: async () => (await openLoopbackApi(() => {})).url,
      code: 'ERR_API_STALLED',
      text: 'Headers Timeout',
    },
    {
      name: 'falls silent in the answer',
      open: async () => (await openLoopbackApi(half)).url,
      code: 'ERR_API_STALLED',
      text: 'Body Timeout',
    },
  ])('as one that $name fails as such, and the next server is in use', async ({ open, code, text }) => {
    const url = await open();
    const other = new URL('http://127.0.0.1:1');
    const { client, servers } = makeClient([url, other]);
    const fault = await faultOf(client.getJson(apiRequest({ silenceTimeoutMs: 50 })));
    expect(fault).toMatchObject({ code, isServerFault: true, isUnreachable: code === 'ERR_API_UNREACHABLE' });
    expect(errorText(fault)).toContain(text);
    expect(servers.current).toBe(other);
  });

  test('as one to a server that speaks TLS where none was expected, or the other way round, fails too', async () => {
    const secure = await openLoopbackApi(json({}), certificates().server);
    const plain = await openLoopbackApi(json({}));
    const crossed = [new URL(`http://${secure.url.host}`), new URL(`https://${plain.url.host}`)];
    for (const url of crossed) {
      const { client } = makeClient([url]);
      expect(await faultOf(client.getJson(apiRequest()))).toMatchObject({ code: 'ERR_API_CONNECTION' });
    }
  });

  test('is told from one that merely is slow: each piece of the answer starts the silence anew', async () => {
    const pieces = ['[', '1,', '2,', '3', ']'];
    const server = await openLoopbackApi((response) => {
      response.writeHead(200);
      const timer = setInterval(() => {
        const piece = pieces.shift();
        if (piece !== undefined) response.write(piece);
        else {
          clearInterval(timer);
          response.end();
        }
      }, 250);
    });
    const { client } = makeClient([server.url]);
    expect(await client.getJson(apiRequest({ silenceTimeoutMs: 1000 }))).toEqual([1, 2, 3]);
  });

  test('is the fault of the server as well when it never is silent for long but takes too long in all', async () => {
    const server = await openLoopbackApi((response) => {
      response.writeHead(200);
      const timer = setInterval(() => response.write(' '), 20);
      response.once('close', () => clearInterval(timer));
    });
    const other = new URL('http://127.0.0.1:1');
    const { client, servers } = makeClient([server.url, other]);
    const signal = AbortSignal.any([new AbortController().signal, AbortSignal.timeout(150)]);
    expect(await faultOf(client.getJson(apiRequest({ signal })))).toMatchObject({ code: 'ERR_API_STALLED' });
    expect(servers.current).toBe(other);
  });

  test.for([
    { name: 'before the answer', answer: () => {} },
    { name: 'in the answer', answer: half },
  ])('is no fault of the server when it was given up $name', async ({ answer }) => {
    let isAsked = false;
    const server = await openLoopbackApi((response) => {
      isAsked = true;
      answer(response);
    });
    const { client, servers } = makeClient([server.url, new URL('http://127.0.0.1:1')]);
    const stop = new AbortController();
    const asking = faultOf(client.getJson(apiRequest({ signal: stop.signal })));
    await waitFor(() => isAsked, { timeoutMs: 5000, what: 'the request' });
    stop.abort();
    expect((await asking).code).toBe('ERR_API_CONNECTION');
    expect(servers.current).toBe(server.url);
  });

  test('ends with whoever leaves the loop over an answer before its end', async () => {
    let isClosed = false;
    const server = await openLoopbackApi((response) => {
      response.writeHead(200).write('event\n');
      response.once('close', () => {
        isClosed = true;
      });
    });
    const { client, servers } = makeClient([server.url, new URL('http://127.0.0.1:1')]);
    for await (const chunk of await client.get(apiRequest())) {
      expect(Buffer.from(chunk).toString()).toBe('event\n');
      break;
    }
    await waitFor(() => isClosed, { timeoutMs: 5000, what: 'the end of the connection' });
    expect(servers.current).toBe(server.url);
  });

  test('can be one that is never made: close ends the wait for it', async () => {
    const { port } = await openBlackHole();
    const { client, statistics } = makeClient([new URL(`http://127.0.0.1:${port}`)]);
    const asking = faultOf(client.getJson(apiRequest()));
    // One turn of the loop: by then the request is under way, and has not got further than SYN.
    await nextTurn();
    await client.close();
    expect((await asking).code).toBe('ERR_API_CONNECTION');
    expect(statistics.requests).toMatchObject([{ code: '<error>', count: 1 }]);
  });

  describe('is not begun for a request', () => {
    /** Of a client whose credentials never come: what has been asked, and the server in use before and after. */
    async function askInVain(
      signal: AbortSignal,
    ): Promise<{ asking: Promise<ApiError>; isBlamed: () => boolean }> {
      const { port } = await openBlackHole();
      const credentials = new FakeCredentials();
      credentials.current = async () => Promise.withResolvers<RequestCredentials>().promise;
      const urls = [new URL(`http://127.0.0.1:${port}`), await urlOfNobody()];
      const { client, servers } = makeClient(urls, { credentials });
      const asking = faultOf(client.getJson(apiRequest({ signal })));
      return { asking, isBlamed: () => servers.current !== urls[0] };
    }

    test('that is given up while its credentials are fetched: it ends at once, and blames nobody', async () => {
      const stop = new AbortController();
      const { asking, isBlamed } = await askInVain(stop.signal);
      stop.abort();
      expect((await asking).code).toBe('ERR_API_CONNECTION');
      expect(isBlamed()).toBe(false);
    });

    test('whose deadline passes while its credentials are fetched: it ends at once, as silence', async () => {
      const deadline = new AbortController();
      const { asking, isBlamed } = await askInVain(deadline.signal);
      deadline.abort(new DOMException('too long', 'TimeoutError'));
      expect((await asking).code).toBe('ERR_API_STALLED');
      expect(isBlamed()).toBe(false);
    });

    test('that was given up before, whatever becomes of its credentials', async () => {
      const credentials = new FakeCredentials();
      // Nobody may be left to whom this is a surprise: an unhandled rejection would fail the run.
      credentials.current = async () => {
        throw new Error('no credentials');
      };
      const server = await openLoopbackApi(json('never'));
      const { client } = makeClient([server.url], { credentials });
      const asking = faultOf(client.getJson(apiRequest({ signal: AbortSignal.abort() })));
      expect((await asking).code).toBe('ERR_API_CONNECTION');
      await nextTurn();
      expect(server.requests).toEqual([]);
    });
  });
});

test('a token stands neither in an error nor in the log', async () => {
  const server = await openLoopbackApi((response, { url }) => {
    if (url === '/reset') response.socket?.resetAndDestroy();
    else if (url === '/silent') return;
    else response.writeHead(Number(url.slice(1))).end('no JSON');
  });
  const credentials = new FakeCredentials();
  credentials.now = { headers: { authorization: 'Bearer hunter2-hunter2' }, tls: {}, tlsKey: '' };
  const { client, logger } = makeClient([server.url], { credentials });
  for (const path of ['/reset', '/silent', '/200', '/401', '/500']) {
    const fault = await faultOf(client.getJson(apiRequest({ path, silenceTimeoutMs: 50 })));
    expect(everythingIn(fault)).not.toContain('hunter2');
  }
  await server.close();
  expect(everythingIn(await faultOf(client.getJson(apiRequest())))).not.toContain('hunter2');
  expect(everythingIn(logger.lines)).not.toContain('hunter2');
});
