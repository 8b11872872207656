/** Portals: the addresses and NodePorts of a Service whose traffic is captured, and the listener it is led to. Pure. */
import type { IpAddress, IpFamily } from '../model/address.ts';
import type { Cidr } from '../model/cidr.ts';
import type { Protocol } from '../model/service-port-name.ts';

/** Identity of a listener: it survives every change of its Service that leaves this key alone. */
export type ListenerKey = string & { readonly __brand: 'ListenerKey' };

/** Where a portal's traffic goes. */
export type PortalTarget =
  | { readonly kind: 'listener'; readonly listener: ListenerKey }
  /**
   * Depends on who sends it. `inside`: the pods of this node, as far as they can be told, and the node itself;
   * `outside`: everybody else, who is dropped where it is undefined.
   */
  | { readonly kind: 'split'; readonly inside: ListenerKey; readonly outside: ListenerKey | undefined }
  /** There are endpoints, but none that this traffic may use. */
  | { readonly kind: 'drop' }
  /** There are no endpoints at all. */
  | { readonly kind: 'reject' };

interface PortalCommon {
  /** `ns/name:port`, the comment of its rules. */
  readonly servicePortName: string;
  readonly family: IpFamily;
  readonly protocol: Protocol;
  readonly port: number;
  readonly target: PortalTarget;
}

/** An address and port of a Service whose traffic is captured. */
export interface AddressPortal extends PortalCommon {
  readonly kind: 'clusterIP' | 'externalIP';
  readonly address: IpAddress;
}

/** An address at which this node stands in for the load balancer. */
export interface LoadBalancerPortal extends PortalCommon {
  readonly kind: 'loadBalancerIP';
  readonly address: IpAddress;
  /** Whoever is in none of these is dropped. Undefined: everybody may come. */
  readonly allowedSources: readonly Cidr[] | undefined;
}

/** A port captured on the local addresses of the node that `Capture.nodePortRanges` selects. */
export interface NodePortPortal extends PortalCommon {
  readonly kind: 'nodePort';
  /** Only on this one of them; undefined: on all. */
  readonly address: IpAddress | undefined;
}

export type Portal = AddressPortal | LoadBalancerPortal | NodePortPortal;
