/** Builds the data path out of its rooms: engine, forwarder, listeners and their ports. Decides nothing. */
import type { Config } from './cli/config.ts';
import type { Clock } from './clock.ts';
import { NodeEngine } from './engine/node/node-engine.ts';
import { localPortRange, openFilesLimit } from './host/kernel.ts';
import type { PortMemory } from './host/port-memory.ts';
import type { Logger } from './log.ts';
import { Forwarder } from './proxy/forwarder.ts';
import { ListenerSet } from './proxy/listener-set.ts';
import { type PortRange, ProxyPorts } from './proxy/proxy-ports.ts';

/** What the API server gives out as NodePorts unless told otherwise (--service-node-port-range). */
const NODE_PORTS: PortRange = { first: 30_000, last: 32_767 };

/** A trial outlasts the longest dial by so much. */
const TRIAL_MARGIN_MS = 500;

/** Ports the proxy never takes for itself. */
export function excludedPorts(): readonly PortRange[] {
  return [localPortRange(), NODE_PORTS];
}

/** Remembered ports, or none with a warning: the proxy works without. */
export async function rememberedPorts(
  memory: PortMemory,
  logger: Logger,
): Promise<ReadonlyMap<string, number>> {
  try {
    return await memory.load();
  } catch (error) {
    logger.warn({ error }, 'Proxy ports of the last run are lost, taking new ones');
    return new Map();
  }
}

export interface DataPath {
  readonly forwarder: Forwarder;
  readonly engine: NodeEngine;
  readonly listeners: ListenerSet;
  readonly ports: ProxyPorts;
}

export function createDataPath(
  config: Config,
  { clock, logger }: { readonly clock: Clock; readonly logger: Logger },
  wiring: { readonly remembered: ReadonlyMap<string, number>; readonly requestSync: () => void },
): DataPath {
  const balancer = {
    affinityCapacity: config.affinityTableSize,
    random: Math.random,
    scheduler: config.scheduler,
    ejection: {
      timeMs: config.ejectionTimeMs,
      trialMs: Math.max(...config.dialTimeoutsMs) + TRIAL_MARGIN_MS,
    },
  };
  const forwarder = new Forwarder(
    { clock, logger, listeningSockets: () => listeners.socketCount },
    {
      dialTimeoutsMs: config.dialTimeoutsMs,
      maxConcurrentDials: config.maxConcurrentDials,
      entrance: { ...config, descriptorLimit: openFilesLimit() },
      balancer,
    },
  );
  const engine = new NodeEngine(
    { clock, policy: forwarder },
    {
      tcpIdleTimeoutMs: config.tcpIdleTimeoutMs,
      halfCloseTimeoutMs: config.halfCloseTimeoutMs,
      udpUnrepliedTimeoutMs: config.udpUnrepliedTimeoutMs,
      udpRepliedTimeoutMs: config.udpRepliedTimeoutMs,
    },
  );
  forwarder.attach(engine);
  const ports = new ProxyPorts({
    range: config.proxyPortRange,
    excluded: excludedPorts(),
    random: Math.random,
    remembered: wiring.remembered,
  });
  const listeners = new ListenerSet(
    {
      engine,
      binding: forwarder,
      ports,
      hasRoomToListen: (sockets) => forwarder.hasRoomToListen(sockets),
      clock,
      logger,
      onChange: wiring.requestSync,
    },
    { gracePeriodMs: config.listenerGracePeriodMs },
  );
  return { forwarder, engine, listeners, ports };
}
