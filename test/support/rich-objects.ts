/**
 * A Service, a slice and a Node as API servers send them, with every field that there is, and random versions of
 * them that are broken somewhere.
 */
import type { V1EndpointSlice, V1Node, V1Service } from '@kubernetes/client-node';
import type { Random } from './random.ts';

/** What every object carries and nobody here reads: much text. */
function ballast(): object {
  return {
    uid: '4a4e0b1c-0000-4000-8000-000000000001',
    resourceVersion: '123456',
    generation: 3,
    ownerReferences: [{ apiVersion: 'v1', kind: 'Service', name: 'web', uid: 'x', controller: true }],
    finalizers: ['service.kubernetes.io/load-balancer-cleanup'],
    managedFields: [
      {
        manager: 'kubectl-client-side-apply',
        operation: 'Update',
        apiVersion: 'v1',
        time: '2026-11-21T09:00:00Z',
        fieldsType: 'FieldsV1',
        fieldsV1: { 'f:metadata': { 'f:annotations': { '.': {}, [`f:${'x'.repeat(5000)}`]: {} } } },
      },
    ],
  };
}

const BIG_ANNOTATION = { 'kubectl.kubernetes.io/last-applied-configuration': '{"spec":{}}'.repeat(1000) };

export function richService(): V1Service {
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: {
      ...ballast(),
      name: 'web',
      namespace: 'default',
      labels: { app: 'web', tier: 'front' },
      annotations: {
        ...BIG_ANNOTATION,
        'userspace-proxy.io/note': 'kept',
        'userspace-proxy.io/scheduler': 'lc',
        'userspace-proxy.io/proxy-protocol': 'v2',
      },
      // A Date in the types, text on the wire.
      ...({ creationTimestamp: '2026-11-20T10:00:00Z' } as object),
    },
    spec: {
      type: 'LoadBalancer',
      clusterIP: '10.96.0.10',
      clusterIPs: ['10.96.0.10', 'fd00::10'],
      externalIPs: ['192.0.2.10', '2001:db8::10'],
      ipFamilies: ['IPv4', 'IPv6'],
      ipFamilyPolicy: 'RequireDualStack',
      ports: [
        { name: 'http', protocol: 'TCP', appProtocol: 'http', port: 80, targetPort: 'web', nodePort: 30080 },
        { name: 'dns', protocol: 'UDP', port: 53, targetPort: 5353 },
        { name: 'big', protocol: 'TCP', port: 70_000 },
        { name: 'sctp', protocol: 'SCTP', port: 9 },
      ],
      selector: { app: 'web' },
      sessionAffinity: 'ClientIP',
      sessionAffinityConfig: { clientIP: { timeoutSeconds: 600 } },
      externalTrafficPolicy: 'Local',
      internalTrafficPolicy: 'Local',
      trafficDistribution: 'PreferClose',
      healthCheckNodePort: 30_999,
      publishNotReadyAddresses: false,
      allocateLoadBalancerNodePorts: true,
      loadBalancerClass: 'example.com/lb',
      loadBalancerIP: '198.51.100.1',
      loadBalancerSourceRanges: ['198.51.100.0/24', ' 2001:db8::/32 '],
    },
    status: {
      loadBalancer: {
        ingress: [
          { ip: '198.51.100.1', ipMode: 'VIP', ports: [{ port: 80, protocol: 'TCP' }] },
          { ip: '2001:db8::1' },
          { ip: '198.51.100.2', ipMode: 'Proxy' },
          { hostname: 'lb.example.com' },
        ],
      },
      conditions: [
        {
          type: 'LoadBalancerPortsError',
          status: 'False',
          reason: 'x',
          message: 'y',
          ...({ lastTransitionTime: '2026-11-20T10:00:00Z' } as unknown as { lastTransitionTime: Date }),
        },
      ],
    },
  };
}

