/** Exec plugins of a kubeconfig that are no help: what is said about them. */
import { describe, expect, test } from 'vitest';
import { errorText } from '../../../src/errors.ts';
import type { RunProgram } from '../../../src/sources/kubernetes/exec-credentials.ts';
import { preloadKubeconfigLibrary } from '../../support/kubeconfig.ts';
import { everythingIn, faultOf } from '../../support/loopback-api.ts';
import { API_VERSION, PLUGIN, makePlugin, runReally } from './exec-plugin.ts';

preloadKubeconfigLibrary();

const SECRET = 'hunter2-hunter2';

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
