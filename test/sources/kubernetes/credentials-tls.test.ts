/** TLS as a kubeconfig asks for it, against a real server: who is trusted, who is not, and whom we show. */
import { describe, expect, test } from 'vitest';
import { errorText } from '../../../src/errors.ts';
import { type Credentials, ServiceAccountCredentials } from '../../../src/sources/kubernetes/credentials.ts';
import {
  type KubeconfigParts,
  TestDirectory,
  credentialsOf,
  preloadKubeconfigLibrary,
} from '../../support/kubeconfig.ts';
import {
  type LoopbackApi,
  type LoopbackTls,
  apiRequest,
  everythingIn,
  faultOf,
  json,
  makeClient,
  openLoopbackApi,
} from '../../support/loopback-api.ts';
import { useTestCertificates } from '../../support/test-ca.ts';

preloadKubeconfigLibrary();

const certificates = useTestCertificates();

const base64 = (text: string): string => Buffer.from(text).toString('base64');
const openServer = async (tls: LoopbackTls): Promise<LoopbackApi> =>
  openLoopbackApi(json({ gitVersion: 'v1.36.0' }), tls);

interface Asker {
  readonly directory: TestDirectory;
  readonly credentials: Credentials;
  /** Resolves when the server was trusted, asked, and has answered. */
  readonly ask: () => Promise<unknown>;
}

/** Asks `server` with a kubeconfig in whose directory the files of a test are. */
async function askerOf(server: LoopbackApi, parts: KubeconfigParts): Promise<Asker> {
  const directory = await TestDirectory.make();
  const { ca, otherCa, alice } = certificates();
  await directory.write('ca.crt', ca);
  await directory.write('other-ca.crt', otherCa);
  await directory.write('client.crt', alice.cert);
  await directory.write('client.key', alice.key);
  const path = await directory.writeKubeconfig({ server: server.url.origin, ...parts });
  const credentials = credentialsOf(path);
  const { client } = makeClient([server.url], { credentials });
  return { directory, credentials, ask: async () => client.getJson(apiRequest()) };
}

const TRUSTED = { 'certificate-authority': 'ca.crt' };

describe('a server is trusted', () => {
  test.for<{ name: string; named?: boolean; parts: () => KubeconfigParts }>([
    { name: 'with the CA in a file', parts: () => ({ cluster: TRUSTED }) },
    {
      name: 'with the CA as data',
      parts: () => ({ cluster: { 'certificate-authority-data': base64(certificates().ca) } }),
    },
    {
      name: 'with the CA in a file, for a context that names no user',
      parts: () => ({ cluster: TRUSTED, user: null }),
    },
    {
      name: 'with the CA as data, for a context that names no user',
      parts: () => ({ cluster: { 'certificate-authority-data': base64(certificates().ca) }, user: null }),
    },
    {
      name: 'with the CA as data where another stands in a file, as for client-go',
      parts: () => ({
        cluster: {
          'certificate-authority-data': base64(certificates().ca),
          'certificate-authority': 'other-ca.crt',
        },
      }),
    },
    {
      name: 'by the name in tls-server-name',
      named: true,
      parts: () => ({ cluster: { ...TRUSTED, 'tls-server-name': 'kubernetes.example' } }),
    },
    {
      name: 'by the name in tls-server-name, for a context that names no user',
      named: true,
      parts: () => ({ cluster: { ...TRUSTED, 'tls-server-name': 'kubernetes.example' }, user: null }),
    },
    {
      name: 'whoever it is, when insecure-skip-tls-verify says so',
      parts: () => ({ cluster: { 'insecure-skip-tls-verify': true } }),
    },
    {
      name: 'whoever it is, also for a context that names no user',
      parts: () => ({ cluster: { 'insecure-skip-tls-verify': true }, user: null }),
    },
  ])('$name', async ({ named, parts }) => {
    const server = await openServer(named === true ? certificates().namedServer : certificates().server);
    const { ask } = await askerOf(server, parts());
    expect(await ask()).toEqual({ gitVersion: 'v1.36.0' });
    expect(server.requests).toHaveLength(1);
  });

  test('with the CA of the service account', async () => {
    const server = await openServer(certificates().server);
    const directory = await TestDirectory.make();
    await directory.write('ca.crt', certificates().ca);
    await directory.write('token', 'abc\n');
    const credentials = new ServiceAccountCredentials({ directory: directory.path });
    const { client } = makeClient([server.url], { credentials });
    await client.getJson(apiRequest());
    expect(server.requests.map(({ headers }) => headers.authorization)).toEqual(['Bearer abc']);
    await directory.write('ca.crt', certificates().otherCa);
    expect(await faultOf(client.getJson(apiRequest()))).toMatchObject({ code: 'ERR_API_CONNECTION' });
  });
});

