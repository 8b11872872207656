import { execFileSync } from 'node:child_process';
import { watch } from 'node:fs';
import { mkdir, rename, symlink, truncate, unlink, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it, vi } from 'vitest';
import { snapshotFromObjects } from '../../../src/model/snapshot.ts';
import { MAX_FILE_BYTES } from '../../../src/sources/manifests/manifest-files.ts';
import { watchDirectory } from '../../../src/sources/manifests/directory-watches.ts';
import { waitFor } from '../../support/wait.ts';
import { documents, serviceYaml, sliceYaml } from './manifest-text.ts';
import { Harness, makeDirectory, replaceFile, started } from './source-harness.ts';

/** No inotify at all: what is left is the poll. */
function noWatch(): never {
  throw Object.assign(new Error('ENOSPC: System limit for number of file watchers reached'), {
    code: 'ENOSPC',
  });
}

/** A watch that never tells anything and never fails. */
function deafWatch() {
  return { close: () => undefined };
}

const WAYS = [
  { way: 'told by inotify', boundMs: 1_000, options: { pollIntervalMs: 600_000 }, deps: {} },
  { way: 'by polling alone', boundMs: 3_000, options: {}, deps: { watch: deafWatch } },
];

describe('the first read', () => {
  it('has happened when start resolves, from files and directories, sorted', async () => {
    const directory = await makeDirectory();
    await writeFile(join(directory, 'b.yml'), serviceYaml('b'));
    await writeFile(
      join(directory, 'a.json'),
      JSON.stringify({ apiVersion: 'v1', kind: 'Service', metadata: { name: 'a' } }),
    );
    await writeFile(join(directory, 'notes.txt'), serviceYaml('no'));
    await writeFile(join(directory, '.hidden.yaml'), serviceYaml('no'));
    const file = join(await makeDirectory(), 'services');
    await writeFile(file, documents(serviceYaml('c'), sliceYaml('c-1', 'c')));
    const harness = await started({ paths: [file, directory] });
    expect(harness.services).toEqual(['a=undefined', 'b=10.96.0.10', 'c=10.96.0.10']);
    expect(harness.last?.objects.endpointSlices).toHaveLength(1);
    expect(harness.problems).toEqual([]);
    expect(harness.changes).toHaveLength(1);
  });

  it('tells of an empty directory, once', async () => {
    const harness = await started({ paths: [await makeDirectory()] });
    expect(harness.changes).toEqual([
      { objects: { services: [], endpointSlices: [] }, problems: [], isKnown: true },
    ]);
  });

  it('reads a file once that two paths lead to', async () => {
    const directory = await makeDirectory();
    await writeFile(join(directory, 'a.yaml'), serviceYaml('a'));
    const harness = await started({ paths: [directory, join(directory, 'a.yaml'), `${directory}/./`] });
    expect(harness.services).toEqual(['a=10.96.0.10']);
    expect(harness.problems).toEqual([]);
  });

  it('reports what is no regular file, without waiting for it', async () => {
    const directory = await makeDirectory();
    execFileSync('mkfifo', [join(directory, 'pipe.yaml')]);
    await mkdir(join(directory, 'sub.yaml'));
    const harness = await started({ paths: [directory, join(directory, 'pipe.yaml')] });
    expect(harness.problems).toEqual([
      'ERR_MANIFEST_UNREADABLE neither a file nor a directory',
      'ERR_MANIFEST_UNREADABLE not a regular file',
      'ERR_MANIFEST_UNREADABLE not a regular file',
    ]);
  });

  it('refuses a file that is far too large', async () => {
    const file = join(await makeDirectory(), 'a.yaml');
    await writeFile(file, '');
    await truncate(file, MAX_FILE_BYTES + 1);
    const harness = await started({ paths: [file] });
    expect(harness.problems).toEqual([
      `ERR_MANIFEST_UNREADABLE ${MAX_FILE_BYTES + 1} bytes are more than the limit of ${MAX_FILE_BYTES}`,
    ]);
  });

  it('names kinds that it ignores', async () => {
    const file = join(await makeDirectory(), 'a.yaml');
    await writeFile(file, 'apiVersion: v1\nkind: Endpoints\n');
    const harness = await started({ paths: [file] });
    expect(harness.log).toContainEqual({
      level: 'info',
      fields: { ignoredKinds: 'v1 Endpoints' },
      message: 'Manifests contain objects that are no Services, EndpointSlices or Nodes',
    });
  });
});

