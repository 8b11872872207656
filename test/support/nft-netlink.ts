/**
 * The two kinds of netlink messages of nf_tables that tests read: which rule has which handle, and what a marked
 * packet met on its way (linux/netfilter/nf_tables.h, net/netfilter/nf_tables_trace.c). Numbers in headers of messages
 * are in the machine's byte order, which is little endian wherever the tests run; those in attributes are big endian.
 */
import { SocketAddress } from 'node:net';

/** NFPROTO_IPV4 and NFPROTO_IPV6. */
const PROTO_BY_FAMILY = { 4: 2, 6: 10 } as const;

const NFNL_SUBSYS_NFTABLES = 10;
const [NEWRULE, GETRULE, TRACE] = [6, 7, 17];
const [NLMSG_ERROR, NLMSG_DONE] = [2, 3];
const NLM_F_REQUEST = 0x001;
const NLM_F_DUMP = 0x300;
/** Of nlmsghdr, and of it with nfgenmsg. */
const HEADER_BYTES = 16;
const BODY_OFFSET = 20;

const RULE = { table: 1, chain: 2, handle: 3 } as const;
const TRACE_ATTRIBUTE = {
  table: 1,
  chain: 2,
  ruleHandle: 3,
  type: 4,
  verdict: 5,
  id: 6,
  networkHeader: 8,
  transportHeader: 9,
  inIndex: 10,
  outIndex: 12,
  policy: 16,
} as const;
const VERDICT_CODE = 1;
/** NFT_TRACETYPE_POLICY. */
const TYPE_POLICY = 1;

/** NF_DROP. */
const DROP = 0;

/** A rule of the kernel. Rules come in their order. */
export interface RuleHandle {
  readonly family: 4 | 6;
  readonly table: string;
  readonly chain: string;
  readonly handle: bigint;
}

/** A packet as it was when it entered a hook. Interfaces by number; 0 for none. */
export interface TracedPacket {
  readonly src: string;
  readonly dst: string;
  readonly sport: number;
  readonly dport: number;
  readonly inIndex: number;
  readonly outIndex: number;
}

/** One step of a packet: a rule that matched, a chain that was left at its end, a policy that was applied. */
export interface TraceEvent {
  readonly family: 4 | 6;
  /** The same for all steps of a packet in one hook. */
  readonly id: number;
  readonly isPolicy: boolean;
  readonly table: string;
  readonly chain: string;
  /** Of a rule that matched; undefined for every other step. */
  readonly handle: bigint | undefined;
  /** Is this where the packet ended, by DROP, REJECT or the policy? */
  readonly isDrop: boolean;
  /** With the first step in each hook. Undefined too for what is neither TCP nor UDP. */
  readonly packet: TracedPacket | undefined;
}

export type NftMessage =
  | { readonly kind: 'rule'; readonly rule: RuleHandle }
  | { readonly kind: 'trace'; readonly event: TraceEvent }
  /** All rules that were asked for have come. */
  | { readonly kind: 'done' }
  | { readonly kind: 'error'; readonly errno: number };

/** Asks for every rule of a family. */
export function buildRuleRequest(family: 4 | 6): Buffer {
  const request = Buffer.alloc(BODY_OFFSET);
  request.writeUInt32LE(request.length, 0);
  request.writeUInt16LE((NFNL_SUBSYS_NFTABLES << 8) | GETRULE, 4);
  request.writeUInt16LE(NLM_F_REQUEST | NLM_F_DUMP, 6);
  request.writeUInt8(PROTO_BY_FAMILY[family], HEADER_BYTES);
  return request;
}

/** The messages of one datagram; those of other kinds are left out. */
export function parseNftMessages(datagram: Buffer): NftMessage[] {
  const messages: NftMessage[] = [];
  for (let at = 0; at + HEADER_BYTES <= datagram.length; ) {
    const length = datagram.readUInt32LE(at);
    if (length < HEADER_BYTES) throw new Error(`a netlink message of ${length} octets`);
    const message = parseMessage(datagram.subarray(at, at + length));
    if (message !== undefined) messages.push(message);
    at += (length + 3) & ~3;
  }
  return messages;
}

