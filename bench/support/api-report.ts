/** What `api-latency.ts` found, as figures and as text. */
import type { Cost, EndpointChanges, Idle, NewServices } from './api-phases.ts';
import { type Machine, renderMachine } from './machine.ts';
import type { Memory } from './process-cost.ts';
import { mean, type Summary, summarize } from './statistics.ts';

/** One contender in one round. */
export interface Round {
  readonly idle: Idle;
  readonly endpointCost: Cost;
  readonly serviceCost: Cost;
  readonly endpointsInARow: EndpointChanges;
  readonly endpointsRested: EndpointChanges;
  readonly servicesInARow: NewServices;
  readonly servicesRested: NewServices;
  readonly idleMemory: Memory;
  readonly memory: Memory;
}

/** Names of latencies, in the order in which they are printed. */
const LATENCIES = [
  'endpoint added, in a row',
  'endpoint added, after a rest',
  'endpoint removed, in a row',
  'endpoint removed, after a rest',
  'new Service, in a row',
  'new Service, after a rest',
  'Service after its endpoints, after a rest',
  'endpoints after their Service, after a rest',
] as const;
type Latency = (typeof LATENCIES)[number];

const COSTS = {
  'CPU per endpoint change': 'ms',
  'CPU per new Service': 'ms',
  'idle CPU': '% of a core',
  'new connections to the API server, idle': 'per minute',
  'requests to the API server, idle': 'per minute',
  'RSS after the idle time': 'MiB',
  'RSS at the end': 'MiB',
  'peak RSS': 'MiB',
} as const;
type CostName = keyof typeof COSTS;

export interface ContenderFigures {
  readonly name: string;
  readonly latencyMs: Readonly<Record<Latency, Summary>>;
  /** The median of each round, to see how far apart they are. */
  readonly medianByRoundMs: Readonly<Record<Latency, readonly number[]>>;
  readonly costs: Readonly<Record<CostName, number>>;
  /** How closely was looked: from one fresh connection to the next, and how long one takes. */
  readonly resolutionMs: Summary;
  readonly connectionMs: Summary;
  readonly answered: number;
  /** By errno. */
  readonly failures: Readonly<Record<string, number>>;
}

export interface Report {
  readonly machine: Machine;
  readonly options: Readonly<Record<string, number>>;
  readonly contenders: readonly ContenderFigures[];
  readonly leftOut: readonly { readonly name: string; readonly reason: string }[];
}

interface Target {
  readonly text: string;
  readonly isMet: (figures: ContenderFigures) => boolean;
}

/** What ours is measured by. */
const TARGETS: readonly Target[] = [
  {
    text: 'endpoint changes <= 100 ms p99',
    isMet: ({ latencyMs }) => LATENCIES.slice(0, 4).every((latency) => latencyMs[latency].p99 <= 100),
  },
  {
    text: 'new Service <= 1.5 s p99',
    isMet: ({ latencyMs }) => LATENCIES.slice(4).every((latency) => latencyMs[latency].p99 <= 1_500),
  },
  { text: 'idle < 0.5 % of a core', isMet: ({ costs }) => costs['idle CPU'] < 0.5 },
];

export function buildFigures(name: string, rounds: readonly Round[]): ContenderFigures {
  const changes = rounds.flatMap((round) => [round.endpointsInARow, round.endpointsRested]);
  const byRound = rounds.map(latenciesOf);
  const latencies = <T>(figure: (latency: Latency) => T): Record<Latency, T> =>
    Object.fromEntries(LATENCIES.map((latency) => [latency, figure(latency)])) as Record<Latency, T>;
  return {
    name,
    latencyMs: latencies((latency) => summarize(byRound.flatMap((one) => one[latency]))),
    medianByRoundMs: latencies((latency) => byRound.map((one) => summarize(one[latency]).p50)),
    costs: costsOf(rounds),
    resolutionMs: summarize(changes.flatMap(({ gapMs }) => gapMs)),
    connectionMs: summarize(changes.flatMap(({ connectMs }) => connectMs)),
    answered: changes.reduce((sum, { connectMs }) => sum + connectMs.length, 0),
    failures: sumByErrno(changes.map(({ failures }) => failures)),
  };
}

function sumByErrno(counts: readonly Readonly<Record<string, number>>[]): Record<string, number> {
  const sums: Record<string, number> = {};
  for (const [errno, count] of counts.flatMap((one) => Object.entries(one)))
    sums[errno] = (sums[errno] ?? 0) + count;
  return sums;
}