describe.each(WAYS)('an edit, $way', ({ options, deps, boundMs }) => {
  async function startedOn(path: string): Promise<Harness> {
    const harness = await started({ paths: [path], ...options }, deps);
    harness.boundMs = boundMs;
    return harness;
  }

  async function withFile() {
    const directory = await makeDirectory();
    const file = join(directory, 'web.yaml');
    await writeFile(file, serviceYaml('web', '10.96.0.1'));
    return { directory, file };
  }

  it('by rename takes effect', async () => {
    const { directory, file } = await withFile();
    const harness = await startedOn(directory);
    await replaceFile(file, serviceYaml('web', '10.96.0.2'));
    await harness.toHaveServices('web=10.96.0.2');
  });

  it('in place takes effect, also when only the file is watched', async () => {
    const { file } = await withFile();
    const harness = await startedOn(file);
    await writeFile(file, serviceYaml('web', '10.96.0.2'));
    await harness.toHaveServices('web=10.96.0.2');
    await replaceFile(file, serviceYaml('web', '10.96.0.3'));
    await harness.toHaveServices('web=10.96.0.3');
  });

  it('by a new file and by a deleted file takes effect', async () => {
    const { directory, file } = await withFile();
    const harness = await startedOn(directory);
    await writeFile(join(directory, 'api.yaml'), serviceYaml('api', '10.96.0.5'));
    await harness.toHaveServices('api=10.96.0.5', 'web=10.96.0.1');
    await unlink(file);
    await harness.toHaveServices('api=10.96.0.5');
    expect(harness.problems).toEqual([]);
  });

  it('by the swap of a ConfigMap mount takes effect', async () => {
    const directory = await makeDirectory();
    const publish = async (generation: string, clusterIP: string): Promise<void> => {
      await mkdir(join(directory, generation));
      await writeFile(join(directory, generation, 'web.yaml'), serviceYaml('web', clusterIP));
      await symlink(generation, join(directory, '..data_tmp'));
      await rename(join(directory, '..data_tmp'), join(directory, '..data'));
    };
    await publish('..2026_01', '10.96.0.1');
    await symlink('..data/web.yaml', join(directory, 'web.yaml'));
    const both = await Promise.all([startedOn(directory), startedOn(join(directory, 'web.yaml'))]);
    await publish('..2026_02', '10.96.0.2');
    for (const harness of both) await harness.toHaveServices('web=10.96.0.2');
  });
});

describe('a broken file', () => {
  it('keeps its last good objects, says where, harms no other file, and recovers', async () => {
    const directory = await makeDirectory();
    const file = join(directory, 'web.yaml');
    await writeFile(file, documents(serviceYaml('web', '10.96.0.1'), serviceYaml('api', '10.96.0.2')));
    const harness = await started({ paths: [directory] });
    const before = harness.last?.objects;

    await replaceFile(
      file,
      documents(serviceYaml('web', '10.96.0.9'), serviceYaml('api', '10.96.0.2', '"eighty"')),
    );
    await harness.toHaveProblem('must be an integer, got "eighty"');
    expect(harness.last?.problems).toMatchObject([
      { object: `${file} document 2 (Service default/api)`, field: 'spec.ports[0].port' },
    ]);
    expect(harness.last?.objects).toBe(before);

    await writeFile(join(directory, 'other.yaml'), serviceYaml('other', '10.96.0.3'));
    await harness.toHaveServices('api=10.96.0.2', 'other=10.96.0.3', 'web=10.96.0.1');

    await replaceFile(file, `${serviceYaml('web')}  - [`);
    await harness.toHaveProblem('ERR_MANIFEST_SYNTAX line 10');
    expect(harness.services).toEqual(['api=10.96.0.2', 'other=10.96.0.3', 'web=10.96.0.1']);

    await replaceFile(file, serviceYaml('web', '10.96.0.7'));
    await harness.toHaveServices('other=10.96.0.3', 'web=10.96.0.7');
    expect(harness.problems).toEqual([]);
  });

  it('that never was good contributes its good documents', async () => {
    const file = join(await makeDirectory(), 'web.yaml');
    await writeFile(file, documents(serviceYaml('web'), 'a: [\n', serviceYaml('api')));
    const harness = await started({ paths: [file] });
    expect(harness.services).toEqual(['api=10.96.0.10', 'web=10.96.0.10']);
    expect(harness.last?.problems).toMatchObject([
      { code: 'ERR_MANIFEST_SYNTAX', object: `${file} document 2` },
    ]);
  });

  it('is no business of the source when only the sense is wrong: the model says so', async () => {
    const file = join(await makeDirectory(), 'web.yaml');
    await writeFile(file, serviceYaml('web', '10.96.0.1', 70_000));
    const harness = await started({ paths: [file] });
    expect(harness.problems).toEqual([]);
    expect(
      snapshotFromObjects(harness.last?.objects ?? { services: [], endpointSlices: [] }).problems,
    ).toMatchObject([
      { code: 'ERR_SERVICE_INVALID', object: 'Service default/web', field: 'spec.ports[0].port' },
    ]);
  });
});

