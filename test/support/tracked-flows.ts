/** What conntrack knows on a host of the lab, asked as an operator does. */
import type { Host } from './netns-lab.ts';

export interface TrackedFlow {
  /** Of the entry: a flow that was forgotten and begun anew has another. */
  readonly id: string;
  /** Seconds until it is forgotten by itself. */
  readonly remainingSeconds: number;
  /** Of TCP: `SYN_SENT`; of UDP ''. */
  readonly state: string;
  readonly source: string;
  readonly destination: string;
  readonly replySource: string;
  readonly replySourcePort: number;
}

/** Flows of either family to that port, of that protocol. */
export async function trackedFlows(
  host: Host,
  { protocol, port }: { readonly protocol: 'tcp' | 'udp'; readonly port: number },
): Promise<readonly TrackedFlow[]> {
  const flows = await Promise.all(
    ['ipv4', 'ipv6'].map(async (family) => {
      const select = ['-f', family, '-p', protocol, '--orig-port-dst', String(port)];
      return parseFlows(await host.run(['conntrack', '-L', '-o', 'id', ...select]));
    }),
  );
  return flows.flat();
}

function parseFlows(listed: string): readonly TrackedFlow[] {
  const tuple = 'src=(\\S+) dst=(\\S+) sport=\\d+ dport=\\d+ ';
  const pattern = new RegExp(
    `^\\w+ +\\d+ (\\d+) ([A-Z_]*) ?${tuple}.*?src=(\\S+) dst=\\S+ sport=(\\d+) .*\\bid=(\\d+)`,
  );
  return listed.split('\n').flatMap((line) => {
    const match = pattern.exec(line);
    if (match === null) return [];
    const [, seconds, state = '', source = '', destination = '', replySource = '', replyPort, id = ''] =
      match;
    return [
      {
        id,
        remainingSeconds: Number(seconds),
        state,
        source,
        destination,
        replySource,
        replySourcePort: Number(replyPort),
      },
    ];
  });
}
