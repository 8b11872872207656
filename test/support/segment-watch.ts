/** Sees what the kernel knows of a TCP connection and no socket tells: its sequence numbers. */
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Host } from './netns-host.ts';
import { waitFor } from './wait.ts';

export interface Segment {
  readonly seq: number;
  readonly ack: number;
  /** Letters of the TCP flags that are set: F, S, R, P, A, U. */
  readonly flags: string;
  readonly payloadBytes: number;
}

/** The connection by its IPv4 address and port at the peer, and its port at the host that watches. */
export interface Peer {
  readonly address: string;
  readonly port: number;
  readonly localPort: number;
}

/** The segments of one connection that arrive at a host, from `open` to `close`. */
export class SegmentWatch implements Disposable {
  readonly segments: Segment[] = [];
  readonly #end: () => void;

  private constructor(end: () => void) {
    this.#end = end;
  }

  /** Watching when resolved. */
  static async open(host: Host, { address, port, localPort }: Peer): Promise<SegmentWatch> {
    const argv = ['perl', join(import.meta.dirname, 'watch-segments.pl'), address, port, localPort].map(
      String,
    );
    const child = host.spawn(argv, { stdio: ['ignore', 'pipe', 'inherit'] });
    if (child.stdout === null) throw new Error('no pipe');
    const lines = createInterface(child.stdout);
    await once(lines, 'line');
    const watch = new SegmentWatch(() => child.kill('SIGKILL'));
    lines.on('line', (line) => {
      const [seq, ack, flags = '', payloadBytes] = line.split(' ');
      watch.segments.push({ seq: Number(seq), ack: Number(ack), flags, payloadBytes: Number(payloadBytes) });
    });
    return watch;
  }

  /** The last segment with a payload, once there is one: what it ends with is the host's next expected octet. */
  async data(): Promise<Segment> {
    return waitFor(() => this.segments.findLast(({ payloadBytes }) => payloadBytes > 0), {
      timeoutMs: 5_000,
      what: 'a segment with a payload',
    });
  }

  [Symbol.dispose](): void {
    this.#end();
  }
}
