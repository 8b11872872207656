/**
 * Random states of a small cluster: up to three Services that contend for the same places, their EndpointSlices, and
 * the own Node. Whatever a state is made of lies in the address plan of a lab and of `rule-fixture.ts`.
 */
import type { V1EndpointSlice, V1Node, V1Service } from '@kubernetes/client-node';
import type { Random } from './random.ts';
import { NODE_IPS, type ServiceIdentity, oneIn, randomService } from './random-service.ts';
import { ZONES, randomSlice } from './random-service-slices.ts';
import { OWN_NODE } from './rule-fixture.ts';

export interface ClusterState {
  readonly services: readonly V1Service[];
  readonly endpointSlices: readonly V1EndpointSlice[];
  /** The own Node; undefined while it is not known. */
  readonly node: V1Node | undefined;
}

/** Who may be there. The oldest keeps what several claim; two are of one age. */
export const IDENTITIES: readonly ServiceIdentity[] = [
  { namespace: 'default', name: 'web', createdAt: '2026-11-20T10:00:02Z' },
  { namespace: 'default', name: 'api', createdAt: '2026-11-20T10:00:02Z' },
  { namespace: 'prod', name: 'web', createdAt: '2026-11-20T10:00:01Z' },
];

/** Slices of a Service at most. */
export const MAX_SLICES = 4;

const ZONE_LABEL = 'topology.kubernetes.io/zone';
/** What the Node may say of its addresses. The last has none that this node has. */
const INTERNAL_IPS = [
  [NODE_IPS.IPv4, NODE_IPS.IPv6],
  [NODE_IPS.IPv4, NODE_IPS.IPv6],
  [NODE_IPS.IPv4],
  ['10.244.1.1', NODE_IPS.IPv6],
  [],
] as const satisfies readonly (readonly string[])[];

export function randomNode(random: Random): V1Node {
  const zone = random.pick([undefined, ...ZONES]);
  const podCIDRs = random.pick([
    undefined,
    ['10.244.1.0/24'],
    ['10.244.1.0/24', 'fd00:244:1::/64'],
    ['10.244.1.0/24', 'fd00:244:1::/64'],
  ]);
  const addresses = random.pick<readonly string[]>(INTERNAL_IPS);
  return {
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name: OWN_NODE, labels: zone === undefined ? {} : { [ZONE_LABEL]: zone } },
    spec: podCIDRs === undefined ? {} : { podCIDRs },
    status: {
      addresses: [
        { type: 'Hostname', address: OWN_NODE },
        ...addresses.map((address) => ({ type: 'InternalIP', address })),
      ],
    },
  };
}

/** A state for which `random` decides everything. Every object is new; names are those of `IDENTITIES`. */
export function randomClusterState(random: Random): ClusterState {
  const present = IDENTITIES.filter(() => !oneIn(random, 8));
  return {
    services: present.map((identity) => randomService(random, identity)),
    endpointSlices: IDENTITIES.flatMap(({ namespace, name }) =>
      Array.from({ length: MAX_SLICES }, (_, number) => number)
        .filter((number) => !oneIn(random, number < 2 ? 6 : 2))
        .map((number) => randomSlice(random, { namespace, service: name, number })),
    ),
    node: oneIn(random, 10) ? undefined : randomNode(random),
  };
}
