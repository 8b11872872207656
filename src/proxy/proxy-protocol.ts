/**
 * The header of the PROXY protocol, which tells a backend whose connection it is and where that client connected
 * to (haproxy `doc/proxy-protocol.txt`, sections 2.1 and 2.2). Pure; never throws.
 *
 * Both addresses must be of one family. An IPv4-mapped IPv6 address stands for the IPv4 address in it. Where no
 * family fits both, the header says that it does not know (v1 `UNKNOWN`, v2 `AF_UNSPEC`); receivers then take the
 * addresses of the connection itself, or refuse it. Listeners are of one family, so this does not happen to them.
 */
import type { SocketAddress } from '../engine/engine.ts';
import { type IpAddress, type IpFamily, familyOf, groupsOfIPv6, parseIpAddress } from '../model/address.ts';
import type { ProxyProtocolVersion } from '../model/service-policy.ts';

const SIGNATURE = [0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a] as const;
/** Version 2, command PROXY: the connection is relayed for somebody. */
const VERSION_AND_COMMAND = 0x21;
/** Address family and transport: AF_INET or AF_INET6, STREAM. */
const TCP_OVER = { IPv4: 0x11, IPv6: 0x21 } as const;
const UNSPECIFIED = 0x00;
const TCP_NAME = { IPv4: 'TCP4', IPv6: 'TCP6' } as const;

/** The two ends of a connection in one family. */
interface Ends {
  readonly family: IpFamily;
  readonly from: IpAddress;
  readonly to: IpAddress;
  readonly ports: readonly [from: number, to: number];
}

/**
 * What a backend is to get before anything else of the connection `from` → `to`: v1 a line of at most 104 bytes,
 * v2 28 bytes for IPv4 and 52 for IPv6. A zone of a link-local address (`fe80::1%eth0`) is left out, because the
 * format has no place for it.
 */
export function proxyProtocolHeader(
  version: ProxyProtocolVersion,
  from: SocketAddress,
  to: SocketAddress,
): Uint8Array {
  const ends = endsOf(from, to);
  return version === 'v1' ? lineOf(ends) : binaryOf(ends);
}

function endsOf(from: SocketAddress, to: SocketAddress): Ends | undefined {
  const source = plainAddress(from.address);
  const destination = plainAddress(to.address);
  if (source === undefined || destination === undefined) return undefined;
  const family = familyOf(source);
  if (family !== familyOf(destination)) return undefined;
  return { family, from: source, to: destination, ports: [from.port, to.port] };
}

/** Without zone, and IPv4 where an IPv6 address only wraps it. */
function plainAddress(text: string): IpAddress | undefined {
  const [bare = ''] = text.split('%', 1);
  const address = parseIpAddress(bare);
  if (address === undefined || familyOf(address) === 'IPv4') return address;
  const groups = groupsOfIPv6(address);
  const isMapped = groups.slice(0, 5).every((group) => group === 0) && groups[5] === 0xffff;
  return isMapped ? (bytesOfGroups(groups.slice(6)).join('.') as IpAddress) : address;
}

function lineOf(ends: Ends | undefined): Uint8Array {
  if (ends === undefined) return Buffer.from('PROXY UNKNOWN\r\n', 'latin1');
  const { family, from, to, ports } = ends;
  const fields = ['PROXY', TCP_NAME[family], lineText(from), lineText(to), ...ports];
  return Buffer.from(`${fields.join(' ')}\r\n`, 'latin1');
}

/** The canonical text, but hexadecimal throughout: v1 knows no IPv6 address that ends as an IPv4 address (`::1.2.3.4`). */
function lineText(address: IpAddress): string {
  const isMixed = address.includes(':') && address.includes('.');
  if (!isMixed) return address;
  return groupsOfIPv6(address)
    .map((group) => group.toString(16))
    .join(':');
}

function binaryOf(ends: Ends | undefined): Uint8Array {
  if (ends === undefined) return Uint8Array.of(...SIGNATURE, VERSION_AND_COMMAND, UNSPECIFIED, 0, 0);
  const { family, from, to, ports } = ends;
  const block = [...bytesOf(from), ...bytesOf(to), ...bytesOfGroups(ports)];
  return Uint8Array.of(
    ...SIGNATURE,
    VERSION_AND_COMMAND,
    TCP_OVER[family],
    ...bytesOfGroups([block.length]),
    ...block,
  );
}

function bytesOf(address: IpAddress): readonly number[] {
  if (familyOf(address) === 'IPv4') return address.split('.').map(Number);
  return bytesOfGroups(groupsOfIPv6(address));
}

/** 16-bit numbers in network byte order. */
function bytesOfGroups(groups: readonly number[]): readonly number[] {
  return groups.flatMap((group) => [group >> 8, group & 0xff]);
}
