/** Whom the proxy shows itself as: what is read from which file, and when. */
import { symlink } from 'node:fs/promises';
import { describe, expect, test } from 'vitest';
import { errorText } from '../../../src/errors.ts';
import {
  AnonymousCredentials,
  type KubeconfigCredentials,
  ServiceAccountCredentials,
} from '../../../src/sources/kubernetes/credentials.ts';
import {
  type KubeconfigParts,
  TestDirectory,
  credentialsOf,
  preloadKubeconfigLibrary,
} from '../../support/kubeconfig.ts';
import { everythingIn, faultOf } from '../../support/loopback-api.ts';

preloadKubeconfigLibrary();

const SECRET = 'hunter2-hunter2';

async function withUser(
  user: object | null,
): Promise<{ directory: TestDirectory; me: KubeconfigCredentials }> {
  const directory = await TestDirectory.make();
  return { directory, me: credentialsOf(await directory.writeKubeconfig({ user })) };
}

describe('a kubeconfig says who we are', () => {
  const basic = `Basic ${Buffer.from('admin:pass:wörd').toString('base64')}`;
  test.for([
    { name: 'a token', user: { token: 'abc' }, headers: { authorization: 'Bearer abc' } },
    {
      name: 'a token that YAML takes for a number',
      user: { token: 12345 },
      headers: { authorization: 'Bearer 12345' },
    },
    {
      name: 'a user name and a password',
      user: { username: 'admin', password: 'pass:wörd' },
      headers: { authorization: basic },
    },
    {
      name: 'whom to act for',
      user: { token: 'abc', as: 'somebody' },
      headers: { authorization: 'Bearer abc', 'impersonate-user': 'somebody' },
    },
    { name: 'nothing about the user', user: {}, headers: {} },
    { name: 'no user at all', user: null, headers: {} },
  ])('$name', async ({ user, headers }) => {
    const { me } = await withUser(user);
    expect((await me.current()).headers).toEqual(headers);
  });

  test('and where the API server is', async () => {
    const directory = await TestDirectory.make();
    const me = credentialsOf(await directory.writeKubeconfig({ server: 'https://192.0.2.1:6443/' }));
    expect(await me.server()).toBe('https://192.0.2.1:6443');
  });

  test('as of now: a rewritten kubeconfig counts from the next request on', async () => {
    const { directory, me } = await withUser({ token: 'old' });
    expect((await me.current()).headers).toEqual({ authorization: 'Bearer old' });
    await directory.writeKubeconfig({ server: 'https://192.0.2.9:6443', user: { token: 'new' } });
    expect((await me.current()).headers).toEqual({ authorization: 'Bearer new' });
    expect(await me.server()).toBe('https://192.0.2.9:6443');
  });

  test('again, when it was broken for a while', async () => {
    const { directory, me } = await withUser({ token: 'old' });
    await me.current();
    await directory.write('kubeconfig', '{"users": [');
    expect(await faultOf(me.current())).toMatchObject({ code: 'ERR_API_CREDENTIALS' });
    await directory.writeKubeconfig({ user: { token: 'new' } });
    expect((await me.current()).headers).toEqual({ authorization: 'Bearer new' });
  });

  test('for many requests at a time the same', async () => {
    const { me } = await withUser({ token: 'abc' });
    const all = await Promise.all([me.current(), me.current(), me.current()]);
    expect(new Set(all.map(({ headers }) => headers['authorization']))).toEqual(new Set(['Bearer abc']));
  });
});

describe('a token file', () => {
  test('is found by its absolute path, and relative to the kubeconfig', async () => {
    const { directory, me } = await withUser({ tokenFile: 'secrets.token' });
    const absolute = await directory.write('secrets.token', 'from-file');
    expect((await me.current()).headers).toEqual({ authorization: 'Bearer from-file' });
    const elsewhere = await withUser({ tokenFile: absolute });
    expect((await elsewhere.me.current()).headers).toEqual({ authorization: 'Bearer from-file' });
  });

  test('is read for every request: what replaced it is used by the next one', async () => {
    const { directory, me } = await withUser({ tokenFile: 'token' });
    for (const token of ['one', 'two', 'three']) {
      await directory.write('token', token);
      expect((await me.current()).headers).toEqual({ authorization: `Bearer ${token}` });
    }
  });

  test.for([{ end: '\n' }, { end: '\r\n' }, { end: '  \n\n' }])(
    'may end in $end, which is no part of the token',
    async ({ end }) => {
      const { directory, me } = await withUser({ tokenFile: 'token' });
      await directory.write('token', `abc${end}`);
      expect((await me.current()).headers).toEqual({ authorization: 'Bearer abc' });
    },
  );

  test('wins over a token, also over one that still worked before', async () => {
    const { directory, me } = await withUser({ token: 'from-kubeconfig', tokenFile: 'token' });
    await directory.write('token', 'from-file');
    expect((await me.current()).headers).toEqual({ authorization: 'Bearer from-file' });
    // And never the other way round: the token of the kubeconfig may be years old.
    await directory.remove('token');
    expect(await faultOf(me.current())).toMatchObject({ code: 'ERR_API_CREDENTIALS' });
  });

  test('that is named by empty text is none', async () => {
    const { me } = await withUser({ token: 'abc', tokenFile: '' });
    expect((await me.current()).headers).toEqual({ authorization: 'Bearer abc' });
  });

  test.for([
    { name: 'is missing', text: undefined, why: 'ENOENT' },
    { name: 'is empty', text: '', why: 'is empty' },
    { name: 'has white space only', text: ' \n', why: 'is empty' },
  ])('that $name is named in the error', async ({ text, why }) => {
    const { directory, me } = await withUser({ tokenFile: 'token' });
    if (text !== undefined) await directory.write('token', text);
    const fault = await faultOf(me.current());
    expect(fault.code).toBe('ERR_API_CREDENTIALS');
    expect(errorText(fault)).toContain(directory.at('token'));
    expect(errorText(fault)).toContain(why);
  });

  test('with two lines makes no request, which would fail as if the server were at fault', async () => {
    const { directory, me } = await withUser({ tokenFile: 'token' });
    await directory.write('token', `${SECRET}\nsecond\n`);
    const fault = await faultOf(me.current());
    expect(fault).toMatchObject({ code: 'ERR_API_CREDENTIALS', isServerFault: false });
    expect(errorText(fault)).toContain(directory.at('kubeconfig'));
    expect(everythingIn(fault)).not.toContain(SECRET);
  });
});

