/** Whom the source talks to: the connections that it makes, TLS, and servers that do not know it any more. */
import { X509Certificate } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import type { Credentials, RequestCredentials } from '../../../src/sources/kubernetes/credentials.ts';
import { clientTls, otherServerTls, serverTls } from '../../support/fake-api-certificates.ts';
import { makeService } from '../../support/objects.ts';
import {
  endInPeace,
  openWatch,
  startSeededServer,
  startSource,
  startSyncedSource,
} from '../../support/source-under-test.ts';

/** So long that nothing that is waited for can be its end. */
const LONG = { minMs: 60_000, maxMs: 120_000 };

/** These tokens one after the other, the next one whenever one was refused. */
class RollingCredentials implements Credentials {
  readonly #tokens: string[];
  readonly #tls: RequestCredentials['tls'];
  refusals = 0;

  constructor(tokens: readonly string[], tls: RequestCredentials['tls'] = {}) {
    this.#tokens = [...tokens];
    this.#tls = tls;
  }

  async current(): Promise<RequestCredentials> {
    return { headers: { authorization: `Bearer ${this.#tokens[0]}` }, tls: this.#tls, tlsKey: 'one' };
  }

  refused(): void {
    this.refusals += 1;
    if (this.#tokens.length > 1) this.#tokens.shift();
  }
}

describe('connections', () => {
  test('a watch that ends in peace is renewed at once, over the connection that it had', async () => {
    await using server = await startSeededServer();
    await using source = await startSyncedSource(server, { backoff: LONG });
    for (let count = 0; count < 20; count += 1) {
      server.skipSeen();
      endInPeace(source, server, 'services');
      server.put('services', makeService(`new-${count}`));
      await server.nextWatch('services');
      await source.caughtUp();
    }

    // One for each resource.
    expect(server.connectionCount).toBe(3);
    expect(source.failures()).toEqual([]);
    expect(source.statistics.of('services')).toMatchObject({ watches: 21, downSince: 0 });
    expect(source.lists('services')).toEqual({ initial: 1 });
    expect(source.vanished).toEqual([]);
  });

  test('over TLS show the certificate of the client, and are resumed like others', async () => {
    await using server = await startSeededServer({ tls: serverTls });
    const credentials = new RollingCredentials(['t'], { ca: serverTls.cert, ...clientTls });
    await using source = await startSyncedSource(server, { credentials });
    server.skipSeen();
    openWatch(server, 'services').reset();
    server.put('services', makeService('new'));
    await source.caughtUp();

    const { fingerprint256 } = new X509Certificate(clientTls.cert);
    const shown = server.requests.map(({ clientCertificate }) => clientCertificate?.fingerprint);
    expect(new Set(shown)).toEqual(new Set([fingerprint256]));
    expect(source.failures()).toEqual(['services watch ERR_API_CONNECTION']);
    expect(source.lists('services')).toEqual({ initial: 1 });
  });

  test('to a server of another authority are not made, and are made when it is the right one', async () => {
    await using server = await startSeededServer({ tls: otherServerTls });
    const credentials = new RollingCredentials(['t'], { ca: serverTls.cert });
    await using source = await startSource(server, { credentials });
    await source.observed(() => source.failures().length >= 6, 'failures');
    expect(server.requests).toEqual([]);
    expect(source.failures()).toContain('services list ERR_API_CONNECTION');

    server.useTls(serverTls);
    await source.caughtUp();
    expect(source.tellings).toHaveLength(1);
  });
});

describe('credentials', () => {
  test('that are refused at the start are renewed, and everything is told', async () => {
    await using server = await startSeededServer({
      accept: { tokens: new Set(['second', 'third', 'fourth']) },
    });
    const credentials = new RollingCredentials(['first', 'second', 'third', 'fourth']);
    await using source = await startSyncedSource(server, { credentials });

    expect(credentials.refusals).toBe(3);
    expect(source.failures().toSorted()).toEqual([
      'endpointslices list ERR_API_STATUS',
      'nodes list ERR_API_STATUS',
      'services list ERR_API_STATUS',
    ]);
  });

  test('that are refused later cost nothing that is known, and no list', async () => {
    await using server = await startSeededServer({ accept: { tokens: new Set(['first']) } });
    const credentials = new RollingCredentials(['first', 'second']);
    await using source = await startSyncedSource(server, { credentials });
    server.behaviour.accept = { tokens: new Set(['second']) };
    // What is established goes on, as with a real server.
    server.put('services', makeService('before'));
    await source.caughtUp();
    expect(credentials.refusals).toBe(0);
    endInPeace(source, server, 'services');
    server.put('services', makeService('after'));
    await source.caughtUp();

    expect(credentials.refusals).toBe(1);
    expect(source.failures()).toEqual(['services watch ERR_API_STATUS']);
    expect(source.lists('services')).toEqual({ initial: 1 });
    expect(source.vanished).toEqual([]);
  });
});
