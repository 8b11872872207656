/**
 * Random Services out of a small world of addresses and ports, so that two of them often want the same place. Field by
 * field: a random Service is a bare one with every field set at random, and an edit sets one field again.
 *
 * Every field that the model reads is there, with what an API server would let through and, here and there, with what
 * only a file may say. What is invalid comes from the constants below, so that it can be recognised and taken out.
 */
import type { V1LoadBalancerIngress, V1Service, V1ServicePort } from '@kubernetes/client-node';
import {
  PROXY_PROTOCOL_ANNOTATION,
  PROXY_PROTOCOL_VERSIONS,
  SCHEDULER_ANNOTATION,
  SCHEDULERS,
} from '../../src/model/service-policy.ts';
import type { Random } from './random.ts';

/** By family: two addresses that share a chain of the rules, and one that has a chain of its own. */
export const CLUSTER_IPS = {
  IPv4: ['10.96.0.10', '10.96.0.11', '10.96.3.10'],
  IPv6: ['fd00:96::a', 'fd00:96::b', 'fd00:96::3:a'],
} as const;
/** Addresses outside the cluster; the last of each is the load balancers' too. */
export const EXTERNAL_IPS = {
  IPv4: ['203.0.113.1', '198.51.100.1'],
  IPv6: ['2001:db8:113::1', '2001:db8:51::1'],
} as const;
export const LOAD_BALANCER_IPS = {
  IPv4: ['198.51.100.1', '198.51.100.2'],
  IPv6: ['2001:db8:51::1', '2001:db8:51::2'],
} as const;
/** Of the node of a lab and of `rule-fixture.ts`: external addresses may be local too. */
export const NODE_IPS = { IPv4: '192.168.77.2', IPv6: 'fd00:77::2' } as const;

/** The last is a NodePort too: on a local external address the two meet. */
export const SERVICE_PORTS = [53, 80, 443, 8080, 30_080] as const;
/** Two in one chain of the rules, one in another. */
export const NODE_PORTS = [30_080, 30_081, 31_000] as const;
export const HEALTH_CHECK_PORTS = [32_000, 32_001] as const;
/** '' is the port of a Service that has one only, but files may say it beside others. */
export const PORT_NAMES = ['', 'http', 'dns', 'alt'] as const;
const PROTOCOLS = ['TCP', 'TCP', 'TCP', 'UDP', 'UDP', 'UDP', 'SCTP'] as const;

const SOURCE_RANGES = [
  '10.244.1.0/24',
  ' 10.244.1.14/32 ',
  '192.168.77.0/24',
  '0.0.0.0/0',
  'fd00:244:1::/64',
  'fd00:77::9/128',
] as const;

export const INVALID = {
  sourceRange: 'everywhere',
  ipMode: 'Sometimes',
  scheduler: 'fastest',
  proxyProtocol: 'v3',
  timeoutSeconds: 100_000,
} as const;

export type SpecifiedService = V1Service & {
  metadata: NonNullable<V1Service['metadata']> & { annotations: Record<string, string> };
  spec: NonNullable<V1Service['spec']> & { ports: V1ServicePort[] };
};

export interface ServiceField {
  /** As it reads in "an edit of …". */
  readonly name: string;
  /** Changes the object. */
  readonly set: (random: Random, service: SpecifiedService) => void;
}

/** True once in `times`. */
export function oneIn(random: Random, times: number): boolean {
  return random.below(times) === 0;
}

/** Each of them with equal chance, in random order. */
export function someOf<T>(random: Random, values: readonly T[]): T[] {
  return random.shuffled(values.filter(() => oneIn(random, 2)));
}

/** Sets the key, or removes it where the value is undefined: absent is not the same as undefined in a manifest. */
export function assign<T extends object, K extends keyof T>(
  object: T,
  key: K,
  value: T[K] | undefined,
): void {
  if (value === undefined) delete object[key];
  else object[key] = value;
}

const FAMILY_CHOICES = [
  ['IPv4'],
  ['IPv6'],
  ['IPv4', 'IPv6'],
  ['IPv4', 'IPv6'],
  ['IPv6', 'IPv4'],
] as const satisfies readonly (readonly ('IPv4' | 'IPv6')[])[];

