/** Builds what makes one of several instances on a node the owner of the rules. Decides nothing. */
import type { Clock } from './clock.ts';
import type { DataPath } from './data-path.ts';
import { Ownership } from './host/ownership.ts';
import type { OpenPort } from './host/ownership-protocol.ts';
import { highestGeneration } from './iptables/generation.ts';
import type { Iptables } from './iptables/iptables.ts';
import type { Logger } from './log.ts';
import type { PortSpace } from './proxy/proxy-ports.ts';
import { ListenersBesidePeers } from './sync/rule-ownership.ts';

export interface InstanceDeps {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly iptables: readonly Iptables[];
  readonly dataPath: DataPath;
  /** Proxy ports by listener key, of the last instance with the same state directory. */
  readonly remembered: ReadonlyMap<string, number>;
}

/** What else is to happen; called only after the first pass was asked for. */
export interface InstanceHandlers {
  readonly requestSync: () => void;
  /** Resolves when the pass under way has ended. */
  readonly settled: () => Promise<void>;
  /** The rules are ours again. */
  readonly onRegained: () => void;
  /** Flows that were another instance's have lost their listener. */
  readonly onPeerEnded: () => void;
  /** Gives up the addresses that only one instance can bind. */
  readonly closeServers: () => Promise<void>;
  readonly reopenServers: () => Promise<void>;
}

export interface Instance {
  readonly ownership: Ownership;
  /** Of the data path, with guards for the ports of other instances. */
  readonly listeners: ListenersBesidePeers;
}

export function createInstance(deps: InstanceDeps, handlers: InstanceHandlers): Instance {
  const { clock, logger, iptables, dataPath, remembered } = deps;
  const listeners = new ListenersBesidePeers(dataPath.listeners);
  const reopen = (): void => {
    handlers.reopenServers().catch((error: unknown) => logger.error({ error }, 'Cannot serve health'));
  };
  const ownership = new Ownership({
    clock,
    logger,
    random: Math.random,
    highestGeneration: async () => highestGeneration(iptables),
    quiesce: handlers.settled,
    openPorts: () => dataPath.listeners.guardedPorts(),
    rememberedPorts: () => openPortsFromKeys(remembered),
    retire: handlers.closeServers,
    onRegained: () => {
      handlers.onRegained();
      reopen();
      handlers.requestSync();
    },
    onPredecessorRetired: () => {
      reopen();
      // Health check node ports are tried again after a pass.
      handlers.requestSync();
    },
    onPeerPorts: (ended) => {
      const ports = ownership.peerPorts.filter(({ port }) => dataPath.ports.isCandidate(port));
      dataPath.ports.setForeign(new Set(ports.map(placeOf)), clock.now());
      if (listeners.setPeerPorts(ports)) handlers.requestSync();
      if (ended.length > 0) handlers.onPeerEnded();
    },
  });
  return { ownership, listeners };
}

function placeOf({ protocol, family, port }: OpenPort): `${PortSpace}/${number}` {
  return `${protocol}/${family}/${port}`;
}

/** `ns/name:port/TCP/IPv4/cluster`: a listener's key says where its port is. */
export function openPortsFromKeys(ports: ReadonlyMap<string, number>): readonly OpenPort[] {
  return [...ports].flatMap(([key, port]) => {
    const [, servicePortName, protocol, family] = /^(.+)\/(TCP|UDP)\/(IPv4|IPv6)\//.exec(key) ?? [];
    if (servicePortName === undefined) return [];
    return [
      {
        servicePortName,
        port,
        protocol: protocol === 'UDP' ? 'UDP' : 'TCP',
        family: family === 'IPv6' ? 'IPv6' : 'IPv4',
      },
    ];
  });
}