describe('a server is refused, and sees no request and no token', () => {
  const NOT_SIGNED = /self-signed certificate|unable to (get|verify)|certificate signature failure/;
  test.for<{ name: string; named?: boolean; parts: () => KubeconfigParts; says: RegExp }>([
    {
      name: 'with the CA of another cluster in a file',
      parts: () => ({ cluster: { 'certificate-authority': 'other-ca.crt' } }),
      says: NOT_SIGNED,
    },
    {
      name: 'with the CA of another cluster as data',
      parts: () => ({ cluster: { 'certificate-authority-data': base64(certificates().otherCa) } }),
      says: NOT_SIGNED,
    },
    {
      name: 'with the CA of another cluster, for a context that names no user',
      parts: () => ({ cluster: { 'certificate-authority': 'other-ca.crt' }, user: null }),
      says: NOT_SIGNED,
    },
    { name: 'without a CA', parts: () => ({}), says: NOT_SIGNED },
    {
      name: 'when insecure-skip-tls-verify is false',
      parts: () => ({ cluster: { 'insecure-skip-tls-verify': false } }),
      says: NOT_SIGNED,
    },
    {
      name: 'when only a http:// server of the kubeconfig needs no verification, and --master is another',
      parts: () => ({ server: 'http://127.0.0.1:8080' }),
      says: NOT_SIGNED,
    },
    {
      name: 'when its certificate is not for the address',
      named: true,
      parts: () => ({ cluster: TRUSTED }),
      says: /127\.0\.0\.1/,
    },
    {
      name: 'when its certificate is for another name than tls-server-name',
      parts: () => ({ cluster: { ...TRUSTED, 'tls-server-name': 'kubernetes.example' } }),
      says: /kubernetes\.example/,
    },
  ])('$name', async ({ named, parts, says }) => {
    const server = await openServer(named === true ? certificates().namedServer : certificates().server);
    const wanted = parts();
    const user = wanted.user === null ? null : { token: 'secret-token' };
    const { ask } = await askerOf(server, { ...wanted, user });
    const fault = await faultOf(ask());
    expect(fault).toMatchObject({ code: 'ERR_API_CONNECTION', isServerFault: true });
    expect(errorText(fault)).toMatch(says);
    expect(everythingIn(fault)).not.toContain('secret-token');
    expect(server.requests).toEqual([]);
  });

  test('and so it is with a CA that is none: a fault of the connection, and no crash', async () => {
    const server = await openServer(certificates().server);
    const cluster = { 'certificate-authority-data': base64('no pem') };
    const { ask } = await askerOf(server, { cluster });
    expect(await faultOf(ask())).toMatchObject({ code: 'ERR_API_CONNECTION' });
    expect(server.requests).toEqual([]);
  });

  test('nor is it blamed for a client certificate that is none: that is a fault of ours, and no crash', async () => {
    const server = await openServer(certificates().server);
    const user = { 'client-certificate-data': base64('no pem'), 'client-key-data': base64('secret-key') };
    const { ask } = await askerOf(server, { cluster: TRUSTED, user });
    const fault = await faultOf(ask());
    expect(fault).toMatchObject({ code: 'ERR_API_CREDENTIALS', isServerFault: false });
    expect(everythingIn(fault)).not.toMatch(/secret-key|c2VjcmV0LWtleQ/);
    expect(server.requests).toEqual([]);
  });
});

