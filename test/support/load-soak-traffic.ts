/**
 * What clients do in a soak: each kind of traffic over and over until it is told to stop, with a count of what was tried
 * and of what failed. Every try is bounded in time by itself.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { Agent } from './agent-client.ts';
import type { LoadReport } from './agent-protocol.ts';
import { ASK, ECHO, ID, ONE_WAY, RESET, SINK, STEADY_IP, TIED_IP, WEB } from './load-soak-cluster.ts';
import type { Host } from './netns-lab.ts';

const KIB = 1_024;
const BULK_BYTES = 512 * KIB;
const HELD = 16;
const PAUSE_MS = 50;
/** Long: a machine that is overloaded makes clients wait; a connection that hangs is found all the same. */
const TIMEOUT_MS = 30_000;
const TIED_CLIENTS = 40;
/** The last part of the first one's address, beyond those of the pods. */
const FIRST_TIED_CLIENT = 100;

/** Of one kind of traffic. */
export interface TrafficCount {
  readonly kind: string;
  readonly tried: number;
  readonly failed: number;
  /** The first few, with the second of the load in which each was known. */
  readonly errors: readonly string[];
  /** Datagrams may be lost, above all when their backend is taken away; nothing else may fail. */
  readonly mayFail: boolean;
}

interface Counter {
  tried: number;
  failed: number;
  readonly errors: string[];
}

interface Kind {
  readonly name: string;
  readonly mayFail?: boolean;
  readonly pauseMs?: number;
  /** One try of several things: how many, and what went wrong with those that failed. */
  readonly once: (round: number) => Promise<{ readonly tried: number; readonly errors: readonly string[] }>;
}

export interface TrafficOptions {
  /** How long vanished clients stay away: longer than the proxy takes to notice. */
  readonly vanishedMs: number;
  /** The longest that the traffic can last. */
  readonly maxDurationMs: number;
}

const MAX_ERRORS = 8;
const UDP_REPLIES = 'UDP questions and answers';

/** What an agent does by itself until it is stopped. */
interface Load {
  readonly kind: string;
  readonly id: number;
  readonly agent: Agent;
}

/** Runs until `stop`. */
export class SoakTraffic {
  readonly #over = new AbortController();
  readonly #counters = new Map<string, Counter & { readonly mayFail: boolean }>();
  readonly #loads: readonly Load[];
  readonly #ended: Promise<unknown>;

  private constructor(loads: readonly Load[], kinds: readonly Kind[]) {
    this.#loads = loads;
    this.#ended = Promise.all(kinds.map(async (kind) => this.#repeat(kind)));
    // Its owner hears of it at `stop`.
    this.#ended.catch(() => undefined);
  }

  /** The clients are in the three pods after the backends; the last of them is where clients vanish. */
  static async start(clients: readonly Host[], options: TrafficOptions): Promise<SoakTraffic> {
    const [steadyHost, variousHost, ghostHost] = clients;
    if (steadyHost === undefined || variousHost === undefined || ghostHost === undefined)
      throw new Error('a soak needs three hosts of clients');
    const kinds = [
      ...buildTcpKinds(await variousHost.agent()),
      ...buildUdpKinds(await variousHost.agent()),
      await buildTied(variousHost),
      await buildGhosts(ghostHost, options.vanishedMs),
    ];
    return new SoakTraffic(await startLoads(await steadyHost.agent(), options.maxDurationMs), kinds);
  }

  /** Resolves when everything that was under way has ended. */
  async stop(): Promise<readonly TrafficCount[]> {
    this.#over.abort();
    for (const { kind, id, agent } of this.#loads) this.#add(kind, await agent.stopLoad({ id }));
    await this.#ended;
    return [...this.#counters].map(([kind, counter]) => ({ kind, ...counter }));
  }

  #add(kind: string, { requests, failed, failures }: LoadReport): void {
    this.#counters.set(kind, {
      tried: requests,
      failed,
      errors: failures.slice(0, MAX_ERRORS).map(({ errno, atMs }) => errorAt(errno, atMs)),
      mayFail: kind === UDP_REPLIES,
    });
  }

  async #repeat({ name, once, mayFail = false, pauseMs = PAUSE_MS }: Kind): Promise<void> {
    const counter = { tried: 0, failed: 0, errors: [] as string[], mayFail };
    this.#counters.set(name, counter);
    const { signal } = this.#over;
    const startMs = performance.now();
    for (let round = 0; !signal.aborted; round += 1) {
      const { tried, errors } = await once(round);
      counter.tried += tried;
      counter.failed += errors.length;
      const known = errors.slice(0, MAX_ERRORS - counter.errors.length);
      counter.errors.push(...known.map((errno) => errorAt(errno, performance.now() - startMs)));
      // The end of the pause is all that an abort changes.
      await delay(pauseMs, undefined, { signal }).catch(() => undefined);
    }
  }
}

