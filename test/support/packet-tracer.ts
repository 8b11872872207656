/**
 * Walks a packet through the rules as the kernel would: nat for the first packet of a flow, then filter, with
 * what REDIRECT or DNAT does to it in between. Tests load rendered text and ask what becomes of a packet.
 */
import { isIP } from 'node:net';
import type { Packet } from './netfilter-match.ts';
import type { ParsedRule, RuleVerdict } from './netfilter-rule.ts';
import { NetfilterTables } from './netfilter-tables.ts';

export type { Packet } from './netfilter-match.ts';

export type Hook = 'prerouting' | 'output' | 'input' | 'forward';

export interface Trace {
  /** 'none': no rule decided anything; every built-in chain was left at its end, and its policy is ACCEPT. */
  readonly verdict: 'none' | 'accept' | 'drop' | 'tcp-reset' | 'port-unreachable';
  /** The port that REDIRECT or DNAT chose, whatever became of the packet then. */
  readonly redirectedTo: number | undefined;
  /**
   * Where REDIRECT or DNAT took the packet, unless filter refused it there. The address of REDIRECT is loopback in
   * OUTPUT; in PREROUTING it is undefined, because the kernel takes the one of the interface it came in by.
   */
  readonly deliveredTo: { readonly address: string | undefined; readonly port: number } | undefined;
  /** How many rules the packet was tried on, in all chains. */
  readonly rulesPassed: number;
  /** Comments of the rules that matched, in order. */
  readonly matched: readonly string[];
  /** The same rules as `nat -A CHAIN …`. */
  readonly path: readonly string[];
}

/** A packet that opens a TCP connection from a pod to an address elsewhere, unless tweaked. */
export function makePacket(tweak: Partial<Packet> = {}): Packet {
  const protocol = tweak.protocol ?? 'tcp';
  return {
    src: tweak.dst?.includes(':') ? 'fd00:244:1::11' : '10.244.1.11',
    dst: '192.0.2.1',
    isDstLocal: false,
    inInterface: 'cni0',
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
   * sends it, through OUTPUT and, if it stays on the node, INPUT; its `inInterface` is what it is there, whatever the
   * packet says. `input`, `forward`: the filter chain alone. Throws on a packet of the other family.
   */
  trace(hook: Hook, packet: Packet): Trace {
    for (const address of [packet.src, packet.dst]) {
      if (isIP(address) !== this.tables.family)
        throw new Error(`${address} is no IPv${this.tables.family} address`);
    }
    const walk = new Walk(this.tables);
    const isFromNode = hook === 'output';
    const known = { ...packet, isSrcLocal: packet.isSrcLocal ?? isFromNode };
    switch (hook) {
      case 'prerouting': {
        const translated = walk.nat('PREROUTING', known);
        walk.filter(translated.isDstLocal ? 'INPUT' : 'FORWARD', translated);
        break;
      }
      case 'output': {
        const translated = walk.nat('OUTPUT', { ...known, inInterface: '' });
        walk.filter('OUTPUT', translated);
        if (translated.isDstLocal) walk.filter('INPUT', { ...translated, inInterface: 'lo' });
        break;
      }
      case 'input':
        walk.filter('INPUT', known);
        break;
      case 'forward':
        walk.filter('FORWARD', known);
        break;
    }
    return walk.result();
  }
}

class Walk {
  readonly #tables: NetfilterTables;
  readonly #matched: string[] = [];
  readonly #path: string[] = [];
  #verdict: Trace['verdict'] = 'none';
  #translation: NonNullable<Trace['deliveredTo']> | undefined;
  #rulesPassed = 0;

  constructor(tables: NetfilterTables) {
    this.#tables = tables;
  }

  result(): Trace {
    const isRefused = this.#verdict !== 'none' && this.#verdict !== 'accept';
    return {
      verdict: this.#verdict,
      redirectedTo: this.#translation?.port,
      deliveredTo: isRefused ? undefined : this.#translation,
      rulesPassed: this.#rulesPassed,
      matched: this.#matched,
      path: this.#path,
    };
  }

  /**
   * Only a flow's first packet is shown to nat; one that conntrack cannot place never is. What a rule sends elsewhere
   * is taken to be an address of the node: we send it nowhere else.
   */
  nat(chain: 'PREROUTING' | 'OUTPUT', packet: Packet): Packet {
    if (packet.ctstate !== 'NEW') return packet;
    const rule = this.#walkChain({ table: 'nat', chain, packet });
    const translation = translationOf(rule?.verdict, { chain, packet });
    if (translation === undefined) return packet;
    this.#translation = translation;
    return {
      ...packet,
      dst: translation.address ?? '',
      dport: translation.port,
      isDstLocal: true,
      isDnat: true,
      originalDst: packet.originalDst ?? packet.dst,
    };
  }

  /** Not if an earlier chain has refused the packet. */
  filter(chain: 'INPUT' | 'FORWARD' | 'OUTPUT', packet: Packet): void {
    if (this.#verdict !== 'none' && this.#verdict !== 'accept') return;
    const rule = this.#walkChain({ table: 'filter', chain, packet });
    const kind = rule?.verdict.kind ?? (this.#tables.policy(chain) === 'DROP' ? 'drop' : 'none');
    if (kind === 'jump' || kind === 'redirect' || kind === 'dnat' || kind === 'return')
      throw new Error(`${kind} is no verdict`);
    if (kind !== 'none') this.#verdict = kind;
  }

  /** The rule that ended the walk, or undefined when the packet came back out of the chain. */
  #walkChain(at: { table: string; chain: string; packet: Packet }, depth = 0): ParsedRule | undefined {
    if (depth > 16) throw new Error(`${at.chain} is deeper than the kernel goes`);
    for (const rule of this.#tables.rules(at.table, at.chain)) {
      this.#rulesPassed += 1;
      if (!rule.matches(at.packet)) continue;
      this.#matched.push(rule.comment ?? '');
      this.#path.push(`${at.table} -A ${at.chain} ${rule.spec}`);
      if (rule.verdict.kind === 'return') return undefined;
      if (rule.verdict.kind !== 'jump') return rule;
      const end = this.#walkChain({ ...at, chain: rule.verdict.chain }, depth + 1);
      if (end !== undefined) return end;
    }
    return undefined;
  }
}

function translationOf(
  verdict: RuleVerdict | undefined,
  { chain, packet }: { chain: 'PREROUTING' | 'OUTPUT'; packet: Packet },
): Trace['deliveredTo'] {
  if (verdict?.kind === 'dnat') return { address: verdict.address, port: verdict.port ?? packet.dport };
  if (verdict?.kind !== 'redirect') return undefined;
  if (chain === 'PREROUTING') return { address: undefined, port: verdict.port };
  return { address: packet.dst.includes(':') ? '::1' : '127.0.0.1', port: verdict.port };
}
