/**
 * Which packets are worth asking about in a world: from every kind of sender to every portal, to what lies just beside
 * it, to proxy ports and health checks; from just inside and just outside every range. Every packet can really be sent in
 * a bridged lab, and reaches its node.
 */
import { edgesOf, isSingleHost } from './probe-edges.ts';
import { kindsOfTargets, type Target } from './probe-targets.ts';
import { type Family, familyOf, familyOfRange, isInRange, placeText } from './intent-objects.ts';
import { type IntentPacket, type IntentWorld, isLoopback, Oracle } from './intent.ts';
import type { ProbeWorld } from './probe-world.ts';
import { Random } from './random.ts';

type Sender = Pick<IntentPacket, 'from' | 'inInterface' | 'src'>;

const POD = { from: 'pod', inInterface: 'cni0' } as const;
const EXT = { from: 'ext', inInterface: 'eth0' } as const;
const NODE = { from: 'node', inInterface: '' } as const;

/** The first pod of a lab, the host outside, the node by its first address and by the one on the bridge. */
const SENDERS: Readonly<Record<Family, readonly Sender[]>> = {
  IPv4: [
    { ...POD, src: '10.244.1.11' },
    { ...EXT, src: '192.168.77.9' },
    { ...NODE, src: '192.168.77.2' },
    { ...NODE, src: '10.244.1.1' },
  ],
  IPv6: [
    { ...POD, src: 'fd00:244:1::11' },
    { ...EXT, src: 'fd00:77::9' },
    { ...NODE, src: 'fd00:77::2' },
    { ...NODE, src: 'fd00:244:1::1' },
  ],
};

/** Whom the hosts of a lab ask for by ARP, not by way of the node. */
const ON_LINK = {
  pod: ['10.244.1.0/24', 'fd00:244:1::/64'],
  ext: ['192.168.77.0/24', 'fd00:77::/64'],
  node: [],
};

/** Of the packets, at most this part is left alone by intent: in a random world most packets are nobody's business. */
const LEFT_ALONE_PART = 0.3;

/** Packets of a world at most. */
const COUNT = 100;

/** All different; the same for the same seed. A world without portals has few packets to ask about. */
export function packetsFor(world: ProbeWorld): readonly IntentPacket[] {
  const random = new Random(world.seed);
  const oracle = new Oracle(world);
  const kinds = kindsOfTargets(world);
  const strangers = Map.groupBy(edgeSenders(world), ({ src }) => familyOf(src));
  const packets = new Map<string, IntentPacket>();
  let leftAlone = 0;
  for (let tries = 0; packets.size < COUNT && tries < 8 * COUNT; tries += 1) {
    const target = random.pick(random.pick(kinds));
    const unusual = strangers.get(familyOf(target.dst)) ?? [];
    const isUsual = unusual.length === 0 || random.below(2) === 0;
    const sender = random.pick(isUsual ? usualSenders(target, world) : unusual);
    const isInvalid = target.protocol === 'tcp' && random.below(8) === 0;
    const packet = { ...target, ...sender, isInvalid };
    if (!canBeSent(packet, world) || packets.has(describePacket(packet))) continue;
    if (oracle.intentFor(packet).kind === 'left alone') {
      if (leftAlone >= LEFT_ALONE_PART * COUNT) continue;
      leftAlone += 1;
    }
    packets.set(describePacket(packet), packet);
  }
  return [...packets.values()];
}

function usualSenders({ dst }: Target, { localAddresses }: IntentWorld): readonly Sender[] {
  const isToNode = localAddresses.includes(dst) || isLoopback(dst);
  return [...SENDERS[familyOf(dst)], ...(isToNode ? [{ ...NODE, src: dst }] : [])];
}

/** Senders at both edges of every range that anything may look at: the address inside, and the one outside. */
function edgeSenders({ state, settings, localAddresses }: IntentWorld): readonly Sender[] {
  const { localDetection: detection } = settings;
  const ranges = [
    ...state.services.flatMap(({ spec }) =>
      (spec?.loadBalancerSourceRanges ?? []).map((text) => text.trim()),
    ),
    ...(state.node?.spec?.podCIDRs ?? []),
    ...(detection.kind === 'cidrs' ? detection.cidrs.map(({ text }) => text) : []),
  ];
  return [...new Set(ranges)]
    .filter((range) => familyOfRange(range) !== undefined)
    .flatMap(edgesOf)
    .filter((src) => isSingleHost(src) && !localAddresses.includes(src) && !isLoopback(src))
    .flatMap((src) => [
      { ...EXT, src },
      { ...POD, src },
    ]);
}

function canBeSent({ from, src, dst, dport }: IntentPacket, { localAddresses }: IntentWorld): boolean {
  if (dport < 1 || dport > 65_535 || familyOf(src) !== familyOf(dst)) return false;
  const isToNode = localAddresses.includes(dst) || isLoopback(dst);
  if (from === 'node') return isToNode || !isLoopback(src);
  if (isLoopback(dst) || src === dst) return false;
  return isToNode || !ON_LINK[from].some((range) => isInRange(dst, range));
}

/** `10.244.1.11 -> 10.96.0.10 80 tcp from pod`. */
export function describePacket({ from, src, dst, dport, protocol, isInvalid }: IntentPacket): string {
  return `${isInvalid ? 'invalid ' : ''}${src} -> ${placeText(dst, dport, protocol)} from ${from}`;
}
