/**
 * A whole world that one seed decides: a cluster's state, a node with its addresses, settings, a way of capture, and the
 * rules that the product makes of them. It lies in the address plan of a bridged lab, so that a real kernel can be asked
 * the same.
 */
import type { DesiredState } from '../../src/desired/desired-state.ts';
import type { NodeSettings } from '../../src/desired/node-view.ts';
import { CAPTURE_ADDRESSES } from '../../src/host/capture-address.ts';
import type { RuleSet } from '../../src/iptables/rule.ts';
import { IP_FAMILIES, type IpFamily } from '../../src/model/address.ts';
import { nodeInfoFromNode } from '../../src/model/node.ts';
import { placeText } from './intent-objects.ts';
import type { IntentWorld } from './intent.ts';
import { withRarities } from './probe-rarities.ts';
import { type ClusterState, randomClusterState } from './random-cluster.ts';
import { randomSettings } from './random-edits-settings.ts';
import { Random } from './random.ts';
import { cidrs, desiredFrom, dnatTo, firstLoadOf, proxyPortsOf, ruleSetOf } from './rule-fixture.ts';

/** The node of a bridged lab. */
export const LAB_ADDRESSES = [
  '127.0.0.1',
  '::1',
  '192.168.77.2',
  'fd00:77::2',
  '10.244.1.1',
  'fd00:244:1::1',
] as const;

/** What somebody else has put on the node: nothing, the addresses of a load balancer, those of a node-local DNS cache. */
const FURTHER_ADDRESSES = [
  [],
  ['198.51.100.1', '2001:db8:51::1'],
  ['10.96.0.10', 'fd00:96::a'],
] as const satisfies readonly (readonly string[])[];

export interface ProbeWorld extends IntentWorld {
  readonly seed: number;
  readonly capture: 'redirect' | 'link-local';
  /** Addresses that the lab's node does not have by itself. */
  readonly addedAddresses: readonly string[];
  readonly desired: DesiredState;
  /** By listener key. */
  readonly portByListener: ReadonlyMap<string, number>;
  readonly ruleSets: Readonly<Record<IpFamily, RuleSet>>;
  /** What a first start would load. */
  readonly rules: Readonly<Record<IpFamily, string>>;
}

/** Beyond what `randomSettings` knows: ranges of one family, ranges without any address, prefixes of names. */
const SETTINGS_TWEAKS: readonly Partial<NodeSettings>[] = [
  { nodePortAddresses: cidrs('10.244.1.0/28', 'fd00:77::2/127') },
  { nodePortAddresses: cidrs('0.0.0.0/0', '::1/128') },
  { nodePortAddresses: cidrs('172.16.0.0/12', 'fd00:244:1::/64', '127.0.0.1/32') },
  { localDetection: { kind: 'cidrs', cidrs: cidrs('10.244.1.12/30') } },
  { localDetection: { kind: 'cidrs', cidrs: cidrs('10.0.0.0/8', 'fd00:244::/32') } },
  { localDetection: { kind: 'interface', name: 'cni+' } },
  { localDetection: { kind: 'interface', name: 'cali+' } },
  { externalClusterIP: false, localDetection: { kind: 'interface', name: 'cni0' } },
  { externalClusterIP: false, localDetection: { kind: 'nodeCIDR' } },
];

export function randomWorld(seed: number): ProbeWorld {
  const random = new Random(seed);
  // Neighbouring seeds have both.
  const capture = seed % 2 === 0 ? 'redirect' : 'link-local';
  const tweak = random.below(2) === 0 ? random.pick(SETTINGS_TWEAKS) : {};
  const settings = { ...randomSettings(random).settings, ...tweak };
  const addedAddresses = [
    ...random.pick<readonly string[]>(FURTHER_ADDRESSES),
    ...(capture === 'link-local' ? Object.values(CAPTURE_ADDRESSES) : []),
  ];
  const state = withRarities(random, randomClusterState(random));
  return worldOf(state, { seed, capture, settings, addedAddresses });
}

/** The same for a state that is known, say one that somebody has made smaller. */
export function worldOf(
  state: ClusterState,
  chosen: Pick<ProbeWorld, 'seed' | 'capture' | 'settings' | 'addedAddresses'>,
): ProbeWorld {
  const localAddresses = [...LAB_ADDRESSES, ...chosen.addedAddresses];
  const { services, endpointSlices, node } = state;
  const desired = desiredFrom(services, endpointSlices, {
    addresses: localAddresses,
    settings: chosen.settings,
    ...(node === undefined ? {} : { node: nodeInfoFromNode(node) }),
  });
  const { proxyPorts, guardedPorts } = proxyPortsOf(desired);
  const isLinkLocal = chosen.capture === 'link-local';
  const ruleSetIn = (family: IpFamily): RuleSet =>
    ruleSetOf(desired, family, isLinkLocal ? dnatTo(family) : { kind: 'redirect' });
  const ruleSets = { IPv4: ruleSetIn('IPv4'), IPv6: ruleSetIn('IPv6') };
  return {
    ...chosen,
    state,
    localAddresses,
    desired,
    portByListener: proxyPorts,
    proxyPorts: new Set(
      guardedPorts.map(({ family, protocol, port }) =>
        placeText(family, port, protocol === 'TCP' ? 'tcp' : 'udp'),
      ),
    ),
    listenAddress: isLinkLocal ? CAPTURE_ADDRESSES : { IPv4: undefined, IPv6: undefined },
    ruleSets,
    rules: { IPv4: firstLoadOf(ruleSets.IPv4), IPv6: firstLoadOf(ruleSets.IPv6) },
  };
}

/** For messages: everything that the world is made of, and how to have it again alone. */
export function describeWorld({ seed, capture, settings, addedAddresses, state, rules }: ProbeWorld): string {
  const objects = [
    ...state.services,
    ...state.endpointSlices,
    ...(state.node === undefined ? [] : [state.node]),
  ];
  return [
    `seed ${seed}; KUP_TEST_SEED=${seed} repeats this one alone`,
    `--capture ${capture}, further addresses of the node: ${addedAddresses.join(', ') || 'none'}`,
    `settings ${JSON.stringify(settings)}`,
    ...objects.map((object) => JSON.stringify(object)),
    ...IP_FAMILIES.map((family) => `${family}:\n${rules[family]}`),
  ].join('\n');
}

/** `first` and `last` are for titles. */
export interface Batch {
  readonly first: number;
  readonly last: number;
  readonly batch: readonly number[];
}

export function batchesOf(all: readonly number[], size: number): readonly Batch[] {
  const starts = Array.from({ length: Math.ceil(all.length / size) }, (_, index) => index * size);
  return starts.map((start) => {
    const batch = all.slice(start, start + size);
    return { first: batch.at(0) ?? 0, last: batch.at(-1) ?? 0, batch };
  });
}