/** ClusterIPs of one or both families, in either order; what else names the families is there or not. */
function setClusterIPs(random: Random, { spec }: SpecifiedService): void {
  const families = random.pick(FAMILY_CHOICES);
  const addresses = families.map((family) => random.pick<string>(CLUSTER_IPS[family]));
  spec.clusterIP = addresses[0] ?? '';
  assign(spec, 'clusterIPs', addresses.length > 1 || oneIn(random, 2) ? addresses : undefined);
  assign(spec, 'ipFamilies', oneIn(random, 2) ? [...families] : undefined);
}

const TYPES = ['ClusterIP', 'NodePort', 'NodePort', 'LoadBalancer', 'LoadBalancer', 'ExternalName', 'None'];

/** `None`: headless. An ExternalName may keep the clusterIP that it had. */
function setType(random: Random, service: SpecifiedService): void {
  const { spec } = service;
  const type = random.pick(TYPES);
  spec.type = type === 'None' ? 'ClusterIP' : type;
  assign(spec, 'externalName', type === 'ExternalName' ? 'example.org' : undefined);
  if (type === 'None') {
    spec.clusterIP = 'None';
    delete spec.clusterIPs;
  } else if (spec.clusterIP === 'None') {
    setClusterIPs(random, service);
  }
}

function isSamePort(a: V1ServicePort, b: V1ServicePort): boolean {
  return (a.name ?? '') === (b.name ?? '') && a.protocol === b.protocol;
}

/** A port whose name and protocol no other one has: those are its identity. */
function addPort(random: Random, { spec }: SpecifiedService): void {
  const port: V1ServicePort = { port: random.pick(SERVICE_PORTS), protocol: random.pick(PROTOCOLS) };
  assign(port, 'name', random.pick(PORT_NAMES) || undefined);
  if (oneIn(random, 2)) port.nodePort = random.pick(NODE_PORTS);
  if (!spec.ports.some((other) => isSamePort(other, port))) spec.ports.push(port);
}

/** Does nothing when another port has this identity already. */
function changePort(random: Random, { spec }: SpecifiedService, tweak: (port: V1ServicePort) => void): void {
  if (spec.ports.length === 0) return;
  const index = random.below(spec.ports.length);
  const changed = structuredClone(spec.ports[index]) as V1ServicePort;
  tweak(changed);
  if (spec.ports.some((other, place) => place !== index && isSamePort(other, changed))) return;
  spec.ports[index] = changed;
}

function ingressOf(random: Random, ip: string): V1LoadBalancerIngress {
  const ipMode = random.pick([undefined, undefined, undefined, 'VIP', 'VIP', 'Proxy', INVALID.ipMode]);
  return ipMode === undefined ? { ip } : { ip, ipMode };
}

function setIngress(random: Random, service: SpecifiedService): void {
  const addresses = [...LOAD_BALANCER_IPS.IPv4, ...LOAD_BALANCER_IPS.IPv6];
  if (oneIn(random, 5)) addresses.push(random.pick([NODE_IPS.IPv4, NODE_IPS.IPv6]) as never);
  const ingress = someOf<string>(random, addresses).map((ip) => ingressOf(random, ip));
  if (oneIn(random, 4)) ingress.push({ hostname: 'lb.example.org' });
  assign(service, 'status', ingress.length === 0 ? undefined : { loadBalancer: { ingress } });
}

function setAnnotation(service: SpecifiedService, name: string, value: string | undefined): void {
  assign(service.metadata.annotations, name, value);
}

const POLICIES = [undefined, 'Cluster', 'Local', 'Local'] as const;

