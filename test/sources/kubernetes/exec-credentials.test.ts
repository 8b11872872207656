/** Exec plugins of a kubeconfig: small shell scripts, run by the real `exec`. */
import { readFile } from 'node:fs/promises';
import { describe, expect, test } from 'vitest';
import { errorText } from '../../../src/errors.ts';
import { exec } from '../../../src/host/exec.ts';
import { KubeconfigCredentials } from '../../../src/sources/kubernetes/credentials.ts';
import type { RunProgram } from '../../../src/sources/kubernetes/exec-credentials.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { TestDirectory } from '../../support/kubeconfig.ts';
import {
  apiRequest,
  everythingIn,
  faultOf,
  json,
  makeClient,
  openLoopbackApi,
} from '../../support/loopback-api.ts';
import { useTestCertificates } from '../../support/test-ca.ts';

const API_VERSION = 'client.authentication.k8s.io/v1';
const SECRET = 'hunter2-hunter2';
const certificates = useTestCertificates();

/** Notes how it was called, and prints `answer.json` of its directory. */
const PLUGIN = `#!/bin/sh
cd "$(dirname "$0")" || exit 9
echo run >>runs
printf '%s' "$KUBERNETES_EXEC_INFO" >info
printf '%s|%s|%s' "$REGION" "$EMPTY" "$OURS" >env
for arg in "$@"; do printf '%s\\n' "$arg"; done >args
cat answer.json
`;

const runReally: RunProgram = async (command, args, { timeoutMs, env }) =>
  exec(command, args, { timeoutMs, env: { PATH: process.env['PATH'] ?? '', OURS: 'yes', ...env } });

interface Plugin {
  readonly directory: TestDirectory;
  readonly clock: FakeClock;
  readonly me: KubeconfigCredentials;
  /** What it prints from now on. */
  readonly prints: (status: object, tweak?: object) => Promise<void>;
  /** How often it was run. */
  readonly runs: () => Promise<number>;
  readonly token: () => Promise<string | undefined>;
}

async function makePlugin({
  tweak = {},
  parts = {},
  script = PLUGIN,
  run = runReally,
}: {
  readonly tweak?: object;
  readonly parts?: { readonly server?: string; readonly cluster?: object };
  readonly script?: string;
  readonly run?: RunProgram;
} = {}): Promise<Plugin> {
  const directory = await TestDirectory.make();
  await directory.writeProgram('plugin', script);
  const clock = new FakeClock();
  const plugin = { apiVersion: API_VERSION, command: './plugin', ...tweak };
  const path = await directory.writeKubeconfig({ ...parts, user: { exec: plugin } });
  const me = new KubeconfigCredentials({ run, wallTime: () => clock.wallTime() }, { path });
  const prints = async (status: object, answer: object = {}): Promise<void> => {
    const text = JSON.stringify({ apiVersion: API_VERSION, kind: 'ExecCredential', status, ...answer });
    await directory.write('answer.json', text);
  };
  await prints({ token: 'first' });
  const runs = async (): Promise<number> =>
    (await readFile(directory.at('runs'), 'utf8').catch(() => '')).split('\n').length - 1;
  return {
    directory,
    clock,
    me,
    prints,
    runs,
    token: async () => (await me.current()).headers['authorization'],
  };
}

