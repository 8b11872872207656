/**
 * discovery.k8s.io/v1beta1 in the words of v1, for API servers before 1.21, which serve nothing else. What differs:
 * the node and the zone of an endpoint stand in its `topology` (KEP-752), and `serving` came only with 1.20, behind
 * a gate: where it is missing an endpoint serves when it is ready. Pure.
 */
import { type JsonMap, isJsonMap } from '../objects/field-reader.ts';

export function endpointSliceFromV1beta1(slice: unknown): unknown {
  if (!isJsonMap(slice) || !Array.isArray(slice['endpoints'])) return slice;
  const endpoints: readonly unknown[] = slice['endpoints'];
  return { ...slice, endpoints: endpoints.map(endpointFromV1beta1) };
}

function endpointFromV1beta1(endpoint: unknown): unknown {
  if (!isJsonMap(endpoint)) return endpoint;
  const { topology, ...rest } = endpoint;
  const known: JsonMap = isJsonMap(topology) ? topology : {};
  const conditions: JsonMap = isJsonMap(endpoint['conditions']) ? endpoint['conditions'] : {};
  return withoutUndefined({
    ...rest,
    nodeName: endpoint['nodeName'] ?? known['kubernetes.io/hostname'],
    zone: endpoint['zone'] ?? known['topology.kubernetes.io/zone'],
    conditions: withoutUndefined({
      ...conditions,
      serving: conditions['serving'] ?? conditions['ready'],
    }),
  });
}

function withoutUndefined(map: JsonMap): JsonMap {
  return Object.fromEntries(Object.entries(map).filter(([, value]) => value !== undefined));
}
