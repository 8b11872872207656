/**
 * A long-lived helper in a host's namespace that is spoken to in messages: each is preceded by its length in four
 * octets, big endian, in both directions. It says that it is ready by one empty message, ends with its input, and
 * whatever it writes to its standard error is a fault.
 */
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import type { Host } from './netns-host.ts';

export interface FramedProcessOptions {
  readonly argv: readonly string[];
  readonly onMessage?: (message: Buffer) => void;
  /** Called once, if it ends without being closed or writes to its standard error. */
  readonly onFault: (error: Error) => void;
}

export class FramedProcess implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #exited: Promise<unknown>;
  #isClosing = false;

  private constructor(child: ChildProcess, exited: Promise<unknown>) {
    this.#child = child;
    this.#exited = exited;
  }

  /** Resolves when it is ready. Whoever opens it closes it; so does the lab of the host. */
  static async open(host: Host, { argv, onMessage, onFault }: FramedProcessOptions): Promise<FramedProcess> {
    const child = host.spawn(argv, { stdio: 'pipe' });
    const ready = Promise.withResolvers<void>();
    const exited = once(child, 'exit');
    const framed = new FramedProcess(child, exited);
    let isFaulty = false;
    const fault = (what: string): void => {
      if (isFaulty || framed.#isClosing) return;
      isFaulty = true;
      const error = new Error(`${host.name}: \`${argv.join(' ')}\` ${what}`);
      ready.reject(error);
      onFault(error);
    };
    // A fault after `ready` is the owner's to hear of.
    ready.promise.catch(() => undefined);
    child.once('error', (error) => fault(error.message));
    child.stderr?.on('data', (text: Buffer) => fault(`wrote: ${text.toString().trim()}`));
    child.stdin?.on('error', () => undefined);
    // After what it has written: `close`, not `exit`.
    child.once('close', (code, signal) => fault(`has ended (${signal ?? code})`));
    let isReady = false;
    child.stdout?.on(
      'data',
      splitFrames((message) => {
        if (isReady) return onMessage?.(message);
        isReady = true;
        ready.resolve();
      }),
    );
    await ready.promise;
    return framed;
  }

  send(messages: readonly Buffer[]): void {
    const frames = messages.flatMap((message) => {
      const length = Buffer.alloc(4);
      length.writeUInt32BE(message.length);
      return [length, message];
    });
    this.#child.stdin?.write(Buffer.concat(frames));
  }

  /** Resolves when it has ended. Idempotent. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosing = true;
    this.#child.stdin?.end();
    await this.#exited;
  }
}

function splitFrames(onMessage: (message: Buffer) => void): (chunk: Buffer) => void {
  let rest: Buffer = Buffer.alloc(0);
  return (chunk) => {
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    let at = 0;
    while (rest.length >= at + 4) {
      const end = at + 4 + rest.readUInt32BE(at);
      if (rest.length < end) break;
      onMessage(rest.subarray(at + 4, end));
      at = end;
    }
    rest = rest.subarray(at);
  };
}
