/** EndpointSlices in discovery.k8s.io/v1beta1, the only version of kube-apiserver 1.20. */

export interface SliceEndpoint {
  readonly addresses: readonly string[];
  /** Ready when there are none. */
  readonly conditions?: { readonly ready?: boolean };
  readonly hostname?: string;
  /** v1beta1's way of telling node and zone: `kubernetes.io/hostname`, `topology.kubernetes.io/zone`. */
  readonly topology?: Readonly<Record<string, string>>;
  readonly targetRef?: Readonly<Record<string, string>>;
}

export interface SlicePort {
  readonly name?: string;
  readonly port?: number;
  readonly protocol?: string;
  readonly appProtocol?: string;
}

export interface SliceV1beta1 {
  readonly apiVersion: 'discovery.k8s.io/v1beta1';
  readonly kind: 'EndpointSlice';
  readonly metadata: {
    readonly name: string;
    readonly namespace: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
  };
  readonly addressType: 'IPv4' | 'IPv6' | 'FQDN';
  readonly endpoints: readonly SliceEndpoint[];
  readonly ports: readonly SlicePort[];
}

export interface SliceRequest {
  readonly name: string;
  readonly namespace?: string;
  readonly service: string;
  /** Addresses are ready endpoints. */
  readonly endpoints: readonly (string | SliceEndpoint)[];
  /** One port `http` 8080/TCP unless told. */
  readonly ports?: readonly SlicePort[];
  /** The family of the first address unless told; IPv4 without any. */
  readonly addressType?: SliceV1beta1['addressType'];
  readonly annotations?: Readonly<Record<string, string>>;
}

export function buildSlice(request: SliceRequest): SliceV1beta1 {
  const { name, namespace = 'default', service, ports, annotations = {} } = request;
  const endpoints = request.endpoints.map((endpoint) =>
    typeof endpoint === 'string' ? { addresses: [endpoint], conditions: { ready: true } } : endpoint,
  );
  const isIPv6 = endpoints[0]?.addresses[0]?.includes(':') === true;
  return {
    apiVersion: 'discovery.k8s.io/v1beta1',
    kind: 'EndpointSlice',
    metadata: {
      name,
      namespace,
      labels: {
        'kubernetes.io/service-name': service,
        // Without a manager of its own the slice would be the controllers' to change or remove.
        'endpointslice.kubernetes.io/managed-by': 'cluster-test',
      },
      annotations,
    },
    addressType: request.addressType ?? (isIPv6 ? 'IPv6' : 'IPv4'),
    endpoints,
    ports: ports ?? [{ name: 'http', port: 8080, protocol: 'TCP' }],
  };
}
