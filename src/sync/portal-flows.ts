/**
 * Which UDP portals lead elsewhere than before, so that conntrack has to forget their flows: NAT is decided on a flow's
 * first packet, and a client that keeps its source port would go on as if nothing had changed. Pure bookkeeping.
 */
import type { ListenerKey, Portal, PortalTarget } from '../desired/portal.ts';
import type { MovedPortal } from '../iptables/conntrack.ts';

interface Flows extends MovedPortal {
  /** Proxy ports, and who may come. */
  readonly leadsTo: string;
}

export class PortalFlows {
  #before: ReadonlyMap<string, Flows> = new Map();

  /**
   * To be asked after the rules are in, with the portals that they are made from: those that were not diverted before
   * or are not any more, or to other ports, or for other senders.
   */
  moved(portals: readonly Portal[], proxyPorts: ReadonlyMap<string, number>): readonly MovedPortal[] {
    const before = this.#before;
    const now = new Map<string, Flows>();
    for (const portal of portals) {
      const { family, address, port } = portal;
      const ports = listenersOf(portal.target).map((listener) => proxyPorts.get(listener));
      if (portal.protocol !== 'UDP' || ports.every((one) => one === undefined)) continue;
      const sources = portal.kind === 'loadBalancerIP' ? (portal.allowedSources ?? []) : [];
      const leadsTo = [...ports, ...sources.map(({ text }) => text)].join();
      now.set(`${address ?? `node/${family}`}|${port}`, { family, address, port, leadsTo });
    }
    this.#before = now;
    const gone = [...before].filter(([key]) => !now.has(key));
    const changed = [...now].filter(([key, { leadsTo }]) => before.get(key)?.leadsTo !== leadsTo);
    return [...gone, ...changed].map(([, { family, address, port }]) => ({ family, address, port }));
  }

  /** Nothing is known of the flows: each portal counts as moved when it is asked about next. */
  reset(): void {
    this.#before = new Map();
  }
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
