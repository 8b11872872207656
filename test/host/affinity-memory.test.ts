/** Remembered affinity: replaced as a whole or not at all, never trusted blindly, and never younger than it was. */
import { mkdir, mkdtemp, readFile, readdir, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { beforeEach, describe, expect, onTestFinished, test } from 'vitest';
import type { Clock } from '../../src/clock.ts';
import {
  AffinityMemory,
  MAX_REMEMBERED_TIES,
  type PoolTies,
  type RememberedTie,
} from '../../src/host/affinity-memory.ts';

let directory: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'kup-affinity-'));
  onTestFinished(async () => rm(directory, { recursive: true, force: true }));
});

const WEB = 'default/web:http/TCP/IPv4/cluster';
const DNS = 'default/dns:dns/UDP/IPv6/local';

/** Two clocks that need not agree: each process has a monotonic one of its own, and the wall's may jump. */
function clockAt(now: number, wallTime: number): Clock {
  return { now: () => now, wallTime: () => wallTime };
}

function memoryAt(now: number, wallTime: number, stateDir: string | undefined = directory): AffinityMemory {
  return new AffinityMemory({ clock: clockAt(now, wallTime) }, stateDir);
}

function pool(name: string, ties: readonly RememberedTie[]): PoolTies {
  return { pool: name, size: ties.length, ties };
}

const POOLS = [
  pool(WEB, [
    { client: '10.0.0.7', endpointKey: '10.244.1.11:80', lastUsed: 1_000 },
    { client: '10.0.0.8', endpointKey: '10.244.1.12:80', lastUsed: 2_000 },
    { client: '10.0.0.9', endpointKey: '10.244.1.11:80', lastUsed: 5_000 },
  ]),
  pool(DNS, [{ client: 'fd00::7', endpointKey: '[fd00:244:1::11]:53', lastUsed: 4_000 }]),
];

function stateDirFault(): Error {
  return expect.objectContaining({ code: 'ERR_STATE_DIR' }) as Error;
}

function agesAt(now: number, ties: readonly RememberedTie[] = []): Record<string, number> {
  return Object.fromEntries(ties.map(({ client, lastUsed }) => [client, now - lastUsed]));
}

describe('what is saved', () => {
  test('is there for the next instance, by pool, in a directory made for it', async () => {
    const stateDir = join(directory, 'a', 'b');
    await memoryAt(5_000, 1_000_000, stateDir).save(POOLS);
    const loaded = await memoryAt(5_000, 1_000_000, stateDir).load();
    expect(loaded).toEqual(new Map(POOLS.map(({ pool: name, ties }) => [name, [...ties]])));
  });

  test('is one file, readable by its owner alone, with nothing left beside it', async () => {
    await memoryAt(5_000, 1_000_000).save(POOLS);
    expect(await readdir(directory)).toEqual(['affinity.json']);
    expect((await stat(join(directory, 'affinity.json'))).mode & 0o777).toBe(0o600);
    expect(JSON.parse(await readFile(join(directory, 'affinity.json'), 'utf8'))).toEqual({
      version: 1,
      savedAt: 1_000_000,
      pools: [
        {
          pool: WEB,
          ties: [
            ['10.0.0.7', 0, 4_000],
            ['10.0.0.8', 1, 3_000],
            ['10.0.0.9', 0, 0],
          ],
          endpoints: ['10.244.1.11:80', '10.244.1.12:80'],
        },
        { pool: DNS, ties: [['fd00::7', 0, 1_000]], endpoints: ['[fd00:244:1::11]:53'] },
      ],
    });
  });

  test('survives a crash in the middle of writing', async () => {
    await memoryAt(5_000, 0).save(POOLS);
    await writeFile(join(directory, 'affinity.json.new'), '{"version":1,"sav');
    expect((await memoryAt(5_000, 0).load()).size).toBe(2);
    await memoryAt(5_000, 0).save([]);
    expect(await readdir(directory)).toEqual(['affinity.json']);
    expect(await memoryAt(5_000, 0).load()).toEqual(new Map());
  });

  test('is what it is called, whatever the name', async () => {
    const odd = pool('a"b\\c\n,]}', [{ client: '"', endpointKey: '\u2028', lastUsed: 0 }]);
    await memoryAt(0, 0).save([odd]);
    expect(await memoryAt(0, 0).load()).toEqual(new Map([[odd.pool, odd.ties]]));
  });
});

