/**
 * Endpoint: one address and port behind a Service port with its conditions, and the merge of a Service's
 * EndpointSlices into endpoints (kube-proxy `pkg/proxy/endpointslicecache.go`). Pure.
 */
import type { DiscoveryV1EndpointPort, V1Endpoint, V1EndpointSlice } from '@kubernetes/client-node';
import type { Problem } from '../errors.ts';
import {
  IP_FAMILIES,
  type IpAddress,
  type IpFamily,
  familyOf,
  hostPortText,
  parseSloppyIpAddress,
  specialRangeOf,
} from './address.ts';
import { type Checked, isPortNumber, objectText, quoted } from './object.ts';
import { type Protocol, type ServicePortKey, servicePortKey } from './service-port-name.ts';

export interface Endpoint {
  /** `address:port`, the identity of an endpoint within a service port. */
  readonly key: string;
  readonly address: IpAddress;
  readonly family: IpFamily;
  readonly port: number;
  readonly ready: boolean;
  readonly serving: boolean;
  readonly terminating: boolean;
  /** The Node it runs on; '' when the slice does not say. */
  readonly nodeName: string;
  /** Zones and Nodes whose clients should use it (`hints.forZones`, `hints.forNodes`); empty: no hint. */
  readonly zoneHints: readonly string[];
  readonly nodeHints: readonly string[];
}

export type EndpointsByServicePort = ReadonlyMap<ServicePortKey, readonly Endpoint[]>;

/** The label that ties a slice to its Service; a slice without it belongs to nobody and is ignored. */
export const SERVICE_NAME_LABEL = 'kubernetes.io/service-name';

/**
 * When the change in the cluster happened that led to this version of the slice, as the endpointslice controller
 * notes it (`EndpointsLastChangeTriggerTime`, core/v1).
 */
export const TRIGGER_TIME_ANNOTATION = 'endpoints.kubernetes.io/last-change-trigger-time';

/** Milliseconds since the epoch; undefined when the slice does not say, or not in a way that can be read. */
export function triggerTimeOfSlice(slice: V1EndpointSlice): number | undefined {
  const time = Date.parse(slice.metadata?.annotations?.[TRIGGER_TIME_ANNOTATION] ?? '');
  return Number.isNaN(time) ? undefined : time;
}

/** `namespace/name` of the Service a slice belongs to, or undefined. */
export function serviceOfSlice(slice: V1EndpointSlice): string | undefined {
  const name = slice.metadata?.labels?.[SERVICE_NAME_LABEL];
  return name === undefined || name === '' ? undefined : `${slice.metadata?.namespace ?? ''}/${name}`;
}

/**
 * The union of all slices, by service port, each list sorted by key so that equal sets compare equal.
 *
 * 1. Different slices may give one port name different numbers.
 * 2. Of an address:port that stands twice, a non-terminating one replaces; a terminating one never does.
 * 3. Only `addresses[0]` counts, as in kube-proxy; FQDN slices are ignored.
 * 4. A port without number is ignored; one without name is the unnamed port.
 */
export function endpointsFromSlices(slices: Iterable<V1EndpointSlice>): Checked<EndpointsByServicePort> {
  const merged = new Map<ServicePortKey, Map<string, Endpoint>>();
  const problems: Problem[] = [];
  const inOrder = [...slices].sort((a, b) => compareText(sliceText(a), sliceText(b)));
  for (const slice of inOrder) {
    const service = serviceOfSlice(slice);
    if (service === undefined || slice.addressType === 'FQDN') continue;
    mergeSlice(slice, service, { merged, problems });
  }
  const value = new Map<ServicePortKey, readonly Endpoint[]>();
  for (const [key, byAddress] of merged) {
    value.set(
      key,
      [...byAddress.values()].sort((a, b) => compareText(a.key, b.key)),
    );
  }
  return { value, problems };
}

interface Merge {
  readonly merged: Map<ServicePortKey, Map<string, Endpoint>>;
  readonly problems: Problem[];
}

