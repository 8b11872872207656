/**
 * ServicePortName: the identity of a load-balanced Service port, as kube-proxy's `pkg/proxy/types.go` has it
 * (namespace, name, port name, protocol). Pure.
 */

/** The protocols that are carried. SCTP exists in the API; it is reported and skipped. */
export type Protocol = 'TCP' | 'UDP';

export interface ServicePortName {
  readonly namespace: string;
  readonly name: string;
  /** '' for the single unnamed port. */
  readonly port: string;
  readonly protocol: Protocol;
}

/** `ns/name:port`, or `ns/name` for an unnamed port: what logs, rule comments and labels show. */
export function servicePortNameText(name: ServicePortName): string {
  return `${name.namespace}/${name.name}${name.port === '' ? '' : `:${name.port}`}`;
}

/** Map key: two ports may share a name and differ in protocol only. */
export type ServicePortKey = string & { readonly __brand: 'ServicePortKey' };

export function servicePortKey(name: ServicePortName): ServicePortKey {
  return `${servicePortNameText(name)}/${name.protocol}` as ServicePortKey;
}
