/**
 * A probe: the packet by which a test asks a real kernel what its rules do with it, and the same packet as the tracer
 * is asked about it. It is sent once, through a raw socket, so nothing of it is ever repeated.
 */
import { SocketAddress, isIP } from 'node:net';
import type { IpFamily } from '../../src/model/address.ts';
import { addressNumber } from './netfilter-match.ts';
import type { Host } from './netns-host.ts';

/** `protocol` `tcp` opens a connection, `udp` sends one octet. Addresses are written as the kernel prints them. */
export interface Probe {
  /** Who sends it: the node itself, or a host of the same lab whose way to `dst` leads through the node. */
  readonly from: Host;
  /**
   * Any address; unless told the sender's first one of the family, and for what the node sends to itself the
   * destination, as the kernel chooses too.
   */
  readonly src?: string;
  readonly dst: string;
  readonly dport: number;
  readonly protocol: 'tcp' | 'udp';
  /** A TCP segment of no connection, which conntrack calls INVALID (SYN and ACK), in the place of a SYN. */
  readonly isInvalid?: boolean;
}

/** What identifies a probe on its way: no rule looks at it, and nothing before POSTROUTING changes it. */
export interface ProbeSource {
  readonly src: string;
  readonly sport: number;
}

const PROTOCOL_NUMBER = { tcp: 6, udp: 17 } as const;
const HOP_LIMIT = 64;
const [SYN, ACK] = [0x02, 0x10];
const WINDOW = 65_535;
const IP_HEADER_BYTES = { 4: 20, 6: 40 } as const;

export function familyOfProbe({ dst }: Probe): 4 | 6 {
  const family = isIP(dst);
  if (family !== 4 && family !== 6) throw new Error(`not an address: ${dst}`);
  return family;
}

export function ipFamilyOfProbe(probe: Probe): IpFamily {
  return familyOfProbe(probe) === 4 ? 'IPv4' : 'IPv6';
}

export function tcpFlagsOf({ protocol, isInvalid = false }: Probe): readonly string[] {
  if (protocol === 'udp') return [];
  return isInvalid ? ['SYN', 'ACK'] : ['SYN'];
}

/** `tcp 10.244.1.11 -> [fd00::1]:80 from pod1`, for messages. */
export function describeProbe({ from, src, dst, dport, protocol, isInvalid }: Probe): string {
  const target = dst.includes(':') ? `[${dst}]:${dport}` : `${dst}:${dport}`;
  return `${isInvalid ? 'invalid ' : ''}${protocol} ${src ?? from.name} -> ${target} from ${from.name}`;
}

/** The whole packet. Of the IPv4 header the kernel fills in the identification and the checksum (raw(7)). */
export function buildProbePacket(probe: Probe, { src, sport }: ProbeSource): Buffer {
  const family = familyOfProbe(probe);
  for (const address of [src, probe.dst]) {
    if (
      isIP(address) !== family ||
      new SocketAddress({ address, family: `ipv${family}` }).address !== address
    )
      throw new Error(`${describeProbe(probe)}: ${address} is of the other family, or has a shorter form`);
  }
  if (probe.isInvalid === true && probe.protocol === 'udp')
    throw new Error(`${describeProbe(probe)}: no datagram is invalid`);
  const addresses = Buffer.concat([addressOctets(src), addressOctets(probe.dst)]);
  const segment = buildSegment(probe, sport);
  const protocol = PROTOCOL_NUMBER[probe.protocol];
  // RFC 9293 and 8200 have pseudo-headers of different form, but of the same sum.
  const pseudoHeader = Buffer.from([0, protocol, segment.length >> 8, segment.length & 0xff]);
  const checksumAt = probe.protocol === 'tcp' ? 16 : 6;
  segment.writeUInt16BE(checksum(Buffer.concat([addresses, pseudoHeader, segment])), checksumAt);
  return Buffer.concat([
    buildIpHeader(family, { protocol, payloadBytes: segment.length }),
    addresses,
    segment,
  ]);
}

/** Up to the addresses. */
function buildIpHeader(
  family: 4 | 6,
  { protocol, payloadBytes }: { readonly protocol: number; readonly payloadBytes: number },
): Buffer {
  const header = Buffer.alloc(IP_HEADER_BYTES[family] - (family === 4 ? 8 : 32));
  if (family === 4) {
    header.writeUInt8(0x45, 0);
    header.writeUInt16BE(IP_HEADER_BYTES[4] + payloadBytes, 2);
    header.writeUInt8(HOP_LIMIT, 8);
    header.writeUInt8(protocol, 9);
  } else {
    header.writeUInt8(0x60, 0);
    header.writeUInt16BE(payloadBytes, 4);
    header.writeUInt8(protocol, 6);
    header.writeUInt8(HOP_LIMIT, 7);
  }
  return header;
}

/** A TCP header without options, or a UDP header with one octet; without the checksum. */
function buildSegment(probe: Probe, sport: number): Buffer {
  const segment = Buffer.alloc(probe.protocol === 'tcp' ? 20 : 9);
  segment.writeUInt16BE(sport, 0);
  segment.writeUInt16BE(probe.dport, 2);
  if (probe.protocol === 'tcp') {
    const flags = tcpFlagsOf(probe).reduce((bits, flag) => bits | (flag === 'SYN' ? SYN : ACK), 0);
    segment.writeUInt8(5 << 4, 12);
    segment.writeUInt8(flags, 13);
    segment.writeUInt16BE(WINDOW, 14);
  } else {
    segment.writeUInt16BE(segment.length, 4);
  }
  return segment;
}

function addressOctets(address: string): Buffer {
  const digits = isIP(address) === 4 ? 8 : 32;
  return Buffer.from(addressNumber(address).toString(16).padStart(digits, '0'), 'hex');
}

/** RFC 1071: the complement of the ones' complement sum of all 16-bit words. */
function checksum(octets: Buffer): number {
  let sum = 0;
  for (const [index, octet] of octets.entries()) sum += index % 2 === 0 ? octet << 8 : octet;
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  // 0 would say "no checksum" in UDP; it stands for the same as all ones.
  return ~sum & 0xffff || 0xffff;
}