describe('a path that cannot be read', () => {
  it('is no reason to say that there is nothing, until one path could be read', async () => {
    const parent = await makeDirectory();
    const harness = await started({ paths: [join(parent, 'later')], pollIntervalMs: 20 });
    expect(harness.changes).toMatchObject([
      { isKnown: false, problems: [{ code: 'ERR_MANIFEST_UNREADABLE' }] },
    ]);
    await mkdir(join(parent, 'later'));
    await waitFor(() => harness.last?.isKnown === true, { timeoutMs: 3_000, what: 'the empty directory' });
    expect(harness.last).toMatchObject({ problems: [], objects: { services: [] } });
  });

  it('does not hold up another that can', async () => {
    const parent = await makeDirectory();
    await writeFile(join(parent, 'web.yaml'), serviceYaml('web', '10.96.0.1'));
    const harness = await started({ paths: [join(parent, 'later'), join(parent, 'web.yaml')] });
    expect(harness.changes).toMatchObject([{ isKnown: true }]);
    expect(harness.services).toEqual(['web=10.96.0.1']);
  });

  it('is reported, and picked up when it appears', async () => {
    const parent = await makeDirectory();
    const directory = join(parent, 'later');
    const harness = await started({ paths: [directory, join(parent, 'one.yaml')] });
    expect(harness.last?.problems).toMatchObject([
      {
        code: 'ERR_MANIFEST_UNREADABLE',
        object: directory,
        message: 'there is no such file or directory (ENOENT)',
      },
      { code: 'ERR_MANIFEST_UNREADABLE', object: join(parent, 'one.yaml') },
    ]);
    await mkdir(directory);
    await writeFile(join(directory, 'web.yaml'), serviceYaml('web', '10.96.0.1'));
    await harness.toHaveServices('web=10.96.0.1');
    await writeFile(join(parent, 'one.yaml'), serviceYaml('one', '10.96.0.2'));
    await harness.toHaveServices('one=10.96.0.2', 'web=10.96.0.1');
    expect(harness.problems).toEqual([]);
  });

  it('keeps what was read from it, file or directory, and follows it when it is back', async () => {
    const parent = await makeDirectory();
    const directory = join(parent, 'services');
    const file = join(parent, 'one.yaml');
    await mkdir(directory);
    await writeFile(join(directory, 'web.yaml'), serviceYaml('web', '10.96.0.1'));
    await writeFile(file, serviceYaml('one', '10.96.0.2'));
    const harness = await started({ paths: [directory, file] });
    const before = harness.last?.objects;

    await rename(directory, join(parent, 'away'));
    await unlink(file);
    await waitFor(() => harness.problems.length === 2, { timeoutMs: 3_000, what: 'both problems' });
    expect(harness.problems).toEqual(
      Array<string>(2).fill(
        'ERR_MANIFEST_UNREADABLE there is no such file or directory (ENOENT); what was read last stays in use',
      ),
    );
    expect(harness.last?.objects).toBe(before);

    await mkdir(directory);
    await writeFile(file, serviceYaml('one', '10.96.0.3'));
    await harness.toHaveServices('one=10.96.0.3');
    await writeFile(join(directory, 'web.yaml'), serviceYaml('web', '10.96.0.4'));
    await harness.toHaveServices('one=10.96.0.3', 'web=10.96.0.4');
    await harness.toHaveNoProblem();
  });

  it('in a directory keeps what was read from it while it is listed', async () => {
    const directory = await makeDirectory();
    await writeFile(join(directory, 'web.yaml'), serviceYaml('web', '10.96.0.1'));
    const harness = await started({ paths: [directory] });
    await unlink(join(directory, 'web.yaml'));
    await symlink('nowhere', join(directory, 'web.yaml'));
    await harness.toHaveProblem(
      'there is no such file or directory (ENOENT); what was read last stays in use',
    );
    expect(harness.services).toEqual(['web=10.96.0.1']);
    await unlink(join(directory, 'web.yaml'));
    await harness.toHaveServices();
    expect(harness.problems).toEqual([]);
  });
});

