/** From API objects straight to the desired state and its rules, with proxy ports given out in order. */
import type { V1EndpointSlice, V1Service } from '@kubernetes/client-node';
import { type DesiredState, buildDesiredState } from '../../src/desired/desired-state.ts';
import type { ListenerKey } from '../../src/desired/portal.ts';
import { KernelTable } from '../../src/iptables/kernel-table.ts';
import { renderFullUpdate } from '../../src/iptables/render.ts';
import type { RuleSet } from '../../src/iptables/rule.ts';
import { type GuardedPort, buildRuleSet } from '../../src/iptables/ruleset.ts';
import { IP_FAMILIES, type IpAddress, type IpFamily } from '../../src/model/address.ts';
import { servicePortNameText } from '../../src/model/service-port-name.ts';
import { snapshotFromObjects } from '../../src/model/snapshot.ts';

/** Proxy ports are given out from here on, in the order of the listeners. */
export const FIRST_PROXY_PORT = 20_001;
/** The node's own addresses. */
export const NODE_ADDRESSES = ['127.0.0.1', '192.168.77.2', '::1', 'fd00:77::2'] as readonly string[];

export interface NodeTweak {
  readonly families?: readonly IpFamily[];
  readonly addresses?: readonly string[];
}

export function desiredFrom(
  services: readonly V1Service[],
  endpointSlices: readonly V1EndpointSlice[] = [],
  { families = IP_FAMILIES, addresses = NODE_ADDRESSES }: NodeTweak = {},
): DesiredState {
  return buildDesiredState(snapshotFromObjects({ services, endpointSlices }), {
    families,
    addresses: new Set(addresses as readonly IpAddress[]),
  });
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

export function ruleSetOf(desired: DesiredState, family: IpFamily = 'IPv4'): RuleSet {
  return buildRuleSet(family, { desired, ...proxyPortsOf(desired) });
}

/** What a first start would load for one family: both tables in full. */
export function firstLoadOf(rules: RuleSet): string {
  return (['nat', 'filter'] as const)
    .map((table) => renderFullUpdate({ table, family: rules.family }, rules[table], KernelTable.empty).text)
    .join('');
}
