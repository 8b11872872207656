/**
 * A receiver of the PROXY protocol, written from the layout in haproxy `doc/proxy-protocol.txt` and from nothing
 * else, so that it can judge what our sender makes. It fails on whatever the specification does not foresee.
 */

/** What a receiver learns. Addresses are byte lists, so that spelling plays no part: 4 bytes or 16. */
export type ParsedHeader =
  | {
      readonly kind: 'TCP4' | 'TCP6';
      readonly from: ParsedEnd;
      readonly to: ParsedEnd;
      /** How many bytes the header takes; the client's follow. */
      readonly length: number;
    }
  /** v1 UNKNOWN, v2 AF_UNSPEC: the addresses of the connection itself count. */
  | { readonly kind: 'UNKNOWN'; readonly length: number };

export interface ParsedEnd {
  readonly address: readonly number[];
  readonly port: number;
}

const MAX_LINE_LENGTH = 107;
const V2_PREFIX_LENGTH = 16;
const V2_SIGNATURE = '0d0a0d0a000d0a515549540a';

/** Reads one header of the version that was agreed upon; receivers may not guess (section 2). */
export function parseProxyHeader(version: 'v1' | 'v2', bytes: Uint8Array): ParsedHeader {
  return version === 'v1' ? parseLine(bytes) : parseBinary(bytes);
}

function parseLine(bytes: Uint8Array): ParsedHeader {
  const end = Buffer.from(bytes).indexOf('\r\n');
  const length = end + 2;
  if (end === -1 || length > MAX_LINE_LENGTH) throw new Error(`no line end within ${MAX_LINE_LENGTH} bytes`);
  const line = Buffer.from(bytes).toString('latin1', 0, end);
  if (line === 'PROXY UNKNOWN') return { kind: 'UNKNOWN', length };
  const fields = /^PROXY (TCP4|TCP6) ([\d.]+|[\da-fA-F:]+) ([\d.]+|[\da-fA-F:]+) (\d+) (\d+)$/.exec(line);
  if (fields === null) throw new Error(`not a PROXY line: ${JSON.stringify(line)}`);
  const [, name = '', from = '', to = '', fromPort = '', toPort = ''] = fields;
  const kind = name as 'TCP4' | 'TCP6';
  const addressOf = kind === 'TCP4' ? parseDotted : parseColons;
  return {
    kind,
    from: { address: addressOf(from), port: parseDecimal(fromPort, 65_535) },
    to: { address: addressOf(to), port: parseDecimal(toPort, 65_535) },
    length,
  };
}

function parseBinary(bytes: Uint8Array): ParsedHeader {
  const header = Buffer.from(bytes);
  if (header.length < V2_PREFIX_LENGTH) throw new Error(`a header of ${header.length} bytes`);
  const signature = header.toString('hex', 0, 12);
  if (signature !== V2_SIGNATURE) throw new Error(`signature ${signature}`);
  const command = header.readUInt8(12);
  if (command !== 0x21) throw new Error(`version and command 0x${command.toString(16)}`);
  const family = header.readUInt8(13);
  const blockLength = header.readUInt16BE(14);
  const length = V2_PREFIX_LENGTH + blockLength;
  if (header.length < length) throw new Error(`${header.length} bytes of ${length}`);
  if (family === 0x00 && blockLength === 0) return { kind: 'UNKNOWN', length };
  if (family === 0x11 && blockLength === 12) return { kind: 'TCP4', ...parseBlock(header, 4), length };
  if (family === 0x21 && blockLength === 36) return { kind: 'TCP6', ...parseBlock(header, 16), length };
  throw new Error(`family and transport 0x${family.toString(16)} with ${blockLength} bytes`);
}

function parseBlock(header: Buffer, size: 4 | 16): { from: ParsedEnd; to: ParsedEnd } {
  const at = (offset: number): readonly number[] => [...header.subarray(offset, offset + size)];
  const ports = V2_PREFIX_LENGTH + 2 * size;
  return {
    from: { address: at(V2_PREFIX_LENGTH), port: header.readUInt16BE(ports) },
    to: { address: at(V2_PREFIX_LENGTH + size), port: header.readUInt16BE(ports + 2) },
  };
}

function parseDecimal(text: string, max: number): number {
  const value = Number(text);
  if (!/^(0|[1-9]\d*)$/.test(text) || value > max)
    throw new Error(`${JSON.stringify(text)} is no number to ${max}`);
  return value;
}

function parseDotted(text: string): readonly number[] {
  const parts = text.split('.');
  if (parts.length !== 4) throw new Error(`${JSON.stringify(text)} is no IPv4 address`);
  return parts.map((part) => parseDecimal(part, 255));
}

/** Sets of up to four digits; one `::` may stand for the zeros that are missing. */
function parseColons(text: string): readonly number[] {
  const halves = text.split('::');
  if (halves.length > 2) throw new Error(`${JSON.stringify(text)} has two double colons`);
  const [head = [], tail] = halves.map((half) => (half === '' ? [] : half.split(':')));
  const known = head.length + (tail?.length ?? 0);
  if (tail === undefined ? known !== 8 : known > 7)
    throw new Error(`${JSON.stringify(text)} is not 128 bits`);
  const groups = [...head, ...Array<string>(8 - known).fill('0'), ...(tail ?? [])];
  return groups.flatMap((group) => {
    if (!/^[\da-fA-F]{1,4}$/.test(group)) throw new Error(`${JSON.stringify(text)} is no IPv6 address`);
    const value = Number.parseInt(group, 16);
    return [Math.floor(value / 256), value % 256];
  });
}
