/** Builds the data path out of its rooms: engine, forwarder, listeners and their ports. Decides nothing. */
import type { Config } from './cli/config.ts';
import type { Clock } from './clock.ts';
import { type EngineName, createEngine } from './create-engine.ts';
import type { Engine, EngineOptions } from './engine/engine.ts';
import { loadAddon } from './engine/native/addon.ts';
import { NativeEngine } from './engine/native/native-engine.ts';
import { NodeEngine } from './engine/node/node-engine.ts';
import { localPortRange } from './host/kernel.ts';
import type { PortMemory } from './host/port-memory.ts';
import type { Logger } from './log.ts';
import { Forwarder } from './proxy/forwarder.ts';
import { ListenerSet } from './proxy/listener-set.ts';
import { type PortRange, ProxyPorts } from './proxy/proxy-ports.ts';

/** What the API server gives out as NodePorts unless told otherwise (--service-node-port-range). */
const NODE_PORTS: PortRange = { first: 30_000, last: 32_767 };

/** A trial outlasts the longest dial by so much. */
const TRIAL_MARGIN_MS = 500;

/** How the limit of open files is shared out. */
export interface DescriptorShares {
  readonly limit: number;
  /** For everything that is not traffic. */
  readonly reserve: number;
  /** Connections of each of the two HTTP servers; they are in the reserve. */
  readonly httpConnections: number;
  /** That the native engine may have for what it splices; they are in the reserve, whichever engine it is. */
  readonly pipes: number;
}

/**
 * Standard streams, iptables' and conntrack's pipes, the connections to the API server and to another instance, files
 * being written.
 */
const OWN_DESCRIPTORS = 64;
/** Probes and scrapers need few; where there is room, more may come, so that nobody can shut them out easily. */
const HTTP_CONNECTIONS = { min: 16, max: 128, part: 1 / 64 };

/** A user gets about twice as many that are large (fs.pipe-user-pages-soft). Without a pipe it copies. */
const PIPES = { min: 1, max: 32, part: 1 / 64 };

export function shareDescriptors(limit: number): DescriptorShares {
  const share = ({ min, max, part }: typeof PIPES): number =>
    Math.min(max, Math.max(min, Math.floor(limit * part)));
  const httpConnections = share(HTTP_CONNECTIONS);
  const pipes = share(PIPES);
  return { limit, reserve: OWN_DESCRIPTORS + 2 * (httpConnections + pipes), httpConnections, pipes };
}

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
  readonly engine: Engine;
  readonly engineName: EngineName;
  readonly listeners: ListenerSet;
  readonly ports: ProxyPorts;
}

export function createDataPath(
  config: Config,
  { clock, logger }: { readonly clock: Clock; readonly logger: Logger },
  wiring: {
    readonly remembered: ReadonlyMap<string, number>;
    readonly descriptors: DescriptorShares;
    /** Descriptors that other parts take, as many as it is now. */
    readonly otherDescriptors: () => number;
    readonly requestSync: () => void;
  },
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
    { clock, logger, listeningSockets: () => listeners.socketCount + wiring.otherDescriptors() },
    {
      dialTimeoutsMs: config.dialTimeoutsMs,
      maxConcurrentDials: config.maxConcurrentDials,
      entrance: {
        ...config,
        descriptorLimit: wiring.descriptors.limit,
        descriptorReserve: wiring.descriptors.reserve,
      },
      balancer,
    },
  );
  const engineDeps = { clock, policy: forwarder };
  const engineOptions = engineOptionsFromConfig(config);
  const { engine, name: engineName } = createEngine(
    config.engine,
    {
      loadAddon: () => loadAddon(),
      native: (addon) =>
        new NativeEngine(engineDeps, { ...engineOptions, maxPipes: wiring.descriptors.pipes }, addon),
      node: () => new NodeEngine(engineDeps, engineOptions),
    },
    logger,
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
  return { forwarder, engine, engineName, listeners, ports };
}

function engineOptionsFromConfig(config: Config): EngineOptions {
  return {
    tcpIdleTimeoutMs: config.tcpIdleTimeoutMs,
    halfCloseTimeoutMs: config.halfCloseTimeoutMs,
    udpUnrepliedTimeoutMs: config.udpUnrepliedTimeoutMs,
    udpRepliedTimeoutMs: config.udpRepliedTimeoutMs,
  };
}
