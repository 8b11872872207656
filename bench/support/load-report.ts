/** Figures of load runs as text. */
import type { RequestReport } from '../../test/support/load-protocol.ts';
import { summarize } from './statistics.ts';

export function renderLatencies(latencyMs: readonly number[]): string {
  const { count, p50, p90, p99, max } = summarize(latencyMs);
  const [first, ...rest] = [p50, p90, p99, max].map((value) => round(value).padStart(6));
  return `p50 ${first}  p90 ${rest[0]}  p99 ${rest[1]}  max ${rest[2]} ms (${count})`;
}

export function renderRequests({
  requests,
  failures,
  latencyMs,
  latestMs,
  byBackend,
}: RequestReport): string {
  const answers = Object.entries(byBackend).map(([name, count]) => `${name} ${count}`);
  return (
    `${requests} requests, ${failures.length} failed; ${renderLatencies(latencyMs)}; ` +
    `the client at most ${round(latestMs)} ms late; ${answers.toSorted().join(', ')}`
  );
}

export function renderCounts(counts: Readonly<Record<string, number>>): string {
  const texts = Object.entries(counts).map(([name, count]) => `${count} ${name}`);
  return texts.join(', ') || 'none';
}

/** Without the lists that have a line for each request. */
export function withoutLists(report: RequestReport): object {
  const { startMs: _starts, latencyMs, ...rest } = report;
  return { ...rest, latency: summarize(latencyMs) };
}

export function seconds(ms: number): string {
  return `${(ms / 1_000).toFixed(2)} s`;
}

export function round(value: number): string {
  if (!Number.isFinite(value)) return '-';
  return Math.abs(value) >= 100 ? value.toFixed(0) : value.toFixed(Math.abs(value) >= 10 ? 1 : 2);
}
