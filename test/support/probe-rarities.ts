/**
 * What is rare in a random state, or never there, though much depends on it. Each of these makes a state a little
 * stranger.
 */
import type { V1Endpoint, V1EndpointSlice, V1Service } from '@kubernetes/client-node';
import { type ClusterState, IDENTITIES } from './random-cluster.ts';
import { ZONES } from './random-service-slices.ts';
import { INVALID, NODE_IPS, NODE_PORTS } from './random-service.ts';
import type { Random } from './random.ts';
import { OWN_NODE } from './rule-fixture.ts';

/** The Services, and the slices of one of them. */
interface Subject {
  readonly service: V1Service | undefined;
  readonly slices: readonly V1EndpointSlice[];
}

/** Changes the objects. */
type Rarity = (random: Random, subject: Subject) => void;

function endpointsOf(slices: readonly V1EndpointSlice[]): readonly V1Endpoint[] {
  return slices.flatMap(({ endpoints }) => endpoints ?? []);
}

/** Nobody has to set all of them. */
const SPARSE_CONDITIONS = [
  { ready: false },
  { ready: false, terminating: true },
  { ready: false, serving: true },
  { terminating: true },
] as const satisfies readonly V1Endpoint['conditions'][];

const sparseConditions: Rarity = (random, { slices }) => {
  for (const endpoint of endpointsOf(slices)) endpoint.conditions = { ...random.pick(SPARSE_CONDITIONS) };
};

/** Of one Service all endpoints have hints, but for one that is not ready: it does not count. */
function allHinted(hintsOf: (random: Random) => NonNullable<V1Endpoint['hints']>): Rarity {
  return (random, { slices }) => {
    const endpoints = endpointsOf(slices);
    for (const endpoint of endpoints) endpoint.hints = hintsOf(random);
    const [first] = endpoints;
    if (first === undefined || random.below(2) === 0) return;
    first.conditions = { ready: false };
    delete first.hints;
  };
}

const hintedNodes = allHinted((random) => ({ forNodes: [{ name: random.pick([OWN_NODE, 'node2']) }] }));
const hintedZones = allHinted((random) => ({ forZones: [{ name: random.pick(ZONES) }] }));

/** All of a Service's endpoints on another node: policy Local has nobody. */
const allElsewhere: Rarity = (_random, { slices }) => {
  for (const endpoint of endpointsOf(slices)) endpoint.nodeName = 'node2';
};

/** Endpoints that would be NodePorts of the node, if there is a Service that has them. */
const endpointsAtNodePorts: Rarity = (random, { slices }) => {
  for (const { addressType, endpoints, ports } of slices) {
    for (const endpoint of endpoints ?? [])
      endpoint.addresses = [addressType === 'IPv6' ? NODE_IPS.IPv6 : NODE_IPS.IPv4];
    for (const port of ports ?? []) port.port = random.pick(NODE_PORTS);
  }
};

/** A range that cannot be read, alone or beside one of a single family. */
const unreadableRange: Rarity = (random, { service }) => {
  if (service?.spec === undefined) return;
  const others = random.pick([[], ['10.244.1.0/24'], ['fd00:244:1::/64']]);
  service.spec.loadBalancerSourceRanges = [INVALID.sourceRange, ...others];
};

/** The last and the first NodePort that share a chain, and the ports at both ends. */
const portsAtEdges: Rarity = (random, { service }) => {
  for (const port of service?.spec?.ports ?? []) {
    port.nodePort = random.pick([30_143, 30_144]);
    port.port = random.pick([1, 65_535]);
  }
};

const RARITIES = [
  sparseConditions,
  hintedNodes,
  hintedZones,
  allElsewhere,
  allElsewhere,
  endpointsAtNodePorts,
  unreadableRange,
  portsAtEdges,
] as const;

/** The same with half the slices only, in one of three cases: some portals shall lead nowhere; and with up to three rarities. */
export function withRarities(random: Random, state: ClusterState): ClusterState {
  const services = state.services.map((service) => structuredClone(service));
  const isSparse = random.below(3) === 0;
  const endpointSlices = state.endpointSlices
    .filter(() => !isSparse || random.below(2) === 0)
    .map((slice) => structuredClone(slice));
  for (let times = random.below(4); times > 0; times -= 1) {
    const { namespace, name } = random.pick(IDENTITIES);
    const isOwn = ({ metadata }: V1Service): boolean =>
      metadata?.namespace === namespace && metadata.name === name;
    const isOfIt = ({ metadata }: V1EndpointSlice): boolean =>
      metadata?.namespace === namespace && metadata.name?.startsWith(`${name}-`) === true;
    random.pick(RARITIES)(random, { service: services.find(isOwn), slices: endpointSlices.filter(isOfIt) });
  }
  return { ...state, services, endpointSlices };
}