describe('the same object in two files', () => {
  it('is taken from the first by path, reported in the other, and passes on when the first goes', async () => {
    const directory = await makeDirectory();
    await writeFile(join(directory, 'a.yaml'), serviceYaml('web', '10.96.0.1'));
    await writeFile(join(directory, 'b.yaml'), serviceYaml('web', '10.96.0.2'));
    const harness = await started({ paths: [directory] });
    expect(harness.services).toEqual(['web=10.96.0.1']);
    expect(harness.last?.problems).toMatchObject([
      {
        code: 'ERR_MANIFEST_DUPLICATE',
        object: `${join(directory, 'b.yaml')} document 1 (Service default/web)`,
        message: `stands already in ${join(directory, 'a.yaml')} document 1; that one is used`,
      },
    ]);
    await unlink(join(directory, 'a.yaml'));
    await harness.toHaveServices('web=10.96.0.2');
    expect(harness.problems).toEqual([]);
  });
});

describe('what is told', () => {
  it('is one change for a burst of writes, and none for writes that change nothing', async () => {
    const directory = await makeDirectory();
    const harness = await started({ paths: [directory] });
    await Promise.all(
      Array.from({ length: 50 }, (_, i) => writeFile(join(directory, `${i}.yaml`), serviceYaml(`s${i}`))),
    );
    await waitFor(() => harness.services.length === 50, { timeoutMs: 3_000, what: 'all Services' });
    expect(harness.changes.length).toBeLessThan(10);
    const told = harness.changes.length;
    await replaceFile(join(directory, '0.yaml'), `# touched\n${serviceYaml('s0')}`);
    await utimes(join(directory, '1.yaml'), 1, 1);
    await writeFile(join(directory, 'marker.yaml'), serviceYaml('marker'));
    await waitFor(() => harness.services.length === 51, { timeoutMs: 3_000, what: 'the marker' });
    expect(harness.changes.length).toBe(told + 1);
  });

  it('is the old object wherever nothing changed', async () => {
    const directory = await makeDirectory();
    await writeFile(
      join(directory, 'a.yaml'),
      documents(serviceYaml('a'), serviceYaml('b'), sliceYaml('s', 'a')),
    );
    const harness = await started({ paths: [directory] });
    await replaceFile(
      join(directory, 'a.yaml'),
      documents(sliceYaml('s', 'a'), serviceYaml('b', '10.96.0.77'), serviceYaml('a')),
    );
    await harness.toHaveServices('a=10.96.0.10', 'b=10.96.0.77');
    const [first, second] = harness.changes;
    expect(second?.objects.services[0]).toBe(first?.objects.services[0]);
    expect(second?.objects.services[1]).not.toBe(first?.objects.services[1]);
    expect(second?.objects.endpointSlices).toBe(first?.objects.endpointSlices);
  });
});

describe('without inotify', () => {
  it('warns once, and polls', async () => {
    const [a, b] = [await makeDirectory(), await makeDirectory()];
    const harness = await started({ paths: [a, b], pollIntervalMs: 20 }, { watch: noWatch });
    await writeFile(join(a, 'web.yaml'), serviceYaml('web', '10.96.0.1'));
    await harness.toHaveServices('web=10.96.0.1');
    await writeFile(join(b, 'web.yaml'), serviceYaml('api', '10.96.0.2'));
    await harness.toHaveServices('api=10.96.0.2', 'web=10.96.0.1');
    expect(harness.log.filter(({ level }) => level === 'warn')).toEqual([
      {
        level: 'warn',
        fields: { directory: a, error: 'ENOSPC: System limit for number of file watchers reached' },
        message: 'Cannot watch manifests, polling them instead',
      },
    ]);
  });

  it('warns once when a watch fails later, and polls', async () => {
    const directory = await makeDirectory();
    let fail: (error: unknown) => void = () => undefined;
    const harness = await started(
      { paths: [directory], pollIntervalMs: 20 },
      {
        watch: (_directory, on) => {
          fail = on.error;
          return deafWatch();
        },
      },
    );
    fail(Object.assign(new Error('EMFILE'), { code: 'EMFILE' }));
    fail(Object.assign(new Error('EMFILE'), { code: 'EMFILE' }));
    await writeFile(join(directory, 'web.yaml'), serviceYaml('web', '10.96.0.1'));
    await harness.toHaveServices('web=10.96.0.1');
    expect(harness.log.filter(({ level }) => level === 'warn')).toHaveLength(1);
  });
});

