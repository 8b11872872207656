/**
 * Random EndpointSlices, field by field as `random-service.ts` does it. Their ports have every name that a Service port
 * may have, so that most Service ports find endpoints, whatever becomes of their names.
 */
import type { DiscoveryV1EndpointPort, V1Endpoint, V1EndpointSlice } from '@kubernetes/client-node';
import { SERVICE_NAME_LABEL } from '../../src/model/endpoint.ts';
import type { Random } from './random.ts';
import { CLUSTER_IPS, NODE_IPS, PORT_NAMES, assign, oneIn, someOf } from './random-service.ts';
import { OWN_NODE } from './rule-fixture.ts';

export const TARGET_PORTS = [8080, 8081] as const;
export const ZONES = ['zone-a', 'zone-b'] as const;
const NODES = [OWN_NODE, 'node2'] as const;

/**
 * The four pods of a lab; the node itself, for a pod of the host's network; and what some Service may have as its own
 * address, which nobody may dial then.
 */
const ENDPOINT_ADDRESSES = {
  IPv4: ['10.244.1.11', '10.244.1.12', '10.244.1.13', '10.244.1.14', NODE_IPS.IPv4, CLUSTER_IPS.IPv4[1]],
  IPv6: [
    'fd00:244:1::11',
    'fd00:244:1::12',
    'fd00:244:1::13',
    'fd00:244:1::14',
    NODE_IPS.IPv6,
    CLUSTER_IPS.IPv6[1],
  ],
} as const;

export type SpecifiedSlice = V1EndpointSlice & {
  metadata: NonNullable<V1EndpointSlice['metadata']> & { labels: Record<string, string> };
  endpoints: V1Endpoint[];
};

export interface SliceField {
  /** As it reads in "an edit of …". */
  readonly name: string;
  /** Changes the object. */
  readonly set: (random: Random, slice: SpecifiedSlice) => void;
}

export function serviceNameOf({ metadata }: V1EndpointSlice): string {
  return metadata?.labels?.[SERVICE_NAME_LABEL] ?? '';
}

const READY = { ready: true, serving: true, terminating: false };
const CONDITIONS = [
  undefined,
  {},
  { ready: true },
  ...Array.from({ length: 7 }, () => READY),
  { ready: false, serving: true, terminating: true },
  { ready: false, serving: true, terminating: true },
  { ready: false, serving: false, terminating: true },
  { ready: false, serving: false, terminating: false },
  // publishNotReadyAddresses.
  { ready: true, serving: false, terminating: true },
] as const satisfies readonly V1Endpoint['conditions'][];

const HINTS = [
  undefined,
  undefined,
  {},
  ...ZONES.map((name) => ({ forZones: [{ name }] })),
  { forZones: ZONES.map((name) => ({ name })) },
  { forZones: [{ name: ZONES[0] }], forNodes: [{ name: OWN_NODE }] },
  { forNodes: NODES.map((name) => ({ name })) },
] as const satisfies readonly V1Endpoint['hints'][];

function setConditions(random: Random, endpoint: V1Endpoint): void {
  const conditions = random.pick<V1Endpoint['conditions'] | undefined>(CONDITIONS);
  assign(endpoint, 'conditions', conditions && structuredClone(conditions));
}

function setNodeName(random: Random, endpoint: V1Endpoint): void {
  assign(endpoint, 'nodeName', random.pick([undefined, OWN_NODE, ...NODES]));
}

function setHints(random: Random, endpoint: V1Endpoint): void {
  const hints = random.pick<V1Endpoint['hints'] | undefined>(HINTS);
  assign(endpoint, 'hints', hints && structuredClone(hints));
}

function familyOfSlice({ addressType }: V1EndpointSlice): 'IPv4' | 'IPv6' {
  return addressType === 'IPv6' ? 'IPv6' : 'IPv4';
}

