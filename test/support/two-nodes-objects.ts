/**
 * Services, EndpointSlices and Nodes for labs of two nodes: dual-stack, with endpoints that say where they run, and
 * the places at which clients find them. Every address and NodePort of a Service follows from its number.
 */
import type { V1Endpoint, V1EndpointSlice, V1Node, V1ServiceSpec } from '@kubernetes/client-node';
import type { Target } from './agent-protocol.ts';
import { addressOf, clusterIP, type Family } from './dual-stack.ts';
import type { Host } from './netns-lab.ts';
import { makeService, makeSlice, type ServiceTweak } from './objects.ts';

export const FAMILIES: readonly Family[] = ['IPv4', 'IPv6'];

/** The names that the proxies of a lab go by. */
export type NodeName = 'node1' | 'node2';

/** Every Service's port, and the one that its endpoints in pods listen on. */
export const SERVICE_PORT = 80;
export const POD_PORT = 8080;
/** Where the nodes themselves serve, as pods with `hostNetwork` do: no usual port, as upstream has it. */
export const HOST_NETWORK_PORT = 10_180;

/** The node that a host of the lab runs on, or is. */
export function nodeNameOf(host: Host): NodeName {
  return host.name.startsWith('node2') ? 'node2' : 'node1';
}

/** `203.0.113.<number>` or `2001:db8:113::<number>`. */
export function loadBalancerIP(number: number, family: Family): string {
  return family === 'IPv4' ? `203.0.113.${number}` : `2001:db8:113::${number}`;
}

/** `198.51.100.<number>` or `2001:db8:51::<number>`: on no interface of the lab. */
export function externalIP(number: number, family: Family): string {
  return family === 'IPv4' ? `198.51.100.${number}` : `2001:db8:51::${number}`;
}

export function nodePortOf(number: number): number {
  return 30_000 + number;
}

export function healthCheckPortOf(number: number): number {
  return 31_000 + number;
}

/** An endpoint; conditions and hints that are not given are not in the slice either. */
export interface EndpointAt {
  readonly host: Host;
  readonly conditions?: V1Endpoint['conditions'];
  readonly zoneHints?: readonly string[];
  readonly nodeHints?: readonly string[];
}

/** What a pod's endpoint says once the pod is being deleted and still passes its readiness probe. */
export const TERMINATING: V1Endpoint['conditions'] = { ready: false, serving: true, terminating: true };

export interface TwoNodeServiceOptions {
  readonly name: string;
  /** From 1 to 99. */
  readonly number: number;
  /** Of both families. A host alone is a ready endpoint without hints. */
  readonly endpoints: readonly (Host | EndpointAt)[];
  /** `POD_PORT` unless told. */
  readonly targetPort?: number;
  /** TCP unless told. */
  readonly protocol?: 'TCP' | 'UDP';
  /** ClusterIP unless told. NodePort has a NodePort; LoadBalancer has that and an address of each family. */
  readonly type?: 'ClusterIP' | 'NodePort' | 'LoadBalancer';
  /** `internalTrafficPolicy`, Cluster unless told. */
  readonly internal?: 'Cluster' | 'Local';
  /** `externalTrafficPolicy`, Cluster unless told. A LoadBalancer with Local has a health check port. */
  readonly external?: 'Cluster' | 'Local';
  /** An externalIP of each family; none unless told. */
  readonly hasExternalIPs?: boolean;
  readonly tweak?: ServiceTweak;
}

/** The Service `default/<name>` with the port `http` and its two slices. */
export function twoNodeService(options: TwoNodeServiceOptions): readonly object[] {
  const { name, number, endpoints, targetPort = POD_PORT, protocol = 'TCP' } = options;
  const service = makeService(name, (made) => {
    Object.assign(made.spec, specOf(options));
    if (options.type === 'LoadBalancer') {
      const ingress = FAMILIES.map((family) => ({ ip: loadBalancerIP(number, family) }));
      made.status = { loadBalancer: { ingress } };
    }
    options.tweak?.(made);
  });
  const slices = FAMILIES.map((family) => sliceOf(name, family, { endpoints, port: targetPort, protocol }));
  return [service, ...slices];
}