export function richSlice(): V1EndpointSlice {
  return {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: {
      ...ballast(),
      name: 'web-abcde',
      namespace: 'default',
      generateName: 'web-',
      labels: {
        'kubernetes.io/service-name': 'web',
        'endpointslice.kubernetes.io/managed-by': 'endpointslice-controller.k8s.io',
        app: 'web',
      },
      annotations: {
        ...BIG_ANNOTATION,
        'endpoints.kubernetes.io/last-change-trigger-time': '2026-11-21T08:00:00.5Z',
      },
    },
    addressType: 'IPv4',
    ports: [
      { name: 'http', protocol: 'TCP', port: 8080, appProtocol: 'http' },
      { name: 'dns', protocol: 'UDP', port: 5353 },
      { name: 'none', protocol: 'TCP' },
    ],
    endpoints: [
      {
        addresses: ['10.0.0.1', '10.0.0.99'],
        conditions: { ready: true, serving: true, terminating: false },
        hostname: 'web-0',
        nodeName: 'n1',
        zone: 'z1',
        hints: { forZones: [{ name: 'z1' }, { name: 'z2' }], forNodes: [{ name: 'n1' }] },
        targetRef: { kind: 'Pod', namespace: 'default', name: 'web-0', uid: 'p' },
        deprecatedTopology: { rack: 'r1' },
      },
      { addresses: ['10.0.0.2'], conditions: { ready: false, serving: true, terminating: true } },
      { addresses: ['10.0.0.3'] },
      { addresses: ['127.0.0.1'], nodeName: 'n2' },
    ],
  };
}

export function richNode(): V1Node {
  return {
    apiVersion: 'v1',
    kind: 'Node',
    metadata: {
      ...ballast(),
      name: 'n1',
      labels: { 'kubernetes.io/hostname': 'n1', 'topology.kubernetes.io/zone': 'z1' },
      annotations: BIG_ANNOTATION,
    },
    spec: {
      podCIDR: '10.0.0.0/24',
      podCIDRs: ['10.0.0.0/24', 'fd00:0:0:1::/64'],
      providerID: 'cloud://n1',
      taints: [
        { key: 'node.kubernetes.io/not-ready', effect: 'NoSchedule' },
        { key: 'ToBeDeletedByClusterAutoscaler', value: '1', effect: 'NoSchedule' },
      ],
    },
    status: {
      addresses: [
        { type: 'InternalIP', address: '192.0.2.1' },
        { type: 'InternalIP', address: 'no address' },
        { type: 'InternalIP', address: '2001:db8::1' },
        { type: 'Hostname', address: 'n1' },
      ],
      capacity: { cpu: '8', memory: '32Gi' },
      images: Array.from({ length: 50 }, (_, index) => ({ names: [`image-${index}`], sizeBytes: index })),
      nodeInfo: {
        architecture: 'amd64',
        bootID: 'b',
        containerRuntimeVersion: 'containerd://2',
        kernelVersion: '6.12',
        kubeProxyVersion: '',
        kubeletVersion: 'v1.36.0',
        machineID: 'm',
        operatingSystem: 'linux',
        osImage: 'Debian',
        systemUUID: 's',
      },
    },
  };
}

/** Every copy in which one field or element, wherever it stands, is another value or missing. */
export function* copiesWithOneChange(object: object, values: readonly unknown[]): Generator<object> {
  const count = placesIn(object as Container).length;
  for (let place = 0; place < count; place += 1) {
    for (const value of [MISSING, ...values]) {
      const copy = structuredClone(object) as Container;
      const [container, key] = placesIn(copy)[place] ?? [copy, ''];
      const target = container as Record<string, unknown>;
      if (value === MISSING) delete target[key];
      else target[key] = value;
      yield copy;
    }
  }
}

const MISSING = Symbol('missing');

type Container = Record<string, unknown> | unknown[];

const JUNK: readonly unknown[] = [
  null,
  true,
  0,
  -1,
  1.5,
  1e300,
  '',
  'x',
  '\u0000',
  '__proto__',
  [],
  {},
  [null],
  [[]],
  [{}],
  { '': '' },
  { __proto__: null },
  JSON.parse('{"__proto__":{"polluted":true},"constructor":1}'),
  'y'.repeat(10_000),
];

/** A copy in which one to four fields or elements, wherever they stand, are junk or missing. */
export function brokenCopy(object: object, random: Random): unknown {
  const copy = structuredClone(object) as Container;
  for (let count = 1 + random.below(4); count > 0; count -= 1) {
    const [container, key] = random.pick(placesIn(copy));
    const target = container as Record<string, unknown>;
    if (random.next() < 0.2) delete target[key];
    else target[key] = structuredClone(random.pick(JUNK));
  }
  return copy;
}

function placesIn(container: Container): [Container, string][] {
  return Object.entries(container).flatMap(([key, value]) => [
    [container, key] as [Container, string],
    ...(typeof value === 'object' && value !== null ? placesIn(value as Container) : []),
  ]);
}