const inSeconds = (clock: FakeClock, seconds: number): string =>
  new Date(clock.wallTime() + seconds * 1000).toISOString();

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

  test('for all who ask at the same time: the plugin runs once, also the very first time', async () => {
    const { me, runs, token } = await makePlugin();
    expect(await Promise.all([token(), token(), token()])).toEqual(
      Array.from({ length: 3 }, () => 'Bearer first'),
    );
    expect(await runs()).toBe(1);
    me.refused();
    await Promise.all([token(), token(), token()]);
    expect(await runs()).toBe(2);
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

describe('a plugin that is no help is named, with what it said', () => {
  test.for([
    {
      name: 'ends with an error',
      script: '#!/bin/sh\necho "log in first" >&2\nexit 3\n',
      says: 'ended with 3: log in first',
    },
    { name: 'is killed', script: '#!/bin/sh\necho ouch >&2\nkill -TERM $$\n', says: 'could not be run' },
    { name: 'prints nothing', script: '#!/bin/sh\n', says: 'printed something else than JSON' },
    { name: 'prints a list', script: '#!/bin/sh\necho "[]"\n', says: 'printed no ExecCredential' },
  ])('that $name', async ({ script, says }) => {
    const { directory, me } = await makePlugin({ script });
    const fault = await faultOf(me.current());
    expect(fault).toMatchObject({ code: 'ERR_API_CREDENTIALS', isServerFault: false });
    expect(errorText(fault)).toContain(`exec plugin ${JSON.stringify(directory.at('plugin'))} `);
    expect(errorText(fault)).toContain(says);
  });

  test('that is not there', async () => {
    const { directory, me } = await makePlugin();
    await directory.remove('plugin');
    expect(errorText(await faultOf(me.current()))).toContain(`${directory.at('plugin')} is not installed`);
  });

  test('that may not be run', async () => {
    const { directory, me } = await makePlugin();
    await directory.write('plugin', PLUGIN);
    expect(errorText(await faultOf(me.current()))).toContain(
      `${directory.at('plugin')} could not be started`,
    );
  });

  test('that never ends: it is given a minute and then killed', async () => {
    const asked: number[] = [];
    const run: RunProgram = async (command, args, { timeoutMs, env }) => {
      asked.push(timeoutMs);
      return runReally(command, args, { timeoutMs: 100, env });
    };
    const { me } = await makePlugin({ run, script: '#!/bin/sh\nwhile :; do :; done\n' });
    const fault = await faultOf(me.current());
    expect(fault).toMatchObject({ code: 'ERR_API_CREDENTIALS', cause: { code: 'ERR_EXEC_TIMEOUT' } });
    expect(asked).toEqual([60_000]);
  });

  const answer = (tweak: object): string =>
    JSON.stringify({ apiVersion: API_VERSION, kind: 'ExecCredential', status: { token: SECRET }, ...tweak });
  test.for([
    { name: 'prints garbage', output: `token: ${SECRET}`, says: 'printed something else than JSON' },
    {
      name: 'prints half an answer',
      output: answer({}).slice(0, -1),
      says: 'printed something else than JSON',
    },
    { name: 'prints another kind', output: answer({ kind: 'Secret' }), says: 'printed no ExecCredential' },
    {
      name: 'prints another version',
      output: answer({ apiVersion: 'client.authentication.k8s.io/v1beta1' }),
      says: 'printed apiVersion "client.authentication.k8s.io/v1beta1", not client.authentication.k8s.io/v1',
    },
    {
      name: 'prints no version',
      output: answer({ apiVersion: undefined }),
      says: 'printed apiVersion undefined, not',
    },
    {
      name: 'prints no status',
      output: answer({ status: undefined, spec: { token: SECRET } }),
      says: 'printed neither',
    },
    {
      name: 'prints a token that is no text',
      output: answer({ status: { token: [SECRET] } }),
      says: 'printed neither',
    },
    {
      name: 'prints an empty token',
      output: answer({ status: { token: '', secret: SECRET } }),
      says: 'printed neither',
    },
    {
      name: 'prints a key without certificate',
      output: answer({ status: { clientKeyData: SECRET } }),
      says: 'printed neither',
    },
    {
      name: 'prints a token with a line break',
      output: answer({ status: { token: `${SECRET}\nx` } }),
      says: 'line break',
    },
  ])('that $name, and its output, which may hold a secret, is not quoted', async ({ output, says }) => {
    const { directory, me } = await makePlugin();
    await directory.write('answer.json', output);
    const fault = await faultOf(me.current());
    expect(fault.code).toBe('ERR_API_CREDENTIALS');
    expect(errorText(fault)).toContain(says);
    expect(everythingIn(fault)).not.toContain(SECRET);
  });

  test('that talks much on standard error, but not at full length', async () => {
    const { me } = await makePlugin({ script: '#!/bin/sh\nyes no | head -c 100000 >&2\nexit 1\n' });
    const { message } = await faultOf(me.current());
    expect(message).toContain('no\nno');
    expect(message.length).toBeLessThan(1000);
  });
});
