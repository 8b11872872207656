/**
 * The single measurements of bench/peers.ts, each of one running contender. CPU is user and system time of all its
 * threads and processes over a run, divided by the work that was done in it.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { waitFor } from '../../test/support/wait.ts';
import type { PeerContender } from './peer-contenders.ts';
import type { Measure, Turn } from './peer-figures.ts';
import { Holder, runIperf, runUdp, runWrk, type Subject, targetOf, type UdpReport } from './peer-loads.ts';
import { type CpuTime, treeCpu, treeMemory } from './process-cost.ts';
import type { TrafficLab } from './traffic-lab.ts';

const UDP_SOCKETS = 32;
/** Until what was compiled, allocated or cached at first is so: of every contender, before each measurement. */
const WARM_UP_SECONDS = 3;
const SETTLE_MS = 2_000;
const SERVED_DEADLINE_MS = 15_000;
const PROBE_SECONDS = 0.01;
/** The part of the limit of open files that idle connections may take. */
const DESCRIPTOR_PART = 0.92;

/** Those that share a contender's process, in this order. */
export const TRAFFIC_MEASURES: readonly (readonly [Measure, (subject: Subject) => Promise<Turn>])[] = [
  ['requests', measureRequests],
  ['connections', measureConnections],
  ['bulk', measureBulk],
  ['datagrams', measureDatagrams],
  ['flows', measureFlows],
];

/** Waits until every Service answers through the contender. */
export async function awaitServed(subject: Subject): Promise<void> {
  const { bench, contender } = subject;
  const agent = await bench.client.agent();
  const isServed = async (): Promise<boolean> => {
    subject.signal.throwIfAborted();
    if ((await agent.httpGet({ ...targetOf(subject, 'http'), path: '/' })).status !== 200) return false;
    if (!contender.measures.includes('flows')) return true;
    for (const name of ['echo', 'flows'] as const) {
      const probe = { mode: 'steady', service: name, seconds: PROBE_SECONDS, count: 1 } as const;
      if ((await runUdp(subject, probe)).answered === 0) return false;
    }
    return true;
  };
  await waitFor(isServed, { timeoutMs: SERVED_DEADLINE_MS, what: `${contender.key} to serve` });
}

async function measureRequests(subject: Subject): Promise<Turn> {
  await runWrk(subject, WARM_UP_SECONDS, []);
  const { result, cost, kernel } = await costing(subject, async () => runWrk(subject, subject.seconds, []));
  return {
    ...(cost === undefined ? {} : { requestCpu: (cost * 1_000) / result.requests, requestKernel: kernel }),
    requestRate: result.requests / result.seconds,
    requestP50: result.p50Ms,
    requestP99: result.p99Ms,
    requestP999: result.p999Ms,
    requestErrors: result.errors,
  };
}

async function measureConnections(subject: Subject): Promise<Turn> {
  const header = ['-H', 'Connection: close'];
  await runWrk(subject, WARM_UP_SECONDS, header);
  const { result, cost, kernel } = await costing(subject, async () =>
    runWrk(subject, subject.seconds, header),
  );
  return {
    ...(cost === undefined
      ? {}
      : { connectionCpu: (cost * 1_000) / result.requests, connectionKernel: kernel }),
    connectionRate: result.requests / result.seconds,
    connectionP99: result.p99Ms,
    connectionErrors: result.errors,
  };
}

async function measureBulk(subject: Subject): Promise<Turn> {
  const one = await measureStreams(subject, 1);
  const eight = await measureStreams(subject, 8);
  return {
    ...(one.cpu === undefined ? {} : { bulk1Cpu: one.cpu, bulk1Kernel: one.kernel }),
    bulk1Rate: one.rate,
    ...(eight.cpu === undefined ? {} : { bulk8Cpu: eight.cpu, bulk8Kernel: eight.kernel }),
    bulk8Rate: eight.rate,
  };
}

async function measureDatagrams(subject: Subject): Promise<Turn> {
  const run = async (seconds: number): Promise<UdpReport> =>
    runUdp(subject, { mode: 'steady', service: 'echo', seconds, count: UDP_SOCKETS });
  await run(WARM_UP_SECONDS);
  const { result, cost, kernel } = await costing(subject, async () => run(subject.seconds));
  return {
    ...(cost === undefined ? {} : { datagramCpu: (cost * 1_000) / result.sent, datagramKernel: kernel }),
    datagramRate: result.answered / result.seconds,
    datagramP99: result.p99Us / 1_000,
    datagramLost: result.lost,
  };
}

