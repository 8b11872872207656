/**
 * UDP clients that keep their source port, and conntrack as far as it matters to them: what became of a flow's first
 * packet becomes of all, until somebody makes conntrack forget the flow. In memory, over tables in memory.
 */
import { isIP } from 'node:net';
import type { Flow as TrackedFlow } from '../../src/conntrack/flow.ts';
import type { MovedPortal } from '../../src/conntrack/moved-portal.ts';
import { StaleFlows } from '../../src/conntrack/stale-flows.ts';
import type { Flows } from '../../src/sync/family-sync.ts';
import type { KernelExec } from './fake-exec.ts';
import { PacketTracer, makePacket } from './packet-tracer.ts';
import {
  CLUSTER_IPS,
  EXTERNAL_IPS,
  LOAD_BALANCER_IPS,
  NODE_PORTS,
  SERVICE_PORTS,
  oneIn,
} from './random-service.ts';
import type { Random } from './random.ts';

const PORTS = [...new Set<number>([...SERVICE_PORTS, ...NODE_PORTS])];
const SENDERS = {
  4: { pod: '10.244.1.14', outside: '192.168.77.9', node: '192.168.77.2' },
  6: { pod: 'fd00:244:1::14', outside: 'fd00:77::9', node: 'fd00:77::2' },
} as const;

const LOOPBACK = { IPv4: '127.0.0.1', IPv6: '::1' } as const;

interface Flow {
  readonly from: 'pod' | 'outside' | 'node';
  readonly dst: string;
  readonly dport: number;
}

interface KnownFlow {
  readonly flow: Flow;
  readonly src: string;
  readonly outcome: string;
}

/** The interface by which somebody's packets come in. */
const INTERFACE = { pod: 'cni0', outside: 'eth0', node: '' } as const;

export class FlowTable implements Flows {
  readonly #kernel: KernelExec;
  /** What became of the first packet of a flow, by the flow's text; refused packets leave nothing behind. */
  readonly #flows = new Map<string, KnownFlow>();

  constructor(kernel: KernelExec) {
    this.#kernel = kernel;
  }

  forget(portals: readonly MovedPortal[]): void {
    for (const family of ['IPv4', 'IPv6'] as const) {
      const moved = portals.filter((portal) => portal.family === family && portal.protocol === 'UDP');
      const stale = new StaleFlows(moved);
      const [listenAddress = LOOPBACK[family]] = moved[0]?.surroundings.listenAddresses ?? [];
      for (const [key, known] of this.#flows) {
        if (familyOf(known.flow.dst) !== family) continue;
        if (stale.judge(trackedFlow(known, listenAddress)) === 'stale') this.#flows.delete(key);
      }
    }
  }

  /** Some clients have gone, and their flows with them. */
  lapse(random: Random): void {
    for (const key of this.#flows.keys()) if (oneIn(random, 3)) this.#flows.delete(key);
  }

  /**
   * Every flow sends a packet. Gives one line for each that goes another way than a new flow from the same
   * place would: it was to be forgotten. `nodeAddresses` are those that are local now.
   */
  send(nodeAddresses: readonly string[]): readonly string[] {
    const tracers = {
      4: new PacketTracer(this.#kernel.tables.IPv4),
      6: new PacketTracer(this.#kernel.tables.IPv6),
    };
    return flowsTo(nodeAddresses).flatMap((flow) => {
      const key = `${flow.from} -> ${flow.dst} port ${flow.dport}`;
      const outcome = outcomeOf(flow, tracers[isIP(flow.dst) as 4 | 6], nodeAddresses);
      const known = this.#flows.get(key);
      // From another address it is another flow.
      if (known?.src === sourceOf(flow, nodeAddresses)) {
        // A refusal is for new flows: who has found somebody there before the Service came keeps him until it has endpoints.
        const isLetAlone = known.outcome === 'left alone' && outcome === 'refused';
        const isStale = known.outcome !== outcome && !isLetAlone;
        return isStale ? [`${key}: ${known.outcome}, a new flow: ${outcome}`] : [];
      }
      if (outcome !== 'refused') this.#flows.set(key, { flow, src: sourceOf(flow, nodeAddresses), outcome });
      return [];
    });
  }
}

/** As conntrack has it. */
function trackedFlow({ flow: { dst, dport }, src, outcome }: KnownFlow, listenAddress: string): TrackedFlow {
  const proxyPort = /^to proxy port (\d+)$/.exec(outcome)?.[1];
  return {
    source: src,
    sourcePort: 40_000,
    destination: dst,
    destinationPort: dport,
    ...(proxyPort === undefined
      ? { replySource: dst, replySourcePort: dport }
      : { replySource: listenAddress, replySourcePort: Number(proxyPort) }),
  };
}

function familyOf(address: string): 'IPv4' | 'IPv6' {
  return isIP(address) === 6 ? 'IPv6' : 'IPv4';
}

function flowsTo(nodeAddresses: readonly string[]): readonly Flow[] {
  const elsewhere = [CLUSTER_IPS, EXTERNAL_IPS, LOAD_BALANCER_IPS].flatMap(({ IPv4, IPv6 }) => [
    ...IPv4,
    ...IPv6,
  ]);
  return [...new Set([...elsewhere, ...nodeAddresses])].flatMap((dst) =>
    PORTS.flatMap((dport) => {
      const isLoopback = dst === '127.0.0.1' || dst === '::1';
      const senders = isLoopback ? (['node'] as const) : (['pod', 'outside', 'node'] as const);
      return senders.map((from) => ({ from, dst, dport }));
    }),
  );
}

function outcomeOf(
  { from, dst, dport }: Flow,
  tracer: PacketTracer,
  nodeAddresses: readonly string[],
): string {
  const isDstLocal = nodeAddresses.includes(dst);
  const src = sourceOf({ from, dst, dport }, nodeAddresses);
  const packet = makePacket({ src, dst, dport, protocol: 'udp', isDstLocal, inInterface: INTERFACE[from] });
  const { verdict, redirectedTo } = tracer.trace(from === 'node' ? 'output' : 'prerouting', packet);
  if (verdict !== 'none' && verdict !== 'accept') return 'refused';
  return redirectedTo === undefined ? 'left alone' : `to proxy port ${redirectedTo}`;
}

function sourceOf({ from, dst }: Flow, nodeAddresses: readonly string[]): string {
  return from === 'node' && nodeAddresses.includes(dst) ? dst : SENDERS[isIP(dst) as 4 | 6][from];
}
