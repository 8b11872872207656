import { describe, expect, it } from 'vitest';
import { nodeInfoFromNode } from '../../../src/model/node.ts';
import { snapshotFromObjects } from '../../../src/model/snapshot.ts';
import { type DecodedManifest, MAX_PROBLEMS, decodeManifest } from '../../../src/sources/manifests/decode.ts';
import { documents, nodeYaml, serviceYaml, sliceYaml } from './manifest-text.ts';

function decoded(text: string): DecodedManifest {
  return decodeManifest(text, 'web.yaml');
}

/** `object: field: message` of every problem. */
function sentences(text: string): string[] {
  return decoded(text).problems.map(({ object, field, message }) => `${object}: ${field}: ${message}`);
}

function keysOf({ services, endpointSlices }: DecodedManifest): string[] {
  return [...services, ...endpointSlices].map(({ key }) => key);
}

describe('a good manifest', () => {
  it('gives its Services and EndpointSlices, in the order of the file', () => {
    const result = decoded(documents(serviceYaml('b'), sliceYaml('b-1', 'b'), serviceYaml('a')));
    expect(result.problems).toEqual([]);
    expect(result.services.map(({ key, where }) => ({ key, where }))).toEqual([
      { key: 'default/b', where: 'web.yaml document 1' },
      { key: 'default/a', where: 'web.yaml document 3' },
    ]);
    expect(result.endpointSlices[0]?.object).toMatchObject({
      metadata: { namespace: 'default', labels: { 'kubernetes.io/service-name': 'b' } },
      endpoints: [{ addresses: ['10.0.0.1'], conditions: { ready: true } }],
    });
  });

  it.each([
    { name: 'an empty text', text: '' },
    { name: 'blank lines and a comment', text: '\n# nothing\n\n' },
    { name: 'separators only', text: '---\n---\n# c\n---\n' },
    { name: 'null', text: 'null\n' },
    { name: 'an empty List', text: 'apiVersion: v1\nkind: List\nitems: []\n' },
    { name: 'a List without items', text: 'apiVersion: v1\nkind: List\nitems:\n' },
  ])('may be $name', ({ text }) => {
    expect(decoded(text)).toEqual({
      services: [],
      endpointSlices: [],
      nodes: [],
      problems: [],
      ignoredKinds: [],
    });
  });

  it('keeps its own namespace', () => {
    const text = serviceYaml('web').replace('  name: web', '  name: web\n  namespace: shop');
    expect(keysOf(decoded(text))).toEqual(['shop/web']);
  });

  it('may be JSON, tabs and all', () => {
    const value = {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 'web' },
      spec: { clusterIP: '10.96.0.1' },
    };
    expect(keysOf(decoded(JSON.stringify(value)))).toEqual(['default/web']);
    expect(keysOf(decoded(JSON.stringify(value, undefined, '\t')))).toEqual(['default/web']);
  });

  it('may have a byte order mark, CRLF, directives and a document end', () => {
    const text = `\uFEFF%YAML 1.2\n---\n${serviceYaml('web')}...\n`.replaceAll('\n', '\r\n');
    expect(keysOf(decoded(text))).toEqual(['default/web']);
  });

  it('may be a List of anything, lists included', () => {
    const inner = { apiVersion: 'v1', kind: 'ServiceList', items: [{ metadata: { name: 'b' } }] };
    const list = {
      apiVersion: 'v1',
      kind: 'List',
      items: [
        { apiVersion: 'v1', kind: 'Service', metadata: { name: 'a' } },
        inner,
        {
          apiVersion: 'discovery.k8s.io/v1',
          kind: 'EndpointSliceList',
          items: [{ metadata: { name: 's' }, addressType: 'IPv4' }],
        },
        { apiVersion: 'v1', kind: 'Pod', metadata: { name: 'p' } },
      ],
    };
    const result = decoded(JSON.stringify(list));
    expect(result.problems).toEqual([]);
    expect(keysOf(result)).toEqual(['default/a', 'default/b', 'default/s']);
    expect(result.services[1]?.where).toBe('web.yaml document 1 items[1].items[0]');
    expect(result.ignoredKinds).toEqual(['v1 Pod']);
  });

  it('may contain other kinds, which are ignored and named', () => {
    const others = ['apps/v1 Deployment', 'serving.knative.dev/v1 Service', 'v1 Endpoints'];
    const text = others.map((other) => {
      const [apiVersion, kind] = other.split(' ');
      return `apiVersion: ${apiVersion}\nkind: ${kind}\nspec: 7\n`;
    });
    expect(decoded(documents(...text, ...text))).toMatchObject({ problems: [], ignoredKinds: others.sort() });
  });

  it('may use null for what is absent, as kubectl does', () => {
    const text = `${serviceYaml('web').replace('  name: web', '  name: web\n  namespace: null\n  creationTimestamp: null\n  labels:')}    nodePort: null\n  clusterIPs: null\nstatus:\n  loadBalancer: {}\n`;
    const { problems, services } = decoded(text);
    expect(problems).toEqual([]);
    expect(services[0]?.object.metadata).toEqual({ name: 'web', namespace: 'default' });
    expect(services[0]?.object.spec).not.toHaveProperty('clusterIPs');
  });

  it('keeps fields that nothing here knows', () => {
    const { services } = decoded(`${serviceYaml('web')}  future: { a: [1] }\n`);
    expect(services[0]?.object.spec).toMatchObject({ future: { a: [1] } });
  });

  it('may share parts by anchor, alias and merge key', () => {
    const text = `apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Service
  metadata: { name: a }
  spec: &spec { clusterIP: 10.96.0.1, ports: [{ port: 80 }] }
- apiVersion: v1
  kind: Service
  metadata: { name: b }
  spec: { <<: *spec, clusterIP: 10.96.0.2 }
`;
    const { problems, services } = decoded(text);
    expect(problems).toEqual([]);
    expect(services[1]?.object.spec).toEqual({ clusterIP: '10.96.0.2', ports: [{ port: 80 }] });
  });

  it('leaves the sense of its values to the model', () => {
    expect(sentences(serviceYaml('web', 'not-an-ip', 70_000))).toEqual([]);
  });
});

