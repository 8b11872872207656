/** The resources: what is asked for, and how a raw object becomes one that is kept, or names what is wrong. */
import { describe, expect, test } from 'vitest';
import { endpointsFromSlices } from '../../../src/model/endpoint.ts';
import { nodeInfoFromNode } from '../../../src/model/node.ts';
import { servicePortsFromService } from '../../../src/model/service-port.ts';
import {
  decodeObject,
  endpointSliceResource,
  namelessObject,
  nodeResource,
  objectKey,
  serviceResource,
  serviceSelector,
} from '../../../src/sources/kubernetes/resource.ts';
import { Random, seeds } from '../../support/random.ts';
import { brokenCopy, richNode, richService, richSlice } from '../../support/rich-objects.ts';

const PROXY = 'service.kubernetes.io/service-proxy-name';
const HEADLESS = 'service.kubernetes.io/headless';

const services = serviceResource('');
const slices = endpointSliceResource('');
const nodes = nodeResource('n1');

interface Kind {
  readonly name: string;
  readonly object: () => object;
  /** `default/web`, as it is kept. */
  readonly key: string;
  readonly says: string;
  /** The problems, or undefined when it was decoded, and converted afterwards. */
  readonly decode: (
    raw: unknown,
    key: string,
  ) => readonly { field: string; object: string; code: string }[] | undefined;
}

const KINDS: readonly Kind[] = [
  {
    name: 'Service',
    object: richService,
    key: 'default/web',
    says: 'Service default/web',
    decode: (raw, key) => {
      const decoded = decodeObject(services, raw, key);
      if ('problems' in decoded) return decoded.problems;
      servicePortsFromService(decoded.object);
      return undefined;
    },
  },
  {
    name: 'EndpointSlice',
    object: richSlice,
    key: 'default/web-abcde',
    says: 'EndpointSlice default/web-abcde',
    decode: (raw, key) => {
      const decoded = decodeObject(slices, raw, key);
      if ('problems' in decoded) return decoded.problems;
      endpointsFromSlices([decoded.object]);
      return undefined;
    },
  },
  {
    name: 'Node',
    object: richNode,
    key: '/n1',
    says: 'Node n1',
    decode: (raw, key) => {
      const decoded = decodeObject(nodes, raw, key);
      if ('problems' in decoded) return decoded.problems;
      nodeInfoFromNode(decoded.object);
      return undefined;
    },
  },
];

function kindOf(name: string): Kind {
  const kind = KINDS.find((one) => one.name === name);
  if (kind === undefined) throw new Error(`there is no ${name}`);
  return kind;
}

/** The object with that at that place (`spec.ports.0.port`); undefined removes it. */
function withValue(object: object, path: string, value: unknown): object {
  const copy = structuredClone(object) as Record<string, unknown>;
  const names = path.split('.');
  const last = names.pop() ?? '';
  let place = copy;
  for (const name of names) place = place[name] as Record<string, unknown>;
  if (value === undefined) delete place[last];
  else place[last] = value;
  return copy;
}

describe('what is asked for', () => {
  test('is what no other proxy serves, and nothing without cluster IP', () => {
    expect(serviceSelector('')).toBe(`!${PROXY},!${HEADLESS}`);
  });

  test('is only what names this proxy, when it has a name', () => {
    expect(serviceSelector('blue')).toBe(`${PROXY}=blue,!${HEADLESS}`);
  });

  test('is the same of Services and of their slices', () => {
    for (const name of ['', 'blue']) {
      const query = { labelSelector: serviceSelector(name) };
      expect(serviceResource(name).query).toEqual(query);
      expect(endpointSliceResource(name).query).toEqual(query);
    }
  });

  test('is one Node, by its name', () => {
    expect(nodeResource('ip-10-0-0-1.ec2.internal').query).toEqual({
      fieldSelector: 'metadata.name=ip-10-0-0-1.ec2.internal',
    });
  });

  test('is of the version that we read first, and of an older one only for slices', () => {
    expect([services, slices, nodes].map(({ endpoints }) => endpoints.map(({ path }) => path))).toEqual([
      ['/api/v1/services'],
      ['/apis/discovery.k8s.io/v1/endpointslices', '/apis/discovery.k8s.io/v1beta1/endpointslices'],
      ['/api/v1/nodes'],
    ]);
    expect(slices.endpoints.map(({ adapt }) => adapt !== undefined)).toEqual([false, true]);
  });
});

