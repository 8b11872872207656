/**
 * The objects of a cluster as tests make them, in one API server and with the state that no kubelet reports here:
 * pods that run and are ready, nodes that are.
 */
import type { V1Node, V1Pod, V1Service, V1ServicePort, V1ServiceSpec } from '@kubernetes/client-node';
import type { ApiClient, ApiObject, ObjectList, Stored } from './cluster-api.ts';
import { pathOf, type Resource } from './cluster-paths.ts';
import { buildSlice, type SliceRequest, type SliceV1beta1 } from './cluster-slices.ts';

/** Whatever is in a namespace is in `default` unless told. */
interface Named {
  readonly name: string;
  readonly namespace?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
}

export interface ServiceRequest extends Named {
  /** `{ app: <name> }` unless told; null: none, so that no controller makes endpoints. */
  readonly selector?: Readonly<Record<string, string>> | null;
  /** One port `http` 80/TCP to 8080 unless told. */
  readonly ports?: readonly V1ServicePort[];
  /** Everything else; the server chooses the cluster IP unless told. */
  readonly spec?: Partial<V1ServiceSpec>;
}

export interface PodRequest extends Named {
  /** Its addresses, the first of which is the pod IP. */
  readonly ips: readonly string[];
  /** A Node that exists: without one the controllers make no endpoint of the pod. */
  readonly nodeName: string;
  /** True unless told. */
  readonly ready?: boolean;
  /** Named ports, for Services that ask for one by name. */
  readonly ports?: readonly { readonly name: string; readonly containerPort: number }[];
}

export interface NodeRequest {
  readonly name: string;
  readonly labels?: Readonly<Record<string, string>>;
  /** Its internal IPs. */
  readonly ips?: readonly string[];
  readonly podCIDRs?: readonly string[];
}

export interface TokenRequest {
  readonly name: string;
  readonly namespace?: string;
  /** The Secret or Pod with which the token shall end; none unless told. */
  readonly boundTo?: Stored<{ kind?: string; apiVersion?: string }>;
  /** One hour unless told; the server refuses less than ten minutes. */
  readonly expirationSeconds?: number;
  readonly audiences?: readonly string[];
}

interface NewObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string; readonly labels?: object };
  readonly spec?: object;
  readonly roleRef?: object;
  readonly subjects?: readonly object[];
}

export class ClusterObjects {
  readonly #api: ApiClient;

  constructor(api: ApiClient) {
    this.#api = api;
  }

  async createNamespace(name: string): Promise<ApiObject> {
    return this.#create('namespaces', { apiVersion: 'v1', kind: 'Namespace', metadata: { name } });
  }

  async createService(request: ServiceRequest): Promise<Stored<V1Service>> {
    const { selector = { app: request.name }, ports, spec } = request;
    const service = {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: metadataOf(request),
      spec: {
        ...(selector === null ? {} : { selector }),
        ports: ports ?? [{ name: 'http', port: 80, targetPort: 8080, protocol: 'TCP' }],
        ...spec,
      },
    };
    return this.#create<V1Service>('services', service);
  }

