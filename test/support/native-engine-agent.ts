/**
 * A process of its own that runs a native engine, for tests of what the engine does to the life of a process. The first
 * argument says what it does; what it tells is one line each on standard output.
 */
import { readFileSync, readdirSync } from 'node:fs';
import { type AddressInfo, type Socket, connect, createServer } from 'node:net';
import { Worker, isMainThread, workerData } from 'node:worker_threads';
import { once } from 'node:events';
import { systemClock } from '../../src/clock.ts';
import type { Decision, EngineEvent, Policy } from '../../src/engine/engine.ts';
import { NativeEngine } from '../../src/engine/native/native-engine.ts';
import { isProxyError } from '../../src/errors.ts';
import { addonUnderTest } from './native-addon.ts';

const OPTIONS = {
  tcpIdleTimeoutMs: 0,
  halfCloseTimeoutMs: 0,
  udpUnrepliedTimeoutMs: 30_000,
  udpRepliedTimeoutMs: 120_000,
};
const CLIENTS = 16;
const WORKERS = 3;

function tell(line: string): void {
  process.stdout.write(`${line}\n`);
}

function makeEngine(decide: (event: EngineEvent) => Decision | undefined): NativeEngine {
  const policy: Policy = { handle: (events) => events.map(decide) };
  return new NativeEngine({ clock: systemClock, policy }, OPTIONS, addonUnderTest());
}

/** On a port that is free. */
async function listen(engine: NativeEngine): Promise<{ close: () => Promise<void>; port: number }> {
  for (let port = 10_000 + (process.pid % 10_000); ; port += 1) {
    try {
      const id = await engine.open({ protocol: 'TCP', family: 'IPv4', port, addresses: ['127.0.0.1'] });
      return { close: async () => engine.close(id), port };
    } catch (error) {
      if (!isProxyError(error, 'ERR_LISTENER_OPEN')) throw error;
    }
  }
}

/** An engine with clients that come and go without a pause. Resolves when a thousand answers have come. */
async function startTraffic(): Promise<void> {
  const backend = createServer((socket) => {
    socket.on('error', () => {});
    socket.end('x');
  });
  backend.listen(0, '127.0.0.1');
  await once(backend, 'listening');
  const { address, port: backendPort } = backend.address() as AddressInfo;
  const to = { address, port: backendPort };
  const engine = makeEngine(({ kind }) =>
    kind === 'opened' ? { kind: 'dial', to, timeoutMs: 10_000 } : undefined,
  );
  const { port } = await listen(engine);
  let answers = 0;
  const { promise, resolve } = Promise.withResolvers<void>();
  const call = (): void => {
    const socket: Socket = connect({ host: '127.0.0.1', port });
    socket.on('error', () => {});
    socket.on('data', () => {
      answers += 1;
      if (answers === 1000) resolve();
    });
    socket.on('close', call);
  };
  for (let client = 0; client < CLIENTS; client += 1) call();
  await promise;
}

/** Of the engine's kind, in this process. */
function countThreads(): number {
  return readdirSync('/proc/self/task').filter((task) => {
    try {
      return readFileSync(`/proc/self/task/${task}/comm`, 'utf8').startsWith('kup-engine');
    } catch {
      return false;
    }
  }).length;
}

async function runWorker(): Promise<void> {
  const worker = new Worker(import.meta.filename, { workerData: 'traffic', stdout: true });
  await once(worker.stdout, 'data');
  tell(`threads ${countThreads()}`);
  await worker.terminate();
}

const TASKS: Readonly<Record<string, () => Promise<void>>> = {
  /** An engine, and nothing else to live for. */
  async idle() {
    makeEngine(() => undefined);
    tell('started');
  },
  /** A listener, until a signal says that it is to close. Its sessions are left undecided. */
  async listening() {
    const engine = makeEngine(() => undefined);
    const { port, close } = await listen(engine);
    tell(`listening ${port}`);
    process.once('SIGUSR2', () => void close().then(() => tell('closed')));
  },
  /** `process.exit` in the middle of traffic. */
  async exit() {
    await startTraffic();
    tell('busy');
    process.exit(7);
  },
  /** Workers with traffic that are terminated one after the other. */
  async workers() {
    for (let count = 0; count < WORKERS; count += 1) await runWorker();
    tell(`threads ${countThreads()}`);
  },
  /** Two at a time, in the addon that both have loaded. */
  async 'workers at once'() {
    await Promise.all([runWorker(), runWorker()]);
    tell(`threads ${countThreads()}`);
  },
  /** The end of an engine that ran, and all that it leaves. */
  async shutdown() {
    const before = readdirSync('/proc/self/fd').length;
    const engine = makeEngine(() => undefined);
    await listen(engine);
    tell(`descriptors ${Math.sign(readdirSync('/proc/self/fd').length - before)} threads ${countThreads()}`);
    await engine.shutdown();
    tell(`descriptors ${readdirSync('/proc/self/fd').length - before} threads ${countThreads()}`);
  },
  /** A policy that breaks its contract. */
  async throwing() {
    const engine = makeEngine(() => {
      throw new Error('the policy is broken');
    });
    const { port } = await listen(engine);
    connect({ host: '127.0.0.1', port }).on('error', () => {});
  },
};

if (isMainThread) {
  await TASKS[process.argv[2] ?? '']?.();
} else if (workerData === 'traffic') {
  await startTraffic();
  tell('busy');
}
