import { describe, expect, it } from 'vitest';
import { decodeManifest } from '../../../src/sources/manifests/decode.ts';
import {
  type FileVersion,
  ManifestSet,
  nextFileVersion,
} from '../../../src/sources/manifests/manifest-set.ts';
import { documents, nodeYaml, serviceYaml, sliceYaml } from './manifest-text.ts';

const NOON = Date.UTC(2026, 0, 1, 12);

function version(text: string, before?: FileVersion, file = 'web.yaml'): FileVersion {
  return nextFileVersion(before, decodeManifest(text, file));
}

function keysOf({ services, endpointSlices }: FileVersion): string[] {
  return [...services, ...endpointSlices].map(({ key }) => key);
}

describe('the version of a file that counts', () => {
  const good = documents(serviceYaml('a'), serviceYaml('b'));
  const broken = documents(serviceYaml('b'), serviceYaml('c', '10.96.0.1', 'eighty'));

  it('is the good part of a broken text when it never was good', () => {
    const first = version(broken);
    expect(keysOf(first)).toEqual(['default/b']);
    expect(first.problems.map(({ message }) => message)).toEqual(['must be an integer, got "eighty"']);
  });

  it('is the last good text when it breaks, and the problem says so', () => {
    const now = version(broken, version(good));
    expect(keysOf(now)).toEqual(['default/a', 'default/b']);
    expect(now.problems.map(({ message }) => message)).toEqual([
      'must be an integer, got "eighty"; the last good version of this file stays in use',
    ]);
  });

  it('is the last good text however often it breaks, until it is good again', () => {
    let now = version(good);
    for (const text of [broken, 'a: [', '7', broken]) now = version(text, now);
    expect(keysOf(now)).toEqual(['default/a', 'default/b']);
    expect(version(serviceYaml('z'), now)).toMatchObject({ problems: [], services: [{ key: 'default/z' }] });
  });

  it('is the last good text when an edit would take a Service away', () => {
    const now = version(serviceYaml('a', '10.96.0.1', '70000'), version(good));
    expect(keysOf(now)).toEqual(['default/a', 'default/b']);
    expect(now.problems).toEqual([
      {
        code: 'ERR_SERVICE_INVALID',
        object: 'web.yaml document 1 (Service default/a)',
        field: 'spec.ports[0].port',
        message: '70000 is outside 1 to 65535; the last good version of this file stays in use',
      },
    ]);
  });

  it('leaves a refused Service that never was good to the model, which reports it', () => {
    const first = version(serviceYaml('a', '10.96.0.1', '70000'));
    expect(keysOf(first)).toEqual(['default/a']);
    expect(first.problems).toEqual([]);
  });

  it('is the last good text when a Node in it breaks', () => {
    const now = version(
      documents(serviceYaml('z'), nodeYaml('n1').replace('[10.244.1.0/24]', '10.244.1.0/24')),
      version(documents(good, nodeYaml('n1'))),
    );
    expect(keysOf(now)).toEqual(['default/a', 'default/b']);
    expect(now.nodes).toHaveLength(1);
    expect(now.problems).toMatchObject([{ object: 'web.yaml document 2 (Node n1)', field: 'spec.podCIDRs' }]);
  });

  it('is nothing when it is empty: that is good', () => {
    expect(keysOf(version('', version(good)))).toEqual([]);
  });
});

