/**
 * A strict parser of the Prometheus text format 0.0.4, to check what we export and to read values from it. Stricter
 * than Prometheus: HELP and TYPE come once, in that order and before the samples; no series appears twice; counters
 * are named `_total` and never negative; histograms have ascending, cumulative buckets that end with `+Inf`.
 */

export type MetricType = 'counter' | 'gauge' | 'histogram';

export interface ParsedSample {
  /** With the suffix, where a histogram has one. */
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

export interface ParsedFamily {
  readonly name: string;
  readonly help: string;
  readonly type: MetricType;
  readonly samples: readonly ParsedSample[];
}

const NAME = '[a-zA-Z_:][a-zA-Z0-9_:]*';
const VALUE = String.raw`[+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?|NaN|[+-]Inf`;
const SAMPLE_LINE = new RegExp(String.raw`^(${NAME})(?:\{(.*)\})? (${VALUE})$`);
const LABEL = /^([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(,|$)/;
const HISTOGRAM_SUFFIX = /_(?:bucket|sum|count)$/;

/** Families by name. Throws an Error that quotes the offending line. */
export function parsePrometheusText(text: string): ReadonlyMap<string, ParsedFamily> {
  if (!text.endsWith('\n')) throw new Error('the last line has no newline');
  const families = new Map<string, ParsedFamily & { samples: ParsedSample[] }>();
  const seen = new Set<string>();
  let help: { name: string; text: string } | undefined;
  let family: (ParsedFamily & { samples: ParsedSample[] }) | undefined;

  for (const line of text.slice(0, -1).split('\n')) {
    if (line === '') continue;
    const comment = new RegExp(`^# (HELP|TYPE) (${NAME}) (.+)$`).exec(line);
    if (comment?.[1] === 'HELP') {
      const [, , name = '', rest = ''] = comment;
      if (families.has(name)) throw new Error(`family twice: ${line}`);
      help = { name, text: rest };
      family = undefined;
    } else if (comment !== null) {
      const [, , name = '', type = ''] = comment;
      if (help?.name !== name) throw new Error(`TYPE without its HELP: ${line}`);
      family = { name, help: help.text, type: metricType(type, line), samples: [] };
      help = undefined;
      families.set(name, family);
    } else {
      const sample = parseSample(line);
      const base = family?.type === 'histogram' ? sample.name.replace(HISTOGRAM_SUFFIX, '') : sample.name;
      if (family === undefined || base !== family.name) throw new Error(`sample outside its family: ${line}`);
      const key = seriesKey(sample.name, sample.labels);
      if (seen.has(key)) throw new Error(`series twice: ${line}`);
      seen.add(key);
      family.samples.push(sample);
    }
  }
  for (const parsed of families.values()) checkFamily(parsed);
  return families;
}

/** The value of one series, by its full name and all its labels; undefined when there is no such series. */
export function sampleValue(
  families: ReadonlyMap<string, ParsedFamily>,
  name: string,
  labels: Readonly<Record<string, string>> = {},
): number | undefined {
  const family = families.get(name) ?? families.get(name.replace(HISTOGRAM_SUFFIX, ''));
  const key = seriesKey(name, labels);
  return family?.samples.find((sample) => seriesKey(sample.name, sample.labels) === key)?.value;
}

function metricType(text: string, line: string): MetricType {
  if (text === 'counter' || text === 'gauge' || text === 'histogram') return text;
  throw new Error(`unknown type: ${line}`);
}

function parseSample(line: string): ParsedSample {
  const match = SAMPLE_LINE.exec(line);
  if (match === null) throw new Error(`no sample: ${line}`);
  const [, name = '', labelText, value = ''] = match;
  const number = value.endsWith('Inf') ? Number(`${value}inity`) : Number(value);
  return { name, labels: parseLabels(labelText, line), value: number };
}

function parseLabels(text: string | undefined, line: string): Readonly<Record<string, string>> {
  if (text === '') throw new Error(`empty braces: ${line}`);
  const labels: Record<string, string> = {};
  let rest = text ?? '';
  while (rest !== '') {
    const match = LABEL.exec(rest);
    if (match === null) throw new Error(`no label at ${JSON.stringify(rest)}: ${line}`);
    const [whole, name = '', value = '', separator] = match;
    if (name in labels) throw new Error(`label twice: ${line}`);
    labels[name] = value.replaceAll(/\\(.)/g, (_, escaped: string) => (escaped === 'n' ? '\n' : escaped));
    rest = rest.slice(whole.length);
    if (separator === ',' && rest === '') throw new Error(`comma at the end of the labels: ${line}`);
  }
  return labels;
}

function seriesKey(name: string, labels: Readonly<Record<string, string>>): string {
  return JSON.stringify([name, Object.entries(labels).toSorted(([a], [b]) => (a < b ? -1 : 1))]);
}

function checkFamily({ name, type, samples }: ParsedFamily): void {
  if (type === 'counter' && !name.endsWith('_total')) throw new Error(`a counter must not be called ${name}`);
  if (type === 'counter' && samples.some((sample) => !(sample.value >= 0)))
    throw new Error(`${name} is negative`);
  if (type === 'histogram') checkHistogram(name, samples);
}

function checkHistogram(name: string, samples: readonly ParsedSample[]): void {
  const groups = Map.groupBy(samples, ({ labels }) =>
    JSON.stringify(Object.entries(labels).filter(([label]) => label !== 'le')),
  );
  for (const group of groups.values()) {
    const buckets = group.filter((sample) => sample.name === `${name}_bucket`);
    const bounds = buckets.map(({ labels }) => (labels['le'] === '+Inf' ? Infinity : Number(labels['le'])));
    const counts = buckets.map((bucket) => bucket.value);
    const count = group.find((sample) => sample.name === `${name}_count`)?.value;
    if (!group.some((sample) => sample.name === `${name}_sum`)) throw new Error(`${name} has no _sum`);
    if (!isAscending(bounds, 1e-9) || bounds.at(-1) !== Infinity)
      throw new Error(`bounds of ${name}: ${bounds.join()}`);
    if (!isAscending(counts, 0)) throw new Error(`buckets of ${name} are not cumulative: ${counts.join()}`);
    if (counts.at(-1) !== count) throw new Error(`${name}_count is not the +Inf bucket`);
  }
}

function isAscending(numbers: readonly number[], leastStep: number): boolean {
  return numbers.every((number, index) => index === 0 || number - (numbers[index - 1] ?? 0) >= leastStep);
}
