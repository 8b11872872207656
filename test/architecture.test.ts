/**
 * The rooms of `src/` and what each may import, as docs/architecture.md tells it. An import that is not allowed
 * fails, and so does an allowance that nobody uses. A new edge is an edit here and there, in the commit that needs it.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { type Import, type SourceFile, readSources } from './support/source-imports.ts';

interface Room {
  /** Rooms (`model`) or single files (`engine/engine.ts`); with ` types`: only what is gone at run time. */
  readonly imports: readonly string[];
  /** Node's modules and packages. `node:crypto in dispatch.ts`: only that file. */
  readonly outside: readonly string[];
}

const ROOMS: Readonly<Record<string, Room>> = {
  cli: { imports: ['model'], outside: [] },
  model: { imports: [], outside: ['@kubernetes/client-node types', 'node:net'] },
  'sources/manifests': {
    imports: ['model', 'sources/objects'],
    outside: [
      '@kubernetes/client-node types',
      'js-yaml',
      'node:crypto',
      'node:fs',
      'node:fs/promises',
      'node:path',
      'node:util',
    ],
  },
  'sources/kubernetes': {
    imports: ['model', 'sources/objects'],
    outside: [
      '@kubernetes/client-node',
      'js-yaml in credentials.ts',
      'node:crypto in credentials.ts',
      'node:fs/promises in credentials.ts',
      'node:net in server-list.ts',
      'node:path',
      'node:timers/promises',
      'node:util',
      'undici in api-client.ts',
    ],
  },
  'sources/objects': { imports: [], outside: [] },
  desired: { imports: ['model'], outside: [] },
  host: {
    imports: [],
    outside: [
      'node:child_process in exec.ts',
      'node:fs',
      'node:fs/promises',
      'node:net',
      'node:os in kernel.ts',
      'node:path',
      'node:timers/promises',
    ],
  },
  iptables: {
    imports: ['desired types', 'model', 'host types'],
    outside: [
      'node:crypto in dispatch.ts',
      'node:crypto in kernel-table.ts',
      'node:timers/promises in usable-iptables.ts',
    ],
  },
  conntrack: { imports: ['model', 'host types'], outside: [] },
  balancer: { imports: ['model types'], outside: [] },
  'engine/engine.ts': { imports: [], outside: [] },
  'engine/errno.ts': { imports: ['engine/engine.ts types'], outside: [] },
  'engine/native': {
    imports: ['engine/engine.ts types', 'engine/errno.ts'],
    outside: [
      'node:fs in addon.ts',
      'node:module in addon.ts',
      'node:path in addon.ts',
      'node:timers in native-engine.ts',
      'node:util',
    ],
  },
  'engine/node': {
    imports: ['engine/engine.ts types', 'engine/errno.ts'],
    outside: ['node:dgram', 'node:net', 'node:timers/promises'],
  },
  proxy: { imports: ['balancer', 'engine/engine.ts types', 'model'], outside: [] },
  sync: { imports: ['conntrack types', 'desired', 'iptables', 'model', 'proxy types'], outside: [] },
  health: { imports: ['model'], outside: [] },
  observe: {
    imports: [
      'conntrack/reconciler.ts types',
      'engine/engine.ts types',
      'health',
      'model',
      'proxy/statistics.ts',
      'sources/kubernetes/api-statistics.ts types',
      'sync/sync-observer.ts types',
    ],
    outside: ['node:fs in log.ts', 'node:http', 'node:net', 'pino', 'prom-client'],
  },
};

/** They put the rooms together and may import everything. */
const COMPOSITION = [
  'main.ts',
  'composition.ts',
  'data-path.ts',
  'observation.ts',
  'node-settings.ts',
  'create-source.ts',
  'create-engine.ts',
  'instance-ownership.ts',
  'cleanup.ts',
  'print-rules.ts',
];
/** Every room may import them. */
const SHARED = ['errors.ts', 'clock.ts', 'log.ts'];

