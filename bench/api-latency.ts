/**
 * How soon a proxy follows what is written to the API server, and what that costs it: ours and, where it is there,
 * kube-proxy 1.20, in turn, on a node of network namespaces with a real control plane. Needs root; see README.md.
 */
import { inspect, parseArgs } from 'node:util';
import { setTimeout as delay } from 'node:timers/promises';
import { clusterAssets, whyNoCluster } from '../test/support/cluster-assets.ts';
import {
  measureEndpointChanges,
  measureEndpointCost,
  measureIdle,
  measureNewServices,
  measureServiceCost,
  openService,
  type PhaseOptions,
} from './support/api-phases.ts';
import { buildFigures, renderReport, type Report, type Round } from './support/api-report.ts';
import { BenchCluster } from './support/bench-cluster.ts';
import { cleanNode, type Contender, listContenders } from './support/contenders.ts';
import { describeMachine } from './support/machine.ts';
import { memoryOf } from './support/process-cost.ts';

const DEFAULTS = {
  /** Each contender is measured once in each. */
  rounds: 2,
  /** Additions, removals and new Services one after the other, over all rounds. */
  count: 200,
  /** The same after a rest. */
  rested: 20,
  /** Endpoint changes and new Services whose cost is measured. */
  costed: 40,
  'idle-seconds': 60,
  /** Between two fresh connections. */
  'pace-ms': 2,
  'max-minutes': 90,
} as const;
type Options = Readonly<Record<keyof typeof DEFAULTS, number>>;

const USAGE = `node bench/api-latency.ts [--json] [--only NAME]${Object.entries(DEFAULTS)
  .map(([name, value]) => ` [--${name} ${value}]`)
  .join('')}\n`;

/** After it nobody holds back. By default syncs are 1 s apart; kube-proxy 1.20 may have two at once after 2 s. */
const REST_MS = 2_500;
/** Enough for each change to be followed by itself. */
const COSTED_REST_MS = 1_200;
/** For a proxy that has just started, or lost all its Services, to have done what there is to do. */
const SETTLE_MS = 3_000;

async function main(): Promise<number> {
  const read = readOptions();
  if (typeof read === 'string') {
    process.stderr.write(`api-latency: ${read}\n${USAGE}`);
    return 2;
  }
  const { options, isJson, only } = read;
  if (clusterAssets() === undefined) {
    process.stderr.write(`api-latency: cannot run here: ${whyNoCluster()}\n`);
    return 1;
  }
  const stop = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.once(signal, () => stop.abort(new Error(`stopped by ${signal}`)));
  }
  const deadline = setTimeout(
    () => stop.abort(new Error('--max-minutes have passed')),
    options['max-minutes'] * 60_000,
  );
  try {
    const report = await run(options, only, stop.signal);
    process.stdout.write(isJson ? `${JSON.stringify(report, undefined, 2)}\n` : renderReport(report));
    return 0;
  } catch (error: unknown) {
    // What else went wrong then is only what came of it.
    throw stop.signal.aborted ? stop.signal.reason : error;
  } finally {
    clearTimeout(deadline);
  }
}

/** Whatever happens, nothing is left when it ends. */
async function run(options: Options, only: string, signal: AbortSignal): Promise<Report> {
  const machine = describeMachine();
  await using bench = await BenchCluster.start();
  const leftOut: { name: string; reason: string }[] = [];
  const roundsOf = new Map<Contender, Round[]>();
  for (const contender of listContenders().filter(({ name }) => name.includes(only))) {
    const reason = await contender.whyNot();
    if (reason === undefined) roundsOf.set(contender, []);
    else leftOut.push({ name: contender.name, reason });
  }
  for (let round = 1; round <= options.rounds; round += 1) {
    for (const [contender, rounds] of roundsOf) {
      const say = (what: string): void =>
        void process.stderr.write(`round ${round}, ${contender.name}: ${what}\n`);
      rounds.push(await measure(bench, contender, { options, signal, say }));
    }
  }
  const contenders = [...roundsOf].map(([{ name }, rounds]) => buildFigures(name, rounds));
  return { machine, options, contenders, leftOut };
}

interface RoundContext {
  readonly options: Options;
  readonly signal: AbortSignal;
  readonly say: (what: string) => void;
}

async function measure(
  bench: BenchCluster,
  contender: Contender,
  { options, signal, say }: RoundContext,
): Promise<Round> {
  const share = (count: number): number => Math.ceil(count / options.rounds);
  const inARow = { count: share(options.count), restMs: 0 };
  const rested = { count: share(options.rested), restMs: REST_MS };
  const costed = { count: share(options.costed), restMs: COSTED_REST_MS };
  const phase: PhaseOptions = { resource: contender.endpointsResource, paceMs: options['pace-ms'], signal };
  say('starting');
  const { pid, stop } = await contender.start(bench);
  try {
    const service = await openService(bench, phase);
    const forget = async (): Promise<void> => {
      await bench.deleteServices([service]);
      await delay(SETTLE_MS, undefined, { signal });
    };
    await forget();
    say(`idle for ${options['idle-seconds']} s`);
    const idle = await measureIdle(bench, pid, options['idle-seconds'], signal);
    const idleMemory = await memoryOf(pid);
    say('what changes cost');
    const endpointCost = await measureEndpointCost(bench, service, pid, costed, phase);
    const serviceCost = await measureServiceCost(bench, pid, costed, phase);
    await forget();
    say('endpoint changes');
    const endpointsInARow = await measureEndpointChanges(bench, service, inARow, phase);
    const endpointsRested = await measureEndpointChanges(bench, service, rested, phase);
    say('new Services');
    const servicesInARow = await measureNewServices(bench, inARow, phase);
    const servicesRested = await measureNewServices(bench, rested, phase);
    return {
      idle,
      endpointCost,
      serviceCost,
      endpointsInARow,
      endpointsRested,
      servicesInARow,
      servicesRested,
      idleMemory,
      memory: await memoryOf(pid),
    };
  } finally {
    bench.hammer.stop();
    await stop();
    await bench.deleteServices();
    await cleanNode(bench.lab.node, contender);
  }
}

/** What is wrong with the command line, when it is text. */
function readOptions():
  | { readonly options: Options; readonly isJson: boolean; readonly only: string }
  | string {
  const numbers = Object.keys(DEFAULTS) as (keyof Options)[];
  try {
    const { values } = parseArgs({
      options: {
        json: { type: 'boolean', default: false },
        only: { type: 'string', default: '' },
        ...Object.fromEntries(numbers.map((name) => [name, { type: 'string' } as const])),
      },
    });
    const given = values as Readonly<Record<string, unknown>>;
    const options = numbers.map((name): [string, number] => [name, Number(given[name] ?? DEFAULTS[name])]);
    const wrong = options.find(([, value]) => !(value > 0 && Number.isFinite(value)));
    if (wrong !== undefined) return `--${wrong[0]} is to be a number above 0`;
    return { options: Object.fromEntries(options) as Options, isJson: values.json, only: values.only };
  } catch (error: unknown) {
    return error instanceof Error ? error.message : String(error);
  }
}

process.exitCode = await main().catch((error: unknown) => {
  process.stderr.write(`api-latency: ${inspect(error)}\n`);
  return 1;
});