test('a server of http:// is asked without TLS', async () => {
  const server = await openLoopbackApi(json('plain'));
  const { ask } = await askerOf(server, { user: { token: 'abc' } });
  expect(await ask()).toBe('plain');
  expect(server.requests[0]?.headers.authorization).toBe('Bearer abc');
});

test('a replaced CA is used by the next request', async () => {
  const server = await openServer(certificates().otherServer);
  const { ask, directory } = await askerOf(server, { cluster: TRUSTED });
  expect(await faultOf(ask())).toMatchObject({ code: 'ERR_API_CONNECTION' });
  await directory.write('ca.crt', certificates().otherCa);
  expect(await ask()).toEqual({ gitVersion: 'v1.36.0' });
});

describe('a client certificate is shown', () => {
  test('from files, and no other one', async () => {
    const server = await openServer(certificates().server);
    const user = { 'client-certificate': 'client.crt', 'client-key': 'client.key' };
    await (await askerOf(server, { cluster: TRUSTED, user })).ask();
    await (await askerOf(server, { cluster: TRUSTED })).ask();
    expect(server.requests.map(({ clientName }) => clientName)).toEqual(['alice', undefined]);
  });

  test('from data, which win over files', async () => {
    const server = await openServer(certificates().server);
    const { bob } = certificates();
    const data = { 'client-certificate-data': base64(bob.cert), 'client-key-data': base64(bob.key) };
    const files = { 'client-certificate': 'client.crt', 'client-key': 'client.key' };
    await (await askerOf(server, { cluster: TRUSTED, user: data })).ask();
    await (await askerOf(server, { cluster: TRUSTED, user: { ...data, ...files } })).ask();
    expect(server.requests.map(({ clientName }) => clientName)).toEqual(['bob', 'bob']);
  });

  test('from files that were replaced, over a new connection; over the old one while they stay the same', async () => {
    const server = await openServer(certificates().server);
    const { alice, bob } = certificates();
    const user = { 'client-certificate': 'client.crt', 'client-key': 'client.key' };
    const { ask, directory } = await askerOf(server, { cluster: TRUSTED, user });
    await ask();
    await directory.write('client.crt', alice.cert);
    await ask();
    await directory.write('client.crt', bob.cert);
    // Half of the pair: for that moment it is none, which is no fault of the server.
    expect(await faultOf(ask())).toMatchObject({ code: 'ERR_API_CREDENTIALS', isServerFault: false });
    await directory.write('client.key', bob.key);
    await ask();
    expect(server.requests.map(({ clientName, connection }) => ({ clientName, connection }))).toEqual([
      { clientName: 'alice', connection: 1 },
      { clientName: 'alice', connection: 1 },
      { clientName: 'bob', connection: server.connectionCount },
    ]);
    expect(server.connectionCount).toBeGreaterThan(1);
  });

  test('from a kubeconfig that was rewritten', async () => {
    const server = await openServer(certificates().server);
    const { alice, bob } = certificates();
    const userOf = ({ cert, key }: LoopbackTls): object => ({
      'client-certificate-data': base64(cert),
      'client-key-data': base64(key),
    });
    const parts = { server: server.url.origin, cluster: TRUSTED };
    const { ask, directory } = await askerOf(server, { ...parts, user: userOf(alice) });
    await ask();
    await directory.writeKubeconfig({ ...parts, user: userOf(bob) });
    await ask();
    expect(server.requests.map(({ clientName }) => clientName)).toEqual(['alice', 'bob']);
  });
});