describe('the key of an object', () => {
  test.for([
    {
      name: 'has its namespace',
      object: { metadata: { name: 'web', namespace: 'default' } },
      key: 'default/web',
    },
    { name: 'has none of what has no namespace', object: { metadata: { name: 'n1' } }, key: '/n1' },
    { name: 'takes null for none', object: { metadata: { name: 'n1', namespace: null } }, key: '/n1' },
    {
      name: 'may look like anything',
      object: { metadata: { name: '__proto__', namespace: 'constructor' } },
      key: 'constructor/__proto__',
    },
    { name: 'does not exist without a name', object: { metadata: { namespace: 'default' } }, key: undefined },
    { name: 'does not exist for an empty name', object: { metadata: { name: '' } }, key: undefined },
    { name: 'does not exist for a name that is no text', object: { metadata: { name: 7 } }, key: undefined },
    {
      name: 'does not exist for a namespace that is no text',
      object: { metadata: { name: 'a', namespace: 7 } },
      key: undefined,
    },
    { name: 'does not exist without metadata', object: {}, key: undefined },
    { name: 'does not exist for metadata that are a list', object: { metadata: [] }, key: undefined },
    { name: 'does not exist for null', object: null, key: undefined },
    { name: 'does not exist for text', object: 'web', key: undefined },
  ])('$name', ({ object, key }) => {
    expect(objectKey(object)).toBe(key);
  });

  test.for([null, undefined, 'x'.repeat(1000), 7, [], {}])(
    'where it does not exist the problem says what stands there: %#',
    (raw) => {
      const problem = namelessObject('Service', raw);
      expect(problem).toMatchObject({
        code: 'ERR_API_OBJECT_INVALID',
        object: 'Service without name',
        field: 'metadata.name',
      });
      expect(problem.message.length).toBeLessThan(200);
    },
  );
});

describe('a sound object is taken', () => {
  test.for(KINDS)('of the kind $name with every field there is', ({ object, key, decode }) => {
    expect(objectKey(object())).toBe(key);
    expect(decode(object(), key)).toBeUndefined();
  });

  test.for([
    { kind: 'Service', path: 'metadata.creationTimestamp' },
    { kind: 'Service', path: 'metadata.annotations' },
    { kind: 'Service', path: 'spec' },
    { kind: 'Service', path: 'spec.ports' },
    { kind: 'Service', path: 'spec.sessionAffinityConfig.clientIP' },
    { kind: 'Service', path: 'status' },
    { kind: 'EndpointSlice', path: 'endpoints' },
    { kind: 'EndpointSlice', path: 'endpoints.0.conditions.ready' },
    { kind: 'EndpointSlice', path: 'ports' },
    { kind: 'EndpointSlice', path: 'ports.0.name' },
    { kind: 'Node', path: 'spec.taints' },
    { kind: 'Node', path: 'status' },
    { kind: 'Node', path: 'metadata.labels' },
  ])('when $path of a $kind is null, which means absent', ({ kind: name, path }) => {
    const { object, key, decode } = kindOf(name);
    expect(decode(withValue(object(), path, null), key)).toBeUndefined();
  });

  test.for(KINDS)(
    'of the kind $name however deep its managedFields are nested, by whoever wrote them',
    ({ object, key, decode }) => {
      const depth = 9000;
      const fieldsV1: unknown = JSON.parse(`${'{"f:a":'.repeat(depth)}{}${'}'.repeat(depth)}`);
      expect(decode(withValue(object(), 'metadata.managedFields', [{ fieldsV1 }]), key)).toBeUndefined();
    },
  );

  test('and is not changed by it', () => {
    for (const { object, key, decode } of KINDS) {
      const raw = object();
      decode(raw, key);
      expect(raw).toEqual(object());
    }
  });
});

