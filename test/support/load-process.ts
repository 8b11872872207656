/** The measuring process's end of a load process: starts it in a host of the lab, and asks it. */
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import type { Host } from './netns-host.ts';
import type { LoadMethod, LoadOrder, LoadParams, LoadReply, LoadResult } from './load-protocol.ts';

const START_DEADLINE_MS = 60_000;

interface PendingOrder {
  readonly resolve: (result: unknown) => void;
  readonly reject: (error: Error) => void;
  readonly timer: NodeJS.Timeout;
}

export class LoadProcess implements AsyncDisposable {
  readonly #name: string;
  readonly #child: ChildProcess;
  readonly #exited: Promise<unknown>;
  readonly #pending = new Map<number, PendingOrder>();
  #orders = 0;

  private constructor(name: string, child: ChildProcess) {
    this.#name = name;
    this.#child = child;
    this.#exited = once(child, 'exit');
    child.on('message', (message) => this.#receive(message as LoadReply));
    child.once('exit', () => this.#failAll());
  }

  /** Resolves when it can be asked. The caller closes it; so does the lab. */
  static async open(host: Host): Promise<LoadProcess> {
    const { NODE_OPTIONS: _ignored, ...env } = process.env;
    const child = host.spawn([process.execPath, join(import.meta.dirname, 'load-agent.ts')], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
      env,
    });
    const load = new LoadProcess(host.name, child);
    await load.#expect(0, START_DEADLINE_MS);
    return load;
  }

  /** Rejects when there is no answer after `withinMs`, or the process has ended. */
  async ask<M extends LoadMethod>(
    method: M,
    params: LoadParams<M>,
    withinMs = START_DEADLINE_MS,
  ): Promise<LoadResult<M>> {
    this.#orders += 1;
    const id = this.#orders;
    const reply = this.#expect(id, withinMs);
    // A failure to send is followed by the end of the process, which rejects what is pending.
    this.#child.send({ id, method, params } satisfies LoadOrder, () => undefined);
    // The process's functions are typed by the same map.
    return reply as Promise<LoadResult<M>>;
  }

  /** Resolves when it has ended. Idempotent. */
  async close(): Promise<void> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) this.#child.kill('SIGKILL');
    await this.#exited;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #expect(id: number, withinMs: number): Promise<unknown> {
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    const timer = setTimeout(() => {
      this.#pending.delete(id);
      reject(new Error(`the load process on ${this.#name} gave no answer in ${withinMs} ms`));
    }, withinMs);
    this.#pending.set(id, { resolve, reject, timer });
    return promise;
  }

  #receive(reply: LoadReply): void {
    const order = this.#pending.get(reply.id);
    if (order === undefined) return;
    this.#pending.delete(reply.id);
    clearTimeout(order.timer);
    if (reply.ok) order.resolve(reply.result);
    else order.reject(new Error(`load process on ${this.#name}: ${reply.message}`));
  }

  #failAll(): void {
    for (const { reject, timer } of this.#pending.values()) {
      clearTimeout(timer);
      reject(new Error(`the load process on ${this.#name} has ended`));
    }
    this.#pending.clear();
  }
}

/** Rejects with the reason of an abort; without a signal, or an abort, it stays pending. For races. */
export async function rejectionOf(signal: AbortSignal | undefined): Promise<never> {
  return new Promise((_, reject) => {
    const onAbort = (): void => reject(signal?.reason as Error);
    if (signal?.aborted === true) onAbort();
    signal?.addEventListener('abort', onAbort, { once: true });
  });
}
