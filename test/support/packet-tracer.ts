/**
 * Walks a packet through the rules as the kernel would: nat for the first packet of a flow, then filter, with
 * what REDIRECT does to it in between. Tests load rendered text and ask what becomes of a packet.
 */
import type { Packet, ParsedRule } from './netfilter-rule.ts';
import { NetfilterTables } from './netfilter-tables.ts';

export type { Packet } from './netfilter-rule.ts';

export type Hook = 'prerouting' | 'output' | 'input' | 'forward';

export interface Trace {
  /** 'none': no rule decided anything; every built-in chain was left at its end. */
  readonly verdict: 'none' | 'accept' | 'drop' | 'tcp-reset' | 'port-unreachable';
  /** The port that REDIRECT chose. */
  readonly redirectedTo: number | undefined;
  /** How many rules the packet was tried on, in all chains. */
  readonly rulesPassed: number;
  /** Comments of the rules that matched, in order. */
  readonly matched: readonly string[];
}

/** A packet that opens a TCP connection from a pod to an address elsewhere, unless tweaked. */
export function makePacket(tweak: Partial<Packet> = {}): Packet {
  const protocol = tweak.protocol ?? 'tcp';
  return {
    src: '10.244.1.11',
    dst: '192.0.2.1',
    isDstLocal: false,
    protocol,
    dport: 80,
    ctstate: 'NEW',
    isDnat: false,
    tcpFlags: protocol === 'tcp' ? ['SYN'] : [],
    ...tweak,
  };
}

/** A tracer over tables that were loaded with this text and nothing else. */
export function tracerOf(text: string, family: 4 | 6 = 4): PacketTracer {
  const tables = new NetfilterTables(family);
  tables.load(text);
  return new PacketTracer(tables);
}

export class PacketTracer {
  readonly tables: NetfilterTables;

  constructor(tables: NetfilterTables) {
    this.tables = tables;
  }

  /**
   * `prerouting`: as it comes in by an interface, on to INPUT or FORWARD. `output`: as a program of the node
   * sends it, through OUTPUT and, if it stays on the node, INPUT. `input`, `forward`: the filter chain alone.
   */
  trace(hook: Hook, packet: Packet): Trace {
    const walk = new Walk(this.tables);
    switch (hook) {
      case 'prerouting': {
        const translated = walk.nat('PREROUTING', packet);
        walk.filter([translated.isDstLocal ? 'INPUT' : 'FORWARD'], translated);
        break;
      }
      case 'output': {
        const translated = walk.nat('OUTPUT', packet);
        walk.filter(translated.isDstLocal ? ['OUTPUT', 'INPUT'] : ['OUTPUT'], translated);
        break;
      }
      case 'input':
        walk.filter(['INPUT'], packet);
        break;
      case 'forward':
        walk.filter(['FORWARD'], packet);
        break;
    }
    const { verdict, redirectedTo, rulesPassed, matched } = walk;
    return { verdict, redirectedTo, rulesPassed, matched };
  }
}

class Walk {
  readonly #tables: NetfilterTables;
  verdict: Trace['verdict'] = 'none';
  redirectedTo: number | undefined;
  rulesPassed = 0;
  readonly matched: string[] = [];

  constructor(tables: NetfilterTables) {
    this.#tables = tables;
  }

  /** Only a flow's first packet is shown to nat; one that conntrack cannot place never is. */
  nat(chain: 'PREROUTING' | 'OUTPUT', packet: Packet): Packet {
    if (packet.ctstate !== 'NEW') return packet;
    const rule = this.#walkChain({ table: 'nat', chain, packet });
    if (rule?.verdict.kind !== 'redirect') return packet;
    this.redirectedTo = rule.verdict.port;
    const dst = packet.dst.includes(':') ? '::1' : '127.0.0.1';
    return { ...packet, dst, dport: rule.verdict.port, isDstLocal: true, isDnat: true };
  }

  filter(chains: readonly string[], packet: Packet): void {
    for (const chain of chains) {
      const rule = this.#walkChain({ table: 'filter', chain, packet });
      const kind = rule?.verdict.kind ?? 'none';
      if (kind === 'jump' || kind === 'redirect' || kind === 'return')
        throw new Error(`${kind} is no verdict`);
      this.verdict = kind;
      if (kind !== 'none' && kind !== 'accept') return;
    }
  }

  /** The rule that ended the walk, or undefined when the packet came back out of the chain. */
  #walkChain(at: { table: string; chain: string; packet: Packet }, depth = 0): ParsedRule | undefined {
    if (depth > 16) throw new Error(`jumps go round in ${at.chain}`);
    for (const rule of this.#tables.rules(at.table, at.chain)) {
      this.rulesPassed += 1;
      if (!rule.matches(at.packet)) continue;
      this.matched.push(rule.comment ?? '');
      if (rule.verdict.kind === 'return') return undefined;
      if (rule.verdict.kind !== 'jump') return rule;
      const end = this.#walkChain({ ...at, chain: rule.verdict.chain }, depth + 1);
      if (end !== undefined) return end;
    }
    return undefined;
  }
}
