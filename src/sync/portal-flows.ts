/**
 * Which UDP portals lead elsewhere than before, so that conntrack has to forget their flows: NAT is decided on a flow's
 * first packet, and a client that keeps its source port would go on as if nothing had changed. Pure bookkeeping.
 */
import type { PodSource } from '../desired/node-view.ts';
import type { ListenerKey, Portal, PortalTarget } from '../desired/portal.ts';
import type { MovedPortal } from '../iptables/conntrack.ts';
import { familyOf, parseIpAddress } from '../model/address.ts';
import type { Cidr } from '../model/cidr.ts';

interface Flows extends MovedPortal {
  /** Proxy ports, and who may come. */
  readonly leadsTo: string;
}

/** What decides about a packet beside the portal itself. */
export interface Surroundings {
  /** Of one family, as the next. */
  readonly podSources: readonly PodSource[];
  readonly nodePortRanges: readonly Cidr[];
  /** Of the node, both families: a NodePort is wherever it has an address. */
  readonly localAddresses: readonly string[];
}

const NO_SURROUNDINGS: Surroundings = { podSources: [], nodePortRanges: [], localAddresses: [] };

/** A text that no portal leads to. */
const UNKNOWN = '?';

export class PortalFlows {
  #before: ReadonlyMap<string, Flows> = new Map();
  #addressesBefore: ReadonlySet<string> = new Set();

  /**
   * To be asked after the rules are in: the portals that were not diverted before or are not any more, or to other
   * ports, or for other senders; and NodePorts at addresses that the node did not have before, or has no more. No others:
   * to forget a flow that goes on ends it, if the backend speaks before the client does.
   */
  moved(
    portals: readonly Portal[],
    proxyPorts: ReadonlyMap<string, number>,
    surroundings: Surroundings = NO_SURROUNDINGS,
  ): readonly MovedPortal[] {
    const before = this.#before;
    const now = new Map<string, Flows>();
    for (const portal of portals) {
      const { family, address, port } = portal;
      const ports = listenersOf(portal.target).map((listener) => proxyPorts.get(listener));
      if (portal.protocol !== 'UDP' || ports.every((one) => one === undefined)) continue;
      // The kind too: who is outside and may not come is in no port.
      const leadsTo = [portal.target.kind, ...ports, ...circumstancesOf(portal, surroundings)].join();
      // An external address may be local, and its port that of a NodePort: both portals are there.
      const place = portal.kind === 'nodePort' ? `node ${address ?? 'everywhere'}` : portal.address;
      now.set(`${place}|${port}`, { family, address, port, leadsTo });
    }
    this.#before = now;
    const gone = [...before].filter(([key]) => !now.has(key));
    const isSame = ([key, { leadsTo }]: [string, Flows]): boolean => before.get(key)?.leadsTo === leadsTo;
    const changed = [...now].filter((entry) => !isSame(entry));
    const moved = [...gone, ...changed].map(([, { family, address, port }]) => ({ family, address, port }));
    const kept = [...now].filter(isSame).map(([, flows]) => flows);
    return [...moved, ...this.#movedByAddress(kept, surroundings)];
  }

  #movedByAddress(kept: readonly Flows[], { localAddresses }: Surroundings): readonly MovedPortal[] {
    const addresses = new Set(localAddresses);
    const changed = [...addresses.symmetricDifference(this.#addressesBefore)]
      .map(parseIpAddress)
      .filter((address) => address !== undefined);
    this.#addressesBefore = addresses;
    return kept
      .filter(({ address }) => address === undefined)
      .flatMap(({ family, port }) =>
        changed
          .filter((address) => familyOf(address) === family)
          .map((address) => ({ family, address, port })),
      );
  }

  /** Nothing is known of the flows: each portal, one that goes now too, counts as moved when it is asked about next. */
  reset(): void {
    this.#before = new Map(
      [...this.#before].map(([key, flows]) => [key, { ...flows, leadsTo: UNKNOWN }] as const),
    );
  }
}

/** Beside the ports: who may come, who is inside, and where it is served. */
function circumstancesOf(portal: Portal, { podSources, nodePortRanges }: Surroundings): readonly string[] {
  const allowed = portal.kind === 'loadBalancerIP' ? portal.allowedSources : undefined;
  const pods = podSources.map((source) => (source.kind === 'cidr' ? source.cidr.text : source.name));
  return [
    // Everybody may come, or nobody: not the same.
    ...(allowed === undefined ? ['all'] : allowed.map(({ text }) => text)),
    ...(portal.target.kind === 'split' ? pods : []),
    ...(portal.kind === 'nodePort' ? nodePortRanges.map(({ text }) => text) : []),
  ];
}

function listenersOf(target: PortalTarget): readonly ListenerKey[] {
  switch (target.kind) {
    case 'listener':
      return [target.listener];
    case 'split':
      return target.outside === undefined ? [target.inside] : [target.inside, target.outside];
    case 'drop':
    case 'reject':
      return [];
  }
}
