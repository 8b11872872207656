/**
 * The one door to other programs (iptables, ip). Arguments never pass through a shell. How a program failed is
 * classified here, once.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { ProxyError, errnoOf } from '../errors.ts';

export interface ExecOptions {
  /** Written to the program's standard input, which is then closed. */
  readonly input?: string;
  /** After this the program is killed. */
  readonly timeoutMs: number;
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

export const exec: Exec = async (command, args, { input, timeoutMs }) => {
  // Not spawn's own `timeout`: its timer is not cleared when the program cannot be started, and would hold a process
  // that is about to exit for that long.
  const deadline = AbortSignal.timeout(timeoutMs);
  const child = spawn(command, args, {
    stdio: ['pipe', 'pipe', 'pipe'],
    signal: deadline,
    killSignal: 'SIGKILL',
  });
  const stdout = collect(child.stdout);
  const stderr = collect(child.stderr);
  // A program that ends without reading its input breaks the pipe; its exit code tells the story.
  child.stdin.on('error', () => {});
  child.stdin.end(input ?? '');
  const { exitCode, signal } = await exitOf(child, command).catch((error: unknown) => {
    if (!deadline.aborted) throw error;
    throw new ProxyError('ERR_EXEC_TIMEOUT', `${command} did not end within ${timeoutMs} ms`);
  });
  if (exitCode !== null) return { exitCode, stdout: stdout(), stderr: stderr() };
  throw new ProxyError('ERR_EXEC_FAILED', `${command} was ended by ${signal}: ${stderr().trim()}`);
};

function collect(stream: NodeJS.ReadableStream): () => string {
  const chunks: Buffer[] = [];
  stream.on('data', (chunk: Buffer) => chunks.push(chunk));
  return () => Buffer.concat(chunks).toString('utf8');
}

async function exitOf(
  child: ChildProcess,
  command: string,
): Promise<{ exitCode: number | null; signal: NodeJS.Signals | null }> {
  const { promise, resolve, reject } = Promise.withResolvers<{
    exitCode: number | null;
    signal: NodeJS.Signals | null;
  }>();
  child.once('error', (error) => reject(startError(command, error)));
  child.once('close', (exitCode, signal) => resolve({ exitCode, signal }));
  // What a killed program had started may hold its pipes, and by them this process, for long.
  child.once('exit', () => {
    if (!child.killed) return;
    child.stdout?.destroy();
    child.stderr?.destroy();
  });
  return promise;
}

function startError(command: string, error: Error): ProxyError {
  if (errnoOf(error) === 'ENOENT') {
    return new ProxyError('ERR_EXEC_NOT_FOUND', `${command} is not installed or not on PATH`, {
      cause: error,
    });
  }
  return new ProxyError('ERR_EXEC_FAILED', `${command} could not be started`, { cause: error });
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
  let rest = '';
  child.stdout.setEncoding('utf8');
  child.stdout.on('data', (text: string) => {
    const lines = (rest + text).split('\n');
    rest = lines.pop() ?? '';
    if (!isClosing) for (const line of lines) onLine(line);
  });
  const end = (reason: string): void => {
    ended.resolve();
    if (!isClosing) onEnd(reason);
    isClosing = true;
  };
  child.once('error', (error) => end(error.message));
  child.once('close', (exitCode, signal) => end(`${command} ended with ${signal ?? exitCode}`));
  return {
    async close() {
      isClosing = true;
      child.kill('SIGTERM');
      await ended.promise;
    },
  };
};
