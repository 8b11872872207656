/** What is said about an addon that is not there, does not load or is out of date. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { PROTOCOL, loadAddon } from '../../../src/engine/native/addon.ts';
import { isAddonBuilt } from '../../support/native-addon.ts';

/** A file with that content where an addon is looked for. */
async function makeFile(name: string, content: string): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'kup-addon-'));
  onTestFinished(async () => rm(directory, { recursive: true }));
  await writeFile(join(directory, name), content);
  return join(directory, name);
}

test('an addon that was never built is told with its path and the command', () => {
  expect(() => loadAddon('/nowhere/kup_engine.node')).toThrow(
    '/nowhere/kup_engine.node is not there: npm run build:native makes it',
  );
});

test('an addon of other sources is to be rebuilt', async () => {
  const file = await makeFile('addon.cjs', `module.exports = { protocol: ${PROTOCOL - 1} }`);

  expect(() => loadAddon(file)).toThrow('rebuild it: npm run build:native');
});

test('a file that is no addon says so', async () => {
  const file = await makeFile('kup_engine.node', 'not ELF');

  expect(() => loadAddon(file)).toThrow(/invalid ELF header|file too short/);
});

test.skipIf(!isAddonBuilt())('the one that was built loads, in one thread as often as one likes', () => {
  expect(loadAddon().protocol).toBe(PROTOCOL);
  expect(loadAddon()).toBe(loadAddon());
});