describe('a wrong type', () => {
  const web = 'web.yaml document 2 (Service default/web)';

  it.each([
    { from: 'port: 80', to: 'port: "eighty"', says: 'spec.ports[0].port: must be an integer, got "eighty"' },
    { from: 'port: 80', to: 'port: 80.5', says: 'spec.ports[0].port: must be an integer, got 80.5' },
    { from: 'port: 80', to: 'port: .inf', says: 'spec.ports[0].port: must be an integer, got Infinity' },
    { from: 'port: 80', to: 'port:', says: 'spec.ports[0].port: is missing' },
    { from: 'port: 80', to: 'port: { a: 1 }', says: 'spec.ports[0].port: must be an integer, got a map' },
    { from: 'name: http', to: 'name: 80', says: 'spec.ports[0].name: must be text, got 80' },
    { from: 'clusterIP: 10.96.0.10', to: 'clusterIP: 10.5', says: 'spec.clusterIP: must be text, got 10.5' },
    { from: 'clusterIP: 10.96.0.10', to: 'clusterIPs: 1', says: 'spec.clusterIPs: must be a list, got 1' },
    {
      from: 'clusterIP: 10.96.0.10',
      to: 'externalIPs: [~]',
      says: 'spec.externalIPs[0]: must be text, got nothing',
    },
    {
      from: 'clusterIP: 10.96.0.10',
      to: 'publishNotReadyAddresses: yes',
      says: 'spec.publishNotReadyAddresses: must be true or false, got "yes"',
    },
    {
      from: 'clusterIP: 10.96.0.10',
      to: 'sessionAffinityConfig: { clientIP: { timeoutSeconds: 1m } }',
      says: 'spec.sessionAffinityConfig.clientIP.timeoutSeconds: must be an integer, got "1m"',
    },
    {
      from: '  name: web',
      to: '  name: web\n  labels: { a: 1 }',
      says: 'metadata.labels[a]: must be text, got 1',
    },
  ])('in a Service is reported with document and field: $says', ({ from, to, says }) => {
    const text = documents(serviceYaml('other'), serviceYaml('web').replace(from, to));
    expect(sentences(text)).toEqual([`${web}: ${says}`]);
    expect(keysOf(decoded(text))).toEqual(['default/other']);
  });

  it.each([
    { from: 'port: 8080', to: 'port: http', says: 'ports[0].port: must be an integer, got "http"' },
    {
      from: 'addresses: [10.0.0.1]',
      to: 'addresses: 10.0.0.1',
      says: 'endpoints[0].addresses: must be a list, got "10.0.0.1"',
    },
    { from: 'addresses: [10.0.0.1]', to: 'hostname: x', says: 'endpoints[0].addresses: is missing' },
    {
      from: 'ready: true',
      to: 'ready: 1',
      says: 'endpoints[0].conditions.ready: must be true or false, got 1',
    },
    { from: 'addressType: IPv4', to: 'addressTipe: IPv4', says: 'addressType: is missing' },
    { from: '- addresses: [10.0.0.1]\n ', to: '- 7\n#', says: 'endpoints[0]: must be a map, got 7' },
  ])('in an EndpointSlice is reported with document and field: $says', ({ from, to, says }) => {
    const text = sliceYaml('web-1', 'web').replace(from, to);
    expect(sentences(text)).toEqual([`web.yaml document 1 (EndpointSlice default/web-1): ${says}`]);
  });

  it.each([
    { text: '7\n', says: 'web.yaml document 1: : must be a map, got 7' },
    { text: '- a\n', says: 'web.yaml document 1: : must be a map, got a list' },
    { text: 'apiVersion: v1\n', says: 'web.yaml document 1: kind: is missing' },
    { text: 'kind: Service\n', says: 'web.yaml document 1: apiVersion: is missing' },
    {
      text: 'apiVersion: 1\nkind: Service\n',
      says: 'web.yaml document 1: apiVersion: must be non-empty text, got 1',
    },
    { text: 'apiVersion: v1\nkind: Service\n', says: 'web.yaml document 1: metadata: is missing' },
    {
      text: 'apiVersion: v1\nkind: Service\nmetadata: {}\n',
      says: 'web.yaml document 1: metadata.name: is missing',
    },
    {
      text: 'apiVersion: v1\nkind: Service\nmetadata: { name: "" }\n',
      says: 'web.yaml document 1 (Service default/): metadata.name: must be non-empty text, got ""',
    },
    {
      text: 'apiVersion: v1\nkind: Service\nmetadata: { name: 5 }\n',
      says: 'web.yaml document 1: metadata.name: must be non-empty text, got 5',
    },
    {
      text: 'apiVersion: v1\nkind: List\nitems: {}\n',
      says: 'web.yaml document 1: items: must be a list, got a map',
    },
    {
      text: 'apiVersion: v1\nkind: List\nitems: [7]\n',
      says: 'web.yaml document 1: items[0]: must be a map, got 7',
    },
    {
      text: 'apiVersion: v1\nkind: ServiceList\nitems: [{ metadata: { name: a }, spec: 7 }]\n',
      says: 'web.yaml document 1 (Service default/a): items[0].spec: must be a map, got 7',
    },
    {
      text: sliceYaml('a', 'a').replace('discovery.k8s.io/v1', 'discovery.k8s.io/v1beta1'),
      says: 'web.yaml document 1: apiVersion: discovery.k8s.io/v1beta1 is not read from files; use discovery.k8s.io/v1',
    },
  ])('at the top is reported: $says', ({ text, says }) => {
    expect(sentences(text)).toEqual([says]);
  });

  it('a hundred times over is cut short', () => {
    const { problems } = decoded(
      Array<string>(MAX_PROBLEMS + 5)
        .fill('7\n')
        .join('---\n'),
    );
    expect(problems).toHaveLength(MAX_PROBLEMS + 1);
    expect(problems.at(-1)).toMatchObject({ object: 'web.yaml', message: 'and 5 more problems' });
  });
});

