/**
 * The run of bench/peers.ts: rounds in which every contender has its turn, each round beginning with another one, so
 * that what else the machine does falls on all of them.
 */
import { LABELS, type PeerContender, runs } from './peer-contenders.ts';
import type { ContenderKey } from './peer-contenders.ts';
import type { Measure, Turn } from './peer-figures.ts';
import {
  awaitServed,
  measureLoadedMemory,
  measureMemory,
  measureOffered,
  TRAFFIC_MEASURES,
} from './peer-measures.ts';
import type { Subject } from './peer-loads.ts';
import { median } from './statistics.ts';
import type { TrafficLab } from './traffic-lab.ts';

export interface PeerOptions {
  readonly rounds: number;
  readonly seconds: number;
  readonly connections: number;
  readonly measures: readonly Measure[];
}

export interface PeerRun {
  readonly turns: ReadonlyMap<ContenderKey, readonly Turn[]>;
  readonly configurations: ReadonlyMap<ContenderKey, string>;
  /** What was not measured, and why. */
  readonly leftOut: readonly string[];
}

export interface RunContext {
  readonly bench: TrafficLab;
  readonly options: PeerOptions;
  readonly signal: AbortSignal;
  readonly say: (what: string) => void;
}

/** How often flows are offered at a fixed pace, at most: each time with a contender that was started for it. */
const OFFERED_ROUNDS = 3;
/** Twice what the Go proxy holds. */
const OFFERED_PART = 2;

/** The programs that make the load, with what needs them; those that are missing are told, with their package. */
export function missingLoadPrograms(): ReadonlyMap<Measure, string> {
  const missing = new Map<Measure, string>();
  if (!runs('wrk', ['-v'])) {
    const reason = 'wrk is missing (Debian: apt-get install wrk)';
    missing.set('requests', reason).set('connections', reason);
  }
  if (!runs('iperf3', ['-v'])) missing.set('bulk', 'iperf3 is missing (Debian: apt-get install iperf3)');
  return missing;
}

export async function runPeers(contenders: readonly PeerContender[], context: RunContext): Promise<PeerRun> {
  const { options, say } = context;
  const leftOut: string[] = [];
  const present = await tryOutAll(contenders, context, leftOut);
  const turns = new Map<ContenderKey, Turn[]>([...present.keys()].map(({ key }) => [key, []]));
  for (let round = 0; round < options.rounds; round += 1) {
    for (const contender of rotate([...present.keys()], round)) {
      say(`round ${round + 1}, ${LABELS[contender.key]}`);
      const turn = await survive(async () => measureTurn(contender, context), context, leftOut);
      turns.get(contender.key)?.push(turn);
    }
  }
  if (options.measures.includes('offered'))
    await offerFlows([...present.keys()], turns, { context, leftOut });
  const configurations = new Map([...present].map(([{ key }, configuration]) => [key, configuration]));
  return { turns, configurations, leftOut };
}

/** Those that can be measured, each with its configuration; the others are added to what is left out. */
async function tryOutAll(
  contenders: readonly PeerContender[],
  context: RunContext,
  leftOut: string[],
): Promise<ReadonlyMap<PeerContender, string>> {
  const present = new Map<PeerContender, string>();
  for (const contender of contenders) {
    const label = LABELS[contender.key];
    if (!contender.measures.some((measure) => context.options.measures.includes(measure))) continue;
    context.say(`${label}: a trial`);
    const reason = await tryOut(contender, context);
    context.signal.throwIfAborted();
    if (reason === undefined) present.set(contender, await contender.configuration(context.bench));
    else leftOut.push(`${label}: ${reason}`);
  }
  return present;
}

/** A turn that fails is told, and has no figures: the others are of as much use without it. */
async function survive(
  measure: () => Promise<Turn>,
  { signal, say }: RunContext,
  leftOut: string[],
): Promise<Turn> {
  try {
    return await measure();
  } catch (error: unknown) {
    signal.throwIfAborted();
    say(String(error));
    leftOut.push(`a turn: ${String(error)}`);
    return {};
  }
}

/** Why it cannot be measured; undefined: it was started, and served. */
async function tryOut(contender: PeerContender, context: RunContext): Promise<string | undefined> {
  const reason = await contender.whyNot();
  if (reason !== undefined) return reason;
  try {
    return await withContender(contender, context, async () => undefined);
  } catch (error: unknown) {
    return error instanceof Error ? error.message : String(error);
  }
}

/** Memory of a process of its own, so that what traffic leaves behind is not in it. */
async function measureTurn(contender: PeerContender, context: RunContext): Promise<Turn> {
  const { connections } = context.options;
  const measures = context.options.measures.filter((measure) => contender.measures.includes(measure));
  const memory: Turn = measures.includes('memory')
    ? await withContender(contender, context, async (subject) => measureMemory(subject, connections))
    : {};
  const traffic = TRAFFIC_MEASURES.filter(([measure]) => measures.includes(measure));
  if (traffic.length === 0) return memory;
  return withContender(contender, context, async (subject) => {
    let turn: Turn = memory;
    for (const [, measure] of traffic) turn = { ...turn, ...(await measure(subject)) };
    return { ...turn, ...(measures.includes('memory') ? await measureLoadedMemory(subject) : {}) };
  });
}

/** After the rounds, because the pace is known then. Adds to the turns. */
async function offerFlows(
  present: readonly PeerContender[],
  turns: Map<ContenderKey, Turn[]>,
  { context, leftOut }: { readonly context: RunContext; readonly leftOut: string[] },
): Promise<void> {
  const held = (turns.get('kube-proxy') ?? []).flatMap(({ flowRate }) => flowRate ?? []);
  if (held.length === 0) {
    leftOut.push('flows at twice the rate that Go holds: that rate was not measured');
    return;
  }
  const perSecond = Math.round(OFFERED_PART * median(held));
  const contenders = present.filter(({ measures }) => measures.includes('offered'));
  for (let round = 0; round < Math.min(OFFERED_ROUNDS, context.options.rounds); round += 1) {
    for (const contender of rotate(contenders, round)) {
      context.say(`${perSecond} new flows/s, ${LABELS[contender.key]}`);
      const measure = async (subject: Subject): Promise<Turn> => measureOffered(subject, perSecond);
      const offered = await survive(async () => withContender(contender, context, measure), context, leftOut);
      const own = turns.get(contender.key) ?? [];
      own[round] = { ...own[round], ...offered };
    }
  }
}

async function withContender<T>(
  contender: PeerContender,
  { bench, options, signal }: RunContext,
  work: (subject: Subject) => Promise<T>,
): Promise<T> {
  signal.throwIfAborted();
  const running = await contender.start(bench);
  try {
    const subject = { bench, contender, running, seconds: options.seconds, signal };
    await awaitServed(subject);
    return await work(subject);
  } catch (error: unknown) {
    if (signal.aborted) throw error;
    throw new Error(`${contender.key}: ${String(error)}\n${await running.logTail()}`, { cause: error });
  } finally {
    await running.stop();
  }
}

function rotate<T>(list: readonly T[], by: number): readonly T[] {
  const start = list.length === 0 ? 0 : by % list.length;
  return [...list.slice(start), ...list.slice(0, start)];
}
