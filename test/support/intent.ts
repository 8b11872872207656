/**
 * The oracle: what ought to become of a packet, straight from the API objects. It is written from the rows of
 * docs/behaviour.md and from docs/decisions (and where they say "as kube-proxy" from its `pkg/proxy/serviceport.go`,
 * `endpointslicecache.go`, `topology.go` and `iptables/proxier.go`), knows nothing of rules and chains, and takes nothing
 * from `src/` but a type.
 */
import type { NodeSettings } from '../../src/desired/node-view.ts';
import { type Place, type UsableEndpoints, usableEndpoints } from './intent-endpoints.ts';
import {
  type Family,
  familyOf,
  familyOfRange,
  type IntendedPort,
  type IntendedPortal,
  intendedPortals,
  isInRange,
  placeText,
} from './intent-objects.ts';
import type { ClusterState } from './random-cluster.ts';

/** A node with its cluster, and what its proxy listens on. */
export interface IntentWorld {
  readonly state: ClusterState;
  readonly settings: NodeSettings;
  /** Of all interfaces, loopback included. */
  readonly localAddresses: readonly string[];
  /** Proxy ports that are open, as `placeText` of the family. */
  readonly proxyPorts: ReadonlySet<string>;
  /** The address on which all listeners are; undefined: on every address of the node. */
  readonly listenAddress: Readonly<Record<Family, string | undefined>>;
}

export interface IntentPacket {
  readonly from: 'pod' | 'ext' | 'node';
  /** By which it comes to the node; '' for what the node sends. */
  readonly inInterface: string;
  readonly src: string;
  readonly dst: string;
  readonly dport: number;
  readonly protocol: 'tcp' | 'udp';
  /** A segment of no connection. */
  readonly isInvalid: boolean;
}

/** `because`: the portal that decided. */
export type Intent =
  | {
      readonly kind: 'carried';
      readonly because: IntendedPortal;
      readonly policy: 'cluster' | 'local';
      readonly endpoints: readonly string[];
    }
  | { readonly kind: 'rejected' | 'dropped'; readonly because: IntendedPortal | 'a proxy port' }
  | { readonly kind: 'left alone' };

const LEFT_ALONE: Intent = { kind: 'left alone' };

export class Oracle {
  readonly #world: IntentWorld;
  readonly #portals: ReadonlyMap<string, IntendedPortal>;
  readonly #nodeIPs: readonly string[];
  readonly #endpoints = new Map<string, UsableEndpoints>();

  constructor(world: IntentWorld) {
    this.#world = world;
    const { localAddresses, state, settings } = world;
    const named = this.#internalIPs();
    const others = localAddresses.filter(
      (address) => !isLoopback(address) && !settings.privateAddresses.includes(address),
    );
    this.#nodeIPs = named.length > 0 ? named : others;
    this.#portals = intendedPortals(state.services, settings, this.#nodeIPs);
  }

