/** Remembered proxy ports: replaced as a whole or not at all, and never trusted blindly. */
import { execFileSync } from 'node:child_process';
import { mkdir, mkdtemp, readFile, readdir, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeEach, describe, expect, onTestFinished, test } from 'vitest';
import { PortMemory } from '../../src/host/port-memory.ts';

let directory: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'kup-ports-'));
  onTestFinished(async () => rm(directory, { recursive: true, force: true }));
});

const PORTS = new Map([
  ['default/web:http/TCP/IPv4/cluster', 20_001],
  ['default/web:http/TCP/IPv6/cluster', 20_002],
]);

function stateDirFault(): Error {
  return expect.objectContaining({ code: 'ERR_STATE_DIR' }) as Error;
}

describe('what is saved', () => {
  test('is there for the next instance, in a directory made for it', async () => {
    const stateDir = join(directory, 'a', 'b');
    await new PortMemory(stateDir).save(PORTS);
    expect(await new PortMemory(stateDir).load()).toEqual(PORTS);
  });

  test('is one file, readable by its owner alone, with nothing left beside it', async () => {
    await new PortMemory(directory).save(PORTS);
    expect(await readdir(directory)).toEqual(['ports.json']);
    expect((await stat(join(directory, 'ports.json'))).mode & 0o777).toBe(0o600);
    expect(JSON.parse(await readFile(join(directory, 'ports.json'), 'utf8'))).toEqual({
      version: 1,
      ports: Object.fromEntries(PORTS),
    });
  });

  test('replaces the file by another, so that who reads sees the old one or the new one whole', async () => {
    const memory = new PortMemory(directory);
    await memory.save(PORTS);
    const before = await stat(join(directory, 'ports.json'));
    await memory.save(new Map([['a', 1]]));
    expect((await stat(join(directory, 'ports.json'))).ino).not.toBe(before.ino);
    expect(await memory.load()).toEqual(new Map([['a', 1]]));
  });

  test('is not written again when nothing changed', async () => {
    const memory = new PortMemory(directory);
    await memory.save(PORTS);
    const before = await stat(join(directory, 'ports.json'));
    await memory.save(new Map(PORTS));
    expect((await stat(join(directory, 'ports.json'))).ino).toBe(before.ino);
  });

  test('is written again when another instance has put its own in the place', async () => {
    const memory = new PortMemory(directory);
    await memory.save(PORTS);
    await new PortMemory(directory).save(new Map([['a', 1]]));
    await memory.save(PORTS);
    expect(await memory.load()).toEqual(PORTS);
  });

  test('is written again when somebody has removed it', async () => {
    const memory = new PortMemory(directory);
    await memory.save(PORTS);
    await rm(join(directory, 'ports.json'));
    await memory.save(PORTS);
    expect(await memory.load()).toEqual(PORTS);
  });

  test('survives a crash in the middle of writing', async () => {
    await new PortMemory(directory).save(PORTS);
    await writeFile(join(directory, 'ports.json.new'), '{"version":1,"por');
    const memory = new PortMemory(directory);
    expect(await memory.load()).toEqual(PORTS);
    await memory.save(new Map([['a', 1]]));
    expect(await readdir(directory)).toEqual(['ports.json']);
  });
});