describe('a syntax error', () => {
  it('is reported with document, line and column, and costs its own document only', () => {
    const text = documents(serviceYaml('a'), 'kind: [\n', serviceYaml('b'));
    const { problems } = decoded(text);
    expect(problems).toEqual([
      {
        code: 'ERR_MANIFEST_SYNTAX',
        object: 'web.yaml document 2',
        field: '',
        message: expect.stringMatching(/^line 1[123], column \d+: .+$/) as string,
      },
    ]);
    expect(keysOf(decoded(text))).toEqual(['default/a', 'default/b']);
  });

  it.each([
    { name: 'a duplicate key', text: 'a: 1\na: 2\n', says: 'line 2, column 1: duplicated mapping key' },
    {
      name: 'an unknown tag',
      text: '# c\n%YAML 1.2\n---\na: !foo 1\n',
      says: 'line 4, column 4: unknown scalar tag !<!foo>',
    },
    { name: 'an unknown alias', text: 'a: *b\n', says: 'line 1, column 5: unidentified alias "b"' },
    {
      name: 'nesting without end',
      text: '['.repeat(100_000),
      says: 'line 1, column 100: nesting exceeded maxDepth (100)',
    },
  ])('may be $name', ({ text, says }) => {
    expect(sentences(text)).toEqual([`web.yaml document 1: : ${says}`]);
  });
});