  intentFor(packet: IntentPacket): Intent {
    const portals = this.#portalsAt(packet);
    const isForListener = this.#isProxyPort(packet);
    if (packet.isInvalid) {
      const because = portals[0] ?? 'a proxy port';
      return portals.length > 0 || isForListener ? { kind: 'dropped', because } : LEFT_ALONE;
    }
    const intents = portals.map((because) => ({ because, intent: this.#intentAt(because, packet) }));
    // What its first owner does not carry goes on to the NodePort, as in kube-proxy: nat has no word for "refused".
    const carried = intents.find(({ intent }) => intent.kind === 'carried');
    if (carried !== undefined) return carried.intent;
    const refused = intents.find(({ because }) => this.#mayRefuse(because, packet));
    if (refused !== undefined) return refused.intent;
    return isForListener ? { kind: 'rejected', because: 'a proxy port' } : LEFT_ALONE;
  }

  /** Row "NodePort": after the addresses. */
  #portalsAt({ dst, dport, protocol }: IntentPacket): readonly IntendedPortal[] {
    const atAddress = this.#portals.get(placeText(dst, dport, protocol));
    const atNode = this.#portals.get(placeText(`node/${familyOf(dst)}`, dport, protocol));
    const isServed = atNode !== undefined && this.#servesNodePort(dst, atNode.owner);
    return [...(atAddress === undefined ? [] : [atAddress]), ...(isServed ? [atNode] : [])];
  }

  /**
   * On every local address unless there are ranges for its family (decision 34). Where the destination must be
   * known there is a listener for each address of an interface (decision 26), and no other address is served.
   */
  #servesNodePort(address: string, { needsDestination }: IntendedPort): boolean {
    const { settings, localAddresses } = this.#world;
    if (!this.#isLocal(address)) return false;
    if (needsDestination && !(localAddresses.includes(address) && !this.#isPrivate(address))) return false;
    if (!settings.localhostNodePorts && isLoopback(address)) return false;
    return this.#isNodePortAddress(address);
  }

  #isNodePortAddress(address: string): boolean {
    const { nodePortAddresses } = this.#world.settings;
    const family = familyOf(address);
    if (nodePortAddresses === 'primary')
      return this.#internalIPs().find((own) => familyOf(own) === family) === address;
    const ranges = nodePortAddresses.filter(({ text }) => familyOfRange(text) === family);
    return ranges.length === 0 || ranges.some(({ text }) => isInRange(address, text));
  }

  #internalIPs(): readonly string[] {
    return (this.#world.state.node?.status?.addresses ?? [])
      .filter(({ type }) => type === 'InternalIP')
      .map(({ address }) => address);
  }

  /** The rows of "Traffic policy", with decision 8 for what is refused. */
  #intentAt(because: IntendedPortal, packet: IntentPacket): Intent {
    const { kind, owner, sourceRanges } = because;
    const { cluster, local } = this.#endpointsOf(because);
    // A local one that is usable is in use for the cluster too: nobody here without anybody anywhere.
    if (cluster.length === 0) return { kind: 'rejected', because };
    if (sourceRanges?.some((range) => isInRange(packet.src, range)) === false)
      return { kind: 'dropped', because };
    const isInside = this.#isFromInside(packet);
    if (kind === 'clusterIP') {
      const { externalClusterIP } = this.#world.settings;
      // Decision 37: where pods cannot be told, nobody is known to be outside.
      if (!externalClusterIP && this.#knowsPods(because.family) && !isInside)
        return { kind: 'dropped', because };
    }
    const isLocal = kind === 'clusterIP' ? owner.isInternalLocal : owner.isExternalLocal && !isInside;
    if (!isLocal) return { kind: 'carried', because, policy: 'cluster', endpoints: cluster };
    if (local.length === 0) return { kind: 'dropped', because };
    return { kind: 'carried', because, policy: 'local', endpoints: local };
  }

  /** Decision 8: not what comes in for a clusterIP that is an address of the node, of a node-local DNS cache say. */
  #mayRefuse({ kind }: IntendedPortal, { from, dst }: IntentPacket): boolean {
    return kind !== 'clusterIP' || from === 'node' || !this.#isLocal(dst);
  }

  /** Row "Short circuit": the pods of this node, as far as they can be told, and the node itself. */
  #isFromInside({ from, src, inInterface }: IntentPacket): boolean {
    if (from === 'node' || this.#isLocal(src)) return true;
    const detection = this.#world.settings.localDetection;
    if (detection.kind === 'interface') {
      const prefix = /^(.*)\+$/.exec(detection.name)?.[1];
      return prefix === undefined ? inInterface === detection.name : inInterface.startsWith(prefix);
    }
    return this.#podRanges().some((range) => isInRange(src, range));
  }

  #knowsPods(family: Family): boolean {
    const isInterface = this.#world.settings.localDetection.kind === 'interface';
    return isInterface || this.#podRanges().some((range) => familyOfRange(range) === family);
  }

  #podRanges(): readonly string[] {
    const { state, settings } = this.#world;
    const { localDetection: detection } = settings;
    if (detection.kind === 'nodeCIDR') return state.node?.spec?.podCIDRs ?? [];
    return detection.kind === 'cidrs' ? detection.cidrs.map(({ text }) => text) : [];
  }

  #endpointsOf({ owner, family }: IntendedPortal): UsableEndpoints {
    const key = `${owner.id} ${family}`;
    const { state, settings } = this.#world;
    const zone = state.node?.metadata?.labels?.['topology.kubernetes.io/zone'];
    const place: Place = { nodeName: settings.nodeName, zone };
    const known = this.#endpoints.get(key);
    const endpoints =
      known ??
      usableEndpoints(state.endpointSlices, { owner, family, place }, (address, port) =>
        this.#isCaptured(address, port, owner.protocol),
      );
    this.#endpoints.set(key, endpoints);
    return endpoints;
  }

  #isCaptured(address: string, port: number, protocol: 'tcp' | 'udp'): boolean {
    if (this.#portals.has(placeText(address, port, protocol))) return true;
    const isNodePort = this.#portals.has(placeText(`node/${familyOf(address)}`, port, protocol));
    return isNodePort && this.#isLocal(address) && this.#isNodePortAddress(address);
  }

  /** Decision 4: refused to whoever did not come by a portal. */
  #isProxyPort({ dst, dport, protocol }: IntentPacket): boolean {
    const family = familyOf(dst);
    const listenAddress = this.#world.listenAddress[family];
    const isListening = listenAddress === undefined ? this.#isLocal(dst) : dst === listenAddress;
    return isListening && this.#world.proxyPorts.has(placeText(family, dport, protocol));
  }

  #isPrivate(address: string): boolean {
    return this.#world.settings.privateAddresses.includes(address);
  }

  #isLocal(address: string): boolean {
    return this.#world.localAddresses.includes(address) || isLoopback(address);
  }
}

export function isLoopback(address: string): boolean {
  return address === '::1' || address.startsWith('127.');
}
