/**
 * Random edits of a cluster's state: one field of one object, or an object that comes or goes. What an edit does not
 * touch stays the same object and the same list, as from a source.
 */
import type { V1EndpointSlice, V1Service } from '@kubernetes/client-node';
import type { Random } from './random.ts';
import { type ClusterState, IDENTITIES, MAX_SLICES, randomNode } from './random-cluster.ts';
import { SERVICE_FIELDS, type SpecifiedService, oneIn, randomService } from './random-service.ts';
import { SLICE_FIELDS, type SpecifiedSlice, randomSlice } from './random-service-slices.ts';

export interface Edit {
  /** `Service default/web: the type`. */
  readonly what: string;
  readonly state: ClusterState;
}

type EditKind = (random: Random, state: ClusterState) => Edit | undefined;

function nameOf({ metadata }: V1Service | V1EndpointSlice): string {
  return `${metadata?.namespace}/${metadata?.name}`;
}

function replaced<T>(list: readonly T[], before: T, after: T): readonly T[] {
  return list.map((element) => (element === before ? after : element));
}

const editService: EditKind = (random, state) => {
  if (state.services.length === 0) return undefined;
  const before = random.pick(state.services);
  const { name, set } = random.pick(SERVICE_FIELDS);
  const after = structuredClone(before) as SpecifiedService;
  set(random, after);
  const services = replaced<V1Service>(state.services, before, after);
  return { what: `Service ${nameOf(before)}: ${name}`, state: { ...state, services } };
};

const editSlice: EditKind = (random, state) => {
  if (state.endpointSlices.length === 0) return undefined;
  const before = random.pick(state.endpointSlices);
  const { name, set } = random.pick(SLICE_FIELDS);
  const after = structuredClone(before) as SpecifiedSlice;
  set(random, after);
  const endpointSlices = replaced<V1EndpointSlice>(state.endpointSlices, before, after);
  return { what: `EndpointSlice ${nameOf(before)}: ${name}`, state: { ...state, endpointSlices } };
};

/** An endpoint that moves to another slice, or stands in both for a while. */
const moveEndpoint: EditKind = (random, state) => {
  const from = state.endpointSlices.find(({ endpoints }) => (endpoints ?? []).length > 0);
  const others = state.endpointSlices.filter(
    (slice) => slice !== from && slice.addressType === from?.addressType,
  );
  if (from === undefined || others.length === 0) return undefined;
  const to = random.pick(others);
  const endpoint = random.pick(from.endpoints ?? []);
  const isCopy = oneIn(random, 2);
  const left = structuredClone(from);
  left.endpoints = (from.endpoints ?? []).filter((other) => isCopy || other !== endpoint);
  const joined = structuredClone(to);
  joined.endpoints?.push(endpoint);
  const endpointSlices = replaced(replaced<V1EndpointSlice>(state.endpointSlices, from, left), to, joined);
  return { what: `an endpoint from ${nameOf(from)} to ${nameOf(to)}`, state: { ...state, endpointSlices } };
};

/** A Service that is there goes, one that is not comes, anew. */
const toggleService: EditKind = (random, state) => {
  const identity = random.pick(IDENTITIES);
  const fullName = `${identity.namespace}/${identity.name}`;
  const others = state.services.filter((service) => nameOf(service) !== fullName);
  const isThere = others.length < state.services.length;
  const services = isThere ? others : [...others, randomService(random, identity)];
  return { what: `Service ${fullName} ${isThere ? 'goes' : 'comes'}`, state: { ...state, services } };
};

const toggleSlice: EditKind = (random, state) => {
  const { namespace, name } = random.pick(IDENTITIES);
  const slice = randomSlice(random, { namespace, service: name, number: random.below(MAX_SLICES) });
  const others = state.endpointSlices.filter((other) => nameOf(other) !== nameOf(slice));
  const isThere = others.length < state.endpointSlices.length;
  const endpointSlices = isThere ? others : [...others, slice];
  const what = `EndpointSlice ${nameOf(slice)} ${isThere ? 'goes' : 'comes'}`;
  return { what, state: { ...state, endpointSlices } };
};

const editNode: EditKind = (random, state) => {
  const node = oneIn(random, 6) ? undefined : randomNode(random);
  return { what: `Node: ${node === undefined ? 'it goes' : 'all of it'}`, state: { ...state, node } };
};

const KINDS: readonly EditKind[] = [
  ...Array.from({ length: 12 }, () => editService),
  ...Array.from({ length: 7 }, () => editSlice),
  moveEndpoint,
  toggleService,
  toggleSlice,
  editNode,
];

/** Always an edit; that it changes anything is likely, not sure. */
export function randomEdit(random: Random, state: ClusterState): Edit {
  for (;;) {
    const edit = random.pick(KINDS)(random, state);
    if (edit !== undefined) return edit;
  }
}
