/**
 * What single matches of a rule mean, one small function for each: prefixes, interfaces, ports, flags and states.
 * Prefixes are compared as numbers, and nothing of `src/` is used: what the rules are made with must not be what
 * they are read with.
 */
import { isIP } from 'node:net';

export type PacketProtocol = 'tcp' | 'udp' | 'icmp';
export type FlowState = 'NEW' | 'ESTABLISHED' | 'RELATED' | 'INVALID';

/** A packet as the rules of one hook see it. */
export interface Packet {
  readonly src: string;
  /**
   * '' stands for an address of the node that no rule names: what REDIRECT in PREROUTING makes of it, which depends
   * on the interface.
   */
  readonly dst: string;
  /** Is `dst` an address of this node? */
  readonly isDstLocal: boolean;
  /** Is `src` one? Unless told, that of what the node itself sends is, and no other. */
  readonly isSrcLocal?: boolean;
  /** The interface it came in by. What the node sends has none in OUTPUT (''), and `lo` in INPUT. */
  readonly inInterface: string;
  readonly protocol: PacketProtocol;
  readonly dport: number;
  /** 50,000, a port of nobody's, unless told. */
  readonly sport?: number;
  readonly ctstate: FlowState;
  /** Has conntrack rewritten the destination of this flow? */
  readonly isDnat: boolean;
  /** Where the flow's first packet was addressed to; `dst` unless told. */
  readonly originalDst?: string;
  readonly tcpFlags: readonly string[];
}

export type Matcher = (packet: Packet) => boolean;

/** Throws, with the words given to it and where they stand. */
export type Refuse = (what: string) => never;

const CONNTRACK_STATES = ['NEW', 'INVALID', 'ESTABLISHED', 'RELATED', 'DNAT'];

/** Is an address in the prefix? The length must be written, and no bit behind it be set. */
export function prefixMatcher(text: string, family: 4 | 6): (address: string) => boolean {
  const [, address = '', lengthText = ''] = /^([\d.a-f:]+)\/(\d{1,3})$/.exec(text) ?? [];
  const bits = family === 4 ? 32 : 128;
  const length = Number(lengthText);
  if (isIP(address) !== family || lengthText === '' || length > bits)
    throw new Error(`not an IPv${family} prefix: ${text}`);
  const hostBits = BigInt(bits - length);
  const network = addressNumber(address) >> hostBits;
  if (network << hostBits !== addressNumber(address)) throw new Error(`host bits are set in ${text}`);
  return (tried) => isIP(tried) === family && addressNumber(tried) >> hostBits === network;
}

const numberByAddress = new Map<string, bigint>();

/** An address of either family as a number of 32 or 128 bits. */
export function addressNumber(address: string): bigint {
  const known = numberByAddress.get(address);
  if (known !== undefined) return known;
  const number =
    isIP(address) === 4 ? joinParts(address.split('.'), { base: 10, bits: 8n }) : numberOfIPv6(address);
  numberByAddress.set(address, number);
  return number;
}

function numberOfIPv6(address: string): bigint {
  if (isIP(address) !== 6 || address.includes('%')) throw new Error(`not an address: ${address}`);
  // The kernel prints mapped addresses with an IPv4 address at the end.
  const hexadecimal = address.replace(/[\d.]+\.\d+$/, (tail) => {
    const number = addressNumber(tail);
    return `${(number >> 16n).toString(16)}:${(number & 0xffffn).toString(16)}`;
  });
  const [front = [], back] = hexadecimal
    .split('::')
    .map((half) => half.split(':').filter((group) => group !== ''));
  const missing = back === undefined ? 0 : 8 - front.length - back.length;
  const groups = [...front, ...Array<string>(missing).fill('0'), ...(back ?? [])];
  return joinParts(groups, { base: 16, bits: 16n });
}

function joinParts(parts: readonly string[], { base, bits }: { base: number; bits: bigint }): bigint {
  return parts.reduce((sum, part) => (sum << bits) + BigInt(Number.parseInt(part, base)), 0n);
}

/** `eth0`, or `eth+` for every interface whose name begins so. */
export function interfaceMatcher(text: string, refuse: Refuse): Matcher {
  const [, name = '', plus] = /^([\w.@-]{1,15}?)(\+?)$/.exec(text) ?? [];
  if (name === '' || text.length > 15) return refuse(`interface ${text}`);
  return plus === '+'
    ? ({ inInterface }) => inInterface.startsWith(name)
    : ({ inInterface }) => inInterface === name;
}

/** The options of one `-m conntrack`. */
export interface ConntrackOptions {
  readonly states?: readonly string[] | undefined;
  readonly originalDst?: ((address: string) => boolean) | undefined;
}

export function conntrackStates(text: string, refuse: Refuse): readonly string[] {
  const states = text.split(',');
  for (const state of states) if (!CONNTRACK_STATES.includes(state)) refuse(`--ctstate ${state}`);
  return states;
}

/** A packet that conntrack cannot place has no flow: only its state is looked at (xt_conntrack.c, conntrack_mt). */
export function conntrackMatcher({ states, originalDst }: ConntrackOptions): Matcher {
  return (packet) => {
    if (packet.ctstate === 'INVALID') return states?.includes('INVALID') ?? false;
    const isState =
      states?.some((state) => state === packet.ctstate || (state === 'DNAT' && packet.isDnat)) ?? true;
    return isState && (originalDst?.(packet.originalDst ?? packet.dst) ?? true);
  };
}

/** Where a packet comes from unless it says so: in no range of ours. */
const USUAL_SOURCE_PORT = 50_000;

/** `80` or `80:90`. */
export function portMatcher(option: '--sport' | '--dport', text: string, refuse: Refuse): Matcher {
  const parts = text.split(':').map((part) => portNumber(part, refuse));
  const [first, last = first] = parts;
  if (first === undefined || last === undefined || last < first || parts.length > 2)
    return refuse(`${option} ${text}`);
  return ({ dport, sport = USUAL_SOURCE_PORT }) => {
    const port = option === '--dport' ? dport : sport;
    return port >= first && port <= last;
  };
}

export function portNumber(text: string, refuse: Refuse): number {
  const port = Number(text);
  return /^\d+$/.test(text) && port <= 65_535 ? port : refuse(`port ${text}`);
}

const TCP_FLAGS = ['FIN', 'SYN', 'RST', 'PSH', 'ACK', 'URG'];

/** Of the flags in the mask, exactly those wanted are set. */
export function flagsMatcher(maskText: string, wantedText: string, refuse: Refuse): Matcher {
  const mask = maskText.split(',');
  const wanted = wantedText.split(',');
  for (const flag of [...mask, ...wanted]) if (!TCP_FLAGS.includes(flag)) refuse(`TCP flag ${flag}`);
  return (packet) => mask.every((flag) => packet.tcpFlags.includes(flag) === wanted.includes(flag));
}
