/** The faults of the fake API server itself, who it lets in, and what it refuses. */
import { X509Certificate } from 'node:crypto';
import { Agent, request } from 'undici';
import { describe, expect, onTestFinished, test } from 'vitest';
import { clientTls, otherServerTls, serverTls } from '../../support/fake-api-certificates.ts';
import {
  type FakeApiServer,
  faults,
  startFakeApiServer,
  statusObject,
} from '../../support/fake-api-server.ts';
import { makeService } from '../../support/objects.ts';
import { Client, SERVICES, SLICES_V1, errnoAfter, start } from './fake-api-harness.ts';

describe('faults', () => {
  test('a fault meets as many requests as it was told, of its kind only', async () => {
    const context = await start();
    const client = new Client(context);
    const fault = context.server.failNext({
      resource: 'services',
      operation: 'list',
      times: 2,
      with: faults.tooManyRequests(7),
    });

    expect((await client.get(SLICES_V1)).statusCode).toBe(200);
    expect((await client.watch(SERVICES, 100)).statusCode).toBe(200);
    const refused = await client.get(SERVICES);
    expect([refused.statusCode, refused.headers['retry-after']]).toEqual([429, '7']);
    expect((await client.get(SERVICES)).statusCode).toBe(429);
    expect((await client.get(SERVICES)).statusCode).toBe(200);
    expect(fault.hits).toBe(2);

    const lasting = context.server.failNext({ times: Infinity, with: faults.status(503) });
    expect((await client.get(SERVICES)).statusCode).toBe(503);
    lasting.clear();
    expect((await client.get(SERVICES)).statusCode).toBe(200);
  });

  test('an answer is reset before its head or in the middle, cut, or ended as if it were whole', async () => {
    const context = await start();
    const client = new Client(context);
    context.server.put('services', makeService('a'));
    const outcome = async (
      fault: Parameters<FakeApiServer['failNext']>[0]['with'],
    ): Promise<[string, string]> => {
      context.server.failNext({ with: fault });
      let text = '';
      const errno = await errnoAfter(
        client.get(SERVICES).then(async ({ body }) => {
          for await (const chunk of body) text += String(chunk);
        }),
      );
      return [text, errno];
    };

    expect(await outcome(faults.reset())).toEqual(['', 'ECONNRESET']);
    expect(await outcome(faults.resetAfter(7))).toEqual(['{"kind"', 'ECONNRESET']);
    expect(await outcome(faults.closeAfter(7))).toEqual(['{"kind"', 'UND_ERR_SOCKET']);
    expect(await outcome(faults.truncateAfter(7))).toEqual(['{"kind"', 'none']);
    expect(await outcome(faults.resetAfter(1e6))).toEqual([expect.stringContaining('"a"'), 'ECONNRESET']);
    expect(await outcome(faults.empty())).toEqual(['', 'none']);
    expect(await outcome(faults.html())).toEqual([expect.stringContaining('<html>'), 'none']);
    expect(await outcome(faults.drip(100, 1))).toEqual([expect.stringMatching(/^\{.*\}$/), 'none']);
  });

  test('a body can fall silent before its head and in the middle', async () => {
    const context = await start({}, { headersTimeout: 200, bodyTimeout: 200 });
    const client = new Client(context);
    context.server.failNext({ with: faults.stall() });
    context.server.failNext({ with: faults.stallAfter(1) });

    expect(await errnoAfter(client.get(SERVICES))).toBe('UND_ERR_HEADERS_TIMEOUT');
    expect(await errnoAfter(client.list(SERVICES))).toBe('UND_ERR_BODY_TIMEOUT');
  });

  test('lists and their pages can be wrong', async () => {
    const context = await start();
    const client = new Client(context);
    for (const name of ['a', 'b']) context.server.put('services', makeService(name));
    const page = { operation: 'list', continued: true } as const;
    context.server.failNext({ ...page, with: faults.otherVersion('7') });
    context.server.failNext({ ...page, with: faults.expired() });
    context.server.failNext({ ...page, times: 2, with: faults.sameContinue() });

    const token = (await client.list(SERVICES, { limit: '1' })).metadata.continue ?? '';
    const next = async () => client.list(SERVICES, { limit: '1', continue: token });
    expect(await next()).toMatchObject({ metadata: { resourceVersion: '7' } });
    expect(await next()).toMatchObject({ code: 410, reason: 'Expired' });
    expect(await next()).toMatchObject({ metadata: { continue: token } });
    expect(await next()).toMatchObject({ metadata: { continue: token } });
    expect((await next()).metadata.continue).toBeUndefined();

    context.server.failNext({ with: faults.wrongListKind() });
    context.server.failNext({ with: faults.wrongItems(null) });
    expect(await client.list(SERVICES)).toMatchObject({ kind: 'PodList' });
    expect(await client.list(SERVICES)).toMatchObject({ kind: 'ServiceList', items: null });
  });

  test('a watch can begin with nonsense, an error or a line without end', async () => {
    const context = await start();
    const client = new Client(context);
    const { server } = context;
    server.put('services', makeService('a'));
    server.failNext({ with: faults.badWatchLine() });
    server.failNext({ with: faults.errorEvent(statusObject({ code: 500 })) });
    server.failNext({ with: faults.hugeLine(3_000_000) });

    const bad = await client.watch(SERVICES, 100);
    expect(await bad.line()).toBe('{"type":"ADDED","object":{,}}');
    expect(await bad.events(1)).toEqual(['ADDED a@101']);
    const error = await client.watch(SERVICES, 100);
    expect(await error.event()).toMatchObject({ type: 'ERROR', object: { reason: 'InternalError' } });
    expect(await error.line()).toBeUndefined();

    const { body } = await client.get(SERVICES, {
      watch: 'true',
      resourceVersion: '100',
      allowWatchBookmarks: 'true',
      timeoutSeconds: '300',
    });
    let bytes = 0;
    for await (const chunk of body) {
      bytes += (chunk as Buffer).length;
      if (bytes > 3_000_000) break;
    }
    expect(() => server.failNext({ operation: 'list', with: faults.hugeLine(1) })).toThrow('for a watch');
  });

  test('a server that stands still makes up for it afterwards', async () => {
    const context = await start();
    const client = new Client(context);
    const watch = await client.watch(SERVICES, 100);
    context.server.stallAll();
    const listing = client.list(SERVICES);
    await context.server.nextRequest({ operation: 'list' });
    context.server.put('services', makeService('late'));
    context.server.resume();

    expect((await listing).items).toHaveLength(1);
    expect(await watch.events(1)).toEqual(['ADDED late@101']);
    expect(context.server.connectionCount).toBe(2);
  });

  test('an outage refuses connections, and the server comes back at the same port with its store', async () => {
    const context = await start();
    const client = new Client(context);
    const { server } = context;
    const watch = await client.watch(SERVICES, 100);
    const { port } = server;
    const broken = errnoAfter(watch.line());
    await server.close('reset');
    await server.close();

    expect(await broken).toBe('ECONNRESET');
    expect(await errnoAfter(client.get(SERVICES))).toBe('ECONNREFUSED');
    server.put('services', makeService('meanwhile'));
    await server.listen();
    expect(server.port).toBe(port);
    expect(await (await client.watch(SERVICES, 100)).events(1)).toEqual(['ADDED meanwhile@101']);
  });
});