/** What only some places may use, by files or rooms. */
const RESERVED: readonly {
  readonly name: string;
  readonly pattern: RegExp;
  readonly where: readonly string[];
}[] = [
  {
    name: 'the environment, arguments, streams and exit of the process',
    pattern: /\bprocess\.(?:env|argv|exit|exitCode|abort|kill|on|once|std\w+|cwd|chdir)\b/,
    where: ['main.ts', 'observe/log.ts'],
  },
  {
    name: 'the time',
    pattern: /\bDate\.now\b|\bnew Date\(\)|\bperformance\.|\bhrtime\b/,
    where: ['clock.ts'],
  },
  {
    name: 'timers',
    pattern: /(?<![.#\w])set(?:Timeout|Interval)\(|from 'node:timers/,
    where: [
      'main.ts',
      'iptables/usable-iptables.ts',
      'host/ownership-network.ts',
      'sync/runner.ts',
      'host/affinity-memory.ts',
      'proxy/affinity-keeper.ts',
      'proxy/listener-set.ts',
      'engine/native/native-engine.ts',
      'engine/native',
      'engine/node',
      'sources/manifests',
      'sources/kubernetes',
      'observe/http-listener.ts',
    ],
  },
  {
    name: 'chance',
    pattern: /\bMath\.random\b/,
    where: ['data-path.ts', 'create-source.ts', 'instance-ownership.ts', 'print-rules.ts'],
  },
];

const MAX_LINES = 300;

const sources = readSources();
const roomNames = Object.keys(ROOMS);

function isIn(path: string, place: string): boolean {
  return path === place || path.startsWith(`${place}/`);
}

/** The room of a file, or the file itself when it is in none. */
function roomOf(path: string): string {
  return roomNames.find((room) => isIn(path, room)) ?? path;
}

/** `model types` and `node:crypto in dispatch.ts`, taken apart. */
function allowanceOf(text: string): { target: string; isTypeOnly: boolean; file: string | undefined } {
  const [, target = text, types, file] = /^(\S+)( types)?(?: in (\S+))?$/.exec(text) ?? [];
  return { target, isTypeOnly: types !== undefined, file };
}

function isAllowedBy(text: string, { from, edge }: { from: SourceFile; edge: Import }): boolean {
  const { target, isTypeOnly, file } = allowanceOf(text);
  const isTarget = edge.isOutside ? edge.target === target : isIn(edge.target, target);
  const isFile = file === undefined || from.path === `${roomOf(from.path)}/${file}`;
  return isTarget && isFile && (edge.isTypeOnly || !isTypeOnly);
}

/** Imports of the rooms that leave them, shared files aside. */
const edges = sources
  .filter(({ path }) => !COMPOSITION.includes(path))
  .flatMap((from) => from.imports.map((edge) => ({ from, edge })))
  .filter(({ edge }) => edge.isOutside || !SHARED.includes(edge.target))
  .filter(({ from, edge }) => edge.isOutside || roomOf(from.path) !== roomOf(edge.target));

describe('rooms', () => {
  test('every file is in a room, is shared, or puts rooms together', () => {
    const homeless = sources
      .map(({ path }) => path)
      .filter((path) => ![...roomNames, ...COMPOSITION, ...SHARED].includes(roomOf(path)));
    expect(homeless).toEqual([]);
  });

  test('every room and file of the table exists', () => {
    const missing = [...roomNames, ...COMPOSITION, ...SHARED].filter(
      (place) => !sources.some(({ path }) => isIn(path, place)),
    );
    expect(missing).toEqual([]);
  });

  test('no room imports what the table does not allow', () => {
    const forbidden = edges
      .filter(({ from, edge }) => {
        const room = ROOMS[roomOf(from.path)];
        return ![...(room?.imports ?? []), ...(room?.outside ?? [])].some((text) =>
          isAllowedBy(text, { from, edge }),
        );
      })
      .map(({ from, edge }) => `${from.path} -> ${edge.target}${edge.isTypeOnly ? ' (types)' : ''}`);
    expect(forbidden).toEqual([]);
  });

  test('the table allows nothing that nobody uses', () => {
    const stale = Object.entries(ROOMS).flatMap(([room, { imports, outside }]) =>
      [...imports, ...outside]
        .filter(
          (text) =>
            !edges.some(({ from, edge }) => roomOf(from.path) === room && isAllowedBy(text, { from, edge })),
        )
        .map((text) => `${room} -> ${text}`),
    );
    expect(stale).toEqual([]);
  });

  test('the table allows values only where values are used: else it says types', () => {
    const loose = Object.entries(ROOMS).flatMap(([room, { imports, outside }]) =>
      [...imports, ...outside]
        .filter((text) => !allowanceOf(text).isTypeOnly)
        .filter((text) => {
          const used = edges.filter(
            ({ from, edge }) => roomOf(from.path) === room && isAllowedBy(text, { from, edge }),
          );
          return used.every(({ edge }) => edge.isTypeOnly);
        })
        .map((text) => `${room} -> ${text}`),
    );
    expect(loose).toEqual([]);
  });

  test('shared files import nothing but each other', () => {
    const outgoing = sources
      .filter(({ path }) => SHARED.includes(path))
      .flatMap(({ path, imports }) => imports.map(({ target }) => ({ path, target })))
      .filter(({ target }) => !SHARED.includes(target));
    expect(outgoing).toEqual([]);
  });

  test('nothing imports what puts the rooms together, and main.ts is imported by nobody at all', () => {
    const importers = sources.flatMap(({ path, imports }) =>
      imports
        .filter(({ target }) => COMPOSITION.includes(target))
        .filter(({ target }) => target === 'main.ts' || !COMPOSITION.includes(path))
        .map(({ target }) => `${path} -> ${target}`),
    );
    expect(importers).toEqual([]);
  });

  test('no file imports itself by any way round', () => {
    const importsByPath = new Map(
      sources.map(({ path, imports }) => [
        path,
        imports.filter((edge) => !edge.isOutside).map((edge) => edge.target),
      ]),
    );
    const cycles: string[] = [];
    const done = new Set<string>();
    const visit = (path: string, way: readonly string[]): void => {
      if (way.includes(path)) cycles.push([...way.slice(way.indexOf(path)), path].join(' -> '));
      if (way.includes(path) || done.has(path)) return;
      for (const target of importsByPath.get(path) ?? []) visit(target, [...way, path]);
      done.add(path);
    };
    for (const path of importsByPath.keys()) visit(path, []);
    expect(cycles).toEqual([]);
  });

  test('every import leads to a file that is there', () => {
    const paths = new Set(sources.map(({ path }) => path));
    const lost = sources.flatMap(({ path, imports }) =>
      imports
        .filter((edge) => !edge.isOutside && !paths.has(edge.target))
        .map(({ target }) => `${path} -> ${target}`),
    );
    expect(lost).toEqual([]);
  });
});

describe.each(RESERVED)('$name', ({ pattern, where }) => {
  const users = sources
    .filter(({ code, imports }) => {
      const modules = imports.map(({ target }) => `from '${target}'`).join('\n');
      return pattern.test(`${code}\n${modules}`);
    })
    .map(({ path }) => path);

  test('may be used in these places only', () => {
    expect(users.filter((path) => !where.some((place) => isIn(path, place)))).toEqual([]);
  });

  test('is used in each of them', () => {
    expect(where.filter((place) => !users.some((path) => isIn(path, place)))).toEqual([]);
  });
});

describe('files', () => {
  test(`have ${MAX_LINES} lines at most`, () => {
    expect(sources.filter(({ lineCount }) => lineCount > MAX_LINES).map(({ path }) => path)).toEqual([]);
  });

  test('are no barrels and no bags: nothing is called index or utils', () => {
    const names = sources
      .map(({ path }) => path)
      .filter((path) => /(?:^|\/)(?:index|\w*-?utils?|helpers?|misc|common)\b/.test(path));
    expect(names).toEqual([]);
  });

  test('are named in kebab-case', () => {
    expect(
      sources.map(({ path }) => path).filter((path) => !/^(?:[a-z0-9-]+\/)*[a-z0-9-]+\.ts$/.test(path)),
    ).toEqual([]);
  });
});

test('docs/architecture.md has the same table', () => {
  const page = readFileSync(join(import.meta.dirname, '..', 'docs', 'architecture.md'), 'utf8');
  const cells = [...page.matchAll(/^\| `src\/([^`]+?)\/?` \| [^|]+ \| ([^|]+) \| ([^|]+) \|$/gm)];
  const table = Object.fromEntries(
    cells.map(([, room = '', imports = '', outside = '']) => [room, { imports, outside }]),
  );
  const cellOf = (texts: readonly string[]): string =>
    texts.length === 0
      ? '–'
      : texts
          .map(allowanceOf)
          .map(({ target, isTypeOnly, file }) => {
            const place = file === undefined ? '' : ` (in \`${file}\`)`;
            return `\`${target}\`${isTypeOnly ? ' (types)' : ''}${place}`;
          })
          .join(', ');
  const expected = Object.fromEntries(
    Object.entries(ROOMS).map(([room, { imports, outside }]) => [
      room,
      { imports: cellOf(imports), outside: cellOf(outside) },
    ]),
  );
  expect(table).toEqual(expected);
});
