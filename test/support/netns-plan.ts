/**
 * Who is who in a lab: its nodes, their pods, the outside, and the address of each. Pure; netns-script.ts makes
 * commands of it, netns-lab.ts hosts.
 */
import type { PodLinks } from './capture-under-test.ts';

/** The first node is the one that every lab has. */
export type NodeNumber = 1 | 2;

export interface LabShape {
  /** Pods on each node. */
  readonly pods: number;
  readonly nodes: NodeNumber;
  readonly podLinks: PodLinks;
}

/** An IPv4 and an IPv6 address, without prefix lengths, in this order. */
export type AddressPair = readonly [ipv4: string, ipv6: string];

export interface PodPlan {
  /** `pod1` on the first node, `node2-pod1` on the second. */
  readonly name: string;
  /** The node's end of the pod's veth: `vp1`, on either node. The pod's end is `eth0`. */
  readonly nodeInterface: string;
  readonly addresses: AddressPair;
}

export interface NodePlan {
  /** `node` and `node2`. */
  readonly name: string;
  /** The node IPs, on `eth0`. */
  readonly addresses: AddressPair;
  /** The addresses and the MAC address of `cni0`, where pods are bridged. */
  readonly bridge: AddressPair;
  readonly bridgeMac: string;
  /** The ranges the node's pods have their addresses from: a /24 and a /64. */
  readonly podCidrs: AddressPair;
  readonly pods: readonly PodPlan[];
}

export const EXT_ADDRESSES: AddressPair = ['192.168.77.9', 'fd00:77::9'];

/** Every node of a lab, the first one first. */
export function planNodes({ nodes, pods }: LabShape): readonly NodePlan[] {
  const numbers: readonly NodeNumber[] = nodes === 1 ? [1] : [1, 2];
  return numbers.map((number) => planNode(number, pods));
}

function planNode(number: NodeNumber, podCount: number): NodePlan {
  return {
    name: number === 1 ? 'node' : 'node2',
    addresses: [`192.168.77.${number + 1}`, `fd00:77::${number + 1}`],
    bridge: [`10.244.${number}.1`, `fd00:244:${number}::1`],
    bridgeMac: `0a:58:0a:f4:0${number}:01`,
    podCidrs: [`10.244.${number}.0/24`, `fd00:244:${number}::/64`],
    pods: Array.from({ length: podCount }, (_, index) => ({
      name: number === 1 ? `pod${index + 1}` : `node2-pod${index + 1}`,
      nodeInterface: `vp${index + 1}`,
      addresses: [`10.244.${number}.${11 + index}`, `fd00:244:${number}::${11 + index}`],
    })),
  };
}
