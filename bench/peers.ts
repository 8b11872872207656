/**
 * What our proxy costs and carries beside its peers: both of our engines, kube-proxy 1.20 in userspace mode, HAProxy
 * and nginx, in turn, on a node of network namespaces and through real rules. Needs root; see README.md. Exits with 1
 * where a figure misses what it is to be.
 */
import { writeFile } from 'node:fs/promises';
import { inspect, parseArgs } from 'node:util';
import { canMakeNamespaces } from '../test/support/netns-lab.ts';
import { buildProxy, describeStaleAddon } from './support/build-proxy.ts';
import { describeMachine } from './support/machine.ts';
import { CONTENDER_KEYS, listPeerContenders, runs } from './support/peer-contenders.ts';
import { MEASURES, type Measure } from './support/peer-figures.ts';
import { renderPeerPlot } from './support/peer-plot.ts';
import { buildPeerReport, isReached, type PeerReport, renderPeerReport } from './support/peer-report.ts';
import { missingLoadPrograms, type PeerOptions, runPeers } from './support/peer-run.ts';
import { describeSysctls, TrafficLab } from './support/traffic-lab.ts';

/** The plot that the documentation shows. */
const DOCS_PLOT = new URL('../docs/bench.svg', import.meta.url).pathname;

const USAGE = `node bench/peers.ts [--rounds 5] [--seconds 4] [--connections 9000] [--max-minutes 60]
    [--only ${CONTENDER_KEYS.join('|')}]… [--measure ${MEASURES.join('|')}]…
    [--main FILE] [--json] [--plot FILE.svg] [--docs]
`;

interface Options extends PeerOptions {
  readonly only: readonly string[];
  /** A build of our proxy to measure; empty: the working tree is built. */
  readonly main: string;
  readonly maxMinutes: number;
  readonly isJson: boolean;
  /** Where the plot goes; empty: nowhere. */
  readonly plot: string;
}

async function main(): Promise<number> {
  const options = readOptions();
  if (typeof options === 'string') {
    process.stderr.write(`peers: ${options}\n${USAGE}`);
    return 2;
  }
  const obstacle = canMakeNamespaces();
  if (obstacle !== undefined) throw new Error(`cannot run here: ${obstacle}`);
  const stop = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.once(signal, () => stop.abort(new Error(`stopped by ${signal}`)));
  }
  const deadline = setTimeout(
    () => stop.abort(new Error('--max-minutes have passed')),
    options.maxMinutes * 60_000,
  );
  try {
    const report = await run(options, stop.signal);
    process.stdout.write(
      options.isJson ? `${JSON.stringify(report, undefined, 2)}\n` : renderPeerReport(report),
    );
    if (options.plot !== '') await writeFile(options.plot, renderPeerPlot(report));
    return isReached(report) ? 0 : 1;
  } catch (error: unknown) {
    // What else went wrong then is only what came of it.
    throw stop.signal.aborted ? stop.signal.reason : error;
  } finally {
    clearTimeout(deadline);
  }
}

/** Whatever happens, nothing is left when it ends. */
async function run(options: Options, signal: AbortSignal): Promise<PeerReport> {
  const machine = describeMachine();
  const say = (what: string): void => void process.stderr.write(`peers: ${what}\n`);
  const startedAt = performance.now();
  // The backends of HTTP are nginx, whoever is measured.
  if (!runs('nginx', ['-v'])) throw new Error('nginx is missing (Debian: apt-get install nginx-light)');
  const missing = missingLoadPrograms();
  const asked = options.measures;
  const measures = asked.filter((measure) => !missing.has(measure));
  const reasons = new Set(asked.flatMap((measure) => missing.get(measure) ?? []));
  say('building the proxy and the lab');
  await using build =
    options.main === '' ? await buildProxy() : { main: options.main, [Symbol.asyncDispose]: async () => {} };
  const notes = options.main === '' ? [await describeStaleAddon()].flatMap((note) => note ?? []) : [];
  for (const note of notes) say(note);
  const contenders = listPeerContenders({ main: build.main, connections: options.connections }).filter(
    ({ key }) => options.only.length === 0 || options.only.includes(key),
  );
  await using bench = await TrafficLab.start({ hasIperf: measures.includes('bulk') });
  const done = await runPeers(contenders, { bench, options: { ...options, measures }, signal, say });
  const { rounds, seconds, connections } = options;
  return buildPeerReport(
    { ...done, leftOut: [...reasons, ...done.leftOut] },
    {
      machine,
      options: { rounds, seconds, connections, measures },
      took: (performance.now() - startedAt) / 1_000,
      settings: describeSysctls(),
      notes,
    },
  );
}

/** What is wrong with the command line, when it is text. */
function readOptions(): Options | string {
  try {
    const { values } = parseArgs({
      options: {
        rounds: { type: 'string', default: '5' },
        seconds: { type: 'string', default: '4' },
        connections: { type: 'string', default: '9000' },
        'max-minutes': { type: 'string', default: '60' },
        only: { type: 'string', multiple: true, default: [] },
        measure: { type: 'string', multiple: true, default: [] },
        main: { type: 'string', default: '' },
        json: { type: 'boolean', default: false },
        plot: { type: 'string', default: '' },
        docs: { type: 'boolean', default: false },
      },
    });
    for (const name of ['rounds', 'seconds', 'connections', 'max-minutes'] as const) {
      if (!/^[1-9]\d*$/.test(values[name])) return `--${name} is to be a whole number above 0`;
    }
    const stranger = values.only.find((key) => !CONTENDER_KEYS.some((known) => known === key));
    if (stranger !== undefined) return `--only ${stranger}: there is none of that name`;
    const unknown = values.measure.find((name) => !MEASURES.some((known) => known === name));
    if (unknown !== undefined) return `--measure ${unknown}: there is none of that name`;
    return {
      rounds: Number(values.rounds),
      seconds: Number(values.seconds),
      connections: Number(values.connections),
      maxMinutes: Number(values['max-minutes']),
      only: values.only,
      measures: values.measure.length === 0 ? MEASURES : (values.measure as Measure[]),
      main: values.main,
      isJson: values.json,
      plot: values.docs ? DOCS_PLOT : values.plot,
    };
  } catch (error: unknown) {
    return error instanceof Error ? error.message : String(error);
  }
}

process.exitCode = await main().catch((error: unknown) => {
  process.stderr.write(`peers: ${inspect(error)}\n`);
  return 1;
});
