/** From a probe's way through a kernel to what it tells: its fate, and the question to which the tracer's answer is due. */
import type { Fate, Outcome } from './fate.ts';
import type { RuleTexts } from './kernel-rules.ts';
import type { Packet } from './netfilter-match.ts';
import type { Host } from './netns-host.ts';
import { type Hook, makePacket } from './packet-tracer.ts';
import { type Probe, familyOfProbe, tcpFlagsOf } from './probe.ts';
import type { ProbeJourney } from './probe-journey.ts';

export interface KernelAnswer {
  readonly probe: Probe;
  readonly fate: Fate;
  /** What the tracer must be asked in order to say the same. */
  readonly question: { readonly hook: Hook; readonly packet: Packet };
}

/** The node as it is while it is probed. */
export interface ProbedNode {
  readonly host: Host;
  readonly addresses: ReadonlySet<string>;
  readonly interfaceByIndex: ReadonlyMap<number, string>;
}

/** The source address of a probe that may leave it open. */
export function sourceOf(probe: Probe, node: ProbedNode): string {
  const { from, src, dst } = probe;
  if (src !== undefined) return src;
  if (from === node.host && isLocal(dst, node)) return dst;
  return familyOfProbe(probe) === 4 ? from.ipv4 : from.ipv6;
}

export function answerFor(
  journey: ProbeJourney,
  { texts, node }: { readonly texts: RuleTexts; readonly node: ProbedNode },
): KernelAnswer {
  const { probe, end, isTranslated } = journey;
  const path = journey.path.map((event) => texts.of(event));
  const { dst: address, dport: port } = end.packet;
  const outcome = ((): Outcome => {
    if (end.kind === 'refused') return end.isPolicy ? 'drop' : refusalBy(path.at(-1) ?? '');
    if (!isTranslated) return 'none';
    return end.kind === 'left' ? `sent on to ${address} port ${port}` : `delivered to proxy port ${port}`;
  })();
  const deliveredTo = isTranslated && end.kind === 'delivered' ? { address, port } : undefined;
  return { probe, question: questionAbout(journey, node), fate: { outcome, deliveredTo, path } };
}

function questionAbout({ probe, source, inIndex }: ProbeJourney, node: ProbedNode): KernelAnswer['question'] {
  return {
    hook: probe.from === node.host ? 'output' : 'prerouting',
    packet: makePacket({
      src: source.src,
      dst: probe.dst,
      dport: probe.dport,
      protocol: probe.protocol,
      isSrcLocal: isLocal(source.src, node),
      isDstLocal: isLocal(probe.dst, node),
      inInterface: node.interfaceByIndex.get(inIndex) ?? '',
      ctstate: probe.isInvalid ? 'INVALID' : 'NEW',
      tcpFlags: tcpFlagsOf(probe),
    }),
  };
}

/** All of 127.0.0.0/8 is local. */
function isLocal(address: string, { addresses }: ProbedNode): boolean {
  return addresses.has(address) || address.startsWith('127.');
}

/** A drop by any other rule too: REDIRECT drops what comes in by an interface without an address. */
function refusalBy(rule: string): Outcome {
  if (rule.endsWith(' -j REJECT --reject-with tcp-reset')) return 'tcp-reset';
  return / -j REJECT --reject-with icmp6?-port-unreachable$/.test(rule) ? 'port-unreachable' : 'drop';
}