function randomEndpoint(random: Random, slice: SpecifiedSlice): V1Endpoint {
  const endpoint: V1Endpoint = { addresses: [random.pick<string>(ENDPOINT_ADDRESSES[familyOfSlice(slice)])] };
  setConditions(random, endpoint);
  setNodeName(random, endpoint);
  if (oneIn(random, 3)) setHints(random, endpoint);
  return endpoint;
}

function randomEndpoints(random: Random, slice: SpecifiedSlice): V1Endpoint[] {
  const length = random.pick([0, 1, 1, 2, 3, 3, 5]);
  return Array.from({ length }, () => randomEndpoint(random, slice));
}

function changeEndpoint(random: Random, slice: SpecifiedSlice, tweak: (endpoint: V1Endpoint) => void): void {
  if (slice.endpoints.length > 0) tweak(random.pick(slice.endpoints));
}

/** One number for all, or one for each protocol; now and then a name is missing, or a port has no number. */
function setPorts(random: Random, slice: SpecifiedSlice): void {
  const numbers = { TCP: random.pick(TARGET_PORTS), UDP: random.pick(TARGET_PORTS) };
  const names = oneIn(random, 8) ? someOf(random, PORT_NAMES) : PORT_NAMES;
  slice.ports = names.flatMap((name) =>
    (['TCP', 'UDP'] as const).map((protocol): DiscoveryV1EndpointPort => {
      const port: DiscoveryV1EndpointPort = { protocol };
      assign(port, 'name', name === '' ? undefined : name);
      assign(port, 'port', oneIn(random, 30) ? undefined : numbers[protocol]);
      return port;
    }),
  );
  if (oneIn(random, 4)) slice.ports.push({ name: 'sctp', protocol: 'SCTP', port: 9 });
}

export const SLICE_FIELDS: readonly SliceField[] = [
  {
    name: 'a new endpoint',
    set: (random, slice) => {
      if (slice.endpoints.length < 6) slice.endpoints.push(randomEndpoint(random, slice));
    },
  },
  {
    name: 'an endpoint that goes',
    set: (random, { endpoints }) => {
      if (endpoints.length > 0) endpoints.splice(random.below(endpoints.length), 1);
    },
  },
  {
    name: 'all endpoints',
    set: (random, slice) => {
      slice.endpoints = randomEndpoints(random, slice);
    },
  },
  {
    name: 'the conditions of an endpoint',
    set: (random, slice) => changeEndpoint(random, slice, (endpoint) => setConditions(random, endpoint)),
  },
  {
    name: 'the node of an endpoint',
    set: (random, slice) => changeEndpoint(random, slice, (endpoint) => setNodeName(random, endpoint)),
  },
  {
    name: 'the hints of an endpoint',
    set: (random, slice) => changeEndpoint(random, slice, (endpoint) => setHints(random, endpoint)),
  },
  {
    name: 'the hints of all endpoints',
    set: (random, { endpoints }) => {
      const hints = random.pick<V1Endpoint['hints'] | undefined>(HINTS);
      for (const endpoint of endpoints) assign(endpoint, 'hints', hints && structuredClone(hints));
    },
  },
  { name: 'the ports', set: setPorts },
  {
    name: 'the label with the Service',
    set: (random, { metadata: { labels } }) => {
      // Kept in the name, so that it finds back.
      const own = labels['own'] ?? '';
      assign(labels, SERVICE_NAME_LABEL, random.pick([undefined, own, own, own]));
    },
  },
];

export interface SliceIdentity {
  readonly namespace: string;
  readonly service: string;
  /** Tells the slices of a Service apart: even ones are of IPv4, odd ones of IPv6. */
  readonly number: number;
}

/** With every field set at random. */
export function randomSlice(random: Random, { namespace, service, number }: SliceIdentity): V1EndpointSlice {
  const slice: SpecifiedSlice = {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: {
      namespace,
      name: `${service}-${number}`,
      labels: { [SERVICE_NAME_LABEL]: service, own: service },
    },
    addressType: number % 2 === 0 ? 'IPv4' : 'IPv6',
    endpoints: [],
    ports: [],
  };
  setPorts(random, slice);
  slice.endpoints = randomEndpoints(random, slice);
  return slice;
}
