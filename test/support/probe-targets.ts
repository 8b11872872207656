/** Where packets of a world may be worth sending to: every portal, what lies just beside it, and what is none. */
import { isIP } from 'node:net';
import type { IntentWorld } from './intent.ts';
import { isSingleHost, neighboursOf } from './probe-edges.ts';
import { FIRST_PROXY_PORT } from './rule-fixture.ts';

export interface Target {
  readonly dst: string;
  readonly dport: number;
  readonly protocol: 'tcp' | 'udp';
}

const OTHER_PROTOCOL = { tcp: 'udp', udp: 'tcp' } as const;

/** To be picked from with equal chance; none is empty. */
export function kindsOfTargets(world: IntentWorld): readonly (readonly Target[])[] {
  const portals = portalTargets(world);
  return [
    portals,
    portals,
    portals,
    targetsBeside(portals),
    targetsMisplaced(world),
    proxyPortTargets(world),
    healthCheckTargets(world),
  ].filter((targets) => targets.length > 0);
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
