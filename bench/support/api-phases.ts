/** The single measurements of `api-latency.ts`, each of one running proxy. All times are in milliseconds. */
import { setTimeout as delay } from 'node:timers/promises';
import { waitFor } from '../../test/support/wait.ts';
import {
  type BenchCluster,
  type BenchService,
  type EndpointsResource,
  SERVICE_PORT,
} from './bench-cluster.ts';
import { type Attempt, monotonicMs } from './hammer-protocol.ts';
import { cpuMs } from './process-cost.ts';

/** A change that is not followed in this time ends the benchmark. */
const FOLLOWED_DEADLINE_MS = 15_000;
/** When a connection counts as lost, of a Service that is served. */
const LOST_AFTER_MS = 1_000;
/** One to a Service that is not served yet has no answer at all: not waited for longer than an answer would take. */
const UNSERVED_AFTER_MS = 100;
/** An endpoint that gets every second connection and then none of so many has been taken away: 1 in 2^40 would err. */
const STREAK = 40;
/** Of the pods, and what the servers in them say. */
const STAYS = { number: 1, name: 'pod1' } as const;
const CHANGES = { number: 2, name: 'pod2' } as const;

export interface PhaseOptions {
  readonly resource: EndpointsResource;
  /** Between two fresh connections. */
  readonly paceMs: number;
  readonly signal: AbortSignal;
}

/** How often, and how long nothing happens before each. */
export interface Repetition {
  readonly count: number;
  readonly restMs: number;
}

export interface EndpointChanges {
  readonly addedMs: readonly number[];
  readonly removedMs: readonly number[];
  /** From one attempt's start to the next one's: as closely as is looked. */
  readonly gapMs: readonly number[];
  readonly connectMs: readonly number[];
  /** How often which errno was the outcome. */
  readonly failures: Readonly<Record<string, number>>;
}

export interface NewServices {
  /** The Service came after its endpoints. */
  readonly serviceLastMs: readonly number[];
  /** Its endpoints came after the Service. */
  readonly endpointsLastMs: readonly number[];
}

export interface Cost {
  readonly count: number;
  readonly cpuMs: number;
  readonly elapsedMs: number;
}

export interface Idle extends Cost {
  readonly connections: number;
  readonly requests: number;
}

/** Makes a Service with the endpoint that stays, and waits until it is served. */
export async function openService(bench: BenchCluster, options: PhaseOptions): Promise<BenchService> {
  const service = bench.nextService();
  await bench.createEndpoints(service, [STAYS.number], options.resource);
  await bench.createService(service);
  // Not by the hammer: a SYN that comes before the rule leaves a flow in conntrack that leads past every rule for two
  // minutes, and a later connection from the same port would be lost to it, whatever the proxy does.
  const other = await bench.lab.pod(CHANGES.number).agent();
  const target = { host: service.clusterIp, port: SERVICE_PORT, count: 1, timeoutMs: UNSERVED_AFTER_MS };
  const isServed = async (): Promise<boolean> => (await other.tcpIdentify(target))[0]?.ok === true;
  await waitFor(isServed, { timeoutMs: FOLLOWED_DEADLINE_MS, what: `${service.name} to be served` });
  return service;
}

/** Adds an endpoint to the Service and removes it again, over and over, under a steady load of fresh connections. */
export async function measureEndpointChanges(
  bench: BenchCluster,
  service: BenchService,
  { count, restMs }: Repetition,
  options: PhaseOptions,
): Promise<EndpointChanges> {
  const addedMs: number[] = [];
  const removedMs: number[] = [];
  hammer(bench, service, { paceMs: options.paceMs, timeoutMs: LOST_AFTER_MS });
  await firstAnswer(bench, 0, ({ name }) => name === STAYS.name, 'the endpoint that stays');
  for (let index = 0; index < count; index += 1) {
    await rest(restMs, options.signal);
    addedMs.push(await measureAddition(bench, service, options.resource));
    await rest(restMs, options.signal);
    removedMs.push(await measureRemoval(bench, service, options.resource));
  }
  bench.hammer.stop();
  const { attempts } = bench.hammer;
  const starts = attempts.map(({ startMs }) => startMs).sort((one, other) => one - other);
  return {
    addedMs,
    removedMs,
    gapMs: starts.slice(1).map((start, index) => start - (starts[index] ?? start)),
    connectMs: attempts.filter(hasAnswer).map(({ startMs, endMs }) => endMs - startMs),
    failures: countErrnos(attempts),
  };
}

