/**
 * Which endpoints a Service port has, and which of them each traffic policy may use, by the rows of docs/behaviour.md
 * and by nothing of `src/`: the other half of the oracle (`intent.ts`).
 */
import type { V1Endpoint, V1EndpointSlice } from '@kubernetes/client-node';
import type { Family, IntendedPort } from './intent-objects.ts';

interface Candidate {
  readonly address: string;
  readonly port: number;
  readonly endpoint: V1Endpoint;
}

export interface Place {
  readonly nodeName: string;
  readonly zone: string | undefined;
}

/** Texts `address:port`, `[address]:port`, sorted. */
export interface UsableEndpoints {
  readonly cluster: readonly string[];
  readonly local: readonly string[];
}

/** Row "Conditions": absent ones are ready and serving, and not terminating. */
function isReady({ conditions }: V1Endpoint): boolean {
  return conditions?.ready ?? true;
}

function isTerminating({ conditions }: V1Endpoint): boolean {
  return conditions?.terminating ?? false;
}

function isServingOut(endpoint: V1Endpoint): boolean {
  return (endpoint.conditions?.serving ?? true) && isTerminating(endpoint);
}

/**
 * Rows "Several slices" and "Duplicates": the union over all slices of the Service in the order of their names; of an
 * address and port that stands twice, one that does not terminate replaces, one that does never.
 */
function endpointsOf(
  slices: readonly V1EndpointSlice[],
  { namespace, service, portName, protocol }: IntendedPort,
  family: Family,
): readonly Candidate[] {
  const byKey = new Map<string, Candidate>();
  const own = slices
    .filter(
      ({ metadata, addressType }) =>
        metadata?.namespace === namespace &&
        metadata.labels?.['kubernetes.io/service-name'] === service &&
        addressType === family,
    )
    .toSorted((a, b) => ((a.metadata?.name ?? '') < (b.metadata?.name ?? '') ? -1 : 1));
  for (const slice of own) {
    for (const { name = '', port = 0, protocol: sliceProtocol = 'TCP' } of slice.ports ?? []) {
      // An API server makes '' of a name that is missing.
      if (name !== portName || sliceProtocol.toLowerCase() !== protocol || port === 0) continue;
      for (const endpoint of slice.endpoints ?? []) {
        const [address = ''] = endpoint.addresses;
        const key = endpointText(address, port);
        if (!byKey.has(key) || !isTerminating(endpoint)) byKey.set(key, { address, port, endpoint });
      }
    }
  }
  return [...byKey.values()];
}

/**
 * Row "Topology hints": they count when every ready endpoint has them and one names us, first those for nodes, then those for zones.
 */
function isNear(ready: readonly V1Endpoint[], { nodeName, zone }: Place): (endpoint: V1Endpoint) => boolean {
  const namesNode = ({ hints }: V1Endpoint): boolean =>
    (hints?.forNodes ?? []).some(({ name }) => name === nodeName);
  const namesZone = ({ hints }: V1Endpoint): boolean =>
    (hints?.forZones ?? []).some(({ name }) => name === zone);
  if (ready.every(({ hints }) => (hints?.forNodes ?? []).length > 0) && ready.some(namesNode))
    return namesNode;
  if (ready.every(({ hints }) => (hints?.forZones ?? []).length > 0) && ready.some(namesZone))
    return namesZone;
  return () => true;
}

function endpointText(address: string, port: number): string {
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}

/** An endpoint that `isCaptured` is not usable (decision 14): the proxy's own dial would be captured again. */
export function usableEndpoints(
  slices: readonly V1EndpointSlice[],
  { owner, family, place }: { readonly owner: IntendedPort; readonly family: Family; readonly place: Place },
  isCaptured: (address: string, port: number) => boolean,
): UsableEndpoints {
  const all = endpointsOf(slices, owner, family).filter(({ address, port }) => !isCaptured(address, port));
  const texts = (own: readonly Candidate[]): readonly string[] =>
    own.map(({ address, port }) => endpointText(address, port)).toSorted();
  const orServingOut = (ready: readonly Candidate[], among: readonly Candidate[]): readonly string[] =>
    texts(ready.length > 0 ? ready : among.filter(({ endpoint }) => isServingOut(endpoint)));
  const ready = all.filter(({ endpoint }) => isReady(endpoint));
  const isUsable = isNear(
    ready.map(({ endpoint }) => endpoint),
    place,
  );
  const here = all.filter(({ endpoint }) => endpoint.nodeName === place.nodeName);
  return {
    cluster: orServingOut(
      ready.filter(({ endpoint }) => isUsable(endpoint)),
      all,
    ),
    local: orServingOut(
      here.filter(({ endpoint }) => isReady(endpoint)),
      here,
    ),
  };
}
