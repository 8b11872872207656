/** The measuring process's end of a hammer: starts it in a pod and looks at its attempts as they come in. */
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import type { Host } from '../../test/support/netns-lab.ts';
import type { Attempt, HammerOrder, HammerReport, HammerRun } from './hammer-protocol.ts';

export class Hammer implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #closed: Promise<unknown>;
  #run = 0;
  #attempts: Attempt[] = [];
  #wake: (() => void) | undefined;

  private constructor(child: ChildProcess) {
    this.#child = child;
    this.#closed = once(child, 'close');
    child.on('message', (message) => this.#receive(message as HammerReport));
  }

  /** Starts one in that pod; idle at first. The caller closes it. */
  static async open(pod: Host): Promise<Hammer> {
    const { NODE_OPTIONS: _ignored, ...env } = process.env;
    const child = pod.spawn([process.execPath, join(import.meta.dirname, 'hammer-agent.ts')], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
      env,
    });
    const hammer = new Hammer(child);
    const ended = hammer.#closed.then(() => {
      throw new Error('the hammer has ended');
    });
    // It counts only for the start.
    ended.catch(() => undefined);
    await Promise.race([once(child, 'message'), ended]);
    return hammer;
  }

  /** What has ended since `start`, in the order of the ends. */
  get attempts(): readonly Attempt[] {
    return this.#attempts;
  }

  /** Begins a run, and forgets the one before. */
  start(target: Omit<HammerRun, 'run'>): void {
    this.#run += 1;
    this.#attempts = [];
    this.#tell({ start: { ...target, run: this.#run } });
  }

  /** Ends the run; its attempts stay until the next. */
  stop(): void {
    this.#run += 1;
    this.#tell({});
  }

  /**
   * The first attempt of the run, from that index on, that `matches`, which is asked about each of them once and in
   * order. Undefined when there is none within the time.
   */
  async first(
    from: number,
    matches: (attempt: Attempt) => boolean,
    timeoutMs: number,
  ): Promise<Attempt | undefined> {
    const late = AbortSignal.timeout(timeoutMs);
    for (let index = from; ; index += 1) {
      while (index >= this.#attempts.length) {
        if (late.aborted) return undefined;
        await this.#report(late);
      }
      const attempt = this.#attempts[index];
      if (attempt !== undefined && matches(attempt)) return attempt;
    }
  }

  async close(): Promise<void> {
    // Not by `disconnect`: a child without pipes then never tells that it is closed, which the lab waits for.
    this.#child.kill('SIGKILL');
    await this.#closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #report(late: AbortSignal): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#wake = resolve;
    const onLate = (): void => resolve();
    late.addEventListener('abort', onLate);
    await promise;
    late.removeEventListener('abort', onLate);
  }

  #receive({ run, attempts }: HammerReport): void {
    if (run !== this.#run) return;
    this.#attempts.push(...attempts);
    this.#wake?.();
  }

  #tell(order: HammerOrder): void {
    // To one that has ended nothing can be told, and whoever waits for its attempts waits in vain.
    this.#child.send(order, () => undefined);
  }
}
