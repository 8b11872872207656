/** The agent's loads: the same request over and over, counted, while a test changes what carries them. */
import { Agent, request } from 'node:http';
import {
  DEFAULT_LOAD_DURATION_MS,
  type AgentFunctions,
  type IdentifyResult,
  type LoadReport,
  type Params,
  type SlowRequest,
  type Target,
} from './agent-protocol.ts';
import { errnoOf, FailureLog, repeat, settleWithin, type LoopOptions } from './agent-socket.ts';
import { identifyOnce } from './agent-tcp-clients.ts';
import { UdpAsker } from './agent-udp-clients.ts';

type HttpTarget = Target &
  Pick<Params<'httpRequests'>, 'path' | 'keepAlive' | 'headers' | 'timeoutMs' | 'concurrency'>;

/** One kind of request; `close` lets go of the sockets kept between requests. */
interface Requester {
  readonly once: (worker: number) => Promise<IdentifyResult>;
  readonly close: () => void;
}

const DEFAULT_SLOW_MS = 250;
const MAX_SLOW = 100;

class Load {
  readonly #failures = new FailureLog();
  readonly #latenciesMs: number[] = [];
  readonly #byName: Record<string, number> = {};
  readonly #slow: SlowRequest[] = [];
  readonly #slowMs: number;
  readonly #start = performance.now();
  readonly #stop = new AbortController();
  readonly #ended: Promise<void>;
  #elapsedMs: number | undefined;

  constructor(
    requester: Requester,
    options: LoopOptions & { readonly durationMs: number; readonly slowMs?: number | undefined },
  ) {
    this.#slowMs = options.slowMs ?? DEFAULT_SLOW_MS;
    const timer = setTimeout(() => this.#stop.abort(), options.durationMs);
    this.#ended = repeat({ ...options, signal: this.#stop.signal }, async (worker) => {
      this.#count(await requester.once(worker));
    }).finally(() => {
      clearTimeout(timer);
      this.#elapsedMs = performance.now() - this.#start;
      requester.close();
    });
  }

  /** Resolves when the load has ended by itself. */
  async end(): Promise<LoadReport> {
    await this.#ended;
    return this.report();
  }

  async stop(): Promise<LoadReport> {
    this.#stop.abort();
    return this.end();
  }

  report(): LoadReport {
    const sorted = this.#latenciesMs.toSorted((a, b) => a - b);
    const quantile = (part: number): number => sorted[Math.max(0, Math.ceil(sorted.length * part) - 1)] ?? 0;
    return {
      requests: this.#latenciesMs.length + this.#failures.count,
      failed: this.#failures.count,
      failures: this.#failures.first,
      byName: { ...this.#byName },
      latencyMs: { p50: quantile(0.5), p99: quantile(0.99), max: sorted.at(-1) ?? 0 },
      slow: [...this.#slow],
      elapsedMs: this.#elapsedMs ?? performance.now() - this.#start,
    };
  }

  #count(result: IdentifyResult): void {
    if (!result.ok) {
      this.#failures.add(result.errno ?? 'UNKNOWN');
      return;
    }
    const { elapsedMs } = result;
    this.#latenciesMs.push(elapsedMs);
    if (elapsedMs > this.#slowMs && this.#slow.length < MAX_SLOW)
      this.#slow.push({ atMs: performance.now() - this.#start, elapsedMs });
    const name = result.name ?? '';
    this.#byName[name] = (this.#byName[name] ?? 0) + 1;
  }
}

export function createLoadFunctions(): AgentFunctions<
  'httpRequests' | 'startHttpLoad' | 'startConnectLoad' | 'startUdpLoad' | 'loadReport' | 'stopLoad'
> {
  const loadById = new Map<number, Load>();
  const start = (requester: Requester, params: Params<'startConnectLoad'>): { id: number } => {
    const id = loadById.size + 1;
    const { concurrency, pauseMs, slowMs, maxDurationMs = DEFAULT_LOAD_DURATION_MS } = params;
    loadById.set(id, new Load(requester, { concurrency, pauseMs, slowMs, durationMs: maxDurationMs }));
    return { id };
  };
  const find = (id: number): Load => {
    const load = loadById.get(id);
    if (load === undefined) throw new Error(`no load ${id}`);
    return load;
  };
  return {
    httpRequests: async (params) => {
      const { count, durationMs, concurrency, pauseMs } = params;
      if (count === undefined && durationMs === undefined)
        throw new Error('httpRequests needs count or durationMs');
      const options = { count, concurrency, pauseMs, durationMs: durationMs ?? DEFAULT_LOAD_DURATION_MS };
      return new Load(openHttpRequester(params), options).end();
    },
    startHttpLoad: async (params) => start(openHttpRequester(params), params),
    startConnectLoad: async (params) =>
      start({ once: async () => identifyOnce(params), close: () => undefined }, params),
    startUdpLoad: async (params) => {
      const askers: UdpAsker[] = [];
      for (let worker = 0; worker < (params.concurrency ?? 1); worker += 1)
        askers.push(await UdpAsker.open(params));
      const once = async (worker: number): Promise<IdentifyResult> => {
        const asker = askers[worker];
        if (asker === undefined) throw new RangeError(`no socket for worker ${worker}`);
        return asker.identify();
      };
      return start({ once, close: () => askers.forEach((asker) => asker.close()) }, params);
    },
    loadReport: async ({ id }) => find(id).report(),
    stopLoad: async ({ id }) => find(id).stop(),
  };
}

function openHttpRequester(params: HttpTarget): Requester {
  const { keepAlive = true, concurrency = 1 } = params;
  const agent = new Agent({ keepAlive, maxSockets: concurrency, maxFreeSockets: concurrency });
  return { once: async () => requestOnce(agent, params), close: () => agent.destroy() };
}

async function requestOnce(agent: Agent, params: HttpTarget): Promise<IdentifyResult> {
  const { host, port, path = '/', headers = {}, timeoutMs } = params;
  const sent = request({ agent, host, port, path, headers });
  const result = await settleWithin<IdentifyResult>(
    timeoutMs,
    (elapsedMs) => ({ ok: false, errno: 'TIMEOUT', elapsedMs }),
    (finish, elapsedMs) => {
      const fail = (errno: string): void => finish({ ok: false, errno, elapsedMs: elapsedMs() });
      sent.on('error', (error) => fail(errnoOf(error)));
      sent.on('response', (response) => {
        let body = '';
        response.setEncoding('utf8');
        response.on('data', (text: string) => {
          body += text;
        });
        response.on('error', (error) => fail(errnoOf(error)));
        response.on('end', () => {
          if (response.statusCode === 200) finish({ ok: true, name: body.trim(), elapsedMs: elapsedMs() });
          else fail(`HTTP_${response.statusCode}`);
        });
      });
      sent.end();
    },
  );
  // After a success the socket belongs to the agent again.
  if (!result.ok) sent.destroy();
  return result;
}
