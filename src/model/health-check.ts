/** HealthCheck: what one Service's health check node port has to say on this node. Pure. */
import type { IpFamily } from './address.ts';

/** Of one Service and family; kube-proxy has a server for each family too (`pkg/proxy/healthcheck/service_health.go`). */
export interface HealthCheck {
  readonly namespace: string;
  readonly name: string;
  readonly family: IpFamily;
  /** `spec.healthCheckNodePort`. */
  readonly port: number;
  /** The local addresses to answer on: the wildcard address, or those that --nodeport-addresses selects. */
  readonly addresses: readonly string[];
  /** Ready endpoints on this node, over all ports of the Service, each address once. */
  readonly localEndpoints: number;
}