describe('a hostile manifest', () => {
  const tooMuch = 'web.yaml document 1: : aliases make it circular, too deep or too large';

  it('with a circle of aliases is refused', () => {
    expect(
      sentences('apiVersion: v1\nkind: Service\nmetadata: &m { name: web, annotations: { a: *m } }\n'),
    ).toEqual([tooMuch]);
  });

  it('with a billion laughs is refused, again and again within one budget', () => {
    const levels = Array.from({ length: 12 }, (_, level) => {
      const items = level === 0 ? 'lol' : `*l${level - 1}`;
      return `l${level}: &l${level} [${Array<string>(10).fill(items).join(', ')}]\n`;
    });
    const bomb = levels.join('');
    expect(sentences(bomb)).toEqual([tooMuch]);
    expect(sentences(documents(bomb, bomb, bomb))).toHaveLength(3);
  });

  it('with a tower of aliases is refused', () => {
    const nested = (inner: string): string => `${'['.repeat(90)}${inner}${']'.repeat(90)}`;
    const levels = Array.from(
      { length: 200 },
      (_, i) => `l${i}: &l${i} ${nested(i === 0 ? '1' : `*l${i - 1}`)}\n`,
    );
    expect(sentences(levels.join(''))).toEqual([tooMuch]);
  });

  it('cannot reach prototypes', () => {
    const { services, problems } = decoded(
      serviceYaml('web').replace('metadata:', '__proto__: { polluted: true }\nmetadata:'),
    );
    expect(problems).toEqual([]);
    expect(Object.getPrototypeOf(services[0]?.object)).toBe(Object.prototype);
    expect({}).not.toHaveProperty('polluted');
  });
});

/** xorshift32: the same numbers for the same seed on every machine. */
function randomFrom(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

describe('any text at all', () => {
  it('decodes without throwing, to objects the model takes without throwing', () => {
    const seed =
      Number(process.env['KUP_FUZZ_SEED'] ?? '') || Math.trunc(performance.timeOrigin % 0xffff_ffff) || 1;
    const random = randomFrom(seed);
    const good = documents(
      serviceYaml('web'),
      sliceYaml('web-1', 'web'),
      serviceYaml('api', 'fd00::1'),
      nodeYaml('n1'),
    );
    const pieces = [
      'null',
      '{}',
      '[]',
      '7',
      '-1',
      '"',
      "'",
      ':',
      '\n',
      '  ',
      '- ',
      '---\n',
      '&a ',
      '*a',
      '!',
      '|',
      '%',
      '\t',
      '[',
      '{',
      '\u0000',
      '\uD800',
      '__proto__',
    ];
    for (let round = 0; round < 2_000; round += 1) {
      let text = good;
      for (let edits = 1 + random(4); edits > 0; edits -= 1) {
        const from = random(text.length + 1);
        const piece = random(4) === 0 ? '' : (pieces[random(pieces.length)] ?? '');
        text = text.slice(0, from) + piece + text.slice(from + random(12));
      }
      try {
        const { services, endpointSlices, nodes, problems } = decoded(text);
        for (const problem of problems) expect(problem.object).toMatch(/^web\.yaml document \d+/);
        snapshotFromObjects({
          services: services.map(({ object }) => object),
          endpointSlices: endpointSlices.map(({ object }) => object),
        });
        for (const { object } of nodes) nodeInfoFromNode(object);
      } catch (error: unknown) {
        throw new Error(`seed ${seed}, round ${round}, text ${JSON.stringify(text)}`, { cause: error });
      }
    }
  });
});
