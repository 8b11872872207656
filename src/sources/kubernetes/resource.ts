/**
 * The three resources that are listed and watched: where the API server has them, which of their objects are
 * ours, and how a raw object becomes one that is kept.
 */
import type { V1EndpointSlice, V1Node, V1Service } from '@kubernetes/client-node';
import { type Problem, errorText } from '../../errors.ts';
import { objectText } from '../../model/object.ts';
import { endpointSlice } from '../objects/endpoint-slice-shape.ts';
import { type Check, isJsonMap, valueText } from '../objects/field-reader.ts';
import { node } from '../objects/node-shape.ts';
import { HEADLESS_LABEL, SERVICE_PROXY_NAME_LABEL } from '../objects/service-labels.ts';
import { service } from '../objects/service-shape.ts';
import { withoutNulls } from '../objects/without-nulls.ts';
import type { ResourceName } from './api-statistics.ts';
import { endpointSliceFromV1beta1 } from './endpoint-slice-v1beta1.ts';
import { trimEndpointSlice, trimNode, trimService } from './trim.ts';

/** One version of a resource's API. */
export interface Endpoint {
  readonly path: string;
  /** What its lists call themselves. */
  readonly listKind: string;
  /** Into the words of the version that we read. */
  readonly adapt?: (object: unknown) => unknown;
}

export interface Resource<T> {
  readonly name: ResourceName;
  readonly kind: string;
  /** In order of preference: the next one is asked where the server does not have one (404). */
  readonly endpoints: readonly [Endpoint, ...Endpoint[]];
  /** Selectors; the same for lists and watches. */
  readonly query: Readonly<Record<string, string>>;
  /** A raw object that passes is a `T`. */
  readonly check: Check;
  readonly trim: (object: T) => T;
}

/**
 * Of Services that are ours, and of their slices, which carry the same labels: not those of another proxy (or only
 * those of this name), and none without cluster IP (kube-proxy `cmd/kube-proxy/app/server.go` `Run`).
 */
export function serviceSelector(serviceProxyName: string): string {
  const name = SERVICE_PROXY_NAME_LABEL;
  const own = serviceProxyName === '' ? `!${name}` : `${name}=${serviceProxyName}`;
  return `${own},!${HEADLESS_LABEL}`;
}

export function serviceResource(serviceProxyName: string): Resource<V1Service> {
  return {
    name: 'services',
    kind: 'Service',
    endpoints: [{ path: '/api/v1/services', listKind: 'ServiceList' }],
    query: { labelSelector: serviceSelector(serviceProxyName) },
    check: service,
    trim: trimService,
  };
}

export function endpointSliceResource(serviceProxyName: string): Resource<V1EndpointSlice> {
  const listKind = 'EndpointSliceList';
  return {
    name: 'endpointslices',
    kind: 'EndpointSlice',
    endpoints: [
      { path: '/apis/discovery.k8s.io/v1/endpointslices', listKind },
      { path: '/apis/discovery.k8s.io/v1beta1/endpointslices', listKind, adapt: endpointSliceFromV1beta1 },
    ],
    query: { labelSelector: serviceSelector(serviceProxyName) },
    check: endpointSlice,
    trim: trimEndpointSlice,
  };
}

/** Only the Node of this name. */
export function nodeResource(nodeName: string): Resource<V1Node> {
  return {
    name: 'nodes',
    kind: 'Node',
    endpoints: [{ path: '/api/v1/nodes', listKind: 'NodeList' }],
    query: { fieldSelector: `metadata.name=${nodeName}` },
    check: node,
    trim: trimNode,
  };
}

/** `namespace/name`, or `/name` of what has no namespace; undefined when a raw object has no name. */
export function objectKey(object: unknown): string | undefined {
  const metadata = isJsonMap(object) ? object['metadata'] : undefined;
  if (!isJsonMap(metadata) || typeof metadata['name'] !== 'string' || metadata['name'] === '')
    return undefined;
  const namespace = metadata['namespace'] ?? '';
  return typeof namespace === 'string' ? `${namespace}/${metadata['name']}` : undefined;
}

/** The object as it is kept, or what is wrong with it. */
export type Decoded<T> = { readonly object: T } | { readonly problems: readonly Problem[] };

/** `raw` has the key `key`. Never throws: whatever is wrong with one object must not keep the others out. */
export function decodeObject<T>(resource: Resource<T>, raw: unknown, key: string): Decoded<T> {
  const problems: Problem[] = [];
  const [namespace = '', name = ''] = key.split('/');
  const object = objectText(resource.kind, namespace, name);
  const report = (field: string, message: string): void => {
    problems.push({ code: 'ERR_API_OBJECT_INVALID', object, field, message });
  };
  try {
    const candidate = withoutNulls(withoutManagedFields(raw));
    resource.check(candidate, '', report);
    if (problems.length === 0) return { object: resource.trim(candidate as T) };
  } catch (error) {
    // Nested deeper than our stack: no API server stores that.
    report('', `cannot be taken in: ${errorText(error)}`);
  }
  return { problems };
}

/** Nobody reads them, and they are the one place where who writes an object decides how deep it is nested. */
function withoutManagedFields(raw: unknown): unknown {
  const metadata = isJsonMap(raw) ? raw['metadata'] : undefined;
  if (!isJsonMap(raw) || !isJsonMap(metadata)) return raw;
  const { managedFields, ...rest } = metadata;
  return managedFields === undefined ? raw : { ...raw, metadata: rest };
}

/** Of an object that cannot even be named. */
export function namelessObject(kind: string, raw: unknown): Problem {
  return {
    code: 'ERR_API_OBJECT_INVALID',
    object: `${kind} without name`,
    field: 'metadata.name',
    message: `must be non-empty text in an object, got ${valueText(raw)}`,
  };
}
