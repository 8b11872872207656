/** Builders of API objects with tweaks, and their text as a manifest (JSON is YAML). */
import type { V1EndpointSlice, V1Service } from '@kubernetes/client-node';

export type ServiceTweak = (service: V1Service & { spec: NonNullable<V1Service['spec']> }) => void;
export type SliceTweak = (slice: V1EndpointSlice) => void;

/** A ClusterIP Service `default/<name>` at 10.96.0.10 with port `http` 80/TCP, unless tweaked. */
export function makeService(name: string, tweak: ServiceTweak = () => {}): V1Service {
  const service = {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { namespace: 'default', name },
    spec: {
      type: 'ClusterIP',
      clusterIP: '10.96.0.10',
      ports: [{ name: 'http', port: 80, protocol: 'TCP' }],
    },
  } satisfies V1Service & { spec: object };
  tweak(service);
  return service;
}

/**
 * A slice of `default/<service>` with port `http` 8080/TCP and ready endpoints at these addresses, unless
 * tweaked. Its name ends in its family, or in `suffix`.
 */
export function makeSlice(
  service: string,
  addresses: readonly string[],
  tweak: SliceTweak = () => {},
): V1EndpointSlice {
  const addressType = addresses[0]?.includes(':') ? 'IPv6' : 'IPv4';
  const slice: V1EndpointSlice = {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: {
      namespace: 'default',
      name: `${service}-${addressType.toLowerCase()}`,
      labels: { 'kubernetes.io/service-name': service },
    },
    addressType,
    ports: [{ name: 'http', port: 8080, protocol: 'TCP' }],
    endpoints: addresses.map((address) => ({ addresses: [address], conditions: { ready: true } })),
  };
  tweak(slice);
  return slice;
}

/** The objects as one multi-document manifest. */
export function manifestText(...objects: readonly object[]): string {
  return objects.map((object) => `${JSON.stringify(object, undefined, 2)}\n`).join('---\n');
}