describe('who asks, and what', () => {
  test('only the tokens that are accepted are let in, and requests are recorded with them', async () => {
    const context = await start({ accept: { tokens: new Set(['good']) } });
    const client = new Client(context);
    const headers = { authorization: 'Bearer good', 'user-agent': 'test/1' };

    expect(await client.list(SERVICES)).toMatchObject({ code: 401, reason: 'Unauthorized' });
    expect((await client.get(SERVICES, {}, headers)).statusCode).toBe(200);
    context.server.behaviour.accept = { tokens: new Set(['better']) };
    expect((await client.get(SERVICES, {}, headers)).statusCode).toBe(401);
    expect(context.server.requestsOf('services', 'list').map(({ userAgent }) => userAgent)).toEqual([
      undefined,
      'test/1',
      'test/1',
    ]);
    expect(context.server.requests[1]?.authorization).toBe('Bearer good');
  });

  test('over TLS the client certificate is recorded, and can be what lets in', async () => {
    const fingerprint = new X509Certificate(clientTls.cert).fingerprint256;
    const context = await start(
      { tls: serverTls, accept: { certificateFingerprints: new Set([fingerprint]) } },
      { connect: { ca: serverTls.cert, ...clientTls } },
    );
    const stranger = new Agent({ allowH2: false, connect: { ca: serverTls.cert } });
    onTestFinished(async () => stranger.destroy());
    const client = new Client(context);

    expect((await client.get(SERVICES)).statusCode).toBe(200);
    expect(context.server.requests[0]?.clientCertificate).toEqual({
      subject: 'O=system:node-proxier,CN=system:kube-proxy',
      fingerprint,
    });
    expect((await new Client({ ...context, agent: stranger }).get(SERVICES)).statusCode).toBe(401);
    context.server.failNext({ with: faults.reset() });
    expect(await errnoAfter(client.get(SERVICES))).toBe('ECONNRESET');
    context.server.useTls(otherServerTls);
    expect(await errnoAfter(client.get(SERVICES))).toBe('DEPTH_ZERO_SELF_SIGNED_CERT');
  });

  test.each([
    ['an unknown path', 404, '/version', {}],
    ['an unknown parameter', 400, SERVICES, { pretty: 'true' }],
    ['a selector it cannot read', 400, SERVICES, { labelSelector: 'app in (web)' }],
    ['a watch without a version', 400, SERVICES, { watch: '1' }],
    ['a watch without bookmarks', 400, SERVICES, { watch: '1', resourceVersion: '9', timeoutSeconds: '9' }],
    [
      'a watch without an end',
      400,
      SERVICES,
      { watch: '1', resourceVersion: '9', allowWatchBookmarks: 'true' },
    ],
  ])('%s is refused with %i and not forgotten', async (_name, code, path, query) => {
    await using server = await startFakeApiServer();
    const agent = new Agent();
    onTestFinished(async () => agent.destroy());

    expect((await new Client({ server, agent }).get(path, query)).statusCode).toBe(code);
    expect(server.unexpected).toHaveLength(1);
    expect(() => server.assertNothingUnexpected()).toThrow(path);
  });

  test('another method and a body are refused and not forgotten', async () => {
    await using server = await startFakeApiServer();
    const agent = new Agent();
    onTestFinished(async () => agent.destroy());
    const url = new URL(SERVICES, server.url);

    expect((await request(url, { method: 'POST', body: '{}', dispatcher: agent })).statusCode).toBe(405);
    expect((await request(url, { method: 'GET', body: '{}', dispatcher: agent })).statusCode).toBe(400);
    expect(server.unexpected).toHaveLength(2);
  });
});
