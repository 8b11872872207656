/** Portals: the addresses and NodePorts of a Service whose traffic is captured, and the listener it is led to. Pure. */
import type { IpAddress, IpFamily } from '../model/address.ts';
import type { Protocol } from '../model/service-port-name.ts';

/** Identity of a listener: it survives every change of its Service that leaves this key alone. */
export type ListenerKey = string & { readonly __brand: 'ListenerKey' };

/** Where a portal's traffic goes: to a listener, or nowhere because the Service has no endpoints at all. */
export type PortalTarget =
  | { readonly kind: 'listener'; readonly listener: ListenerKey }
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

/** A port captured on every local address of the node. */
export interface NodePortPortal extends PortalCommon {
  readonly kind: 'nodePort';
}

export type Portal = AddressPortal | NodePortPortal;
