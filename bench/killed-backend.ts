/**
 * One of three backends after the other is killed and brought back under load: which requests fail, and whose they are.
 * Twice: with its endpoint staying in the EndpointSlice, and with the endpoint leaving and coming back with it. Needs
 * root; see README.md. Exits with 1 where a request fails that no killed backend had.
 */
import { accountFor, type AccountedFailure, type Accounting } from '../test/support/load-accounting.ts';
import { type KilledBackendFigures, runKilledBackend } from '../test/support/load-killed-backend.ts';
import { type BenchOutcome, runBenchCommand } from './support/bench-command.ts';
import { renderCounts, renderRequests, round, seconds, withoutLists } from './support/load-report.ts';

const VARIANTS = [
  { option: 'endpoint-stays', name: 'endpoint stays', removesEndpoint: false },
  { option: 'endpoint-leaves', name: 'endpoint leaves', removesEndpoint: true },
] as const;

interface Run {
  readonly name: string;
  readonly figures: KilledBackendFigures;
  readonly accounting: Accounting;
}

function renderRun({ name, figures, accounting }: Run): readonly string[] {
  const { startMs, kept, fresh, kills, dials, refused, ejections } = figures;
  const at = (ms: number | undefined): string => (ms === undefined ? '-' : seconds(ms - startMs));
  const byCrash = Map.groupBy(accounting.accounted, ({ crash }) => crash);
  return [
    name,
    `  kept connections: ${renderRequests(kept)}; ${kept.connectionsOpened} opened, ${kept.endedIdle} ended idle`,
    `  fresh connections: ${renderRequests(fresh)}`,
    `  dials: ${renderCounts(dials)}; connections that reached no backend: ${renderCounts(refused)}; ` +
      `ejections: ${ejections}`,
    `  failed requests: ${renderCounts(countPlights(accounting.accounted))}; ` +
      `heard of at most ${round(lastHeardMs(accounting.accounted))} ms after the kill; ` +
      `without an account: ${accounting.unaccounted.length}`,
    '  kills, with what each backend had open, and the failed requests that were on it',
    ...kills.flatMap((kill, index) => [
      `  ${String(index + 1).padStart(3)}  ${kill.backend} at ${at(kill.atMs)}, back at ${at(kill.backMs)}: ` +
        `${kill.connections.length} connections, ${kill.nameless} without a request`,
      ...(byCrash.get(kill) ?? []).map(
        ({ failure, plight }) =>
          `         ${failure.connection} request ${failure.request}: ${plight}, ${failure.errno} ` +
          `${(failure.endMs - kill.atMs).toFixed(1)} ms after the kill`,
      ),
    ]),
    ...accounting.unaccounted.map(
      ({ connection, request, backend, errno, sentMs, endMs }) =>
        `  NO ACCOUNT OF ${connection} request ${request} at ${backend ?? 'nobody yet'}: sent ${at(sentMs)}, ` +
        `${errno} at ${at(endMs)}`,
    ),
    '',
  ];
}

function lastHeardMs(accounted: readonly AccountedFailure[]): number {
  return accounted.reduce((latest, { failure, crash }) => Math.max(latest, failure.endMs - crash.atMs), 0);
}

function countPlights(accounted: readonly AccountedFailure[]): Readonly<Record<string, number>> {
  const counts: Record<string, number> = {};
  for (const { plight } of accounted) counts[plight] = (counts[plight] ?? 0) + 1;
  return counts;
}

function judge(runs: readonly Run[]): BenchOutcome {
  return {
    figures: {
      runs: runs.map(({ name, figures, accounting }) => {
        const { kept, fresh, ...rest } = figures;
        return { name, kept: withoutLists(kept), fresh: withoutLists(fresh), ...rest, accounting };
      }),
    },
    lines: runs.flatMap(renderRun),
    criteria: runs.flatMap(({ name, figures, accounting }) => [
      { text: `${name}: backends were killed`, isMet: figures.kills.length > 0 },
      {
        text: `${name}: no failure but of requests under way on a killed backend's own connections`,
        isMet: accounting.unaccounted.length === 0,
      },
    ]),
  };
}

await runBenchCommand({
  name: 'killed-backend',
  numbers: {
    seconds: 180,
    'kept-per-second': 2_000,
    'kept-connections': 64,
    'fresh-per-second': 300,
    'kill-every-ms': 5_000,
    'down-ms': 2_500,
    'endpoint-stays': 1,
    'endpoint-leaves': 1,
  },
  run: async ({ options, proxyArgs, signal, say }) => {
    const runs: Run[] = [];
    for (const { option, name, removesEndpoint } of VARIANTS) {
      if (options[option] === 0) continue;
      say(`${options.seconds} s, ${name}`);
      const figures = await runKilledBackend({
        seconds: options.seconds,
        keptPerSecond: options['kept-per-second'],
        keptConnections: options['kept-connections'],
        freshPerSecond: options['fresh-per-second'],
        killEveryMs: options['kill-every-ms'],
        downMs: options['down-ms'],
        removesEndpoint,
        proxyArgs,
        signal,
      });
      const failures = [...figures.kept.failures, ...figures.fresh.failures];
      runs.push({ name, figures, accounting: accountFor(failures, figures.kills) });
    }
    return judge(runs);
  },
});
