/**
 * The one door to other programs (iptables, ip). Arguments never pass through a shell. How a program failed is
 * classified here, once.
 */
import { type ExecFileException, execFile, spawn } from 'node:child_process';
import { ProxyError } from '../errors.ts';

export interface ExecOptions {
  /** Written to the program's standard input, which is then closed. */
  readonly input?: string;
  /** After this the program is killed. */
  readonly timeoutMs: number;
  /** The program's whole environment; default: ours. */
  readonly env?: Readonly<Record<string, string>>;
}

export interface ExecResult {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * Runs a program to its end. A non-zero exit is a result. Rejects with a ProxyError: `ERR_EXEC_NOT_FOUND`,
 * `ERR_EXEC_TIMEOUT`, or `ERR_EXEC_FAILED` when it could not be started or died of a signal.
 */
export type Exec = (command: string, args: readonly string[], options: ExecOptions) => Promise<ExecResult>;

export const exec: Exec = async (command, args, { input, timeoutMs, env }) => {
  const { promise, resolve, reject } = Promise.withResolvers<ExecResult>();
  const options = {
    timeout: timeoutMs,
    killSignal: 'SIGKILL',
    maxBuffer: MAX_OUTPUT_BYTES,
    ...(env === undefined ? {} : { env }),
  } as const;
  const child = execFile(command, args, options, (error, stdout, stderr) => {
    if (error === null) resolve({ exitCode: 0, stdout, stderr });
    else if (typeof error.code === 'number') resolve({ exitCode: error.code, stdout, stderr });
    else reject(execFault(error, { command, timeoutMs, stderr }));
  });
  // A program that ends without reading its input breaks the pipe; its exit code tells the story. One that could
  // not be started for want of descriptors has no pipe at all.
  child.stdin?.on('error', () => {});
  child.stdin?.end(input ?? '');
  return promise;
};

/** Far more than iptables-save prints for a hundred thousand rules. */
const MAX_OUTPUT_BYTES = 268_435_456;

function execFault(
  error: ExecFileException,
  { command, timeoutMs, stderr }: { command: string; timeoutMs: number; stderr: string },
): ProxyError {
  const { code, signal, killed } = error;
  if (code === 'ENOENT') {
    return new ProxyError('ERR_EXEC_NOT_FOUND', `${command} is not installed or not on PATH`, {
      cause: error,
    });
  }
  if (killed === true && signal === 'SIGKILL') {
    return new ProxyError('ERR_EXEC_TIMEOUT', `${command} did not end within ${timeoutMs} ms`);
  }
  if (typeof signal === 'string') {
    return new ProxyError('ERR_EXEC_FAILED', `${command} was ended by ${signal}: ${stderr.trim()}`);
  }
  return new ProxyError('ERR_EXEC_FAILED', `${command} could not be started`, { cause: error });
}

export interface ExecEachLineOptions {
  /** Each line of standard output without its end, as it comes: nothing is kept. */
  readonly onLine: (line: string) => void;
  /** Written to the program's standard input, which is then closed. */
  readonly input?: string;
  /** After this the program is killed. */
  readonly timeoutMs: number;
  /** Ends the program. */
  readonly signal: AbortSignal;
}

/**
 * As `Exec`, for output that may be too long to be held. Rejects with the same codes; `ERR_EXEC_FAILED` also when
 * `signal` ended it.
 */
export type ExecEachLine = (
  command: string,
  args: readonly string[],
  options: ExecEachLineOptions,
) => Promise<Pick<ExecResult, 'exitCode' | 'stderr'>>;

export const execEachLine: ExecEachLine = async (command, args, { onLine, input, timeoutMs, signal }) => {
  const { promise, resolve, reject } = Promise.withResolvers<Pick<ExecResult, 'exitCode' | 'stderr'>>();
  const child = spawn(command, args, { timeout: timeoutMs, killSignal: 'SIGKILL', signal });
  const lines = new LineBuffer(onLine, () => {
    reject(
      new ProxyError('ERR_EXEC_FAILED', `${command} prints a line of more than ${MAX_LINE_CHARS} characters`),
    );
    child.kill('SIGKILL');
  });
  let stderr = '';
  child.once('error', (error) => reject(execFault(error, { command, timeoutMs, stderr })));
  child.once('close', (code, killedBy) => {
    lines.end();
    if (code !== null) resolve({ exitCode: code, stderr });
    const fault = { killed: child.killed, signal: killedBy ?? 'SIGKILL' };
    reject(
      execFault(Object.assign(new Error(`ended by ${killedBy}`), fault), { command, timeoutMs, stderr }),
    );
  });
  // Without a descriptor left there are no pipes, whatever the types say; the error event follows.
  const pipes = child as Partial<typeof child>;
  pipes.stdout?.setEncoding('utf8').on('data', (text: string) => lines.add(text));
  pipes.stderr?.setEncoding('utf8').on('data', (text: string) => {
    if (stderr.length < MAX_STDERR_CHARS) stderr += text;
  });
  pipes.stdin?.on('error', () => {});
  pipes.stdin?.end(input ?? '');
  return promise;
};

/** Enough to say what went wrong. */
const MAX_STDERR_CHARS = 8192;
/** Nothing that we run prints longer ones. */
const MAX_LINE_CHARS = 65_536;

/** Text in pieces, line by line. One that does not end would be held, and copied with each piece: it ends everything. */
class LineBuffer {
  readonly #onLine: (line: string) => void;
  readonly #onTooLong: () => void;
  #rest = '';
  #isOver = false;

  constructor(onLine: (line: string) => void, onTooLong: () => void) {
    this.#onLine = onLine;
    this.#onTooLong = onTooLong;
  }

  add(text: string): void {
    if (this.#isOver) return;
    const lines = (this.#rest + text).split('\n');
    this.#rest = lines.pop() ?? '';
    for (const line of lines) this.#onLine(line);
    if (this.#rest.length <= MAX_LINE_CHARS) return;
    this.#isOver = true;
    this.#rest = '';
    this.#onTooLong();
  }

  /** Nothing follows: what is left is a line too. */
  end(): void {
    if (this.#rest !== '') this.#onLine(this.#rest);
    this.#isOver = true;
  }
}

/** A program that runs on and prints lines, e.g. `ip monitor`. */
export interface LineStream {
  /** Ends the program; resolves when it has ended. Idempotent. */
  close(): Promise<void>;
}

export interface LineStreamHandlers {
  readonly onLine: (line: string) => void;
  /** The program ended without being asked to, or never started. */
  readonly onEnd: (reason: string) => void;
}

export type ExecLines = (
  command: string,
  args: readonly string[],
  handlers: LineStreamHandlers,
) => LineStream;

export const execLines: ExecLines = (command, args, { onLine, onEnd }) => {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'ignore'] });
  const ended = Promise.withResolvers<void>();
  let isClosing = false;
  const end = (reason: string): void => {
    ended.resolve();
    if (!isClosing) onEnd(reason);
    isClosing = true;
  };
  child.once('error', (error) => end(error.message));
  child.once('close', (exitCode, signal) => end(`${command} ended with ${signal ?? exitCode}`));
  const lines = new LineBuffer(
    (line) => {
      if (!isClosing) onLine(line);
    },
    () => child.kill('SIGKILL'),
  );
  // Without a descriptor left there is no pipe, whatever the types say; the error event follows.
  (child.stdout as typeof child.stdout | undefined)
    ?.setEncoding('utf8')
    .on('data', (text: string) => lines.add(text));
  return {
    async close() {
      isClosing = true;
      child.kill('SIGTERM');
      await ended.promise;
    },
  };
};