describe('the objects in force', () => {
  it('are sorted by name, whatever the order of files', () => {
    const files = [version(serviceYaml('z')), version(documents(serviceYaml('b'), serviceYaml('a')))];
    const { objects } = new ManifestSet().compose(files, NOON);
    expect(objects.services.map(({ metadata }) => metadata?.name)).toEqual(['a', 'b', 'z']);
  });

  it('keep their identity exactly while their content lasts', () => {
    const set = new ManifestSet();
    const text = documents(serviceYaml('a'), serviceYaml('b'), sliceYaml('s', 'a'));
    const first = set.compose([version(text)], NOON);
    const same = set.compose([version(`# a comment\n${text}`)], NOON + 1);
    const other = set.compose([version(text.replace('10.0.0.1', '10.0.0.2'))], NOON + 2);
    const less = set.compose([version(serviceYaml('b'))], NOON + 3);
    expect(first.isChanged).toBe(true);
    expect(same.isChanged).toBe(false);
    expect(same.objects).toBe(first.objects);
    expect(other.isChanged).toBe(true);
    expect(other.objects.services).toBe(first.objects.services);
    expect(other.objects.endpointSlices).not.toBe(first.objects.endpointSlices);
    expect(less.objects.services[0]).toBe(first.objects.services[1]);
  });

  it('that are new and say no creation time get one, and keep it while they exist', () => {
    const set = new ManifestSet();
    const createdAt = (text: string, now: number): unknown =>
      set.compose([version(text)], now).objects.services[0]?.metadata?.creationTimestamp;
    expect(createdAt(serviceYaml('a'), NOON)).toBe('2026-01-01T12:00:00.000Z');
    expect(createdAt(serviceYaml('a', '10.96.0.99'), NOON + 5_000)).toBe('2026-01-01T12:00:00.000Z');
    expect(createdAt('', NOON + 6_000)).toBeUndefined();
    expect(createdAt(serviceYaml('a'), NOON + 7_000)).toBe('2026-01-01T12:00:07.000Z');
  });

  it('that say a creation time keep theirs', () => {
    const text = serviceYaml('a').replace(
      '  name: a',
      '  name: a\n  creationTimestamp: 2020-01-01T00:00:00Z',
    );
    const { objects } = new ManifestSet().compose([version(text)], NOON);
    expect(objects.services[0]?.metadata?.creationTimestamp).toBe('2020-01-01T00:00:00Z');
  });

  it('are the first of each name; the others are reported', () => {
    const files = [
      version(documents(serviceYaml('a', '10.96.0.1'), serviceYaml('a', '10.96.0.2')), undefined, 'a.yaml'),
      version(documents(serviceYaml('a', '10.96.0.3'), sliceYaml('a', 'a')), undefined, 'b.yaml'),
    ];
    const { objects, problems } = new ManifestSet().compose(files, NOON);
    expect(objects.services.map(({ spec }) => spec?.clusterIP)).toEqual(['10.96.0.1']);
    expect(objects.endpointSlices).toHaveLength(1);
    expect(problems).toEqual(
      ['a.yaml document 2', 'b.yaml document 1'].map((where) => ({
        code: 'ERR_MANIFEST_DUPLICATE',
        object: `${where} (Service default/a)`,
        field: 'metadata.name',
        message: 'stands already in a.yaml document 1; that one is used',
      })),
    );
  });

  it('are Nodes too, of which the first of each name counts; any name is fine', () => {
    const files = [
      version(documents(nodeYaml('n1', 'z1'), nodeYaml('n2', 'z2')), undefined, 'a.yaml'),
      version(documents(nodeYaml('n1', 'z3'), serviceYaml('n1')), undefined, 'b.yaml'),
    ];
    const { nodes, problems } = new ManifestSet().compose(files, NOON);
    expect([...nodes].map(([name, { metadata }]) => [name, metadata?.labels])).toEqual([
      ['n1', { 'topology.kubernetes.io/zone': 'z1' }],
      ['n2', { 'topology.kubernetes.io/zone': 'z2' }],
    ]);
    expect(problems).toEqual([
      {
        code: 'ERR_MANIFEST_DUPLICATE',
        object: 'b.yaml document 1 (Node n1)',
        field: 'metadata.name',
        message: 'stands already in a.yaml document 1; that one is used',
      },
    ]);
  });

  it('do not count as changed when only a Node is other', () => {
    const set = new ManifestSet();
    set.compose([version(documents(serviceYaml('a'), nodeYaml('n1', 'z1')))], NOON);
    const { nodes, isChanged } = set.compose(
      [version(documents(serviceYaml('a'), nodeYaml('n1', 'z2')))],
      NOON,
    );
    expect(nodes.get('n1')?.metadata?.labels).toEqual({ 'topology.kubernetes.io/zone': 'z2' });
    expect(isChanged).toBe(false);
  });

  it('count as changed when only a problem comes or goes', () => {
    const set = new ManifestSet();
    const problem = { code: 'ERR_MANIFEST_UNREADABLE', object: 'x', field: '', message: 'gone' } as const;
    const changes = [[], [problem], [{ ...problem }], []].map((others) => set.compose([], NOON, others));
    expect(changes.map(({ isChanged }) => isChanged)).toEqual([true, true, false, true]);
    expect(new Set(changes.map(({ objects }) => objects)).size).toBe(1);
  });
});
