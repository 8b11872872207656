/** The figures of bench/peers.ts: what each is called, what is good, and which ratios are to be reached. Pure data. */
import type { ContenderKey } from './peer-contenders.ts';

export interface Figure {
  /** What is measured together; `--measure` chooses. */
  readonly measure: 'requests' | 'connections' | 'bulk' | 'datagrams' | 'flows' | 'offered' | 'memory';
  readonly title: string;
  readonly unit: string;
  readonly isBetter: 'lower' | 'higher' | 'neither';
}

const lower = 'lower';
const higher = 'higher';
const neither = 'neither';

export const FIGURES = {
  requestCpu: figure('requests', 'CPU per keep-alive request', 'µs', lower),
  requestRate: figure('requests', 'keep-alive requests', '/s', higher),
  requestP50: figure('requests', 'p50 latency, keep-alive', 'ms', lower),
  requestP99: figure('requests', 'p99 latency, keep-alive', 'ms', lower),
  requestP999: figure('requests', 'p99.9 latency, keep-alive', 'ms', lower),
  requestKernel: figure('requests', 'of the CPU in the kernel, keep-alive', '%', neither),
  requestErrors: figure('requests', 'failed, keep-alive', '', lower),
  connectionCpu: figure('connections', 'CPU per new connection', 'µs', lower),
  connectionRate: figure('connections', 'new connections', '/s', higher),
  connectionP99: figure('connections', 'p99 latency, new connections', 'ms', lower),
  connectionKernel: figure('connections', 'of the CPU in the kernel, new connections', '%', neither),
  connectionErrors: figure('connections', 'failed, new connections', '', lower),
  bulk1Cpu: figure('bulk', 'CPU per GB, 1 stream', 'ms', lower),
  bulk1Rate: figure('bulk', 'throughput, 1 stream', 'Gbit/s', higher),
  bulk1Kernel: figure('bulk', 'of the CPU in the kernel, 1 stream', '%', neither),
  bulk8Cpu: figure('bulk', 'CPU per GB, 8 streams', 'ms', lower),
  bulk8Rate: figure('bulk', 'throughput, 8 streams', 'Gbit/s', higher),
  bulk8Kernel: figure('bulk', 'of the CPU in the kernel, 8 streams', '%', neither),
  datagramCpu: figure('datagrams', 'CPU per UDP round trip', 'µs', lower),
  datagramRate: figure('datagrams', 'UDP round trips', '/s', higher),
  datagramP99: figure('datagrams', 'p99 latency, UDP round trip', 'ms', lower),
  datagramLost: figure('datagrams', 'UDP datagrams lost', '', lower),
  datagramKernel: figure('datagrams', 'of the CPU in the kernel, UDP round trip', '%', neither),
  flowCpu: figure('flows', 'CPU per new UDP flow', 'µs', lower),
  flowRate: figure('flows', 'new UDP flows answered', '/s', higher),
  flowP99: figure('flows', 'p99 latency, new UDP flow', 'ms', lower),
  flowLost: figure('flows', 'new UDP flows lost', '', lower),
  flowKernel: figure('flows', 'of the CPU in the kernel, new UDP flow', '%', neither),
  offeredRate: figure('offered', 'UDP flows offered: twice what Go holds', '/s', neither),
  offeredAnswered: figure('offered', 'of these answered', '/s', higher),
  offeredLost: figure('offered', 'of these lost', '%', lower),
  idleMemory: figure('memory', 'RSS without traffic', 'MiB', lower),
  idleAnonymous: figure('memory', 'of it anonymous memory', 'MiB', lower),
  held: figure('memory', 'idle connections held', '', neither),
  heldMemory: figure('memory', 'RSS while holding them', 'MiB', lower),
  heldPerConnection: figure('memory', 'RSS per idle connection', 'KiB', lower),
  loadedMemory: figure('memory', 'RSS after all traffic', 'MiB', lower),
} as const satisfies Readonly<Record<string, Figure>>;

