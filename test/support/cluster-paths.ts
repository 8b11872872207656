/** Paths of the resources that tests use, in kube-apiserver 1.20's versions. */

const GROUP_VERSIONS = {
  endpoints: 'api/v1',
  events: 'api/v1',
  namespaces: 'api/v1',
  nodes: 'api/v1',
  pods: 'api/v1',
  secrets: 'api/v1',
  serviceaccounts: 'api/v1',
  services: 'api/v1',
  configmaps: 'api/v1',
  /** v1 came in 1.21. */
  endpointslices: 'apis/discovery.k8s.io/v1beta1',
  clusterroles: 'apis/rbac.authorization.k8s.io/v1',
  clusterrolebindings: 'apis/rbac.authorization.k8s.io/v1',
  roles: 'apis/rbac.authorization.k8s.io/v1',
  rolebindings: 'apis/rbac.authorization.k8s.io/v1',
} as const;

export type Resource = keyof typeof GROUP_VERSIONS;

export interface Place {
  /** None: the cluster's, or all namespaces. */
  readonly namespace?: string;
  /** None: the collection. */
  readonly name?: string;
}

/** The path of a collection or object: `pathOf('pods', { namespace: 'default', name: 'a' })`. */
export function pathOf(resource: Resource, { namespace, name }: Place = {}): string {
  const scope = namespace === undefined ? '' : `/namespaces/${namespace}`;
  return `/${GROUP_VERSIONS[resource]}${scope}/${resource}${name === undefined ? '' : `/${name}`}`;
}
