/**
 * What two proxies must have in common of all answers: at a place that is no Service's exactly the same, at a portal that
 * an endpoint of its Service answers, whichever, and over all places each endpoint that takes its turn.
 */
import {
  type DesiredListener,
  type DesiredState,
  buildDesiredState,
} from '../../src/desired/desired-state.ts';
import { type NodeSettings, buildNodeView } from '../../src/desired/node-view.ts';
import type { Portal } from '../../src/desired/portal.ts';
import { hostAddressesFromInterfaces, parseInterfaces } from '../../src/host/interfaces.ts';
import { IP_FAMILIES } from '../../src/model/address.ts';
import { nodeInfoFromNode } from '../../src/model/node.ts';
import { servicePortNameText } from '../../src/model/service-port-name.ts';
import { snapshotFromObjects } from '../../src/model/snapshot.ts';
import type { Lab } from './netns-lab.ts';
import type { ClusterState } from './random-cluster.ts';
import type { Place, Reach } from './random-edits-probes.ts';

const REFUSED = 'refused, if it is new';

export class Reachability {
  readonly #desired: DesiredState;
  readonly #settings: NodeSettings;
  readonly #hostByAddress: ReadonlyMap<string, string>;
  readonly #nodeAddresses: ReadonlySet<string>;

  private constructor(
    lab: Lab,
    settings: NodeSettings,
    at: { addresses: readonly string[]; state: ClusterState },
  ) {
    const { addresses, state } = at;
    const node = state.node && nodeInfoFromNode(state.node);
    const view = buildNodeView(settings, { families: IP_FAMILIES, addresses, node });
    this.#settings = settings;
    this.#nodeAddresses = new Set(addresses);
    this.#desired = buildDesiredState(snapshotFromObjects(state), view);
    this.#hostByAddress = new Map(
      [lab.node, ...lab.pods].flatMap(({ ipv4, ipv6, name }) => [
        [ipv4, name],
        [ipv6, name],
      ]),
    );
  }

  /** Judges by this state, at the addresses that the node has now. */
  static async of(lab: Lab, settings: NodeSettings, state: ClusterState): Promise<Reachability> {
    const { all } = hostAddressesFromInterfaces(parseInterfaces(await lab.node.run(['ip', '-j', 'address'])));
    return new Reachability(lab, settings, { addresses: all, state });
  }

  isPortal(place: Place): boolean {
    return this.#portalsAt(place).length > 0;
  }

  /** One line for each place and vantage, and one for each Service port whose endpoints take turns. */
  linesOf(reached: readonly Reach[]): readonly string[] {
    return [...reached.map((reach) => this.#lineOf(reach)), ...this.#turnsIn(reached)];
  }

  #lineOf({ from, place, isLasting, outcome, names }: Reach): string {
    const at = `${from} ${isLasting ? '(lasting) ' : ''}-> ${place.host} ${place.protocol} ${place.port}`;
    const portals = this.#portalsAt(place);
    if (portals.length === 0) return `${at}: ${outcome} ${names.join()}`;
    // A refusal is for new flows: who has found somebody there before the Service came keeps him until it has endpoints.
    const isOlder = isLasting && outcome === 'answered' && !portals.some(isDiverted);
    if (outcome !== 'answered' || isOlder) return `${at}: ${isLasting ? REFUSED : outcome}`;
    const listeners = portals.flatMap((portal) => this.#listenersOf(portal));
    // A UDP client stays with its endpoint as long as that serves, be others nearer by now.
    const endpoints = isLasting ? this.#servingNamesOf(listeners) : this.#namesOf(listeners);
    const strangers = names.filter((name) => !endpoints.has(name));
    const owners = [...new Set(portals.map(({ servicePortName }) => servicePortName))].join(' or ');
    return `${at}: answered by ${strangers.length === 0 ? owners : strangers.join()}`;
  }

  #turnsIn(reached: readonly Reach[]): readonly string[] {
    const namesByOwner = new Map<string, Set<string>>();
    for (const { place, isLasting, outcome, names } of reached) {
      const [portal, ...others] = this.#portalsAt(place);
      if (isLasting || outcome !== 'answered' || portal === undefined || others.length > 0) continue;
      if (!this.#listenersOf(portal).every((listener) => this.#takesTurns(listener))) continue;
      const owner = `${portal.servicePortName}/${portal.protocol}/${portal.family}`;
      const all = namesByOwner.get(owner) ?? new Set();
      for (const name of names) all.add(name);
      namesByOwner.set(owner, all);
    }
    return [...namesByOwner]
      .map(([owner, names]) => `${owner}: all in turn ${[...names].sort().join()}`)
      .sort();
  }

  #takesTurns({ servicePort: { scheduler, sessionAffinity } }: DesiredListener): boolean {
    return (scheduler ?? this.#settings.scheduler) === 'rr' && sessionAffinity.kind === 'None';
  }

  /** Two where an external address is local and its port a NodePort. */
  #portalsAt({ host, port, protocol }: Place): readonly Portal[] {
    return this.#desired.capture.portals.filter(
      (portal) =>
        portal.port === port &&
        portal.protocol === protocol &&
        (portal.family === 'IPv6') === host.includes(':') &&
        (portal.address === host || (portal.address === undefined && this.#nodeAddresses.has(host))),
    );
  }

  /** All of the Service port and family: who is led to which of them, the rules say. */
  #listenersOf({ servicePortName, protocol, family }: Portal): readonly DesiredListener[] {
    return [...this.#desired.listeners.values()].filter(
      ({ servicePort: { name }, family: own }) =>
        servicePortNameText(name) === servicePortName && name.protocol === protocol && own === family,
    );
  }

  #servingNamesOf(listeners: readonly DesiredListener[]): ReadonlySet<string> {
    const keys = listeners.flatMap(({ servingKeys }) => [...servingKeys]);
    return this.#hostsOf(keys.map((key) => key.replace(/:\d+$/, '').replaceAll(/[[\]]/g, '')));
  }

  #namesOf(listeners: readonly DesiredListener[]): ReadonlySet<string> {
    return this.#hostsOf(listeners.flatMap(({ endpoints }) => endpoints.map(({ address }) => address)));
  }

  #hostsOf(addresses: readonly string[]): ReadonlySet<string> {
    return new Set(addresses.map((address) => this.#hostByAddress.get(address) ?? 'elsewhere'));
  }
}

function isDiverted({ target }: Portal): boolean {
  return target.kind === 'listener' || target.kind === 'split';
}
