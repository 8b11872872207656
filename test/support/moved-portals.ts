/** Builders for flows and for portals that have moved. */
import type { Flow } from '../../src/conntrack/flow.ts';
import type { FlowSurroundings, MovedPortal, PortalRoute } from '../../src/conntrack/moved-portal.ts';
import type { IpAddress } from '../../src/model/address.ts';
import { WHOLE_FAMILY } from '../../src/model/cidr.ts';

export const NODE_ADDRESSES = ['127.0.0.1', '192.168.77.2', '10.244.1.1', '::1', 'fd00:77::2'] as const;

/** NodePorts are on every address of the node, and nobody is known to be a pod. */
export function makeSurroundings(tweak: Partial<FlowSurroundings> = {}): FlowSurroundings {
  return {
    listenAddresses: new Set(['127.0.0.1', '192.168.77.2', '10.244.1.1', '::1', 'fd00:77::2']),
    localAddresses: new Set(NODE_ADDRESSES),
    goneAddresses: new Set(),
    nodePortRanges: [WHOLE_FAMILY.IPv4, WHOLE_FAMILY.IPv6],
    localhostNodePorts: true,
    podRanges: [],
    hasPodInterfaces: false,
    ...tweak,
  };
}

/** Everybody is led to that port. */
export function routeTo(port: number, tweak: Partial<PortalRoute> = {}): PortalRoute {
  return { allowedSources: undefined, insidePort: port, outsidePort: port, ...tweak };
}

/** 10.96.0.10, UDP port 53, which leads to 20001 and led nowhere before. */
export function makeMovedPortal(tweak: Partial<MovedPortal> = {}): MovedPortal {
  return {
    family: 'IPv4',
    protocol: 'UDP',
    address: '10.96.0.10' as IpAddress,
    port: 53,
    formerPorts: [],
    route: routeTo(20_001),
    isDoubtful: true,
    takenAddresses: new Set(),
    surroundings: makeSurroundings(),
    ...tweak,
  };
}

/** From a pod to 10.96.0.10 port 53, led to 20001 on the node. */
export function makeFlow(tweak: Partial<Flow> = {}): Flow {
  return {
    source: '10.244.1.14',
    sourcePort: 40_000,
    destination: '10.96.0.10',
    destinationPort: 53,
    replySource: '10.244.1.1',
    replySourcePort: 20_001,
    ...tweak,
  };
}

/** Led nowhere: it goes where it was sent. */
export function makeUndivertedFlow(tweak: Partial<Flow> = {}): Flow {
  const { destination, destinationPort, ...rest } = makeFlow(tweak);
  return {
    ...rest,
    destination,
    destinationPort,
    replySource: destination,
    replySourcePort: destinationPort,
  };
}

/** As `conntrack -L` prints it. */
export function renderFlow(flow: Flow): string {
  const { source, sourcePort, destination, destinationPort, replySource, replySourcePort } = flow;
  const there = `src=${source} dst=${destination} sport=${sourcePort} dport=${destinationPort}`;
  const back = `src=${replySource} dst=${source} sport=${replySourcePort} dport=${sourcePort}`;
  return `udp      17 29 ${there} [UNREPLIED] ${back} mark=0 use=1`;
}