export type FigureKey = keyof typeof FIGURES;
export const FIGURE_KEYS = Object.keys(FIGURES) as readonly FigureKey[];
export const MEASURES = [...new Set(Object.values(FIGURES).map(({ measure }) => measure))];
export type Measure = Figure['measure'];

/** One turn of a contender: what was measured in it. */
export type Turn = Readonly<Partial<Record<FigureKey, number>>>;

/** A ratio of two contenders, and what it is to be. */
export interface RatioTarget {
  readonly figure: FigureKey;
  readonly of: ContenderKey;
  readonly against: ContenderKey;
  readonly atMost?: number;
  readonly atLeast?: number;
  /** Beyond what must be reached. */
  readonly stretch?: number;
}

/** A figure itself, and what it is to be at most. `worst` looks at all turns instead of their median. */
export interface PlainTarget {
  readonly figure: FigureKey;
  readonly of: ContenderKey;
  readonly atMost: number;
  readonly takes: 'median' | 'worst';
}

export const RATIO_TARGETS: readonly RatioTarget[] = [
  ...against('requestCpu', { 'kube-proxy': { atMost: 0.5 }, haproxy: { atMost: 0.85 }, nginx: {} }),
  ...against('connectionCpu', {
    'kube-proxy': { atMost: 0.5 },
    haproxy: { atMost: 1.05, stretch: 1 },
    nginx: {},
  }),
  ...against('bulk1Cpu', {
    'kube-proxy': { atMost: 0.6 },
    haproxy: { atMost: 0.35 },
    'haproxy-splice': {},
    nginx: {},
  }),
  ...against('bulk8Cpu', {
    'kube-proxy': { atMost: 0.6 },
    haproxy: { atMost: 0.35 },
    'haproxy-splice': {},
    nginx: {},
  }),
  ...against('requestP99', { 'kube-proxy': { atMost: 0.6 }, haproxy: { atMost: 0.9 }, nginx: {} }),
  ...against('datagramCpu', { 'kube-proxy': { atMost: 0.6 }, nginx: {} }),
  ...against('flowCpu', { 'kube-proxy': { atMost: 0.45 }, nginx: {} }),
  ...against('flowRate', { 'kube-proxy': { atLeast: 2 }, nginx: {} }),
  ...against('heldPerConnection', { 'kube-proxy': { atMost: 0.25 }, haproxy: {}, nginx: {} }),
  ...against('requestRate', { 'kube-proxy': {}, haproxy: {}, nginx: {} }),
  ...against('connectionRate', { 'kube-proxy': {}, haproxy: {}, nginx: {} }),
  ...against('bulk1Rate', { 'kube-proxy': {}, haproxy: {}, nginx: {} }),
  ...against('bulk8Rate', { 'kube-proxy': {}, haproxy: {}, nginx: {} }),
  { figure: 'requestCpu', of: 'node', against: 'kube-proxy', atMost: 0.9 },
  { figure: 'connectionCpu', of: 'node', against: 'kube-proxy', atMost: 1.2 },
  { figure: 'bulk1Cpu', of: 'node', against: 'kube-proxy', atMost: 1.8 },
  { figure: 'bulk8Cpu', of: 'node', against: 'kube-proxy', atMost: 1.8 },
];

export const PLAIN_TARGETS: readonly PlainTarget[] = [
  { figure: 'flowLost', of: 'native', atMost: 0, takes: 'worst' },
  { figure: 'datagramLost', of: 'native', atMost: 0, takes: 'worst' },
  { figure: 'heldMemory', of: 'native', atMost: 150, takes: 'worst' },
];

function figure(measure: Measure, title: string, unit: string, isBetter: Figure['isBetter']): Figure {
  return { measure, title, unit, isBetter };
}

/** Of the native engine. */
function against(
  figure: FigureKey,
  peers: Readonly<Partial<Record<ContenderKey, Pick<RatioTarget, 'atMost' | 'atLeast' | 'stretch'>>>>,
): readonly RatioTarget[] {
  return Object.entries(peers).map(([key, bounds]) => ({
    figure,
    of: 'native',
    against: key as ContenderKey,
    ...bounds,
  }));
}
