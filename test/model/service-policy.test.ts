/** Traffic policies, the health check node port and the annotations of a Service. Affinity: service-port.test.ts. */
import type { V1Service } from '@kubernetes/client-node';
import { describe, expect, test } from 'vitest';
import { SCHEDULERS, type ServicePolicy, servicePolicyOf } from '../../src/model/service-policy.ts';
import { type ServiceTweak, makeService } from '../support/objects.ts';

interface Reading extends ServicePolicy {
  /** `field: message`. */
  readonly problems: readonly string[];
}

function read(tweak: ServiceTweak = () => {}): Reading {
  const problems: string[] = [];
  const report = (field: string, message: string): void => void problems.push(`${field}: ${message}`);
  return { ...servicePolicyOf(makeService('web', tweak), report), problems };
}

function withSpec(spec: object): ServiceTweak {
  return (service) => void Object.assign(service.spec, spec);
}

function withAnnotations(annotations: unknown): ServiceTweak {
  return ({ metadata }) => void Object.assign(metadata ?? {}, { annotations });
}

test('a Service that says nothing is treated as Kubernetes’ defaults have it', () => {
  expect(read()).toEqual({
    sessionAffinity: { kind: 'None' },
    internalTrafficPolicy: 'Cluster',
    externalTrafficPolicy: 'Cluster',
    healthCheckNodePort: 0,
    scheduler: undefined,
    proxyProtocol: undefined,
    problems: [],
  });
});

describe.each(['internalTrafficPolicy', 'externalTrafficPolicy'] as const)('%s', (field) => {
  const other = field === 'internalTrafficPolicy' ? 'externalTrafficPolicy' : 'internalTrafficPolicy';

  test.each([
    { given: 'Local', expected: 'Local' },
    { given: 'Cluster', expected: 'Cluster' },
    { given: '', expected: 'Cluster' },
    { given: undefined, expected: 'Cluster' },
    { given: null, expected: 'Cluster' },
  ])('$given means $expected, and says nothing of the other', ({ given, expected }) => {
    expect(read(withSpec({ [field]: given }))).toMatchObject({
      [field]: expected,
      [other]: 'Cluster',
      problems: [],
    });
  });

  test.each(['local', 'Global', 'PreferLocal', ' Local'])('%j is reported and means Cluster', (given) => {
    const { problems, ...policy } = read(withSpec({ [field]: given }));
    expect(policy[field]).toBe('Cluster');
    expect(problems).toEqual([
      `spec.${field}: ${JSON.stringify(given)} is neither "Cluster" nor "Local"; taken as "Cluster"`,
    ]);
  });
});

describe('the health check node port', () => {
  const asked = { type: 'LoadBalancer', externalTrafficPolicy: 'Local', healthCheckNodePort: 30_999 };

  test('is that of a load balancer with external policy Local', () => {
    expect(read(withSpec(asked))).toMatchObject({ healthCheckNodePort: 30_999, problems: [] });
  });

  test.each([
    { name: 'with external policy Cluster', spec: { externalTrafficPolicy: 'Cluster' } },
    { name: 'without external policy', spec: { externalTrafficPolicy: undefined } },
    {
      name: 'with internal policy Local only',
      spec: { externalTrafficPolicy: '', internalTrafficPolicy: 'Local' },
    },
    { name: 'of type NodePort', spec: { type: 'NodePort' } },
    { name: 'of type ClusterIP', spec: { type: 'ClusterIP' } },
    { name: 'without type', spec: { type: undefined } },
    { name: 'without the port', spec: { healthCheckNodePort: undefined } },
    { name: 'with port 0', spec: { healthCheckNodePort: 0 } },
    { name: 'with a null port', spec: { healthCheckNodePort: null } },
    { name: 'with a bad port that nobody asks for', spec: { type: 'NodePort', healthCheckNodePort: 70_000 } },
  ])('is none for a Service $name', ({ spec }) => {
    expect(read(withSpec({ ...asked, ...spec }))).toMatchObject({ healthCheckNodePort: 0, problems: [] });
  });

  test('is none for an external policy that nobody knows, which alone is reported', () => {
    const { healthCheckNodePort, problems } = read(withSpec({ ...asked, externalTrafficPolicy: 'local' }));
    expect(healthCheckNodePort).toBe(0);
    expect(problems).toHaveLength(1);
  });

  test.each([65_536, -1, 1.5, Number.NaN])('%d is reported, and there is none', (healthCheckNodePort) => {
    const reading = read(withSpec({ ...asked, healthCheckNodePort }));
    expect(reading).toMatchObject({ healthCheckNodePort: 0, externalTrafficPolicy: 'Local' });
    expect(reading.problems).toEqual([
      `spec.healthCheckNodePort: ${healthCheckNodePort} is outside 1 to 65535; no health check`,
    ]);
  });

  test.each([1, 65_535])('may be %d', (healthCheckNodePort) => {
    expect(read(withSpec({ ...asked, healthCheckNodePort })).healthCheckNodePort).toBe(healthCheckNodePort);
  });
});

describe.each([
  { annotation: 'userspace-proxy.io/scheduler', field: 'scheduler', choices: SCHEDULERS },
  { annotation: 'userspace-proxy.io/proxy-protocol', field: 'proxyProtocol', choices: ['v1', 'v2'] },
] as const)('the annotation $annotation', ({ annotation, field, choices }) => {
  test.each(choices)('may be %s', (choice) => {
    expect(read(withAnnotations({ [annotation]: choice, other: 'x' }))).toMatchObject({
      [field]: choice,
      problems: [],
    });
  });

  test('may have white space around it', () => {
    expect(read(withAnnotations({ [annotation]: ` ${choices[0]}\n` }))).toMatchObject({
      [field]: choices[0],
      problems: [],
    });
  });

  test.each([
    { name: 'absent', annotations: undefined },
    { name: 'absent with all annotations', annotations: null },
    { name: 'null', annotations: { [annotation]: null } },
    { name: 'empty', annotations: { [annotation]: '' } },
    { name: 'white space', annotations: { [annotation]: ' ' } },
    { name: 'of another name', annotations: { [`x.${annotation}`]: 'v1', [`${annotation}s`]: 'rr' } },
  ])('chooses nothing when it is $name', ({ annotations }) => {
    const reading = read(withAnnotations(annotations));
    expect(reading[field]).toBeUndefined();
    expect(reading.problems).toEqual([]);
  });

  test.each(['wrr', 'RR', 'V2', '2', 'v1,v2', 'true', 'constructor', '__proto__'])(
    '%j is reported and ignored',
    (text) => {
      const reading = read(withAnnotations({ [annotation]: text }));
      expect(reading[field]).toBeUndefined();
      expect(reading.problems).toEqual([
        `metadata.annotations[${annotation}]: ${JSON.stringify(text)} is none of ${choices.join(', ')}; ignored`,
      ]);
    },
  );
});

test('one that cannot be used costs the others nothing', () => {
  const reading = read((service: V1Service) => {
    Object.assign(service.metadata ?? {}, {
      annotations: { 'userspace-proxy.io/scheduler': 'wrr', 'userspace-proxy.io/proxy-protocol': 'v2' },
    });
    Object.assign(service.spec ?? {}, { internalTrafficPolicy: 'Local', sessionAffinity: 'Cookie' });
  });
  expect(reading).toMatchObject({
    internalTrafficPolicy: 'Local',
    scheduler: undefined,
    proxyProtocol: 'v2',
    sessionAffinity: { kind: 'None' },
  });
  expect(reading.problems).toHaveLength(2);
});