function mergeSlice(slice: V1EndpointSlice, service: string, { merged, problems }: Merge): void {
  const namespace = slice.metadata?.namespace ?? '';
  const name = service.slice(namespace.length + 1);
  const report = (field: string, message: string): void => {
    problems.push({ code: 'ERR_ENDPOINT_INVALID', object: sliceText(slice), field, message });
  };
  const addresses = (slice.endpoints ?? []).map((endpoint, index) =>
    checkedAddress(endpoint, `endpoints[${index}].addresses[0]`, { slice, report }),
  );
  for (const [portIndex, port] of (slice.ports ?? []).entries()) {
    const checked = checkedPort(port, `ports[${portIndex}]`, report);
    if (checked === undefined) continue;
    const key = servicePortKey({ namespace, name, port: port.name ?? '', protocol: checked.protocol });
    const byAddress = merged.get(key) ?? new Map<string, Endpoint>();
    merged.set(key, byAddress);
    for (const [index, endpoint] of (slice.endpoints ?? []).entries()) {
      const address = addresses[index];
      if (address === undefined) continue;
      const candidate = buildEndpoint(endpoint, address, checked.port);
      if (!byAddress.has(candidate.key) || !candidate.terminating) byAddress.set(candidate.key, candidate);
    }
  }
}

function checkedAddress(
  endpoint: V1Endpoint,
  path: string,
  { slice, report }: { slice: V1EndpointSlice; report: (field: string, message: string) => void },
): IpAddress | undefined {
  const [text] = endpoint.addresses ?? [];
  if (text === undefined) {
    report(path, 'there is no address');
    return undefined;
  }
  const address = parseSloppyIpAddress(text);
  if (address === undefined) {
    report(path, `${quoted(text)} is no IP address`);
    return undefined;
  }
  if (familyOf(address) !== slice.addressType) {
    const wanted = IP_FAMILIES.find((family) => family === slice.addressType) ?? 'known kind of';
    report(path, `${quoted(text)} is no ${wanted} address, as addressType says`);
    return undefined;
  }
  const special = specialRangeOf(address);
  if (special === undefined) return address;
  report(path, `${quoted(text)} is ${special}: no endpoint may have it`);
  return undefined;
}

function checkedPort(
  endpointPort: DiscoveryV1EndpointPort,
  path: string,
  report: (field: string, message: string) => void,
): { port: number; protocol: Protocol } | undefined {
  const port = endpointPort.port ?? 0;
  const protocol = endpointPort.protocol ?? 'TCP';
  if (protocol !== 'TCP' && protocol !== 'UDP') {
    if (protocol !== 'SCTP')
      report(`${path}.protocol`, `${quoted(protocol)} is none of "TCP", "UDP", "SCTP"`);
    return undefined;
  }
  if (port === 0) return undefined;
  if (isPortNumber(port)) return { port, protocol };
  report(`${path}.port`, `${port} is outside 1 to 65535`);
  return undefined;
}

/** Conditions as discovery/v1 defines their absence: ready and serving true, terminating false. */
function buildEndpoint(endpoint: V1Endpoint, address: IpAddress, port: number): Endpoint {
  return {
    key: hostPortText(address, port),
    address,
    family: familyOf(address),
    port,
    ready: endpoint.conditions?.ready ?? true,
    serving: endpoint.conditions?.serving ?? true,
    terminating: endpoint.conditions?.terminating ?? false,
    nodeName: endpoint.nodeName ?? '',
    zoneHints: (endpoint.hints?.forZones ?? []).map(({ name }) => name),
    nodeHints: (endpoint.hints?.forNodes ?? []).map(({ name }) => name),
  };
}

function sliceText(slice: V1EndpointSlice): string {
  return objectText('EndpointSlice', slice.metadata?.namespace ?? '', slice.metadata?.name ?? '');
}

/** Byte order, not locale order: the same on every machine. */
export function compareText(a: string, b: string): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}
