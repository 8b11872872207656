/** docs/metrics.md and the registry list the same metrics, with the same types and labels. */
import { readFileSync } from 'node:fs';
import { beforeAll, expect, test } from 'vitest';
import { increment } from '../../src/sources/kubernetes/api-statistics.ts';
import type { ParsedFamily } from '../support/prometheus-text.ts';
import { MetricsFixture } from './metrics-fixture.ts';

interface Row {
  readonly name: string;
  readonly type: string;
  readonly labels: readonly string[];
}

const SERVICE_PORT_LABELS = ['namespace', 'service', 'port', 'protocol', 'ip_family'];

const page = readFileSync(new URL('../../docs/metrics.md', import.meta.url), 'utf8');
const rows: readonly Row[] = page
  .split('\n')
  .map((line) => /^\| `(\w+)` \| (\w+) \| ([^|]*) ?\| [^|]+ \|$/.exec(line))
  .filter((match) => match !== null)
  .map(([, name = '', type = '', labels = '']) => ({ name, type, labels: labelsFromCell(labels) }));

let families: ReadonlyMap<string, ParsedFamily>;

beforeAll(async () => {
  const fixture = new MetricsFixture();
  fixture.addServicePort().sessionsTotal = 1;
  fixture.metrics.updateQueued();
  fixture.metrics.rulesAhead('IPv4', [{ table: 'nat', hook: 'OUTPUT', count: 0, first: '' }]);
  fixture.api.requestEnded('10.0.0.1:6443', '200');
  increment(fixture.api.of('services').failures, 'ERR_API_STALLED');
  const counts = { nat: 1, filter: 1 };
  fixture.metrics.familySynced({
    family: 'IPv4',
    kind: 'full',
    durationSeconds: 0.1,
    rulesTotal: counts,
    rulesWritten: counts,
    noLocalEndpoints: { internal: 0, external: 0 },
  });
  families = await fixture.scrape();
});

function labelsFromCell(cell: string): readonly string[] {
  return cell
    .split(',')
    .map((label) => label.trim().replaceAll('`', ''))
    .flatMap((label) => (label === 'service port' ? SERVICE_PORT_LABELS : label))
    .filter((label) => label !== '');
}

function labelsOf(family: ParsedFamily): readonly string[] {
  const labels = new Set(family.samples.flatMap((sample) => Object.keys(sample.labels)));
  labels.delete('le');
  return [...labels];
}

test('the page names every metric that is exported, once, and none that is not', () => {
  expect(rows.map((row) => row.name).toSorted()).toEqual([...families.keys()].toSorted());
});

test('the page gives every metric the type that is exported', () => {
  const typeByName = Object.fromEntries(rows.map((row) => [row.name, row.type]));

  expect(typeByName).toEqual(
    Object.fromEntries([...families.values()].map(({ name, type }) => [name, type])),
  );
});

test('the page gives every metric the labels that are exported', () => {
  // Some of the process metrics have no series until there is something to tell.
  const told = rows.filter(({ name }) => (families.get(name)?.samples.length ?? 0) > 0);
  const exported = told.map(({ name }) => families.get(name)).filter((family) => family !== undefined);

  expect(rows.filter((row) => !told.includes(row) && !row.name.startsWith('nodejs_'))).toEqual([]);
  expect(told.map(({ name, labels }) => [name, labels.toSorted()])).toEqual(
    exported.map((family) => [family.name, labelsOf(family).toSorted()]),
  );
});

test('the queries on the page ask for metrics that exist', () => {
  const queries = [...page.matchAll(/```promql\n(.+?)\n```/gs)].map((match) => match[1] ?? '');
  const names = queries.flatMap(
    (query) => query.match(/\b(?:kubeproxy|userspace_proxy|rest_client|process|nodejs)_\w+/g) ?? [],
  );

  expect(queries).toHaveLength(11);
  expect(names.filter((name) => !families.has(name.replace(/_bucket$/, '')))).toEqual([]);
});
