/** Exec plugins of a kubeconfig: how they are run, and what is kept of what they print. */
import { readFile } from 'node:fs/promises';
import { describe, expect, test } from 'vitest';
import { KubeconfigCredentials } from '../../../src/sources/kubernetes/credentials.ts';
import type { RunProgram } from '../../../src/sources/kubernetes/exec-credentials.ts';
import type { FakeClock } from '../../support/fake-clock.ts';
import { TestDirectory } from '../../support/kubeconfig.ts';
import { apiRequest, faultOf, json, makeClient, openLoopbackApi } from '../../support/loopback-api.ts';
import { useTestCertificates } from '../../support/test-ca.ts';
import { API_VERSION, makePlugin } from './exec-plugin.ts';

const certificates = useTestCertificates();

const inSeconds = (clock: FakeClock, seconds: number): string =>
  new Date(clock.wallTime() + seconds * 1000).toISOString();

// The first in this file: all three wait until the library is loaded, which takes long, under load seconds, once.
test('a plugin is run once for all who ask at the same time, also the very first time', {
  timeout: 60_000,
}, async () => {
  const { me, runs, token } = await makePlugin();
  expect(await Promise.all([token(), token(), token()])).toEqual(
    Array.from({ length: 3 }, () => 'Bearer first'),
  );
  expect(await runs()).toBe(1);
  me.refused();
  await Promise.all([token(), token(), token()]);
  expect(await runs()).toBe(2);
});

describe('an exec plugin is run', () => {
  test('and its token is used', async () => {
    const { me } = await makePlugin();
    expect((await me.current()).headers).toEqual({ authorization: 'Bearer first' });
  });

  test('with its arguments as they are, its environment on top of ours, and what client-go tells it', async () => {
    const { directory, token } = await makePlugin({
      tweak: {
        args: ['get-token', '--cluster', 'a b', '$HOME', 5],
        env: [{ name: 'REGION', value: 'eu 1' }, { name: 'EMPTY' }],
      },
    });
    await token();
    expect(await readFile(directory.at('args'), 'utf8')).toBe('get-token\n--cluster\na b\n$HOME\n5\n');
    expect(await readFile(directory.at('env'), 'utf8')).toBe('eu 1||yes');
    expect(JSON.parse(await readFile(directory.at('info'), 'utf8'))).toEqual({
      apiVersion: API_VERSION,
      kind: 'ExecCredential',
      spec: { interactive: false },
    });
  });

  test('without arguments and environment, also when both are null', async () => {
    const { directory, token } = await makePlugin({ tweak: { args: null, env: null } });
    await token();
    expect(await readFile(directory.at('args'), 'utf8')).toBe('');
    expect(await readFile(directory.at('env'), 'utf8')).toBe('||yes');
  });

  test('and told of the cluster when the kubeconfig says so', async () => {
    const { directory, token } = await makePlugin({
      tweak: { provideClusterInfo: true },
      parts: { server: 'https://192.0.2.1:6443' },
    });
    await token();
    expect(JSON.parse(await readFile(directory.at('info'), 'utf8'))).toMatchObject({
      spec: { interactive: false, cluster: { server: 'https://192.0.2.1:6443' } },
    });
  });

  test.for([
    { name: 'relative to the kubeconfig', command: () => 'bin/../plugin' },
    { name: 'by an absolute path', command: (directory: TestDirectory) => directory.at('plugin') },
  ])('that is named $name', async ({ command }) => {
    const directory = await TestDirectory.make();
    const called: string[] = [];
    const run: RunProgram = async (path) => {
      called.push(path);
      return { exitCode: 1, stdout: '', stderr: '' };
    };
    const exec = { apiVersion: API_VERSION, command: command(directory) };
    const path = await directory.writeKubeconfig({ user: { exec } });
    await faultOf(new KubeconfigCredentials({ run, wallTime: () => 0 }, { path }).current());
    expect(called).toEqual([directory.at('plugin')]);
  });

  test('from PATH when its name has no slash', async () => {
    const { token } = await makePlugin({
      tweak: {
        command: 'printf',
        args: [
          '%s',
          `{"apiVersion":"${API_VERSION}","kind":"ExecCredential","status":{"token":"from-path"}}`,
        ],
      },
    });
    expect(await token()).toBe('Bearer from-path');
  });

  test('of the older version v1beta1 as well, in its own words', async () => {
    const apiVersion = 'client.authentication.k8s.io/v1beta1';
    const { directory, prints, token } = await makePlugin({ tweak: { apiVersion } });
    await prints({ token: 'beta' }, { apiVersion });
    expect(await token()).toBe('Bearer beta');
    expect(JSON.parse(await readFile(directory.at('info'), 'utf8'))).toMatchObject({ apiVersion });
  });
});

