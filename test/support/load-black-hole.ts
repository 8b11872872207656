/**
 * A Service of which one of two backends is black-holed, under requests at a steady pace, each on a connection of its
 * own: what the clients feel of it, laid beside the ejections that the proxy reports. For `bench/black-hole.ts`, and
 * in short for the tests.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { clusterIP, dualStackObjects } from './dual-stack.ts';
import { monotonicMs, type RequestReport } from './load-protocol.ts';
import { countsBy, startProxy } from './load-proxy.ts';
import { LoadProcess, rejectionOf } from './load-process.ts';
import { createLab } from './netns-lab.ts';
import { manifestText } from './objects.ts';
import type { ProxyProcess } from './proxy-process.ts';

const SERVICE = { name: 'dark', number: 40, port: 80, targetPort: 8_080 } as const;
const DIALS = 'userspace_proxy_dials_total';
const HEALTHY_SECONDS = 2;
/** Long: a machine that is overloaded is to show in the latencies. */
const TIMEOUT_MS = 30_000;
/** A scrape costs the proxy some milliseconds; an ejection lasts a second at least, and its trial 250 ms. */
const LOOK_EVERY_MS = 200;
/** What the run may take beyond its load. */
const SLACK_MS = 60_000;

export interface BlackHoleOptions {
  readonly seconds: number;
  readonly perSecond: number;
  /** Further flags of the proxy. */
  readonly proxyArgs?: readonly string[];
  readonly signal?: AbortSignal;
}

/** What the proxy's metrics said; counters are of its whole life. */
export interface Look {
  /** By `monotonicMs`, when the answer was there. */
  readonly atMs: number;
  readonly ejections: number;
  /** Dials that met the silent backend, and were not moved when it was ejected. */
  readonly timeouts: number;
  /** The longest that the proxy's event loop stood still since the look before: whatever waited then waited for that. */
  readonly stallMs: number;
}

export interface BlackHoleFigures {
  /** Before the backend went dark, which also warms everything up. */
  readonly healthy: RequestReport;
  readonly dark: RequestReport;
  /** Beside `dark` and at the same pace, from another pod past the proxy to the living backend: what is the machine's. */
  readonly direct: RequestReport;
  /** From before the first request of `dark` until after its last, in their order. */
  readonly looks: readonly Look[];
  /** Dials of the proxy by their result, of the whole run. */
  readonly dials: Readonly<Record<string, number>>;
}

/** Whatever happens, nothing is left when it ends. */
export async function runBlackHole({
  seconds,
  perSecond,
  proxyArgs = [],
  signal,
}: BlackHoleOptions): Promise<BlackHoleFigures> {
  await using lab = await createLab({ pods: 4 });
  const backends = [lab.pod(1), lab.pod(2)];
  const [client, neighbour] = await Promise.all([LoadProcess.open(lab.pod(3)), LoadProcess.open(lab.pod(4))]);
  await Promise.all(
    backends.map(async (pod) => {
      const server = await LoadProcess.open(pod);
      await server.ask('serve', { name: pod.name, port: SERVICE.targetPort, serviceMs: 0 });
    }),
  );
  const ports = [{ name: 'http', port: SERVICE.port, targetPort: SERVICE.targetPort }];
  await using proxy = await startProxy(lab.node, {
    manifests: { 'dark.yaml': manifestText(...dualStackObjects({ ...SERVICE, ports, backends })) },
    args: proxyArgs,
  });
  const viaService = { host: clusterIP(SERVICE.number, 'IPv4'), port: SERVICE.port, prefix: 'service-' };
  const past = { host: lab.pod(2).ipv4, port: SERVICE.targetPort, prefix: 'direct-' };
  const ask = async (
    from: LoadProcess,
    target: typeof viaService | typeof past,
    forSeconds: number,
  ): Promise<RequestReport> => {
    const load = { ...target, perSecond, seconds: forSeconds, keptConnections: 0, timeoutMs: TIMEOUT_MS };
    return from.ask('request', load, forSeconds * 1_000 + SLACK_MS);
  };

  const aborted = rejectionOf(signal);
  const healthy = await Promise.race([ask(client, viaService, HEALTHY_SECONDS), aborted]);
  await lab.dropTraffic(lab.pod(1), { port: SERVICE.targetPort });
  const looks = [await look(proxy)];
  const over = new AbortController();
  const watched = watch(proxy, looks, over.signal);
  const loads = Promise.all([ask(client, viaService, seconds), ask(neighbour, past, seconds)]);
  const [dark, direct] = await Promise.race([loads, aborted, watched.then(async () => loads)]).finally(() =>
    over.abort(),
  );
  await watched;
  return { healthy, dark, direct, looks, dials: await countsBy(proxy, DIALS, 'result') };
}

async function look(proxy: ProxyProcess): Promise<Look> {
  const families = await proxy.metrics();
  const sum = (name: string, result?: string): number =>
    (families.get(name)?.samples ?? [])
      .filter(({ labels }) => result === undefined || labels['result'] === result)
      .reduce((total, { value }) => total + value, 0);
  return {
    atMs: monotonicMs(),
    ejections: sum('userspace_proxy_endpoint_ejections_total'),
    timeouts: sum(DIALS, 'timeout'),
    stallMs: 1_000 * sum('nodejs_eventloop_lag_max_seconds'),
  };
}

/** The last look is after the signal. */
async function watch(proxy: ProxyProcess, looks: Look[], signal: AbortSignal): Promise<void> {
  for (let isLast = false; !isLast; ) {
    // The end of the pause is all that an abort changes.
    await delay(LOOK_EVERY_MS, undefined, { signal }).catch(() => undefined);
    isLast = signal.aborted;
    looks.push(await look(proxy));
  }
}