/** Services one after the other, which all stay. In turn the Service and its endpoints are written last. */
export async function measureNewServices(
  bench: BenchCluster,
  { count, restMs }: Repetition,
  options: PhaseOptions,
): Promise<NewServices> {
  const serviceLastMs: number[] = [];
  const endpointsLastMs: number[] = [];
  for (let index = 0; index < count; index += 1) {
    await rest(restMs, options.signal);
    const service = bench.nextService();
    hammer(bench, service, { paceMs: options.paceMs, timeoutMs: UNSERVED_AFTER_MS });
    const isServiceLast = index % 2 === 0;
    if (!isServiceLast) await bench.createService(service);
    await bench.createEndpoints(service, [STAYS.number], options.resource);
    if (isServiceLast) await bench.createService(service);
    const writtenAt = monotonicMs();
    const { endMs } = await firstAnswer(bench, 0, hasAnswer, `${service.name} to be served`);
    bench.hammer.stop();
    (isServiceLast ? serviceLastMs : endpointsLastMs).push(Math.max(0, endMs - writtenAt));
  }
  return { serviceLastMs, endpointsLastMs };
}

/** What changes cost a proxy that carries nothing, so far apart that each is followed by itself. */
export async function measureEndpointCost(
  bench: BenchCluster,
  service: BenchService,
  pid: number,
  repetition: Repetition,
  options: PhaseOptions,
): Promise<Cost> {
  let isAdded = false;
  return measureCost(pid, repetition, options.signal, async () => {
    isAdded = !isAdded;
    const pods = isAdded ? [STAYS.number, CHANGES.number] : [STAYS.number];
    await bench.updateEndpoints(service, pods, options.resource);
  });
}

/** What new Services cost it, each of them after its endpoints. */
export async function measureServiceCost(
  bench: BenchCluster,
  pid: number,
  repetition: Repetition,
  options: PhaseOptions,
): Promise<Cost> {
  return measureCost(pid, repetition, options.signal, async () => {
    const service = bench.nextService();
    await bench.createEndpoints(service, [STAYS.number], options.resource);
    await bench.createService(service);
  });
}

/** What it does while nothing happens. */
export async function measureIdle(
  bench: BenchCluster,
  pid: number,
  seconds: number,
  signal: AbortSignal,
): Promise<Idle> {
  const [connections, requests] = [await bench.apiConnections(), await bench.apiRequests()];
  const cost = await measureCost(pid, { count: 1, restMs: seconds * 1_000 }, signal, async () => undefined);
  return {
    ...cost,
    connections: (await bench.apiConnections()) - connections,
    requests: (await bench.apiRequests()) - requests,
  };
}

async function measureCost(
  pid: number,
  { count, restMs }: Repetition,
  signal: AbortSignal,
  act: () => Promise<void>,
): Promise<Cost> {
  const startedAt = monotonicMs();
  const before = await cpuMs(pid);
  for (let index = 0; index < count; index += 1) {
    await act();
    await rest(restMs, signal);
  }
  return { count, cpuMs: (await cpuMs(pid)) - before, elapsedMs: monotonicMs() - startedAt };
}

async function measureAddition(
  bench: BenchCluster,
  service: BenchService,
  resource: EndpointsResource,
): Promise<number> {
  const from = bench.hammer.attempts.length;
  const begunAt = monotonicMs();
  await bench.updateEndpoints(service, [STAYS.number, CHANGES.number], resource);
  const writtenAt = monotonicMs();
  const isHit = ({ name, startMs }: Attempt): boolean => name === CHANGES.name && startMs >= begunAt;
  const { endMs } = await firstAnswer(bench, from, isHit, 'the new endpoint to be used');
  return Math.max(0, endMs - writtenAt);
}

async function measureRemoval(
  bench: BenchCluster,
  service: BenchService,
  resource: EndpointsResource,
): Promise<number> {
  const from = bench.hammer.attempts.length;
  await bench.updateEndpoints(service, [STAYS.number], resource);
  const writtenAt = monotonicMs();
  let streak = 0;
  const isOver = (attempt: Attempt): boolean => {
    if (attempt.startMs < writtenAt || !hasAnswer(attempt)) return false;
    streak = attempt.name === CHANGES.name ? 0 : streak + 1;
    return streak >= STREAK;
  };
  await firstAnswer(bench, from, isOver, 'the removed endpoint to be left alone');
  const last = bench.hammer.attempts.slice(from).findLast(({ name }) => name === CHANGES.name);
  return Math.max(0, (last?.endMs ?? writtenAt) - writtenAt);
}

function hammer(
  { hammer: client }: BenchCluster,
  { clusterIp }: BenchService,
  pace: { readonly paceMs: number; readonly timeoutMs: number },
): void {
  client.start({ host: clusterIp, port: SERVICE_PORT, ...pace });
}

async function firstAnswer(
  { hammer: client }: BenchCluster,
  from: number,
  matches: (attempt: Attempt) => boolean,
  what: string,
): Promise<Attempt> {
  const attempt = await client.first(from, matches, FOLLOWED_DEADLINE_MS);
  if (attempt === undefined) throw new Error(`waited ${FOLLOWED_DEADLINE_MS} ms for ${what}`);
  return attempt;
}

function countErrnos(attempts: readonly Attempt[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { errno } of attempts) if (errno !== undefined) counts[errno] = (counts[errno] ?? 0) + 1;
  return counts;
}

function hasAnswer({ name }: Attempt): boolean {
  return name !== undefined;
}

async function rest(ms: number, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  if (ms > 0) await delay(ms, undefined, { signal });
}
