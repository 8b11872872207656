/**
 * A Service of three backends of which one after the other is killed and brought back, under requests on kept
 * connections and on fresh ones: which requests fail, and what each backend held when it died. For
 * `bench/killed-backend.ts`, and in short for the tests.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { clusterIP, dualStackObjects } from './dual-stack.ts';
import { monotonicMs, type CrashLog, type RequestReport } from './load-protocol.ts';
import { countsBy, startProxy } from './load-proxy.ts';
import { LoadProcess, rejectionOf } from './load-process.ts';
import { createLab, type Host, type Lab } from './netns-lab.ts';
import { manifestText } from './objects.ts';
import type { ProxyProcess } from './proxy-process.ts';

const SERVICE = { name: 'mortal', number: 41, port: 80, targetPort: 8_080 } as const;
const BACKENDS = 3;
/** So that each kill finds requests under way: two to four at 2,000 a second. */
const SERVICE_MS = 2;
/** Long: a machine that is overloaded is to show in the latencies. */
const TIMEOUT_MS = 30_000;
/** What the run may take beyond its load. */
const SLACK_MS = 60_000;

export interface KilledBackendOptions {
  readonly seconds: number;
  readonly keptPerSecond: number;
  readonly keptConnections: number;
  readonly freshPerSecond: number;
  /** From one kill to the next. */
  readonly killEveryMs: number;
  /** Until the backend is started again; its start takes a moment more. */
  readonly downMs: number;
  /** Its endpoint leaves the EndpointSlice with it and comes back with it; otherwise the proxy sees refusals only. */
  readonly removesEndpoint: boolean;
  /** Further flags of the proxy. */
  readonly proxyArgs?: readonly string[];
  readonly signal?: AbortSignal;
}

export interface Kill extends CrashLog {
  /** When the backend listened again, by `monotonicMs`; undefined when the load was over before. */
  readonly backMs: number | undefined;
}

export interface KilledBackendFigures {
  readonly startMs: number;
  readonly kept: RequestReport;
  readonly fresh: RequestReport;
  readonly kills: readonly Kill[];
  /** Of the proxy: connections that reached no backend, by reason. */
  readonly refused: Readonly<Record<string, number>>;
  readonly dials: Readonly<Record<string, number>>;
  readonly ejections: number;
}

/** Whatever happens, nothing is left when it ends. */
export async function runKilledBackend(options: KilledBackendOptions): Promise<KilledBackendFigures> {
  const { proxyArgs = [], signal, seconds } = options;
  await using lab = await createLab({ pods: BACKENDS + 2 });
  const backends = await MortalBackends.start(lab);
  await using proxy = await startProxy(lab.node, {
    manifests: { 'mortal.yaml': backends.manifest() },
    args: proxyArgs,
  });
  const [keptClient, freshClient] = await Promise.all([
    LoadProcess.open(lab.pod(BACKENDS + 1)),
    LoadProcess.open(lab.pod(BACKENDS + 2)),
  ]);
  const target = {
    host: clusterIP(SERVICE.number, 'IPv4'),
    port: SERVICE.port,
    timeoutMs: TIMEOUT_MS,
    seconds,
  };
  const { keptPerSecond, keptConnections, freshPerSecond } = options;
  const withinMs = seconds * 1_000 + SLACK_MS;
  const startMs = monotonicMs();
  const over = new AbortController();
  const killed = killInTurn({ backends, proxy, options, signal: over.signal });
  const loads = Promise.all([
    keptClient.ask(
      'request',
      { ...target, prefix: 'kept-', perSecond: keptPerSecond, keptConnections },
      withinMs,
    ),
    freshClient.ask(
      'request',
      { ...target, prefix: 'fresh-', perSecond: freshPerSecond, keptConnections: 0 },
      withinMs,
    ),
  ]);
  try {
    // A kill that cannot be done ends the run; that the last one is done belongs to it.
    const ended = [loads, killed.then(async () => loads), rejectionOf(signal)] as const;
    const [kept, fresh] = await Promise.race(ended);
    over.abort();
    const kills = await killed;
    return { startMs, kept, fresh, kills, ...(await countsOf(proxy)) };
  } finally {
    over.abort();
    // It writes to the proxy's directory, which is about to go.
    await killed.catch(() => undefined);
  }
}