  async createNode({ name, labels = {}, ips = [], podCIDRs = [] }: NodeRequest): Promise<Stored<V1Node>> {
    const [podCIDR] = podCIDRs;
    await this.#create('nodes', {
      apiVersion: 'v1',
      kind: 'Node',
      metadata: { name, labels: { 'kubernetes.io/hostname': name, ...labels } },
      spec: podCIDR === undefined ? {} : { podCIDR, podCIDRs },
    });
    const status = {
      addresses: ips.map((address) => ({ type: 'InternalIP', address })),
      conditions: [condition('Ready', true)],
    };
    return this.#api.patch<V1Node>(`${pathOf('nodes', { name })}/status`, { status });
  }

  /** A pod that runs, on a node, with its addresses; no process stands behind it. */
  async createPod(request: PodRequest): Promise<Stored<V1Pod>> {
    const { name, namespace = 'default', ips, nodeName, ready = true, ports = [] } = request;
    await this.#create('pods', {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: metadataOf(request),
      spec: { nodeName, containers: [{ name: 'pause', image: 'pause', ports }] },
    });
    const status = {
      phase: 'Running',
      podIP: ips[0],
      podIPs: ips.map((ip) => ({ ip })),
      conditions: [condition('Ready', ready), condition('ContainersReady', ready)],
    };
    return this.#api.patch<V1Pod>(`${pathOf('pods', { namespace, name })}/status`, { status });
  }

  async setPodReady(name: string, ready: boolean, namespace = 'default'): Promise<Stored<V1Pod>> {
    return this.#api.patch<V1Pod>(
      `${pathOf('pods', { namespace, name })}/status`,
      { status: { conditions: [condition('Ready', ready), condition('ContainersReady', ready)] } },
      'strategic-merge',
    );
  }

  /** At once; with a grace period the pod is terminating until it is deleted again without one. */
  async deletePod(name: string, { namespace = 'default', graceSeconds = 0 } = {}): Promise<void> {
    await this.#api.delete(pathOf('pods', { namespace, name }), { gracePeriodSeconds: graceSeconds });
  }

  async deleteService(name: string, namespace = 'default'): Promise<void> {
    await this.#api.delete(pathOf('services', { namespace, name }));
  }

  /** The slices of a Service, whoever made them. */
  async slicesOf(service: string, namespace = 'default'): Promise<readonly Stored<SliceV1beta1>[]> {
    const list: ObjectList<SliceV1beta1> = await this.#api.list(pathOf('endpointslices', { namespace }), {
      labelSelector: `kubernetes.io/service-name=${service}`,
    });
    return list.items;
  }

  /** A slice of the test's own: it changes when the test says so, without the controllers' delays. */
  async writeSlice(request: SliceRequest): Promise<Stored<SliceV1beta1>> {
    return this.#create<SliceV1beta1>('endpointslices', buildSlice(request));
  }

  /** Replaces a slice that `writeSlice` made. */
  async updateSlice(request: SliceRequest): Promise<Stored<SliceV1beta1>> {
    const slice = buildSlice(request);
    return this.#api.update(pathOf('endpointslices', slice.metadata), slice);
  }

  async createServiceAccount(name: string, namespace = 'default'): Promise<ApiObject> {
    return this.#create('serviceaccounts', {
      apiVersion: 'v1',
      kind: 'ServiceAccount',
      metadata: { name, namespace },
    });
  }

  async createSecret(name: string, namespace = 'default'): Promise<ApiObject> {
    return this.#create('secrets', { apiVersion: 'v1', kind: 'Secret', metadata: { name, namespace } });
  }

  /** A token of the TokenRequest API, for a service account that exists. */
  async serviceAccountToken(request: TokenRequest): Promise<string> {
    const { name, namespace = 'default', boundTo, expirationSeconds = 3_600, audiences } = request;
    const spec = {
      expirationSeconds,
      ...(audiences === undefined ? {} : { audiences }),
      ...(boundTo === undefined
        ? {}
        : {
            boundObjectRef: {
              apiVersion: boundTo.apiVersion,
              kind: boundTo.kind,
              name: boundTo.metadata.name,
              uid: boundTo.metadata.uid,
            },
          }),
    };
    const { status } = await this.#api.create<{ status: { token: string } }>(
      `${pathOf('serviceaccounts', { namespace, name })}/token`,
      { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest', spec },
    );
    return status.token;
  }

  /** Gives a user (`system:serviceaccount:<namespace>:<name>` is one) a ClusterRole, such as `system:node-proxier`. */
  async bindClusterRole(role: string, user: string): Promise<ApiObject> {
    const rbac = 'rbac.authorization.k8s.io';
    return this.#create('clusterrolebindings', {
      apiVersion: `${rbac}/v1`,
      kind: 'ClusterRoleBinding',
      metadata: { name: `${role}-${user}` },
      roleRef: { apiGroup: rbac, kind: 'ClusterRole', name: role },
      subjects: [{ apiGroup: rbac, kind: 'User', name: user }],
    });
  }

  async #create<T extends object = ApiObject>(resource: Resource, object: NewObject): Promise<Stored<T>> {
    const { namespace } = object.metadata;
    return this.#api.create<T>(pathOf(resource, namespace === undefined ? {} : { namespace }), object);
  }
}

function metadataOf({ name, namespace = 'default', labels = { app: name }, annotations = {} }: Named): {
  readonly name: string;
  readonly namespace: string;
} & Pick<Required<Named>, 'labels' | 'annotations'> {
  return { name, namespace, labels, annotations };
}

/** Kubernetes' times have whole seconds; the controllers tell from this one when a pod became ready. */
function condition(type: string, isTrue: boolean): object {
  const lastTransitionTime = new Date().toISOString().replace(/\.\d+/, '');
  return { type, status: isTrue ? 'True' : 'False', lastTransitionTime };
}