describe('what a plugin gave is kept', () => {
  test('for ever, without an expirationTimestamp or with one that cannot be read', async () => {
    for (const expiry of [{}, { expirationTimestamp: 'soon' }]) {
      const { clock, prints, runs, token } = await makePlugin();
      await prints({ token: 'first', ...expiry });
      await token();
      clock.advance(365 * 86_400_000);
      expect(await token()).toBe('Bearer first');
      expect(await runs()).toBe(1);
    }
  });

  test('until shortly before its expirationTimestamp, and not longer', async () => {
    const { clock, prints, runs, token } = await makePlugin();
    await prints({ token: 'short', expirationTimestamp: inSeconds(clock, 60) });
    expect(await token()).toBe('Bearer short');
    await prints({ token: 'next', expirationTimestamp: inSeconds(clock, 3600) });
    clock.advance(49_999);
    expect(await token()).toBe('Bearer short');
    expect(await runs()).toBe(1);
    clock.advance(1);
    expect(await token()).toBe('Bearer next');
    expect(await runs()).toBe(2);
  });

  test('until it was refused: then the plugin is asked again, at once', async () => {
    const { me, prints, runs, token } = await makePlugin();
    await token();
    await prints({ token: 'second' });
    expect(await token()).toBe('Bearer first');
    me.refused();
    expect(await token()).toBe('Bearer second');
    expect(await runs()).toBe(2);
  });

  test('until the kubeconfig is rewritten', async () => {
    const { directory, runs, token } = await makePlugin();
    await token();
    await directory.writeKubeconfig({ user: { token: 'plain' } });
    expect(await token()).toBe('Bearer plain');
    expect(await runs()).toBe(1);
  });

  test('no moment, when it is a failure: the next request asks again', async () => {
    const { directory, token } = await makePlugin();
    await directory.remove('answer.json');
    expect(await faultOf(token())).toMatchObject({ code: 'ERR_API_CREDENTIALS' });
    await directory.write(
      'answer.json',
      JSON.stringify({ apiVersion: API_VERSION, kind: 'ExecCredential', status: { token: 'late' } }),
    );
    expect(await token()).toBe('Bearer late');
  });
});

test('a client certificate of a plugin is shown to the server, together with the CA of the kubeconfig', async () => {
  const { ca, server: tls, alice } = certificates();
  const server = await openLoopbackApi(json('done'), tls);
  const cluster = { 'certificate-authority-data': Buffer.from(ca).toString('base64') };
  const { me, prints } = await makePlugin({ parts: { server: server.url.origin, cluster } });
  await prints({ clientCertificateData: alice.cert, clientKeyData: alice.key });
  const { client } = makeClient([server.url], { credentials: me });
  expect(await client.getJson(apiRequest())).toBe('done');
  expect(server.requests).toMatchObject([{ clientName: 'alice' }]);
  expect(server.requests[0]?.headers).not.toHaveProperty('authorization');
});

test('after a 401 the plugin is asked before the next request', async () => {
  const server = await openLoopbackApi((response, { headers }) => {
    response.writeHead(headers.authorization === 'Bearer good' ? 200 : 401).end('{}');
  });
  const { me, prints, runs } = await makePlugin({ parts: { server: server.url.origin } });
  const { client } = makeClient([server.url], { credentials: me });
  expect(await faultOf(client.getJson(apiRequest()))).toMatchObject({ status: 401 });
  await prints({ token: 'good' });
  expect(await client.getJson(apiRequest())).toEqual({});
  expect(await client.getJson(apiRequest())).toEqual({});
  expect(await runs()).toBe(2);
});