async function countsOf(
  proxy: ProxyProcess,
): Promise<Pick<KilledBackendFigures, 'refused' | 'dials' | 'ejections'>> {
  return {
    refused: await countsBy(proxy, 'userspace_proxy_connection_failures_total', 'reason'),
    dials: await countsBy(proxy, 'userspace_proxy_dials_total', 'result'),
    ejections: await proxy.metric('userspace_proxy_endpoint_ejections_total', { service: SERVICE.name }),
  };
}

interface KillingParts {
  readonly backends: MortalBackends;
  readonly proxy: ProxyProcess;
  readonly options: KilledBackendOptions;
  readonly signal: AbortSignal;
}

/** Until the signal. A backend that is down then stays down. */
async function killInTurn({ backends, proxy, options, signal }: KillingParts): Promise<readonly Kill[]> {
  const { killEveryMs, downMs, removesEndpoint } = options;
  const startMs = monotonicMs() + killEveryMs / 2;
  const isOverAt = async (atMs: number): Promise<boolean> =>
    delay(Math.max(0, atMs - monotonicMs()), false, { signal }).catch(() => true);
  const write = async (): Promise<void> =>
    removesEndpoint ? proxy.writeManifest('mortal.yaml', backends.manifest()) : undefined;
  const kills: Kill[] = [];
  for (let turn = 0; ; turn += 1) {
    if (await isOverAt(startMs + turn * killEveryMs)) return kills;
    const number = turn % BACKENDS;
    const dead = backends.kill(number);
    await write();
    const crash = await dead;
    if (await isOverAt(crash.atMs + downMs)) return [...kills, { ...crash, backMs: undefined }];
    await backends.revive(number);
    await write();
    kills.push({ ...crash, backMs: monotonicMs() });
  }
}

/** The backends, each a process in a pod of its own. */
class MortalBackends {
  readonly #hosts: readonly Host[];
  readonly #processes: (LoadProcess | undefined)[] = [];

  private constructor(hosts: readonly Host[]) {
    this.#hosts = hosts;
  }

  static async start(lab: Lab): Promise<MortalBackends> {
    const backends = new MortalBackends(lab.pods.slice(0, BACKENDS));
    await Promise.all(backends.#hosts.map(async (_, number) => backends.#open(number)));
    return backends;
  }

  /** The Service, with the endpoints of those that live, or are about to. */
  manifest(): string {
    const ports = [{ name: 'http', port: SERVICE.port, targetPort: SERVICE.targetPort }];
    const backends = this.#hosts.filter((_, number) => this.#processes[number] !== undefined);
    return manifestText(...dualStackObjects({ ...SERVICE, ports, backends }));
  }

  /**
   * As the kernel does it with a process that dies: first the port refuses, then every connection is reset. The port
   * refuses a moment before, so that the backend has time to take what the kernel had accepted for it, and knows it.
   */
  async kill(number: number): Promise<CrashLog> {
    const victim = this.#processes[number];
    if (victim === undefined) throw new Error(`backend ${number} is dead already`);
    this.#processes[number] = undefined;
    await this.#refuse(number, '-I');
    const crash = await victim.ask('crash', undefined);
    await victim.close();
    return crash;
  }

  async revive(number: number): Promise<void> {
    await this.#open(number);
    await this.#refuse(number, '-D');
  }

  async #open(number: number): Promise<void> {
    const host = this.#host(number);
    const server = await LoadProcess.open(host);
    await server.ask('serve', { name: host.name, port: SERVICE.targetPort, serviceMs: SERVICE_MS });
    this.#processes[number] = server;
  }

  async #refuse(number: number, operation: '-I' | '-D'): Promise<void> {
    const match = ['INPUT', '-p', 'tcp', '--dport', String(SERVICE.targetPort), '--syn'];
    const verdict = ['-j', 'REJECT', '--reject-with', 'tcp-reset'];
    await this.#host(number).run(['iptables', '-w', '5', operation, ...match, ...verdict]);
  }

  #host(number: number): Host {
    const host = this.#hosts[number];
    if (host === undefined) throw new RangeError(`no backend ${number}`);
    return host;
  }
}