function latenciesOf(round: Round): Record<Latency, readonly number[]> {
  const all = ({ serviceLastMs, endpointsLastMs }: NewServices): readonly number[] => [
    ...serviceLastMs,
    ...endpointsLastMs,
  ];
  return {
    'endpoint added, in a row': round.endpointsInARow.addedMs,
    'endpoint added, after a rest': round.endpointsRested.addedMs,
    'endpoint removed, in a row': round.endpointsInARow.removedMs,
    'endpoint removed, after a rest': round.endpointsRested.removedMs,
    'new Service, in a row': all(round.servicesInARow),
    'new Service, after a rest': all(round.servicesRested),
    'Service after its endpoints, after a rest': round.servicesRested.serviceLastMs,
    'endpoints after their Service, after a rest': round.servicesRested.endpointsLastMs,
  };
}

function costsOf(rounds: readonly Round[]): Record<CostName, number> {
  const perMinute = (count: (idle: Idle) => number): number =>
    mean(rounds.map(({ idle }) => (count(idle) * 60_000) / idle.elapsedMs));
  // Of the time that the changes take, what it costs to be there at all is no part of what they cost.
  const perChange = (cost: (round: Round) => Cost): number =>
    mean(
      rounds.map((round) => {
        const { count, cpuMs, elapsedMs } = cost(round);
        return (cpuMs - (round.idle.cpuMs / round.idle.elapsedMs) * elapsedMs) / count;
      }),
    );
  return {
    'CPU per endpoint change': perChange(({ endpointCost }) => endpointCost),
    'CPU per new Service': perChange(({ serviceCost }) => serviceCost),
    'idle CPU': mean(rounds.map(({ idle }) => (100 * idle.cpuMs) / idle.elapsedMs)),
    'new connections to the API server, idle': perMinute(({ connections }) => connections),
    'requests to the API server, idle': perMinute(({ requests }) => requests),
    'RSS after the idle time': mean(rounds.map(({ idleMemory }) => idleMemory.rssMiB)),
    'RSS at the end': mean(rounds.map(({ memory }) => memory.rssMiB)),
    'peak RSS': mean(rounds.map(({ memory }) => memory.peakRssMiB)),
  };
}

export function renderReport({ machine, options, contenders, leftOut }: Report): string {
  const lines = [
    renderMachine(machine),
    Object.entries(options)
      .map(([name, value]) => `${name} ${value}`)
      .join(', '),
    '',
  ];
  const width = Math.max(...contenders.map(({ name }) => name.length));
  const [first, ...peers] = contenders;
  for (const latency of LATENCIES) {
    lines.push(`${latency} (ms)`);
    for (const { name, latencyMs, medianByRoundMs } of contenders) {
      const { count, p50, p90, p99, max } = latencyMs[latency];
      const medians = medianByRoundMs[latency].map(round).join(' ');
      lines.push(
        `  ${name.padEnd(width)}  p50 ${pad(p50)}  p90 ${pad(p90)}  p99 ${pad(p99)}  max ${pad(max)}` +
          `  (${count}; medians of the rounds: ${medians})`,
      );
    }
    for (const peer of peers) {
      const ratio = (part: 'p50' | 'p99'): string =>
        round((first?.latencyMs[latency][part] ?? Number.NaN) / peer.latencyMs[latency][part]);
      lines.push(`  ${first?.name}/${peer.name}: p50 ${ratio('p50')}, p99 ${ratio('p99')}`);
    }
  }
  for (const [cost, unit] of Object.entries(COSTS) as [CostName, string][]) {
    lines.push(`${cost} (${unit})`);
    for (const { name, costs } of contenders) lines.push(`  ${name.padEnd(width)}  ${pad(costs[cost])}`);
    for (const peer of peers) {
      lines.push(
        `  ${first?.name}/${peer.name}: ${round((first?.costs[cost] ?? Number.NaN) / peer.costs[cost])}`,
      );
    }
  }
  lines.push('fresh connections while endpoints changed');
  for (const { name, resolutionMs, connectionMs, answered, failures } of contenders) {
    const failed = Object.entries(failures).map(([errno, count]) => `, ${count} ${errno}`);
    lines.push(
      `  ${name.padEnd(width)}  ${answered} answered${failed.join('') || ', none failed'}; one every ` +
        `${round(resolutionMs.p50)} ms (p99 ${round(resolutionMs.p99)}), answered in ` +
        `${round(connectionMs.p50)} ms (p99 ${round(connectionMs.p99)})`,
    );
  }
  if (first?.name === 'ours') {
    lines.push('targets of ours');
    for (const { text, isMet } of TARGETS) lines.push(`  ${text}: ${isMet(first) ? 'met' : 'MISSED'}`);
  }
  for (const { name, reason } of leftOut) lines.push(`left out: ${name}: ${reason}`);
  return `${lines.join('\n')}\n`;
}

function round(value: number): string {
  if (!Number.isFinite(value)) return '-';
  return Math.abs(value) >= 100 ? value.toFixed(0) : value.toFixed(Math.abs(value) >= 10 ? 1 : 2);
}

function pad(value: number): string {
  return round(value).padStart(6);
}
