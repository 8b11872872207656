/** A file of the state directory: read with care, replaced as a whole, whatever stands there. */
import { execFileSync } from 'node:child_process';
import { mkdir, mkdtemp, readFile, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeEach, expect, onTestFinished, test } from 'vitest';
import { StateFile } from '../../src/host/state-file.ts';

let directory: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'kup-state-'));
  onTestFinished(async () => rm(directory, { recursive: true }));
});

const make = (maxBytes = 100): StateFile => new StateFile(join(directory, 'state', 'one.json'), { maxBytes });

test('what was put is read, also in a directory that did not exist; nothing else is left there', async () => {
  const file = make();
  expect([await file.read(), await file.inode()]).toEqual([undefined, undefined]);
  expect(await file.replace('first')).toBe(await file.inode());
  await file.replace('second');
  expect(await file.read()).toBe('second');
  expect(await readdir(join(directory, 'state'))).toEqual(['one.json']);
  await file.remove();
  expect(await readdir(join(directory, 'state'))).toEqual([]);
});

test('what is too large or no file is not read', async () => {
  const file = make(3);
  await file.replace('more');
  await expect(file.read()).rejects.toMatchObject({ code: 'ERR_STATE_DIR' });
  await file.remove();
  await mkdir(join(directory, 'state', 'one.json'));
  await expect(file.read()).rejects.toMatchObject({ code: 'ERR_STATE_DIR' });
});

test('a pipe in the way of the new file holds nobody up, and a link there is not followed', async () => {
  const file = make();
  const temporary = join(directory, 'state', 'one.json.new');
  await mkdir(join(directory, 'state'));
  execFileSync('mkfifo', [temporary]);
  await file.replace('past the pipe');
  expect(await file.read()).toBe('past the pipe');

  const precious = join(directory, 'precious');
  await writeFile(precious, 'precious');
  await symlink(precious, temporary);
  await file.replace('past the link');
  expect([await file.read(), await readFile(precious, 'utf8')]).toEqual(['past the link', 'precious']);
});

test('what could not be written whole leaves the old file, and no half of a new one', async () => {
  const file = make();
  await file.replace('old');
  async function* broken(): AsyncGenerator<string> {
    yield 'half';
    throw new Error('no more');
  }
  await expect(file.replace(broken())).rejects.toThrow('no more');
  expect(await file.read()).toBe('old');
  expect(await readdir(join(directory, 'state'))).toEqual(['one.json']);
});
