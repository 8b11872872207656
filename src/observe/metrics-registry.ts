/**
 * The one file that imports prom-client (its successor is `@prometheus-io/client`; changing over is this import).
 * Two kinds of metric: those that events write (`counter`, `gauge`, `histogram`), and those that are read at scrape
 * from plain numbers the data path keeps (`scraped`, `scrapedHistogram`): no labels() call ever runs per packet,
 * and a series exists exactly as long as what it describes.
 */
import { Counter, Gauge, Histogram, type Metric, Registry, collectDefaultMetrics } from 'prom-client';
import type { HistogramCounts } from '../proxy/statistics.ts';

/**
 * Node's monitor of the event loop's lag wakes up so often; its readings begin there. At prom-client's 10 ms it was most
 * of what an idle proxy cost (0.4 % of a core).
 */
const LAG_RESOLUTION_MS = 50;

export type Labels = Readonly<Record<string, string>>;

/** Name and help of a metric family; the name carries the unit (`_seconds`, `_bytes`) and `_total` for counters. */
export interface FamilyText {
  readonly name: string;
  readonly help: string;
}

/** One series of a scraped family. */
export interface Sample {
  readonly labels: Labels;
  /**
   * Labels that many samples have in common. prom-client renders them once per object, not once per sample, so
   * hand over the same object each time.
   */
  readonly sharedLabels?: Labels;
  readonly value: number;
  /** Only for the `_bucket`, `_sum` and `_count` series of a histogram. */
  readonly metricName?: string;
}

export interface CounterFamily {
  inc(labels: Labels, by?: number): void;
}

export interface GaugeFamily {
  set(labels: Labels, value: number): void;
  remove(labels: Labels): void;
}

export interface HistogramFamily {
  observe(labels: Labels, value: number): void;
  /** Makes the series exist with no observation. */
  zero(labels: Labels): void;
}

/** The part of a prom-client metric that a Registry asks for when it renders. */
class ScrapedMetric {
  readonly name: string;
  readonly help: string;
  readonly type: 'counter' | 'gauge' | 'histogram';
  readonly #read: () => readonly Sample[];

  constructor(type: ScrapedMetric['type'], text: FamilyText, read: () => readonly Sample[]) {
    this.type = type;
    this.name = text.name;
    this.help = text.help;
    this.#read = read;
  }

  get(): object {
    return { name: this.name, help: this.help, type: this.type, values: this.#read() };
  }

  reset(): void {}
}

export class MetricRegistry {
  readonly #registry = new Registry();

  /** Of the Prometheus text format that `render` gives. */
  readonly contentType: string = this.#registry.contentType;

  counter(text: FamilyText, labelNames: readonly string[]): CounterFamily {
    return new Counter({ ...text, labelNames, registers: [this.#registry] });
  }

  gauge(text: FamilyText, labelNames: readonly string[]): GaugeFamily {
    return new Gauge({ ...text, labelNames, registers: [this.#registry] });
  }

  /** `buckets` are the upper bounds in ascending order, without +Inf. */
  histogram(text: FamilyText, labelNames: readonly string[], buckets: readonly number[]): HistogramFamily {
    return new Histogram({ ...text, labelNames, buckets: [...buckets], registers: [this.#registry] });
  }

  /** A family whose series are whatever `read` gives at the moment of the scrape. */
  scraped(type: 'counter' | 'gauge', text: FamilyText, read: () => readonly Sample[]): void {
    this.#register(new ScrapedMetric(type, text, read));
  }

  /** A histogram without labels, read at scrape from plain counts. */
  scrapedHistogram(text: FamilyText, read: () => HistogramCounts): void {
    this.#register(new ScrapedMetric('histogram', text, () => samplesFromCounts(text.name, read())));
  }

  /** The `process_*` and `nodejs_*` families. */
  addProcessMetrics(): void {
    collectDefaultMetrics({ register: this.#registry, eventLoopMonitoringPrecision: LAG_RESOLUTION_MS });
  }

  /**
   * The whole registry in the Prometheus text format 0.0.4. Every `read` runs before this returns its promise, so
   * that all of them can share one reading. Rejects when one throws.
   */
  async render(): Promise<string> {
    const text = await this.#registry.metrics();
    // prom-client 15 writes `Nan`; the format's word is `NaN`. A line ends so only where that is the value.
    return text.replaceAll(/ Nan$/gm, ' NaN');
  }

  #register(metric: ScrapedMetric): void {
    // prom-client's type names its own four classes; its Registry needs only what ScrapedMetric has.
    this.#registry.registerMetric(metric as unknown as Metric);
  }
}

/** Prometheus buckets are cumulative and end with `+Inf`, which equals `_count`. */
function samplesFromCounts(name: string, histogram: HistogramCounts): readonly Sample[] {
  const samples: Sample[] = [];
  let cumulated = 0;
  histogram.counts.forEach((count, index) => {
    cumulated += count;
    const bound = histogram.bounds[index];
    const le = bound === undefined ? '+Inf' : String(bound);
    samples.push({ metricName: `${name}_bucket`, labels: { le }, value: cumulated });
  });
  samples.push({ metricName: `${name}_sum`, labels: {}, value: histogram.sum });
  samples.push({ metricName: `${name}_count`, labels: {}, value: cumulated });
  return samples;
}
