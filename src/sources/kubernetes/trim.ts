/**
 * What is kept of an object: the fields that the model reads, and not the rest (`managedFields` alone is often
 * half of an object). An update that touches none of them changes nothing here. Pure; the shapes were checked.
 */
import type { V1EndpointSlice, V1Node, V1Service } from '@kubernetes/client-node';
import { SERVICE_NAME_LABEL, TRIGGER_TIME_ANNOTATION } from '../../model/endpoint.ts';

const OWN_ANNOTATIONS = 'userspace-proxy.io/';

const SERVICE_SPEC = [
  'type',
  'clusterIP',
  'clusterIPs',
  'externalIPs',
  'ipFamilies',
  'ports',
  'sessionAffinity',
  'sessionAffinityConfig',
  'externalTrafficPolicy',
  'internalTrafficPolicy',
  'healthCheckNodePort',
  'loadBalancerSourceRanges',
] as const satisfies readonly (keyof NonNullable<V1Service['spec']>)[];

export function trimService({ metadata, spec, status }: V1Service): V1Service {
  const ingress = status?.loadBalancer?.ingress;
  return {
    metadata: {
      ...pick(metadata, ['name', 'namespace', 'creationTimestamp']),
      ...annotations(metadata?.annotations, (name) => name.startsWith(OWN_ANNOTATIONS)),
    },
    spec: pick(spec, SERVICE_SPEC),
    ...(ingress === undefined
      ? {}
      : { status: { loadBalancer: { ingress: ingress.map((one) => pick(one, ['ip', 'ipMode'])) } } }),
  };
}

export function trimEndpointSlice(slice: V1EndpointSlice): V1EndpointSlice {
  const { metadata, addressType, endpoints = [], ports } = slice;
  const serviceName = metadata?.labels?.[SERVICE_NAME_LABEL];
  return {
    metadata: {
      ...pick(metadata, ['name', 'namespace']),
      ...(serviceName === undefined ? {} : { labels: { [SERVICE_NAME_LABEL]: serviceName } }),
      ...annotations(metadata?.annotations, (name) => name === TRIGGER_TIME_ANNOTATION),
    },
    addressType,
    endpoints: endpoints.map((endpoint) => ({
      addresses: endpoint.addresses.slice(0, 1),
      ...pick(endpoint, ['conditions', 'nodeName', 'zone', 'hints']),
    })),
    ...(ports === undefined ? {} : { ports: ports.map((port) => pick(port, ['name', 'protocol', 'port'])) }),
  };
}

export function trimNode({ metadata, spec, status }: V1Node): V1Node {
  return {
    metadata: pick(metadata, ['name', 'labels', 'deletionTimestamp']),
    spec: {
      ...pick(spec, ['podCIDR', 'podCIDRs']),
      taints: (spec?.taints ?? []).map((taint) => pick(taint, ['key', 'value', 'effect'])),
    },
    status: { addresses: status?.addresses ?? [] },
  };
}

function annotations(
  all: Readonly<Record<string, string>> | undefined,
  isKept: (name: string) => boolean,
): { annotations?: Record<string, string> } {
  const kept = Object.entries(all ?? {}).filter(([name]) => isKept(name));
  return kept.length === 0 ? {} : { annotations: Object.fromEntries(kept) };
}

function pick<T extends object, K extends keyof T>(object: T | undefined, names: readonly K[]): Pick<T, K> {
  const present = names.filter((name) => object?.[name] !== undefined);
  return Object.fromEntries(present.map((name) => [name, object?.[name]])) as Pick<T, K>;
}
