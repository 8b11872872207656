/** What the oracle says of a packet and what the rules do with it, in the same words, so that they can be compared. */
import { fateFromTrace } from './fate.ts';
import { type Family, familyOf } from './intent-objects.ts';
import { type Intent, type IntentPacket, isLoopback } from './intent.ts';
import { type PacketTracer, type Trace, makePacket, tracerOf } from './packet-tracer.ts';
import type { ProbeWorld } from './probe-world.ts';

/** How somebody is refused depends on the protocol alone. */
const REFUSAL = { tcp: 'tcp-reset', udp: 'port-unreachable' } as const;

export function intendedOutcome(intent: Intent, { dst, dport, protocol }: IntentPacket): string {
  switch (intent.kind) {
    case 'left alone':
      return 'none';
    case 'dropped':
      return 'drop';
    case 'rejected':
      return REFUSAL[protocol];
    case 'carried': {
      const { owner } = intent.because;
      const told = owner.needsDestination ? `${dst} ${dport}` : 'nothing';
      return describeCarried({ id: owner.id, told, endpoints: intent.endpoints });
    }
  }
}

/** A proxy port stands for whatever its listener does with a new client. */
export function outcomeByRules(world: ProbeWorld, packet: IntentPacket): string {
  const fate = fateFromTrace(traceIn(world, packet));
  const { deliveredTo } = fate;
  if (deliveredTo === undefined) return fate.outcome;
  const family = familyOf(packet.dst);
  const listener = [...world.desired.listeners.values()].find(
    (one) => one.family === family && world.portByListener.get(one.key) === deliveredTo.port,
  );
  if (listener === undefined) return `${fate.outcome}, on which nobody listens`;
  const { namespace, name, port, protocol } = listener.servicePort.name;
  if (protocol.toLowerCase() !== packet.protocol) return `${fate.outcome}, which is for ${protocol}`;
  const id = `${namespace}/${name}${port === '' ? '' : `:${port}`}/${protocol}`;
  const { destination } = listener;
  const told = destination === undefined ? 'nothing' : `${destination.address} ${destination.port}`;
  return describeCarried({ id, told, endpoints: listener.endpoints.map(({ key }) => key).toSorted() });
}

function describeCarried({
  id,
  told,
  endpoints,
}: {
  readonly id: string;
  readonly told: string;
  readonly endpoints: readonly string[];
}): string {
  return `carried for ${id} to ${endpoints.join(', ')}, which may be told ${told}`;
}

const tracers = new WeakMap<ProbeWorld, Readonly<Record<Family, PacketTracer>>>();

export function traceIn(world: ProbeWorld, packet: IntentPacket): Trace {
  const { IPv4, IPv6 } = world.rules;
  const known = tracers.get(world) ?? { IPv4: tracerOf(IPv4, 4), IPv6: tracerOf(IPv6, 6) };
  tracers.set(world, known);
  const isLocal = (address: string): boolean => world.localAddresses.includes(address) || isLoopback(address);
  const { from, inInterface, src, dst, dport, protocol, isInvalid } = packet;
  const flags = isInvalid ? ['SYN', 'ACK'] : ['SYN'];
  return known[familyOf(dst)].trace(
    from === 'node' ? 'output' : 'prerouting',
    makePacket({
      src,
      dst,
      dport,
      protocol,
      inInterface,
      isSrcLocal: isLocal(src),
      isDstLocal: isLocal(dst),
      ctstate: isInvalid ? 'INVALID' : 'NEW',
      tcpFlags: protocol === 'tcp' ? flags : [],
    }),
  );
}