describe('the age of a tie', () => {
  test.each([
    { name: 'grows by the time that the wall clock says has gone by', awayMs: 7_000, expected: 11_000 },
    { name: 'is what it was when no time has gone by', awayMs: 0, expected: 4_000 },
    { name: 'is what it was when the wall clock was put back', awayMs: -3_600_000, expected: 4_000 },
    { name: 'grows when the wall clock was put forward', awayMs: 86_400_000, expected: 86_404_000 },
  ])('$name', async ({ awayMs, expected }) => {
    await memoryAt(5_000, 1_000_000_000).save(POOLS);
    // Another process: its monotonic clock began anew.
    const loaded = await memoryAt(30, 1_000_000_000 + awayMs).load();
    expect(agesAt(30, loaded.get(WEB))).toMatchObject({ '10.0.0.7': expected });
  });

  test('is not less than nothing for a client that comes while it is being saved', async () => {
    await memoryAt(4_500, 0).save(POOLS);
    expect(agesAt(0, (await memoryAt(0, 0).load()).get(WEB))).toMatchObject({ '10.0.0.9': 0 });
  });
});

describe('more ties than there is room for', () => {
  const clients = (count: number, lastUsed: (index: number) => number): RememberedTie[] =>
    Array.from({ length: count }, (_, index) => ({
      client: `10.${index >> 16}.${(index >> 8) & 255}.${index & 255}`,
      endpointKey: '10.244.1.11:80',
      lastUsed: lastUsed(index),
    }));

  const sizes = async (): Promise<readonly number[]> =>
    [...(await memoryAt(0, 0).load()).values()].map(({ length }) => length);

  test('the newest are kept, of all pools together', async () => {
    const old = clients(80_000, (index) => index * 10);
    const recent = clients(80_000, (index) => 800_000 + index * 10);
    await memoryAt(1_600_000, 0).save([pool('old', old), pool('recent', recent)]);
    const loaded = await memoryAt(1_600_000, 0).load();
    expect(loaded.get('recent')).toHaveLength(80_000);
    const kept = loaded.get('old') ?? [];
    // To the second.
    expect(kept.length).toBeGreaterThan(20_000 - 101);
    expect(kept.length).toBeLessThanOrEqual(20_000);
    expect(kept).toEqual(old.slice(-kept.length));
  });

  test('no more are kept when all came in one second', async () => {
    const ties = clients(60_000, () => 0);
    await memoryAt(0, 0).save([pool('a', ties), pool('b', ties), pool('c', ties)]);
    expect((await sizes()).reduce((sum, size) => sum + size, 0)).toBe(MAX_REMEMBERED_TIES);
  });

  test('all are kept when they just fit', async () => {
    const ties = clients(MAX_REMEMBERED_TIES / 2, (index) => index);
    await memoryAt(50_000, 0).save([pool('a', ties), pool('b', ties)]);
    expect(await sizes()).toEqual([MAX_REMEMBERED_TIES / 2, MAX_REMEMBERED_TIES / 2]);
  });

  test('other work gets its turn while they are saved', async () => {
    const ties = clients(MAX_REMEMBERED_TIES, () => 0);
    let turns = 0;
    const saving = new AbortController();
    const counted = (async () => {
      for (; !saving.signal.aborted; turns += 1) await nextTurn();
    })();
    await memoryAt(0, 0).save([pool('a', ties), pool('b', ties)]);
    saving.abort();
    await counted;
    // Once to see what fits and once to write, both in steps of 1,000.
    expect(turns).toBeGreaterThanOrEqual(200 + 100);
  });
});

