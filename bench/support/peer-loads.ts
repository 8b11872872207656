/** The programs that make the load of bench/peers.ts, in the client pod, and what they report. */
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline/promises';
import type { ChildProcess } from 'node:child_process';
import type { Target } from '../../test/support/agent-protocol.ts';
import type { PeerContender, RunningContender } from './peer-contenders.ts';
import type { TrafficLab } from './traffic-lab.ts';
import { SERVICES, type ServiceName } from './traffic-services.ts';

const CONNECTIONS = 64;
const DATAGRAM_BYTES = 64;
/** A load program ends by itself; beyond its seconds it gets these. */
const OVERTIME_MS = 40_000;
const WRK_REPORT = join(import.meta.dirname, 'programs/wrk-report.lua');

export interface Subject {
  readonly bench: TrafficLab;
  readonly contender: PeerContender;
  readonly running: RunningContender;
  readonly seconds: number;
  readonly signal: AbortSignal;
}

export interface WrkReport {
  readonly requests: number;
  readonly seconds: number;
  readonly errors: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly p999Ms: number;
}

/** HTTP over 64 connections, which are kept unless a header says otherwise. A closed loop: each waits for its answer. */
export async function runWrk(
  subject: Subject,
  seconds: number,
  further: readonly string[],
): Promise<WrkReport> {
  const { host, port } = targetOf(subject, 'http');
  const sizes = ['-t', '1', '-c', String(CONNECTIONS), '-d', `${Math.ceil(seconds)}s`];
  const argv = ['wrk', ...sizes, '-s', WRK_REPORT, ...further, `http://${host}:${port}/`];
  const text = await runLoad(subject, argv, seconds);
  const report = /^report (\{.*\})$/m.exec(text)?.[1];
  if (report === undefined) throw new Error(`wrk did not report:\n${text}`);
  return JSON.parse(report) as WrkReport;
}

export interface IperfReport {
  readonly bytes: number;
  readonly bits_per_second: number;
}

/** Bulk from the client over so many connections; what has arrived. */
export async function runIperf(subject: Subject, streams: number): Promise<IperfReport> {
  const { host, port } = targetOf(subject, 'bulk');
  const seconds = Math.ceil(subject.seconds);
  const sizes = ['-P', String(streams), '-t', String(seconds)];
  const argv = ['iperf3', '-J', '-c', host, '-p', String(port), '--connect-timeout', '3000', ...sizes];
  const report = JSON.parse(await runLoad(subject, argv, seconds)) as {
    readonly end: { readonly sum_received: IperfReport };
  };
  return report.end.sum_received;
}

export interface UdpLoad {
  readonly mode: 'steady' | 'flows' | 'offered';
  readonly service: ServiceName;
  readonly seconds: number;
  readonly count: number;
  readonly sources?: readonly string[];
}

export interface UdpReport {
  readonly sent: number;
  readonly answered: number;
  readonly lost: number;
  /** Not begun, because too many were under way. */
  readonly unsent: number;
  readonly seconds: number;
  readonly p99Us: number;
}

export async function runUdp(subject: Subject, load: UdpLoad): Promise<UdpReport> {
  const { mode, service, seconds, count, sources = [] } = load;
  const { host, port } = targetOf(subject, service);
  const numbers = [port, seconds, count, DATAGRAM_BYTES].map(String);
  const argv = [subject.bench.udpLoad, mode, host, ...numbers, ...sources];
  return JSON.parse(await runLoad(subject, argv, seconds)) as UdpReport;
}

async function runLoad(
  { bench, signal }: Subject,
  argv: readonly string[],
  seconds: number,
): Promise<string> {
  signal.throwIfAborted();
  return bench.client.run(argv, { timeoutMs: seconds * 1_000 + OVERTIME_MS });
}

/** The clusterIP, or the first backend where there is no proxy. */
export function targetOf(
  { bench, contender }: Pick<Subject, 'bench' | 'contender'>,
  name: ServiceName,
): Target {
  const { clusterIp, port, targetPort, backends } = SERVICES[name];
  return contender.key === 'direct'
    ? { host: bench.ipOf(backends[0] ?? 1), port: targetPort }
    : { host: clusterIp, port };
}

/** A process in the client pod that holds idle connections. */
export class Holder {
  readonly #child: ChildProcess;
  readonly #ended: Promise<unknown>;
  readonly #lines: AsyncIterator<string>;

  private constructor(child: ChildProcess) {
    const { stdout } = child;
    if (stdout === null) throw new Error('the holder has no pipes');
    this.#child = child;
    this.#ended = once(child, 'exit');
    this.#lines = createInterface({ input: stdout })[Symbol.asyncIterator]();
  }

  /** Resolves when it has as many as it could get. The caller closes it. */
  static async open(subject: Subject, count: number): Promise<Holder> {
    const { bench } = subject;
    const { host, port } = targetOf(subject, 'idle');
    const argv = [bench.holdLoad, 'hold', host, String(port), String(count)];
    const holder = new Holder(bench.client.spawn(argv, { stdio: ['pipe', 'pipe', 'inherit'] }));
    await holder.#read<object>();
    return holder;
  }

  /** How many are open, by what its sockets say. */
  async countOpen(): Promise<number> {
    this.#child.stdin?.write('\n');
    return (await this.#read<{ readonly open: number }>()).open;
  }

  /** Resets all of them. */
  async close(): Promise<void> {
    this.#child.stdin?.end();
    await this.#ended;
  }

  async #read<T>(): Promise<T> {
    const line = await this.#lines.next();
    if (line.done === true) throw new Error('the holder has ended');
    return JSON.parse(line.value) as T;
  }
}