async function startLoads(agent: Agent, maxDurationMs: number): Promise<readonly Load[]> {
  const steady = { host: STEADY_IP, maxDurationMs };
  const web = { ...steady, port: WEB.port, concurrency: 8, pauseMs: 10, timeoutMs: TIMEOUT_MS };
  const fresh = { port: ID.port, concurrency: 4, pauseMs: 20, timeoutMs: TIMEOUT_MS, maxDurationMs };
  const ask = { ...steady, port: ASK.port, concurrency: 8, pauseMs: 20, timeoutMs: 1_000 };
  return [
    { kind: 'HTTP with keep-alive', agent, id: (await agent.startHttpLoad(web)).id },
    {
      kind: 'fresh connections',
      agent,
      id: (await agent.startConnectLoad({ ...fresh, host: STEADY_IP })).id,
    },
    {
      kind: 'fresh connections with affinity',
      agent,
      id: (await agent.startConnectLoad({ ...fresh, host: TIED_IP })).id,
    },
    { kind: UDP_REPLIES, agent, id: (await agent.startUdpLoad(ask)).id },
  ];
}

function buildTcpKinds(agent: Agent): readonly Kind[] {
  const exchange = async (port: number, halfClose: boolean, seed: number) => {
    const target = { host: STEADY_IP, port, bytes: BULK_BYTES, halfClose, seed, timeoutMs: TIMEOUT_MS };
    const { ok, errno } = await agent.tcpExchange(target);
    return { tried: 1, errors: ok ? [] : [errno ?? 'UNKNOWN'] };
  };
  return [
    { name: 'bulk, half-closed', once: async (round) => exchange(SINK.port, true, round) },
    {
      name: 'connections that are used and reset',
      once: async (round) => {
        const target = { host: STEADY_IP, port: ECHO.port, count: HELD, named: true, timeoutMs: TIMEOUT_MS };
        const { id, failures } = await agent.tcpHold(target);
        const used = await agent.heldUse({ id, timeoutMs: TIMEOUT_MS });
        await agent.heldClose({ id, how: round % 2 === 0 ? 'reset' : 'fin' });
        return { tried: HELD, errors: [...failures, ...used.failures].map(({ errno }) => errno) };
      },
    },
    {
      name: 'backends that reset',
      once: async () => {
        const { outcome } = await agent.tcpEnd({
          host: STEADY_IP,
          port: RESET.port,
          sendBytes: 100,
          timeoutMs: TIMEOUT_MS,
        });
        return { tried: 1, errors: outcome === 'reset' ? [] : [outcome] };
      },
    },
  ];
}

function buildUdpKinds(agent: Agent): readonly Kind[] {
  return [
    {
      name: 'UDP from ever new ports',
      mayFail: true,
      once: async () => {
        const target = { host: STEADY_IP, port: ASK.port, count: 10, sameSocket: false, timeoutMs: 1_000 };
        const answers = await agent.udpIdentify(target);
        return {
          tried: answers.length,
          errors: errorsOf(answers),
        };
      },
    },
    {
      name: 'UDP one way',
      mayFail: true,
      once: async () => {
        const flows = { sockets: 20, datagrams: 3, awaitReplies: false };
        const { sent, failures } = await agent.udpFlood({ host: STEADY_IP, port: ONE_WAY.port, ...flows });
        return { tried: sent, errors: failures.map(({ errno }) => errno) };
      },
    },
  ];
}

/** Clients with addresses of their own, each tied to an endpoint as long as it is remembered. */
async function buildTied(host: Host): Promise<Kind> {
  const agent = await host.agent();
  const addresses = Array.from(
    { length: TIED_CLIENTS },
    (_, index) => `10.244.1.${FIRST_TIED_CLIENT + index}`,
  );
  // A soak has its traffic started twice, and the addresses stay.
  for (const address of addresses)
    await host.exec(['ip', 'address', 'replace', `${address}/24`, 'dev', 'eth0']);
  return {
    name: 'many clients with affinity',
    once: async (round) => {
      const localAddress = addresses[round % TIED_CLIENTS] ?? '';
      const answers = await agent.tcpIdentify({
        host: TIED_IP,
        port: ID.port,
        localAddress,
        count: 3,
        timeoutMs: TIMEOUT_MS,
      });
      return { tried: answers.length, errors: errorsOf(answers) };
    },
  };
}

function errorAt(errno: string, atMs: number): string {
  return `${errno} at ${(atMs / 1_000).toFixed(0)} s`;
}

function errorsOf(results: readonly { readonly ok: boolean; readonly errno?: string }[]): readonly string[] {
  return results.flatMap(({ ok, errno }) => (ok ? [] : [errno ?? 'UNKNOWN']));
}

/** Connections whose client falls silent: what it would send, a reset for example, does not leave its pod. */
async function buildGhosts(host: Host, vanishedMs: number): Promise<Kind> {
  const agent = await host.agent();
  const cut = async (operation: '-I' | '-D'): Promise<void> => {
    for (const chain of ['INPUT', 'OUTPUT'])
      await host.run(['iptables', '-w', '5', operation, chain, '-p', 'tcp', '-j', 'DROP']);
  };
  return {
    name: 'clients that vanish',
    pauseMs: 1_000,
    once: async () => {
      const target = { host: STEADY_IP, port: ECHO.port, count: HELD, named: true, timeoutMs: TIMEOUT_MS };
      const { id, failures } = await agent.tcpHold(target);
      const used = await agent.heldUse({ id, timeoutMs: TIMEOUT_MS });
      await cut('-I');
      await agent.heldClose({ id, how: 'reset' });
      // Not cut short by the end of the soak: its connections are to be noticed by the proxy alone.
      await delay(vanishedMs);
      await cut('-D');
      return { tried: HELD, errors: [...failures, ...used.failures].map(({ errno }) => errno) };
    },
  };
}