describe('load', () => {
  test.each([
    { name: 'the file', stateDir: () => directory },
    { name: 'the directory', stateDir: () => join(directory, 'none') },
  ])('is empty when $name is not there', async ({ stateDir }) => {
    expect(await memoryAt(0, 0, stateDir()).load()).toEqual(new Map());
  });

  test.each([
    { name: 'empty', text: '' },
    { name: 'of another version', text: '{"version":2,"savedAt":0,"pools":[]}' },
    { name: 'without a time', text: '{"version":1,"pools":[]}' },
    { name: 'without pools', text: '{"version":1,"savedAt":0}' },
    { name: 'null', text: 'null' },
    { name: 'a number', text: '17' },
    { name: 'noise', text: '\u0000\uFFFD\u0001' },
  ])('rejects by its code when the file is $name', async ({ text }) => {
    await writeFile(join(directory, 'affinity.json'), text);
    await expect(memoryAt(0, 0).load()).rejects.toThrow(stateDirFault());
  });

  test('rejects by its code wherever the file is cut off', async () => {
    await memoryAt(5_000, 0).save(POOLS);
    const path = join(directory, 'affinity.json');
    const { size } = await stat(path);
    // The last byte is the end of the line.
    for (let length = size - 2; length >= 0; length -= 1) {
      await truncate(path, length);
      await expect(memoryAt(0, 0).load()).rejects.toThrow(stateDirFault());
    }
  });

  test('rejects by its code, without reading it, when the file is far too large', async () => {
    await writeFile(join(directory, 'affinity.json'), '');
    await truncate(join(directory, 'affinity.json'), 2 ** 40);
    await expect(memoryAt(0, 0).load()).rejects.toThrow(stateDirFault());
  });

  test('leaves out ties that make no sense and keeps the rest', async () => {
    const good = ['10.0.0.7', 0, 5];
    const bad = [
      null,
      17,
      [],
      ['10.0.0.8'],
      [8, 0, 5],
      ['10.0.0.8', 1, 5],
      ['10.0.0.8', -1, 5],
      ['10.0.0.8', 'length', 5],
      ['10.0.0.8', 0, -5],
      ['10.0.0.8', 0, null],
      ['10.0.0.8', 2, 5],
    ];
    const pools = [
      null,
      17,
      { pool: 1, ties: [], endpoints: [] },
      { pool: 'none', ties: {}, endpoints: [] },
      { pool: WEB, ties: [...bad, good, ...bad], endpoints: ['10.244.1.11:80', null, 17] },
    ];
    await writeFile(join(directory, 'affinity.json'), JSON.stringify({ version: 1, savedAt: 0, pools }));
    expect(await memoryAt(0, 0).load()).toEqual(
      new Map([[WEB, [{ client: '10.0.0.7', endpointKey: '10.244.1.11:80', lastUsed: -5 }]]]),
    );
  });
});

describe('a directory that cannot be used', () => {
  test('is told by its code when saving and loading', async () => {
    // Root may write anywhere, but not below a file.
    await writeFile(join(directory, 'file'), '');
    const memory = memoryAt(0, 0, join(directory, 'file', 'state'));
    await expect(memory.save(POOLS)).rejects.toThrow(stateDirFault());
    await expect(memory.load()).rejects.toThrow(stateDirFault());
  });

  test('is one in which a directory stands in the place of the file', async () => {
    await mkdir(join(directory, 'affinity.json', 'x'), { recursive: true });
    await expect(memoryAt(0, 0).save(POOLS)).rejects.toThrow(stateDirFault());
    await expect(memoryAt(0, 0).load()).rejects.toThrow(stateDirFault());
    await expect(memoryAt(0, 0).remove()).rejects.toThrow(stateDirFault());
  });
});

describe('remove', () => {
  test('leaves nothing of ours, not even half a file, and may be called twice', async () => {
    const memory = memoryAt(0, 0);
    await memory.save(POOLS);
    await writeFile(join(directory, 'affinity.json.new'), '{');
    await writeFile(join(directory, 'other'), '');
    await memory.remove();
    await memory.remove();
    expect(await readdir(directory)).toEqual(['other']);
  });
});

test('without a directory nothing is kept and nothing fails', async () => {
  const memory = new AffinityMemory({ clock: clockAt(0, 0) }, undefined);
  await memory.save(POOLS);
  expect(await memory.load()).toEqual(new Map());
  await memory.remove();
});