describe('a watched directory', () => {
  it('that is replaced by another of the same name is watched anew', async () => {
    const parent = await makeDirectory();
    const directory = join(parent, 'services');
    await mkdir(directory);
    const watched: string[] = [];
    const harness = await started(
      { paths: [directory], pollIntervalMs: 20 },
      {
        watch: (path, on) => {
          watched.push(path);
          return watchDirectory(path, on);
        },
      },
    );
    await rename(directory, join(parent, 'old'));
    await mkdir(directory);
    await waitFor(() => watched.filter((path) => path === directory).length === 2, {
      timeoutMs: 3_000,
      what: 'a second watch',
    });
    await writeFile(join(directory, 'web.yaml'), serviceYaml('web', '10.96.0.1'));
    await harness.toHaveServices('web=10.96.0.1');
  });

  it('wakes nobody for files that are none of ours', async () => {
    const directory = await makeDirectory();
    const seen: (string | undefined)[] = [];
    const harness = new Harness(
      { paths: [join(directory, 'services')], pollIntervalMs: 600_000 },
      {
        watch: (path, on) =>
          watch(path, (_event, name) => (seen.push(name ?? undefined), on.event(name ?? undefined))),
      },
    );
    await harness.source.start();
    vi.useFakeTimers();
    try {
      await writeFile(join(directory, 'log.txt'), 'x');
      await waitFor(() => seen.includes('log.txt'), { timeoutMs: 3_000, what: 'the event' });
      expect(vi.getTimerCount()).toBe(0);
      await writeFile(join(directory, 'services'), serviceYaml('web'));
      await waitFor(() => seen.includes('services'), { timeoutMs: 3_000, what: 'the event' });
      expect(vi.getTimerCount()).toBe(1);
      await harness.source.close();
      expect(vi.getTimerCount()).toBe(0);
    } finally {
      vi.useRealTimers();
    }
  });
});

describe('time', () => {
  it('passes in poll intervals and nothing else, and stops with close', async () => {
    const directory = await makeDirectory();
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    try {
      const harness = await started({ paths: [directory] }, { watch: deafWatch });
      expect(vi.getTimerCount()).toBe(1);
      await writeFile(join(directory, 'web.yaml'), serviceYaml('web', '10.96.0.1'));
      vi.advanceTimersByTime(499);
      expect(vi.getTimerCount()).toBe(1);
      vi.advanceTimersByTime(1);
      await waitFor(() => vi.getTimerCount() === 2, {
        timeoutMs: 3_000,
        what: 'the debounce and the next poll',
      });
      vi.advanceTimersByTime(75);
      await harness.toHaveServices('web=10.96.0.1');
      await harness.source.close();
      expect(vi.getTimerCount()).toBe(0);
    } finally {
      vi.useRealTimers();
    }
  });
});

describe('close', () => {
  it('ends everything, twice if asked, and nothing is told after it', async () => {
    const directory = await makeDirectory();
    const closed: string[] = [];
    const harness = await started(
      { paths: [directory], pollIntervalMs: 20 },
      { watch: (path) => ({ close: () => closed.push(path) }) },
    );
    await Promise.all([harness.source.close(), harness.source.close()]);
    expect(closed).toEqual([directory]);
    const told = harness.changes.length;
    await writeFile(join(directory, 'web.yaml'), serviceYaml('web'));
    const other = await started({ paths: [directory] });
    expect(other.services).toEqual(['web=10.96.0.10']);
    expect(harness.changes).toHaveLength(told);
  });

  it('during the start lets the start end without a word', async () => {
    const harness = new Harness({ paths: [await makeDirectory()] });
    const start = harness.source.start();
    await harness.source.close();
    await start;
    expect(harness.changes).toEqual([]);
  });
});
