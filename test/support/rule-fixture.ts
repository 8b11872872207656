/** From API objects straight to the desired state and its rules, with proxy ports given out in order. */
import type { V1EndpointSlice, V1Service } from '@kubernetes/client-node';
import { type DesiredState, buildDesiredState } from '../../src/desired/desired-state.ts';
import { type NodeSettings, type NodeView, buildNodeView } from '../../src/desired/node-view.ts';
import type { ListenerKey } from '../../src/desired/portal.ts';
import { CAPTURE_ADDRESSES } from '../../src/host/capture-address.ts';
import { KernelTable } from '../../src/iptables/kernel-table.ts';
import type { Diversion } from '../../src/iptables/portal-rules.ts';
import { renderFullUpdate } from '../../src/iptables/render.ts';
import type { RuleSet } from '../../src/iptables/rule.ts';
import { renderTableText } from '../../src/iptables/table-text.ts';
import { type GuardedPort, buildRuleSet } from '../../src/iptables/ruleset.ts';
import { IP_FAMILIES, type IpFamily } from '../../src/model/address.ts';
import { type Cidr, parseCidr } from '../../src/model/cidr.ts';
import type { NodeInfo } from '../../src/model/node.ts';
import { servicePortNameText } from '../../src/model/service-port-name.ts';
import { snapshotFromObjects } from '../../src/model/snapshot.ts';
import { addresses } from './snapshots.ts';

/** Proxy ports are given out from here on, in the order of the listeners. */
export const FIRST_PROXY_PORT = 20_001;
/** The node's own addresses. */
export const NODE_ADDRESSES = ['127.0.0.1', '192.168.77.2', '::1', 'fd00:77::2'] as readonly string[];

/** The name of the node, as slices have it. */
export const OWN_NODE = 'node1';

/** Throws on what is no range. */
export function cidrs(...texts: readonly string[]): readonly Cidr[] {
  return texts.map((text) => {
    const cidr = parseCidr(text);
    if (cidr === undefined) throw new Error(`no range: ${text}`);
    return cidr;
  });
}

/** As the API server tells it of a node with both families in `zone-a`, unless tweaked. */
export function makeNodeInfo(tweak: Partial<NodeInfo> = {}): NodeInfo {
  return {
    name: OWN_NODE,
    labels: { 'topology.kubernetes.io/zone': 'zone-a' },
    internalIPs: addresses('192.168.77.2', 'fd00:77::2'),
    podCIDRs: cidrs('10.244.1.0/24', 'fd00:244:1::/64'),
    isEligible: true,
    ...tweak,
  };
}

export interface NodeTweak {
  readonly families?: readonly IpFamily[];
  readonly addresses?: readonly string[];
  readonly settings?: Partial<NodeSettings>;
  readonly node?: NodeInfo;
}

/** The settings of a proxy that was started without a flag. */
export const DEFAULT_SETTINGS: NodeSettings = {
  nodeName: OWN_NODE,
  nodePortAddresses: [],
  localhostNodePorts: true,
  disableExternalIPs: false,
  externalClusterIP: true,
  localDetection: { kind: 'none' },
  scheduler: 'rr',
  privateAddresses: Object.values(CAPTURE_ADDRESSES),
};

export function makeNodeView({
  families = IP_FAMILIES,
  addresses = NODE_ADDRESSES,
  settings = {},
  node,
}: NodeTweak = {}): NodeView {
  return buildNodeView({ ...DEFAULT_SETTINGS, ...settings }, { families, addresses, node });
}

export function desiredFrom(
  services: readonly V1Service[],
  endpointSlices: readonly V1EndpointSlice[] = [],
  tweak: NodeTweak = {},
): DesiredState {
  return buildDesiredState(snapshotFromObjects({ services, endpointSlices }), makeNodeView(tweak));
}

/** Every listener open on the next proxy port, all of them guarded. */
export function proxyPortsOf(desired: DesiredState): {
  readonly proxyPorts: ReadonlyMap<ListenerKey, number>;
  readonly guardedPorts: readonly GuardedPort[];
} {
  const proxyPorts = new Map<ListenerKey, number>();
  const guardedPorts: GuardedPort[] = [];
  for (const [key, { family, servicePort }] of desired.listeners) {
    const port = FIRST_PROXY_PORT + proxyPorts.size;
    proxyPorts.set(key, port);
    const { protocol } = servicePort.name;
    guardedPorts.push({ family, protocol, port, servicePortName: servicePortNameText(servicePort.name) });
  }
  return { proxyPorts, guardedPorts };
}

/** As `--capture link-local` leads it. */
export function dnatTo(family: IpFamily): Diversion {
  return { kind: 'dnat', address: CAPTURE_ADDRESSES[family] };
}

export function ruleSetOf(
  desired: DesiredState,
  family: IpFamily = 'IPv4',
  diversion: Diversion = { kind: 'redirect' },
): RuleSet {
  return buildRuleSet(family, { capture: desired.capture, ...proxyPortsOf(desired), diversion });
}

/** What iptables-save printed, without the number of the write in the canaries: the same rules are the same text. */
export function withoutWrites(saved: string): string {
  return saved.replaceAll(/("generation \d+), write \d+"/g, '$1"');
}

/** What a first start would load for one family: both tables in full. */
export function firstLoadOf(rules: RuleSet): string {
  return (['nat', 'filter'] as const)
    .map(
      (table) =>
        renderFullUpdate(
          { table, stamp: { generation: 1, write: 1 } },
          renderTableText(rules[table], rules.family),
          KernelTable.empty,
        ).text,
    )
    .join('');
}
