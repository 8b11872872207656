/**
 * Which UDP portals lead elsewhere than before, so that conntrack has to forget their flows: NAT is decided on a flow's
 * first packet, and a client that keeps its source port would go on as if nothing had changed. Pure bookkeeping.
 */
import type { PodSource } from '../desired/node-view.ts';
import type { ListenerKey, Portal, PortalTarget } from '../desired/portal.ts';
import type { MovedPortal } from '../iptables/conntrack.ts';
import { familyOf, parseIpAddress } from '../model/address.ts';
import type { Cidr } from '../model/cidr.ts';

interface Flows extends Omit<MovedPortal, 'stalePorts'> {
  readonly proxyPorts: readonly number[];
  /** What else decides where a packet goes: who may come, who is inside, and where it is served. */
  readonly circumstances: string;
  /** The rules may have been away since: flows went past us. */
  readonly isDoubtful: boolean;
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

export class PortalFlows {
  /** Undefined: nobody has asked yet, and what an earlier instance did is not known. */
  #before: ReadonlyMap<string, Flows> | undefined;
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
      const known = ports.filter((one) => one !== undefined);
      if (portal.protocol !== 'UDP' || known.length === 0) continue;
      const circumstances = circumstancesOf(portal, surroundings).join();
      // An external address may be local, and its port that of a NodePort: both portals are there.
      const place = portal.kind === 'nodePort' ? `node ${address ?? 'everywhere'}` : portal.address;
      now.set(`${place}|${port}`, {
        family,
        address,
        port,
        proxyPorts: known,
        circumstances,
        isDoubtful: false,
      });
    }
    this.#before = now;
    const gone = [...(before ?? [])].filter(([key]) => !now.has(key));
    const isSame = ([key, flows]: [string, Flows]): boolean => hasSameFlows(flows, before?.get(key));
    const changed = [...now].filter((entry) => !isSame(entry));
    const kept = [...now].filter(isSame).map(([, flows]) => flows);
    return [
      ...gone.map(([, flows]) => movedPortal(flows, undefined)),
      ...changed.map(([key, flows]) =>
        movedPortal(flows, before === undefined ? undefined : stalePortsOf(flows, before.get(key))),
      ),
      ...this.#movedByAddress(kept, surroundings),
    ];
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
          .map((address) => ({ family, address, port, stalePorts: undefined })),
      );
  }

  /** Somebody else had changed the rules: each portal, one that goes now too, counts as moved when asked about next. */
  reset(): void {
    const doubted = [...(this.#before ?? [])].map(
      ([key, flows]) => [key, { ...flows, isDoubtful: true }] as const,
    );
    this.#before = this.#before && new Map(doubted);
  }
}

function hasSameFlows(now: Flows, before: Flows | undefined): boolean {
  return (
    before !== undefined &&
    !before.isDoubtful &&
    before.circumstances === now.circumstances &&
    before.proxyPorts.join() === now.proxyPorts.join()
  );
}

/**
 * Where nothing but the ports is different, those who came by the new rules already are spared: to forget a flow under
 * way may lose its replies. Undefined: who may stay is not a matter of ports.
 */
function stalePortsOf(
  { port, proxyPorts, circumstances }: Flows,
  before: Flows | undefined,
): readonly number[] | undefined {
  if (before === undefined) return [port];
  if (before.circumstances !== circumstances) return undefined;
  return [port, ...new Set(before.proxyPorts)].filter((stale) => !proxyPorts.includes(stale));
}

function movedPortal(
  { family, address, port }: Flows,
  stalePorts: readonly number[] | undefined,
): MovedPortal {
  return { family, address, port, stalePorts };
}

/** The target's kind too: who is outside and may not come is in no port. */
function circumstancesOf(portal: Portal, { podSources, nodePortRanges }: Surroundings): readonly string[] {
  const allowed = portal.kind === 'loadBalancerIP' ? portal.allowedSources : undefined;
  const pods = podSources.map((source) => (source.kind === 'cidr' ? source.cidr.text : source.name));
  return [
    portal.target.kind,
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
