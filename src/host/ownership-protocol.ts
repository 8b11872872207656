/**
 * What two instances say to each other about who writes the rules: one JSON object a line, over the socket of
 * `ownership-socket.ts`. Whoever can reach that socket can speak, so nothing of it is believed beyond its shape:
 * ports outside the range are left out, and what decides is the generation in the kernel.
 *
 *     newcomer                        owner
 *     takeover ─────────────────────►   ends the write under way, writes nothing more
 *     ◄──────── yielded (its ports)     the name of the socket is free
 *     writes the rules
 *     programmed ───────────────────►   sees the newer generation in the kernel
 *     ◄───────────────────── retired    its HTTP servers are closed
 *     ports ────────────────────────►   those the new owner has open, whenever they change
 *     ... and the connection stays open until one of the two ends
 *
 * A stand-by that lost its owner opens with `standby` instead and hears `accepted`. Pure.
 */

const VERSION = 1;

/** A proxy port that an instance has open. */
export interface OpenPort {
  readonly family: 'IPv4' | 'IPv6';
  readonly protocol: 'TCP' | 'UDP';
  readonly port: number;
  /** `ns/name:port`. */
  readonly servicePortName: string;
}

export type OwnershipMessage =
  | { readonly type: 'takeover' }
  | { readonly type: 'standby'; readonly ports: readonly OpenPort[] }
  | { readonly type: 'yielded'; readonly generation: number; readonly ports: readonly OpenPort[] }
  | { readonly type: 'accepted' }
  | { readonly type: 'refused'; readonly reason: string }
  | { readonly type: 'programmed' }
  | { readonly type: 'retired' }
  /** Wants nothing any more: it is about to end. */
  | { readonly type: 'stopping' }
  | { readonly type: 'ports'; readonly ports: readonly OpenPort[] };

/** The line, its end included. */
export function renderMessage(message: OwnershipMessage): string {
  return `${JSON.stringify({ version: VERSION, ...message })}\n`;
}

/** Undefined: not a message of this version. */
export function parseMessage(line: string): OwnershipMessage | undefined {
  let json: Readonly<Record<string, unknown>> | null;
  try {
    json = JSON.parse(line) as Readonly<Record<string, unknown>> | null;
  } catch {
    return undefined;
  }
  if (typeof json !== 'object' || json === null || json['version'] !== VERSION) return undefined;
  switch (json['type']) {
    case 'takeover':
    case 'accepted':
    case 'programmed':
    case 'retired':
    case 'stopping':
      return { type: json['type'] };
    case 'standby':
    case 'ports':
      return { type: json['type'], ports: portsFromJson(json['ports']) };
    case 'yielded': {
      const generation = json['generation'];
      if (typeof generation !== 'number' || !Number.isSafeInteger(generation) || generation < 0)
        return undefined;
      return { type: 'yielded', generation, ports: portsFromJson(json['ports']) };
    }
    case 'refused':
      return { type: 'refused', reason: String(json['reason']).slice(0, MAX_TEXT) };
    default:
      return undefined;
  }
}

const MAX_TEXT = 256;

/** What is no port is left out. */
function portsFromJson(json: unknown): readonly OpenPort[] {
  return Array.isArray(json) ? json.filter(isOpenPort) : [];
}

/** The name becomes the comment of a rule: whatever iptables-restore could take for more than that is refused. */
const NAME = /^[a-z0-9./:-]{1,256}$/i;

function isOpenPort(json: unknown): json is OpenPort {
  if (typeof json !== 'object' || json === null) return false;
  const { family, protocol, port, servicePortName } = json as Partial<Record<keyof OpenPort, unknown>>;
  return (
    (family === 'IPv4' || family === 'IPv6') &&
    (protocol === 'TCP' || protocol === 'UDP') &&
    Number.isInteger(port) &&
    Number(port) > 0 &&
    Number(port) < 65_536 &&
    typeof servicePortName === 'string' &&
    NAME.test(servicePortName)
  );
}

function portKey({ family, protocol, port }: OpenPort): string {
  return `${protocol}/${family}/${port}`;
}

/** Each port once. */
export function unionOfPorts(lists: readonly (readonly OpenPort[])[]): readonly OpenPort[] {
  return [...new Map(lists.flat().map((port) => [portKey(port), port])).values()];
}

/** Those of `ports` that are not among `others`. */
export function portsWithout(ports: readonly OpenPort[], others: readonly OpenPort[]): readonly OpenPort[] {
  const keys = new Set(others.map(portKey));
  return ports.filter((port) => !keys.has(portKey(port)));
}
