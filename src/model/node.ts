/** NodeInfo: what the own Node object says, and the conversion from a v1.Node. Pure. */
import type { V1Node } from '@kubernetes/client-node';
import { type IpAddress, parseSloppyIpAddress } from './address.ts';
import { type Cidr, parseCidr } from './cidr.ts';

export interface NodeInfo {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  /** Of type InternalIP, in the order of the object; what is no IP address is left out. */
  readonly internalIPs: readonly IpAddress[];
  /** The ranges of this Node's pods (`spec.podCIDRs`, or the one of `podCIDR`); what is no range is left out. */
  readonly podCIDRs: readonly Cidr[];
  /**
   * May load balancers send new connections here? Not to a Node that is being deleted or that the autoscaler is
   * about to remove (kube-proxy `pkg/proxy/healthcheck/proxy_health.go`, KEP-3836).
   */
  readonly isEligible: boolean;
}

/** `k8s.io/cloud-provider` api: the cluster autoscaler's taint. */
const TO_BE_DELETED_TAINT = 'ToBeDeletedByClusterAutoscaler';

export function nodeInfoFromNode({ metadata, spec, status }: V1Node): NodeInfo {
  const isTainted = (spec?.taints ?? []).some(({ key }) => key === TO_BE_DELETED_TAINT);
  return {
    name: metadata?.name ?? '',
    labels: metadata?.labels ?? {},
    internalIPs: (status?.addresses ?? [])
      .filter(({ type }) => type === 'InternalIP')
      .map(({ address }) => parseSloppyIpAddress(address))
      .filter((address) => address !== undefined),
    podCIDRs: (spec?.podCIDRs ?? [spec?.podCIDR ?? '']).map(parseCidr).filter((cidr) => cidr !== undefined),
    isEligible: !isTainted && metadata?.deletionTimestamp === undefined,
  };
}
