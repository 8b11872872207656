/** Flows as `conntrack -L` prints them, one to a line. Pure. */

/** A flow in the words of its first packet, and where the replies to it come from: where it was led. */
export interface Flow {
  readonly source: string;
  readonly sourcePort: number;
  readonly destination: string;
  readonly destinationPort: number;
  readonly replySource: string;
  readonly replySourcePort: number;
}

/** The order is fixed: both tuples, each followed by what is counted (`packets=`) and said of it (`[UNREPLIED]`). */
const TUPLES = / src=(\S+) dst=(\S+) sport=(\d+) dport=(\d+) .*?src=(\S+) dst=\S+ sport=(\d+) dport=\d+/;

/**
 * Undefined for a line that is no flow with ports, and for flows of another zone: our rules are in the one without a
 * number.
 */
export function parseFlow(line: string): Flow | undefined {
  const match = TUPLES.exec(line);
  if (match === null || line.includes(' zone')) return undefined;
  const [, source = '', destination = '', sourcePort, destinationPort, replySource = '', replySourcePort] =
    match;
  return {
    source,
    sourcePort: Number(sourcePort),
    destination,
    destinationPort: Number(destinationPort),
    replySource,
    replySourcePort: Number(replySourcePort),
  };
}
