/**
 * Finds the stale flows in a dump, and says in as few deletions as possible which they are: every deletion makes
 * `conntrack` go through the whole table. Memory is bounded by the places that flows to moved portals lead to. Pure.
 */
import type { IpAddress } from '../model/address.ts';
import type { Flow } from './flow.ts';
import { type MovedPortal, isDivertedFlow, isStaleFlow } from './moved-portal.ts';

/**
 * So many stale flows are deleted one by one where good ones lead to the same place; more, and the good ones go with
 * them: their next datagram makes them anew.
 */
const MAX_SINGLE_DELETIONS = 16;

/** Flows to one address and port that lead to the same place. */
interface Group {
  readonly portal: MovedPortal;
  readonly stale: Flow[];
  staleCount: number;
  goodCount: number;
}

/** Portals of one family and protocol by port, then by address; `everywhere`: NodePorts. */
interface PortalsAtPort {
  readonly byAddress: Map<IpAddress, MovedPortal>;
  everywhere: MovedPortal | undefined;
}

/** What is to be deleted now, each as arguments for `conntrack -D`. */
export interface Selections {
  readonly chosen: readonly (readonly string[])[];
  /** Portals that have more stale flows than were chosen. */
  readonly left: ReadonlySet<MovedPortal>;
}

export class StaleFlows {
  /** In the order of their turns. */
  readonly #portals: readonly MovedPortal[];
  readonly #portalsByPort = new Map<number, PortalsAtPort>();
  readonly #groups = new Map<string, Group>();

  /** One portal for each address and port; those that come first are served first. */
  constructor(portals: readonly MovedPortal[]) {
    this.#portals = portals;
    for (const portal of portals) {
      const none: PortalsAtPort = { byAddress: new Map(), everywhere: undefined };
      const atPort = this.#portalsByPort.get(portal.port) ?? none;
      this.#portalsByPort.set(portal.port, atPort);
      if (portal.address === undefined) atPort.everywhere = portal;
      else atPort.byAddress.set(portal.address, portal);
    }
  }

  /** To be called with every flow of the portals' family and protocol. */
  add(flow: Flow): void {
    const portal = this.#portalOf(flow);
    if (portal === undefined) return;
    const isStale = this.judge(flow) === 'stale';
    // Good without being diverted, it is so for every client: no stale one will be found beside it.
    if (!isStale && !isDivertedFlow(flow)) return;
    const key = `${flow.destination} ${flow.destinationPort} ${flow.replySource} ${flow.replySourcePort}`;
    const group = this.#groups.get(key) ?? { portal, stale: [], staleCount: 0, goodCount: 0 };
    this.#groups.set(key, group);
    if (isStale) {
      group.staleCount += 1;
      if (group.stale.length < MAX_SINGLE_DELETIONS) group.stale.push(flow);
    } else {
      group.goodCount += 1;
    }
  }

  /** `not ours`: it is to no portal that has moved. */
  judge(flow: Flow): 'stale' | 'good' | 'not ours' {
    const portal = this.#portalOf(flow);
    if (portal === undefined) return 'not ours';
    return isStaleFlow(portal, flow) ? 'stale' : 'good';
  }

  /** As many as there are, but no more of another group once there are `most`. */
  selections(most = Number.POSITIVE_INFINITY): Selections {
    const groupsOf = Map.groupBy(this.#groups.values(), ({ portal }) => portal);
    const chosen: (readonly string[])[] = [];
    const left = new Set<MovedPortal>();
    for (const portal of this.#portals) {
      for (const group of groupsOf.get(portal) ?? []) {
        if (group.staleCount === 0) continue;
        if (chosen.length < most) chosen.push(...selectStale(group));
        else left.add(portal);
      }
    }
    return { chosen, left };
  }

  #portalOf({ destination, destinationPort }: Flow): MovedPortal | undefined {
    const atPort = this.#portalsByPort.get(destinationPort);
    const atAddress = atPort?.byAddress.get(destination as IpAddress);
    if (atAddress !== undefined) return atAddress;
    return atPort?.everywhere?.takenAddresses.has(destination) === true ? undefined : atPort?.everywhere;
  }
}

function selectStale({ stale, staleCount, goodCount }: Group): readonly (readonly string[])[] {
  if (goodCount === 0 || staleCount > MAX_SINGLE_DELETIONS) return stale.slice(0, 1).map(selectGroup);
  return stale.map((flow) => [...selectGroup(flow), ...selectClient(flow)]);
}

function selectGroup({
  destination,
  destinationPort,
  replySource,
  replySourcePort,
}: Flow): readonly string[] {
  const origin = ['--orig-dst', destination, '--orig-port-dst', String(destinationPort)];
  return [...origin, '--reply-src', replySource, '--reply-port-src', String(replySourcePort)];
}

function selectClient({ source, sourcePort }: Flow): readonly string[] {
  return ['--orig-src', source, '--orig-port-src', String(sourcePort)];
}
