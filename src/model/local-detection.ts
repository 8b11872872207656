/**
 * LocalDetection: how the traffic of pods is told from that of others, decided by the command line
 * (kube-proxy's `detectLocalMode`, pkg/proxy/util/localdetector.go). Types only.
 */
import type { Cidr } from './cidr.ts';

export type LocalDetection =
  /** Nobody is known to be a pod. */
  | { readonly kind: 'none' }
  /** Whose source address is in a range: one range, or one of each family. Of a family without, nobody is a pod. */
  | { readonly kind: 'cidrs'; readonly cidrs: readonly Cidr[] }
  /** Whose source address is in the pod ranges of this Node (`spec.podCIDRs`), which may come late or never. */
  | { readonly kind: 'nodeCIDR' }
  /** What comes in by an interface, both families: its name, or a prefix of names and `+`, as iptables takes it. */
  | { readonly kind: 'interface'; readonly name: string };
