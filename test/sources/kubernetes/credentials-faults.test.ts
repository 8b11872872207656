/** Kubeconfigs that cannot be used: what is said about them, and that no secret stands in it. */
import { describe, expect, test } from 'vitest';
import { errorText } from '../../../src/errors.ts';
import {
  type KubeconfigParts,
  TestDirectory,
  credentialsOf,
  kubeconfigText,
  preloadKubeconfigLibrary,
} from '../../support/kubeconfig.ts';
import { everythingIn, faultOf } from '../../support/loopback-api.ts';

preloadKubeconfigLibrary();

const SECRET = 'hunter2-hunter2';

describe('a kubeconfig that cannot be used is refused, with what is wrong in it', () => {
  const good = JSON.parse(kubeconfigText()) as Record<string, unknown>;
  const parts = (tweak: KubeconfigParts): string => kubeconfigText(tweak);
  const without = (tweak: object): string => JSON.stringify({ ...good, ...tweak });
  test.for([
    { name: 'no YAML', text: 'a: [b', says: 'it is no kubeconfig' },
    { name: 'nothing in it', text: '', says: 'it is no kubeconfig' },
    { name: 'a number', text: '17', says: 'current-context "" is not in it' },
    { name: 'null', text: 'null', says: 'it is no kubeconfig' },
    {
      name: 'a key that stands twice',
      text: 'users: []\nusers: []\n',
      says: 'duplicated mapping key in line 2',
    },
    {
      name: 'no current-context',
      text: without({ 'current-context': undefined }),
      says: 'current-context "" is not in it',
    },
    {
      name: 'another context',
      text: without({ 'current-context': 'prod' }),
      says: 'current-context "prod" is not in it',
    },
    {
      name: 'no contexts',
      text: without({ contexts: undefined }),
      says: 'current-context "test" is not in it',
    },
    { name: 'no such cluster', text: without({ clusters: [] }), says: 'cluster "here" is not in it' },
    {
      name: 'a cluster without server',
      text: without({ clusters: [{ name: 'here', cluster: {} }] }),
      says: 'cluster "here"',
    },
    { name: 'no such user', text: without({ users: [] }), says: 'user "me" is not in it' },
    {
      name: 'a proxy',
      text: parts({ cluster: { 'proxy-url': 'http://proxy:3128' } }),
      says: 'proxy-url "http://proxy:3128" is not supported',
    },
    { name: 'an exec that is no map', text: parts({ user: { exec: 'aws' } }), says: 'exec is no map' },
    {
      name: 'an exec without command',
      text: parts({ user: { exec: { apiVersion: 'client.authentication.k8s.io/v1' } } }),
      says: 'exec has no command',
    },
    {
      name: 'an exec of another API',
      text: parts({ user: { exec: { apiVersion: 'v1', command: 'x' } } }),
      says: 'exec has no apiVersion',
    },
  ])('$name', async ({ text, says }) => {
    const directory = await TestDirectory.make();
    const path = await directory.write('kubeconfig', text);
    for (const fault of [
      await faultOf(credentialsOf(path).server()),
      await faultOf(credentialsOf(path).current()),
    ]) {
      expect(fault).toMatchObject({ code: 'ERR_API_CREDENTIALS', isServerFault: false });
      expect(errorText(fault)).toContain(`kubeconfig ${path}`);
      expect(errorText(fault)).toContain(says);
    }
  });

  test('a missing one by its path, and it is used as soon as it is there', async () => {
    const directory = await TestDirectory.make();
    const me = credentialsOf(directory.at('kubeconfig'));
    const fault = await faultOf(me.current());
    expect(fault.code).toBe('ERR_API_CREDENTIALS');
    expect(errorText(fault)).toContain(directory.at('kubeconfig'));
    await directory.writeKubeconfig({ user: { token: 'abc' } });
    expect((await me.current()).headers).toEqual({ authorization: 'Bearer abc' });
  });

  test('but a proxy-url of empty text is none, as for client-go', async () => {
    const directory = await TestDirectory.make();
    for (const proxy of ['', null]) {
      await directory.writeKubeconfig({ cluster: { 'proxy-url': proxy } });
      expect(await credentialsOf(directory.at('kubeconfig')).server()).toBe('https://127.0.0.1:6443');
    }
  });

  test.for(['certificate-authority', 'client-certificate', 'client-key'])(
    'a missing %s by its path',
    async (field) => {
      const directory = await TestDirectory.make();
      const lost = { [field]: 'lost.pem' };
      await directory.writeKubeconfig(field.startsWith('client') ? { user: lost } : { cluster: lost });
      const fault = await faultOf(credentialsOf(directory.at('kubeconfig')).current());
      expect(fault.code).toBe('ERR_API_CREDENTIALS');
      expect(errorText(fault)).toContain(directory.at('lost.pem'));
    },
  );
});

describe('a secret stands in no error', () => {
  const before = `users:\n- name: me\n  user:\n    token: ${SECRET}\n`;
  test.for([
    {
      name: 'YAML that breaks in the line of the token',
      text: `{users: [{name: me, user: {token: ${SECRET}]`,
    },
    { name: 'YAML that breaks in the next line', text: `${before}   broken: [\n` },
    { name: 'a second token', text: `${before}    token: ${SECRET}\n` },
    { name: 'an alias that is not there', text: `${before}    as: *nobody\n` },
    { name: 'a tag that is unknown', text: `${before}    as: !who me\n` },
    { name: 'no context', text: before },
    { name: 'a token with a line break', text: kubeconfigText({ user: { token: `${SECRET}\nx` } }) },
    {
      name: 'a token with a character that no header may have',
      text: kubeconfigText({ user: { token: `${SECRET}→` } }),
    },
    { name: 'an exec with a secret that makes no sense', text: kubeconfigText({ user: { exec: [SECRET] } }) },
  ])('of $name', async ({ text }) => {
    const directory = await TestDirectory.make();
    const path = await directory.write('kubeconfig', text);
    const fault = await faultOf(credentialsOf(path).current());
    expect(fault.code).toBe('ERR_API_CREDENTIALS');
    expect(errorText(fault)).not.toContain(SECRET);
    expect(everythingIn(fault)).not.toContain(SECRET);
  });
});