async function measureFlows(subject: Subject): Promise<Turn> {
  const { bench } = subject;
  const run = async (seconds: number, isWarmUp: boolean): Promise<UdpReport> =>
    runUdp(subject, {
      mode: 'flows',
      service: 'flows',
      seconds,
      count: UDP_SOCKETS,
      sources: bench.flowSources(isWarmUp),
    });
  await run(WARM_UP_SECONDS, true);
  const { result, cost, kernel } = await costing(subject, async () => run(subject.seconds, false));
  return {
    ...(cost === undefined ? {} : { flowCpu: (cost * 1_000) / result.sent, flowKernel: kernel }),
    flowRate: result.answered / result.seconds,
    flowP99: result.p99Us / 1_000,
    flowLost: result.lost,
  };
}

/** New flows at that pace, whatever becomes of them. */
export async function measureOffered(subject: Subject, perSecond: number): Promise<Turn> {
  const { bench, seconds } = subject;
  const load = { mode: 'offered', service: 'flows', count: perSecond } as const;
  await runUdp(subject, { ...load, seconds: WARM_UP_SECONDS, sources: bench.flowSources(true) });
  const result = await runUdp(subject, { ...load, seconds, sources: bench.flowSources(false) });
  return {
    offeredRate: result.sent / result.seconds,
    offeredAnswered: result.answered / result.seconds,
    offeredLost: (100 * (result.lost + result.unsent)) / (result.sent + result.unsent),
  };
}

export async function measureLoadedMemory({ running: { pid } }: Subject): Promise<Turn> {
  return pid === undefined ? {} : { loadedMemory: (await treeMemory(pid)).rssMiB };
}

/** Of a contender that has carried nothing yet: its memory, and with as many idle connections as it may hold. */
export async function measureMemory(subject: Subject, connections: number): Promise<Turn> {
  const { bench, contender, running, signal } = subject;
  const { pid } = running;
  if (pid === undefined) return {};
  const wanted = await connectionsOf(bench, contender, connections);
  await delay(SETTLE_MS, undefined, { signal });
  const before = await treeMemory(pid);
  const holder = await Holder.open(subject, wanted);
  try {
    await delay(SETTLE_MS, undefined, { signal });
    const holding = await treeMemory(pid);
    const open = await holder.countOpen();
    return {
      idleMemory: before.rssMiB,
      idleAnonymous: before.anonymousMiB,
      held: open,
      heldMemory: holding.rssMiB,
      heldPerConnection: ((holding.rssMiB - before.rssMiB) * 1_024) / open,
    };
  } finally {
    await holder.close();
  }
}

/** As many as it has descriptors for, in hundreds. */
async function connectionsOf(
  { node }: TrafficLab,
  { descriptorsPerConnection }: PeerContender,
  connections: number,
): Promise<number> {
  const limit = Number((await node.run(['sh', '-c', 'ulimit -H -n'])).trim());
  if (Number.isNaN(limit)) return connections;
  const most = Math.floor((limit * DESCRIPTOR_PART) / descriptorsPerConnection / 100) * 100;
  return Math.min(connections, most);
}

interface Costed<T> {
  readonly result: T;
  /** Milliseconds; undefined where there is no process. */
  readonly cost: number | undefined;
  /** The system time's part, in percent. */
  readonly kernel: number;
}

async function costing<T>({ bench, running: { pid } }: Subject, work: () => Promise<T>): Promise<Costed<T>> {
  await bench.forgetFlows();
  if (pid === undefined) return { result: await work(), cost: undefined, kernel: 0 };
  const before = await treeCpu(pid);
  const result = await work();
  const used = differenceOf(await treeCpu(pid), before);
  const cost = used.userMs + used.systemMs;
  return { result, cost, kernel: (100 * used.systemMs) / cost };
}

function differenceOf(one: CpuTime, other: CpuTime): CpuTime {
  return { userMs: one.userMs - other.userMs, systemMs: one.systemMs - other.systemMs };
}

interface Streams {
  /** Milliseconds per GB. */
  readonly cpu: number | undefined;
  readonly kernel: number;
  /** Gbit/s. */
  readonly rate: number;
}

async function measureStreams(subject: Subject, streams: number): Promise<Streams> {
  const { result, cost, kernel } = await costing(subject, async () => runIperf(subject, streams));
  return {
    cpu: cost === undefined ? undefined : cost / (result.bytes / 1e9),
    kernel,
    rate: result.bits_per_second / 1e9,
  };
}