describe('equal TLS material has the same key, and other material another', () => {
  const PEM = Buffer.from('some pem').toString('base64');
  const OTHER = Buffer.from('other pem').toString('base64');
  async function keyOf(parts: KubeconfigParts): Promise<string> {
    const directory = await TestDirectory.make();
    return (await credentialsOf(await directory.writeKubeconfig(parts)).current()).tlsKey;
  }

  test('whatever the token is', async () => {
    const one = await keyOf({ cluster: { 'certificate-authority-data': PEM }, user: { token: 'one' } });
    const two = await keyOf({ cluster: { 'certificate-authority-data': PEM }, user: { token: 'two' } });
    expect(two).toBe(one);
  });

  test('of every kind', async () => {
    const keys = await Promise.all(
      [
        {},
        { cluster: { 'certificate-authority-data': PEM } },
        { cluster: { 'certificate-authority-data': OTHER } },
        { cluster: { 'tls-server-name': 'a' } },
        { cluster: { 'tls-server-name': 'b' } },
        { cluster: { 'insecure-skip-tls-verify': true } },
        { user: { 'client-certificate-data': PEM } },
        { user: { 'client-certificate-data': OTHER } },
        { user: { 'client-key-data': PEM } },
        { user: { 'client-certificate-data': PEM, 'client-key-data': OTHER } },
        { user: { 'client-certificate-data': OTHER, 'client-key-data': PEM } },
      ].map(keyOf),
    );
    expect(new Set(keys).size).toBe(keys.length);
  });

  test('so that a certificate that was replaced on disk is seen, and one that was written anew is not', async () => {
    const directory = await TestDirectory.make();
    await directory.write('client.crt', 'old');
    await directory.write('client.key', 'key');
    const user = { 'client-certificate': 'client.crt', 'client-key': 'client.key' };
    const me = credentialsOf(await directory.writeKubeconfig({ user }));
    const { tlsKey } = await me.current();
    await directory.write('client.crt', 'old');
    expect((await me.current()).tlsKey).toBe(tlsKey);
    await directory.write('client.crt', 'new');
    expect((await me.current()).tlsKey).not.toBe(tlsKey);
  });
});

describe('the service account of a pod', () => {
  /** As the kubelet lays it out: the files are links into a directory that is exchanged as a whole. */
  async function serviceAccount(): Promise<{ directory: TestDirectory; me: ServiceAccountCredentials }> {
    const directory = await TestDirectory.make();
    return { directory, me: new ServiceAccountCredentials({ directory: directory.path }) };
  }

  test('gives its token and its CA, both as they are on disk at every request', async () => {
    const { directory, me } = await serviceAccount();
    await directory.write('..data-token', 'one\n');
    await symlink('..data-token', directory.at('token'));
    await directory.write('ca.crt', 'CA 1');
    const first = await me.current();
    expect(first).toMatchObject({ headers: { authorization: 'Bearer one' }, tls: { ca: 'CA 1' } });
    await directory.write('..data-token', 'two\n');
    const second = await me.current();
    expect(second).toMatchObject({ headers: { authorization: 'Bearer two' }, tlsKey: first.tlsKey });
    await directory.write('ca.crt', 'CA 2');
    const third = await me.current();
    expect(third.tls).toEqual({ ca: 'CA 2' });
    expect(third.tlsKey).not.toBe(first.tlsKey);
  });

  test.for([
    { lost: 'token', kept: 'ca.crt' },
    { lost: 'ca.crt', kept: 'token' },
  ])('is refused without its $lost, by its path', async ({ lost, kept }) => {
    const { directory, me } = await serviceAccount();
    await directory.write(kept, SECRET);
    const fault = await faultOf(me.current());
    expect(fault.code).toBe('ERR_API_CREDENTIALS');
    expect(errorText(fault)).toContain(directory.at(lost));
    expect(everythingIn(fault)).not.toContain(SECRET);
  });

  test('is one when there is a token, and none otherwise', async () => {
    const { directory, me } = await serviceAccount();
    expect(await me.exist()).toBe(false);
    await directory.write('token', 'abc');
    expect(await me.exist()).toBe(true);
  });
});

test('nobody shows nothing, and trusts whom Node trusts', async () => {
  const nobody = new AnonymousCredentials();
  nobody.refused();
  expect(await nobody.current()).toMatchObject({ headers: {}, tls: {} });
});