export const SERVICE_FIELDS: readonly ServiceField[] = [
  { name: 'the clusterIPs', set: setClusterIPs },
  { name: 'the type', set: setType },
  { name: 'a new port', set: addPort },
  {
    name: 'a port that goes',
    set: (random, { spec }) => {
      if (spec.ports.length > 1) spec.ports.splice(random.below(spec.ports.length), 1);
    },
  },
  {
    name: 'the name of a port',
    set: (random, service) =>
      changePort(random, service, (port) => assign(port, 'name', random.pick(PORT_NAMES) || undefined)),
  },
  {
    name: 'the number of a port',
    set: (random, service) =>
      changePort(random, service, (port) => {
        port.port = random.pick(SERVICE_PORTS);
      }),
  },
  {
    name: 'the protocol of a port',
    set: (random, service) =>
      changePort(random, service, (port) => {
        port.protocol = random.pick(PROTOCOLS);
      }),
  },
  {
    name: 'a nodePort',
    set: (random, service) =>
      changePort(random, service, (port) =>
        assign(port, 'nodePort', random.pick([undefined, 0, ...NODE_PORTS, ...NODE_PORTS])),
      ),
  },
  {
    name: 'the externalIPs',
    set: (random, { spec }) => {
      const addresses: string[] = someOf(random, [...EXTERNAL_IPS.IPv4, ...EXTERNAL_IPS.IPv6, '']);
      if (oneIn(random, 4)) addresses.push(random.pick([NODE_IPS.IPv4, NODE_IPS.IPv6]));
      assign(spec, 'externalIPs', oneIn(random, 3) ? undefined : addresses);
    },
  },
  { name: 'the ingress addresses', set: setIngress },
  {
    name: 'the source ranges',
    set: (random, { spec }) => {
      const ranges: string[] = someOf(random, SOURCE_RANGES);
      if (oneIn(random, 8)) ranges.push(INVALID.sourceRange);
      assign(spec, 'loadBalancerSourceRanges', oneIn(random, 2) ? undefined : ranges);
    },
  },
  {
    name: 'the internal policy',
    set: (random, { spec }) => assign(spec, 'internalTrafficPolicy', random.pick(POLICIES)),
  },
  {
    name: 'the external policy',
    set: (random, { spec }) => assign(spec, 'externalTrafficPolicy', random.pick(POLICIES)),
  },
  {
    name: 'the health check port',
    set: (random, { spec }) =>
      assign(spec, 'healthCheckNodePort', random.pick([undefined, 0, ...HEALTH_CHECK_PORTS])),
  },
  {
    name: 'session affinity',
    set: (random, { spec }) =>
      assign(spec, 'sessionAffinity', random.pick([undefined, 'None', 'ClientIP'] as const)),
  },
  {
    name: 'the time-out of session affinity',
    set: (random, { spec }) => {
      const timeoutSeconds = random.pick([undefined, 0, 1, 30, 86_400, INVALID.timeoutSeconds]);
      const clientIP = timeoutSeconds === undefined ? undefined : { clientIP: { timeoutSeconds } };
      assign(spec, 'sessionAffinityConfig', clientIP);
    },
  },
  {
    name: 'the scheduler',
    set: (random, service) => {
      const scheduler = random.pick([undefined, undefined, ...SCHEDULERS, 'dh', INVALID.scheduler]);
      setAnnotation(service, SCHEDULER_ANNOTATION, scheduler);
    },
  },
  {
    name: 'the PROXY protocol',
    set: (random, service) => {
      const version = random.pick([undefined, undefined, ...PROXY_PROTOCOL_VERSIONS, INVALID.proxyProtocol]);
      setAnnotation(service, PROXY_PROTOCOL_ANNOTATION, version);
    },
  },
];

export interface ServiceIdentity {
  readonly namespace: string;
  readonly name: string;
  /** Decides who keeps a contested place; it stays what it is through all edits. */
  readonly createdAt: string;
}

/** With every field set at random, and one to three ports. */
export function randomService(random: Random, { namespace, name, createdAt }: ServiceIdentity): V1Service {
  const service: SpecifiedService = {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { namespace, name, creationTimestamp: new Date(createdAt), annotations: {} },
    spec: { ports: [] },
  };
  while (service.spec.ports.length === 0 || oneIn(random, 2)) addPort(random, service);
  for (const { set } of SERVICE_FIELDS) set(random, service);
  return service;
}

/** The same Service without what the model reports as invalid: a file that says such things is not taken over. */
export function withoutInvalid(service: V1Service): V1Service {
  const mended = structuredClone(service) as SpecifiedService;
  const { spec, status, metadata } = mended;
  const ranges = spec.loadBalancerSourceRanges?.filter((range) => range !== INVALID.sourceRange);
  assign(spec, 'loadBalancerSourceRanges', ranges);
  for (const ingress of status?.loadBalancer?.ingress ?? []) {
    if (ingress.ipMode === INVALID.ipMode) delete ingress.ipMode;
  }
  if (spec.sessionAffinityConfig?.clientIP?.timeoutSeconds === INVALID.timeoutSeconds)
    delete spec.sessionAffinityConfig;
  for (const value of [INVALID.scheduler, INVALID.proxyProtocol]) {
    for (const [name, text] of Object.entries(metadata.annotations))
      if (text === value) delete metadata.annotations[name];
  }
  return mended;
}
