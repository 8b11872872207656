/**
 * Which packets are worth asking about in a world: from every kind of sender to every portal, to what lies just beside
 * it, to proxy ports and health checks; from just inside and just outside every range. Every packet can really be sent in
 * a bridged lab, and reaches its node.
 */
import { isIP } from 'node:net';
import { addressNumber } from './netfilter-match.ts';
import { edgesOf, neighboursOf } from './probe-edges.ts';
import { type Family, familyOf, familyOfRange, isInRange, placeText } from './intent-objects.ts';
import { type IntentPacket, type IntentWorld, isLoopback, Oracle } from './intent.ts';
import type { ProbeWorld } from './probe-world.ts';
import { Random } from './random.ts';
import { FIRST_PROXY_PORT } from './rule-fixture.ts';

interface Target {
  readonly dst: string;
  readonly dport: number;
  readonly protocol: 'tcp' | 'udp';
}

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
const LINKS = [...ON_LINK.pod, ...ON_LINK.ext];
const OTHER_PROTOCOL = { tcp: 'udp', udp: 'tcp' } as const;

/** Of the packets, at most this part is left alone by intent: in a random world most packets are nobody's business. */
const LEFT_ALONE_PART = 0.3;

/** Packets of a world at most. */
const COUNT = 100;

/** All different; the same for the same seed. A world without portals has few packets to ask about. */
export function packetsFor(world: ProbeWorld): readonly IntentPacket[] {
  const random = new Random(world.seed);
  const oracle = new Oracle(world);
  const portals = portalTargets(world);
  const kinds = [
    portals,
    portals,
    portals,
    targetsBeside(portals),
    targetsMisplaced(world),
    proxyPortTargets(world),
    healthCheckTargets(world),
  ].filter((targets) => targets.length > 0);
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

/** Whatever an object names, whether it is to be captured or not. */
function portalTargets({ state, localAddresses }: IntentWorld): readonly Target[] {
  return state.services.flatMap(({ spec, status }) => {
    const addresses = [
      ...(spec?.clusterIPs ?? [spec?.clusterIP ?? '']),
      ...(spec?.externalIPs ?? []),
      ...(status?.loadBalancer?.ingress ?? []).map(({ ip = '' }) => ip),
    ].filter((address) => isIP(address) !== 0);
    return (spec?.ports ?? []).flatMap(({ port, nodePort = 0, protocol = 'TCP' }) => {
      const own = protocol === 'UDP' ? 'udp' : 'tcp';
      const nodePorts = nodePort === 0 ? [] : [...localAddresses, '127.0.0.2'];
      return [
        ...addresses.map((dst): Target => ({ dst, dport: port, protocol: own })),
        ...nodePorts.map((dst): Target => ({ dst, dport: nodePort, protocol: own })),
      ];
    });
  });
}

/** The neighbours of an address and of a port, and the same place by the other protocol. */
function targetsBeside(targets: readonly Target[]): readonly Target[] {
  return targets.flatMap((target) => [
    ...neighboursOf(target.dst)
      .filter(isSingleHost)
      .map((dst) => ({ ...target, dst })),
    { ...target, dport: target.dport - 1 },
    { ...target, dport: target.dport + 1 },
    { ...target, protocol: OTHER_PROTOCOL[target.protocol] },
  ]);
}

/** Ports of Services on the node, and NodePorts elsewhere. */
function targetsMisplaced({ state, localAddresses }: IntentWorld): readonly Target[] {
  const specs = state.services.flatMap(({ spec }) => (spec === undefined ? [] : [spec]));
  const clusterIPs = specs.map(({ clusterIP = '' }) => clusterIP).filter((address) => isIP(address) !== 0);
  const ports = specs.flatMap(({ ports: own = [] }) => own);
  return [
    ...at(
      localAddresses,
      ports.map(({ port }) => port),
    ),
    ...at(
      clusterIPs,
      ports.map(({ nodePort = 0 }) => nodePort),
    ),
  ];
}

/** Every one, and the next one behind them; where listeners are as often as anywhere else on the node. */
function proxyPortTargets({ localAddresses, listenAddress, proxyPorts }: IntentWorld): readonly Target[] {
  const ports = Array.from({ length: proxyPorts.size + 1 }, (_, index) => FIRST_PROXY_PORT + index);
  const listening = Object.values(listenAddress).filter((address) => address !== undefined);
  const times = Math.floor(localAddresses.length / 2);
  return [...Array.from({ length: times }, () => at(listening, ports)).flat(), ...at(localAddresses, ports)];
}

function healthCheckTargets({ state, localAddresses }: IntentWorld): readonly Target[] {
  const ports = state.services.map(({ spec }) => spec?.healthCheckNodePort ?? 0);
  return at(
    localAddresses,
    ports.filter((port) => port !== 0),
  );
}

function at(places: readonly string[], ports: readonly number[]): readonly Target[] {
  return places.flatMap((dst) =>
    [...new Set(ports)].flatMap((dport) =>
      (['tcp', 'udp'] as const).map((protocol) => ({ dst, dport, protocol })),
    ),
  );
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

/** Not of a whole network (its first and its last address), and none that no packet may have. */
function isSingleHost(address: string): boolean {
  const number = addressNumber(address);
  if (familyOf(address) === 'IPv6') return number > 1n && number >> 120n !== 0xffn && !isFirst(address, 64n);
  const firstOctet = number >> 24n;
  if (firstOctet === 0n || firstOctet >= 224n) return false;
  const isOnLink = LINKS.some((range) => isInRange(address, range));
  return !isOnLink || !((number & 0xffn) === 0n || (number & 0xffn) === 0xffn);
}

/** In IPv6 that is every router's. */
function isFirst(address: string, hostBits: bigint): boolean {
  const number = addressNumber(address);
  return (number >> hostBits) << hostBits === number;
}

function canBeSent({ from, src, dst, dport }: IntentPacket, { localAddresses }: IntentWorld): boolean {
  if (dport < 1 || dport > 65_535 || familyOf(src) !== familyOf(dst)) return false;
  const isToNode = localAddresses.includes(dst) || isLoopback(dst);
  if (from === 'node') return isToNode || !isLoopback(src);
  if (isLoopback(dst) || src === dst) return false;
  return isToNode || !ON_LINK[from].some((range) => isInRange(dst, range));
}

/** `tcp 10.244.1.11 -> 10.96.0.10 80 from pod`. */
export function describePacket({ from, src, dst, dport, protocol, isInvalid }: IntentPacket): string {
  return `${isInvalid ? 'invalid ' : ''}${src} -> ${placeText(dst, dport, protocol)} from ${from}`;
}