describe('load', () => {
  test.each([
    { name: 'the file', stateDir: () => directory },
    { name: 'the directory', stateDir: () => join(directory, 'none') },
  ])('is empty when $name is not there', async ({ stateDir }) => {
    expect(await new PortMemory(stateDir()).load()).toEqual(new Map());
  });

  test.each([
    { name: 'empty', text: '' },
    { name: 'cut off', text: '{"version":1,"ports":{"a":2' },
    { name: 'of another version', text: '{"version":2,"ports":{"a":20001}}' },
    { name: 'without version', text: '{"ports":{"a":20001}}' },
    { name: 'without ports', text: '{"version":1}' },
    { name: 'with null for ports', text: '{"version":1,"ports":null}' },
    { name: 'null', text: 'null' },
    { name: 'a number', text: '17' },
    { name: 'binary', text: '\u0000\u0001\uFFFD\u007F'.repeat(1000) },
    { name: 'a list', text: '[]' },
  ])('rejects by its code when the file is $name', async ({ text }) => {
    await writeFile(join(directory, 'ports.json'), text);
    await expect(new PortMemory(directory).load()).rejects.toThrow(stateDirFault());
  });

  test('does not read a file of 100 MB', async () => {
    const path = join(directory, 'ports.json');
    await writeFile(path, '{"version":1,"ports":{}}');
    await truncate(path, 100 * 1024 * 1024);
    await expect(new PortMemory(directory).load()).rejects.toMatchObject({
      code: 'ERR_STATE_DIR',
      cause: { message: '104857600 bytes are too many' },
    });
  });

  test('reads as many ports as there can be, with names as long as they can be', async () => {
    const name = `${'n'.repeat(63)}/${'s'.repeat(63)}:${'p'.repeat(15)}/TCP/IPv4/cluster`;
    const all = new Map(
      Array.from({ length: 40_000 }, (_, index) => [`${name}${index}`, 20_000 + (index % 10_000)]),
    );
    await new PortMemory(directory).save(all);
    expect(await new PortMemory(directory).load()).toEqual(all);
  });

  test('does not wait at a pipe that stands in the place of the file', async () => {
    execFileSync('mkfifo', [join(directory, 'ports.json')]);
    await expect(new PortMemory(directory).load()).rejects.toThrow(stateDirFault());
  });

  test('leaves out what is no port and keeps the rest', async () => {
    const ports = {
      good: 20_001,
      zero: 0,
      large: 65_536,
      half: 1.5,
      text: '20002',
      none: null,
      last: 65_535,
    };
    await writeFile(join(directory, 'ports.json'), JSON.stringify({ version: 1, ports }));
    expect(await new PortMemory(directory).load()).toEqual(
      new Map([
        ['good', 20_001],
        ['last', 65_535],
      ]),
    );
  });
});

describe('a directory that cannot be used', () => {
  test('is told by its code when saving, loading and removing', async () => {
    // Root may write anywhere, but not below a file.
    await writeFile(join(directory, 'file'), '');
    const memory = new PortMemory(join(directory, 'file', 'state'));
    await expect(memory.save(PORTS)).rejects.toThrow(stateDirFault());
    await expect(memory.load()).rejects.toThrow(stateDirFault());
  });

  test('does not make the next save believe that it had succeeded', async () => {
    await writeFile(join(directory, 'file'), '');
    const memory = new PortMemory(join(directory, 'file'));
    await expect(memory.save(PORTS)).rejects.toThrow(stateDirFault());
    await rm(join(directory, 'file'));
    await memory.save(PORTS);
    expect(await memory.load()).toEqual(PORTS);
  });

  test('is one in which a directory stands in the place of the file', async () => {
    await mkdir(join(directory, 'ports.json', 'x'), { recursive: true });
    const memory = new PortMemory(directory);
    await expect(memory.save(PORTS)).rejects.toThrow(stateDirFault());
    await expect(memory.remove()).rejects.toThrow(stateDirFault());
  });
});

describe('remove', () => {
  test('leaves nothing of ours, not even half a file, and may be called twice', async () => {
    const memory = new PortMemory(directory);
    await memory.save(PORTS);
    await writeFile(join(directory, 'ports.json.new'), '{');
    await memory.remove();
    await memory.remove();
    expect(await readdir(directory)).toEqual([]);
    expect(await memory.load()).toEqual(new Map());
  });

  test('leaves the files of others', async () => {
    await writeFile(join(directory, 'other'), '');
    await new PortMemory(directory).remove();
    expect(await readdir(directory)).toEqual(['other']);
  });

  test('does not keep the same ports from being saved again', async () => {
    const memory = new PortMemory(directory);
    await memory.save(PORTS);
    await memory.remove();
    await memory.save(PORTS);
    expect(await memory.load()).toEqual(PORTS);
  });
});

test('without a directory nothing is kept and nothing fails', async () => {
  const memory = new PortMemory(undefined);
  await memory.save(PORTS);
  expect(await memory.load()).toEqual(new Map());
  await memory.remove();
});