describe('a malformed object names itself and what is wrong', () => {
  test.for([
    { kind: 'Service', path: 'metadata', value: undefined, field: 'metadata' },
    { kind: 'Service', path: 'metadata.name', value: 7, field: 'metadata.name' },
    { kind: 'Service', path: 'metadata.namespace', value: '', field: 'metadata.namespace' },
    { kind: 'Service', path: 'spec', value: 'none', field: 'spec' },
    { kind: 'Service', path: 'spec.clusterIP', value: 10, field: 'spec.clusterIP' },
    { kind: 'Service', path: 'spec.clusterIPs', value: '10.96.0.10', field: 'spec.clusterIPs' },
    { kind: 'Service', path: 'spec.clusterIPs.1', value: {}, field: 'spec.clusterIPs[1]' },
    { kind: 'Service', path: 'spec.ports', value: {}, field: 'spec.ports' },
    { kind: 'Service', path: 'spec.ports.0.port', value: '80', field: 'spec.ports[0].port' },
    { kind: 'Service', path: 'spec.ports.1.port', value: null, field: 'spec.ports[1].port' },
    { kind: 'Service', path: 'spec.ports.1.protocol', value: 6, field: 'spec.ports[1].protocol' },
    {
      kind: 'Service',
      path: 'spec.sessionAffinityConfig.clientIP.timeoutSeconds',
      value: '10',
      field: 'spec.sessionAffinityConfig.clientIP.timeoutSeconds',
    },
    {
      kind: 'Service',
      path: 'status.loadBalancer.ingress',
      value: 'x',
      field: 'status.loadBalancer.ingress',
    },
    { kind: 'EndpointSlice', path: 'addressType', value: undefined, field: 'addressType' },
    { kind: 'EndpointSlice', path: 'metadata.labels', value: ['web'], field: 'metadata.labels' },
    {
      kind: 'EndpointSlice',
      path: 'metadata.annotations',
      value: { a: 1 },
      field: 'metadata.annotations[a]',
    },
    { kind: 'EndpointSlice', path: 'endpoints', value: {}, field: 'endpoints' },
    { kind: 'EndpointSlice', path: 'endpoints.2', value: '10.0.0.1', field: 'endpoints[2]' },
    { kind: 'EndpointSlice', path: 'endpoints.2', value: null, field: 'endpoints[2]' },
    { kind: 'EndpointSlice', path: 'endpoints.1.addresses', value: null, field: 'endpoints[1].addresses' },
    {
      kind: 'EndpointSlice',
      path: 'endpoints.1.conditions.ready',
      value: 'true',
      field: 'endpoints[1].conditions.ready',
    },
    { kind: 'EndpointSlice', path: 'ports.0.port', value: 80.5, field: 'ports[0].port' },
    { kind: 'Node', path: 'metadata.labels', value: 'x', field: 'metadata.labels' },
    { kind: 'Node', path: 'metadata.deletionTimestamp', value: 5, field: 'metadata.deletionTimestamp' },
    { kind: 'Node', path: 'spec.taints', value: {}, field: 'spec.taints' },
    { kind: 'Node', path: 'spec.taints.0.key', value: null, field: 'spec.taints[0].key' },
    { kind: 'Node', path: 'status.addresses.0.address', value: 4, field: 'status.addresses[0].address' },
  ])('$kind with $path $value', ({ kind: name, path, value, field }) => {
    const { object, key, says, decode } = kindOf(name);
    const problems = decode(withValue(object(), path, value), key) ?? [];
    expect(problems).toMatchObject([{ code: 'ERR_API_OBJECT_INVALID', object: says, field }]);
  });

  test('and all that is wrong, not only the first', () => {
    const { object, key, decode } = kindOf('Service');
    const raw = withValue(withValue(object(), 'spec.clusterIP', 1), 'spec.ports.0.port', 'x');
    expect((decode(raw, key) ?? []).map(({ field }) => field)).toEqual([
      'spec.clusterIP',
      'spec.ports[0].port',
    ]);
  });

  test.for(KINDS.map(({ name }) => name))('%s: what is no map at all', (name) => {
    for (const raw of [null, undefined, [], 'x', 7]) {
      expect(kindOf(name).decode(raw, 'default/web')).toMatchObject([{ field: '' }]);
    }
  });

  test.for(seeds(60))('and nothing at all makes it throw, here or in the model (seed %i)', (seed) => {
    const random = new Random(seed);
    for (const { object, key, says, decode } of KINDS) {
      for (let count = 0; count < 20; count += 1) {
        for (const problem of decode(brokenCopy(object(), random), key) ?? []) {
          expect(problem).toMatchObject({ code: 'ERR_API_OBJECT_INVALID', object: says });
        }
      }
    }
    expect({}).not.toHaveProperty('polluted');
  });
});