function specOf(options: TwoNodeServiceOptions): V1ServiceSpec {
  const {
    number,
    protocol = 'TCP',
    type = 'ClusterIP',
    internal = 'Cluster',
    external = 'Cluster',
  } = options;
  const isExposed = type !== 'ClusterIP';
  return {
    type,
    clusterIP: clusterIP(number, 'IPv4'),
    clusterIPs: FAMILIES.map((family) => clusterIP(number, family)),
    ports: [
      { name: 'http', port: SERVICE_PORT, protocol, ...(isExposed ? { nodePort: nodePortOf(number) } : {}) },
    ],
    internalTrafficPolicy: internal,
    ...(isExposed || options.hasExternalIPs ? { externalTrafficPolicy: external } : {}),
    ...(options.hasExternalIPs ? { externalIPs: FAMILIES.map((family) => externalIP(number, family)) } : {}),
    ...(type === 'LoadBalancer' && external === 'Local'
      ? { healthCheckNodePort: healthCheckPortOf(number) }
      : {}),
  };
}

/** One slice of `default/<service>`; `suffix` tells it from others of its family. */
export function sliceOf(
  service: string,
  family: Family,
  options: {
    readonly endpoints: readonly (Host | EndpointAt)[];
    readonly port: number;
    /** `http` unless told. */
    readonly portName?: string;
    readonly protocol?: 'TCP' | 'UDP';
    readonly suffix?: string;
  },
): V1EndpointSlice {
  const { endpoints, port, portName = 'http', protocol = 'TCP', suffix = '' } = options;
  return makeSlice(service, [], (slice) => {
    slice.addressType = family;
    if (slice.metadata !== undefined) slice.metadata.name = `${service}-${family.toLowerCase()}${suffix}`;
    slice.ports = [{ name: portName, port, protocol }];
    slice.endpoints = endpoints.map((endpoint) =>
      endpointOf('host' in endpoint ? endpoint : { host: endpoint }, family),
    );
  });
}

function endpointOf({ host, conditions, zoneHints, nodeHints }: EndpointAt, family: Family): V1Endpoint {
  const named = (names: readonly string[]): { name: string }[] => names.map((name) => ({ name }));
  return {
    addresses: [addressOf(host, family)],
    conditions: conditions ?? { ready: true },
    nodeName: nodeNameOf(host),
    ...(zoneHints === undefined && nodeHints === undefined
      ? {}
      : {
          hints: {
            ...(zoneHints === undefined ? {} : { forZones: named(zoneHints) }),
            ...(nodeHints === undefined ? {} : { forNodes: named(nodeHints) }),
          },
        }),
  };
}

/** The Node object of a node of the lab, with its ranges of pods. */
export function nodeObject(
  host: Host,
  options: {
    /** None unless told. */
    readonly zone?: string;
    /** Its own addresses unless told. */
    readonly internalIPs?: Readonly<Record<Family, string>>;
  } = {},
): V1Node {
  const name = nodeNameOf(host);
  const number = name === 'node1' ? 1 : 2;
  const { zone, internalIPs } = options;
  const addresses = FAMILIES.map((family) => internalIPs?.[family] ?? addressOf(host, family));
  return {
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name, labels: zone === undefined ? {} : { 'topology.kubernetes.io/zone': zone } },
    spec: { podCIDRs: [`10.244.${number}.0/24`, `fd00:244:${number}::/64`] },
    status: { addresses: addresses.map((address) => ({ type: 'InternalIP', address })) },
  };
}

/** Where a client finds a Service over each family, and how that reads in a failure. */
export interface Spot {
  readonly text: string;
  readonly at: (family: Family) => Target;
}

export function atClusterIP(number: number, port = SERVICE_PORT): Spot {
  return {
    text: `port ${port} of clusterIP ${number}`,
    at: (family) => ({ host: clusterIP(number, family), port }),
  };
}

export function atNodePort(number: number, node: Host): Spot {
  const port = nodePortOf(number);
  return {
    text: `NodePort ${port} of ${node.name}`,
    at: (family) => ({ host: addressOf(node, family), port }),
  };
}

export function atLoadBalancerIP(number: number): Spot {
  return {
    text: `LB IP ${number}`,
    at: (family) => ({ host: loadBalancerIP(number, family), port: SERVICE_PORT }),
  };
}

export function atExternalIP(number: number): Spot {
  return {
    text: `externalIP ${number}`,
    at: (family) => ({ host: externalIP(number, family), port: SERVICE_PORT }),
  };
}

/** The NodePort on 127.0.0.1 and ::1. */
export function atLocalhost(number: number): Spot {
  const port = nodePortOf(number);
  return {
    text: `localhost:${port}`,
    at: (family) => ({ host: family === 'IPv4' ? '127.0.0.1' : '::1', port }),
  };
}
