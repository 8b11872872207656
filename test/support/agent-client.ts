/**
 * The test process's end of an agent: starts it in a namespace and turns method calls into requests over the IPC
 * channel, which `ip netns exec` hands on as any other descriptor.
 */
import type { ChildProcess, SpawnOptions } from 'node:child_process';
import { join } from 'node:path';
import type { AgentFunctions, AgentMethod, AgentReply, AgentRequest } from './agent-protocol.ts';

/** What a request may take beyond the deadlines that its own parameters set. */
const GRACE_MS = 10_000;
const STDERR_TAIL_CHARACTERS = 4_000;

/** All methods of `AgentMethods`, each resolving with its result. They reject when the agent has ended. */
export type Agent = AgentFunctions & {
  readonly pid: number;
  /** Ends the agent with all its sockets; the namespace stays. */
  close(): Promise<void>;
};

/** The compiler checks that no method is missing here. */
const METHODS: Readonly<Record<AgentMethod, true>> = {
  serveTcp: true,
  serveUdp: true,
  stopServer: true,
  serverReport: true,
  tcpIdentify: true,
  tcpExchange: true,
  tcpProbe: true,
  tcpEnd: true,
  tcpHold: true,
  heldUse: true,
  heldStatus: true,
  heldClose: true,
  tcpStall: true,
  stallDrain: true,
  httpRequests: true,
  httpGet: true,
  startHttpLoad: true,
  startConnectLoad: true,
  startUdpLoad: true,
  loadReport: true,
  stopLoad: true,
  udpExchange: true,
  udpIdentify: true,
  udpFlood: true,
  udpSequence: true,
  openRelay: true,
};

export interface AgentOptions {
  /** The host's name, for messages. */
  readonly name: string;
  /** Starts a command in the agent's namespace. */
  readonly spawn: (argv: readonly string[], options: SpawnOptions) => ChildProcess;
}

interface PendingCall {
  readonly resolve: (result: unknown) => void;
  readonly reject: (error: Error) => void;
  readonly timer: NodeJS.Timeout;
}

/** Starts an agent and resolves when it answers. It ends by `close`, or with this process. */
export async function openAgent(options: AgentOptions): Promise<Agent> {
  const { NODE_OPTIONS: _ignored, ...env } = process.env;
  const child = options.spawn([process.execPath, join(import.meta.dirname, 'agent.ts')], {
    stdio: ['ignore', 'inherit', 'pipe', 'ipc'],
    env,
  });
  const channel = new AgentChannel(options.name, child);
  await channel.ready;
  const functions = Object.fromEntries(
    Object.keys(METHODS).map((method) => [
      method,
      async (params: unknown): Promise<unknown> => channel.call(method, params),
    ]),
    // METHODS holds every name of the map, and the agent's dispatcher is typed by the same map.
  ) as unknown as AgentFunctions;
  return { ...functions, pid: channel.pid, close: async () => channel.close() };
}

class AgentChannel {
  readonly pid: number;
  /** Resolves with the agent's first message, which it sends when it can serve. */
  readonly ready: Promise<void>;
  readonly #name: string;
  readonly #child: ChildProcess;
  readonly #closed: Promise<void>;
  readonly #pending = new Map<number, PendingCall>();
  #lastId = 0;
  #stderr = '';
  #end: Error | undefined;

  constructor(name: string, child: ChildProcess) {
    this.#name = name;
    this.#child = child;
    this.pid = child.pid ?? 0;
    child.stderr?.setEncoding('utf8');
    child.stderr?.on('data', (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-STDERR_TAIL_CHARACTERS);
    });
    this.#closed = new Promise((resolve) => {
      // Not `close`, which does not come after a disconnect.
      child.once('exit', (code, signal) => {
        this.#fail(new Error(`the agent on ${name} has ended (${signal ?? code}) ${this.#stderr}`.trim()));
        resolve();
      });
      child.once('error', (error) => {
        this.#fail(error);
        resolve();
      });
    });
    this.ready = this.#expect(0, GRACE_MS, 'start').then(() => undefined);
    child.on('message', (message) => this.#receive(message as AgentReply));
  }

  async call(method: string, params: unknown): Promise<unknown> {
    if (this.#end !== undefined) throw this.#end;
    this.#lastId += 1;
    const id = this.#lastId;
    const reply = this.#expect(id, longestMs(params) + GRACE_MS, method);
    // A failure to send is followed by the end of the process, which rejects what is pending.
    this.#child.send({ id, method, params } satisfies AgentRequest, () => undefined);
    return reply;
  }

  async close(): Promise<void> {
    if (this.#child.connected) this.#child.disconnect();
    await this.#closed;
  }

  async #expect(id: number, timeoutMs: number, what: string): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#pending.delete(id);
        reject(
          new Error(
            `the agent on ${this.#name} gave no answer to ${what} in ${timeoutMs} ms ${this.#stderr}`,
          ),
        );
      }, timeoutMs);
      this.#pending.set(id, { resolve, reject, timer });
    });
  }

  #receive(reply: AgentReply): void {
    const call = this.#pending.get(reply.id);
    if (call === undefined) return;
    this.#pending.delete(reply.id);
    clearTimeout(call.timer);
    if (reply.ok) call.resolve(reply.result);
    else
      call.reject(Object.assign(new Error(`agent on ${this.#name}: ${reply.message}`), { code: reply.code }));
  }

  #fail(error: Error): void {
    this.#end ??= error;
    for (const call of this.#pending.values()) {
      clearTimeout(call.timer);
      call.reject(error);
    }
    this.#pending.clear();
  }
}

/** The longest time that a request's own deadlines allow it. */
function longestMs(params: unknown): number {
  const read = params as Readonly<Record<string, unknown>>;
  const number = (name: string, otherwise: number): number => {
    const value = read[name];
    return typeof value === 'number' ? value : otherwise;
  };
  const rounds = Math.ceil(number('count', 1) / number('concurrency', 1));
  const oneMs = number('timeoutMs', 5_000) + number('pauseMs', 0);
  return number('durationMs', Number.POSITIVE_INFINITY) < rounds * oneMs
    ? number('durationMs', 0) + oneMs
    : rounds * oneMs;
}