function parseMessage(message: Buffer): NftMessage | undefined {
  const type = message.readUInt16LE(4);
  if (type === NLMSG_DONE) return { kind: 'done' };
  if (type === NLMSG_ERROR) return { kind: 'error', errno: -message.readInt32LE(HEADER_BYTES) };
  if (type >> 8 !== NFNL_SUBSYS_NFTABLES) return undefined;
  const proto = message.readUInt8(HEADER_BYTES);
  const family = proto === PROTO_BY_FAMILY[4] ? 4 : 6;
  if (PROTO_BY_FAMILY[family] !== proto) return undefined;
  const attributes = parseAttributes(message.subarray(BODY_OFFSET));
  switch (type & 0xff) {
    case NEWRULE:
      return {
        kind: 'rule',
        rule: {
          family,
          table: text(attributes.get(RULE.table)),
          chain: text(attributes.get(RULE.chain)),
          handle: attributes.get(RULE.handle)?.readBigUInt64BE() ?? 0n,
        },
      };
    case TRACE:
      return { kind: 'trace', event: parseTrace(family, attributes) };
    default:
      return undefined;
  }
}

function parseTrace(family: 4 | 6, attributes: ReadonlyMap<number, Buffer>): TraceEvent {
  const number = (type: number): number | undefined => attributes.get(type)?.readUInt32BE();
  const isPolicy = number(TRACE_ATTRIBUTE.type) === TYPE_POLICY;
  const verdict = attributes.get(TRACE_ATTRIBUTE.verdict);
  const verdictCode = verdict && parseAttributes(verdict).get(VERDICT_CODE)?.readUInt32BE();
  return {
    family,
    id: number(TRACE_ATTRIBUTE.id) ?? 0,
    isPolicy,
    table: text(attributes.get(TRACE_ATTRIBUTE.table)),
    chain: text(attributes.get(TRACE_ATTRIBUTE.chain)),
    handle: attributes.get(TRACE_ATTRIBUTE.ruleHandle)?.readBigUInt64BE(),
    isDrop: (isPolicy ? number(TRACE_ATTRIBUTE.policy) : verdictCode) === DROP,
    packet: parsePacket(family, attributes),
  };
}

function parsePacket(family: 4 | 6, attributes: ReadonlyMap<number, Buffer>): TracedPacket | undefined {
  const network = attributes.get(TRACE_ATTRIBUTE.networkHeader);
  const transport = attributes.get(TRACE_ATTRIBUTE.transportHeader);
  if (network === undefined || transport === undefined || transport.length < 4) return undefined;
  const [srcAt, dstAt, end] = family === 4 ? [12, 16, 20] : [8, 24, 40];
  return {
    src: addressText(network.subarray(srcAt, dstAt)),
    dst: addressText(network.subarray(dstAt, end)),
    sport: transport.readUInt16BE(0),
    dport: transport.readUInt16BE(2),
    inIndex: attributes.get(TRACE_ATTRIBUTE.inIndex)?.readUInt32BE() ?? 0,
    outIndex: attributes.get(TRACE_ATTRIBUTE.outIndex)?.readUInt32BE() ?? 0,
  };
}

/** By type; the flags in its two upper bits are taken off. */
function parseAttributes(octets: Buffer): Map<number, Buffer> {
  const attributes = new Map<number, Buffer>();
  for (let at = 0; at + 4 <= octets.length; ) {
    const length = octets.readUInt16LE(at);
    if (length < 4) throw new Error(`a netlink attribute of ${length} octets`);
    attributes.set(octets.readUInt16LE(at + 2) & 0x3fff, octets.subarray(at + 4, at + length));
    at += (length + 3) & ~3;
  }
  return attributes;
}

/** Ends with a zero octet. */
function text(octets: Buffer | undefined): string {
  return octets?.toString('latin1').replace(/\0.*$/, '') ?? '';
}

function addressText(octets: Buffer): string {
  if (octets.length === 4) return octets.join('.');
  const groups = Array.from({ length: 8 }, (_, index) => octets.readUInt16BE(2 * index).toString(16));
  // Its shortest form, as everybody else prints it.
  return new SocketAddress({ address: groups.join(':'), family: 'ipv6' }).address;
}
