/** What a native engine does to the life of its process: it holds it as a net.Server does, and ends with it. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { connectTcp } from '../../support/loopback-tcp.ts';
import { isAddonBuilt } from '../../support/native-addon.ts';
import { passTime } from '../../support/fault-process.ts';
import { waitFor } from '../../support/wait.ts';

const AGENT = join(import.meta.dirname, '../../support/native-engine-agent.ts');
const TIMEOUT_MS = 30_000;

class Agent {
  readonly #child: ChildProcess;
  stdout = '';
  stderr = '';
  isGone = false;

  constructor(task: string) {
    this.#child = spawn(process.execPath, [AGENT, task], { stdio: ['ignore', 'pipe', 'pipe'] });
    this.#child.stdout?.on('data', (text: Buffer) => {
      this.stdout += text.toString();
    });
    this.#child.stderr?.on('data', (text: Buffer) => {
      this.stderr += text.toString();
    });
    this.#child.on('close', () => {
      this.isGone = true;
    });
    onTestFinished(() => {
      this.#child.kill('SIGKILL');
    });
  }

  /** The first line like that. */
  async line(pattern: RegExp): Promise<RegExpExecArray> {
    return waitFor(() => pattern.exec(this.stdout), {
      timeoutMs: TIMEOUT_MS,
      what: `${pattern.source}; ${this.stderr}`,
    });
  }

  signal(name: NodeJS.Signals): void {
    this.#child.kill(name);
  }

  /** How it ended, and what it said. */
  async end(): Promise<{ code: number | null; signal: string | null; stdout: string; stderr: string }> {
    if (!this.isGone) await once(this.#child, 'close');
    const { exitCode: code, signalCode: signal } = this.#child;
    return { code, signal, stdout: this.stdout, stderr: this.stderr };
  }
}

describe.skipIf(!isAddonBuilt())('a process with a native engine', { timeout: 2 * TIMEOUT_MS }, () => {
  test('ends by itself when no listener and no session is open', async () => {
    expect(await new Agent('idle').end()).toEqual({ code: 0, signal: null, stdout: 'started\n', stderr: '' });
  });

  test('lives as long as a listener or a session is open, and not longer', async () => {
    const agent = new Agent('listening');
    const [, port] = await agent.line(/listening (\d+)/);
    const client = await connectTcp({ address: '127.0.0.1', port: Number(port) });

    agent.signal('SIGUSR2');
    await agent.line(/closed/);
    // Longer than a process takes that has nothing to live for.
    await passTime(500);
    expect(agent.isGone).toBe(false);
    client.reset();

    expect(await agent.end()).toMatchObject({ code: 0, signal: null, stderr: '' });
  });

  test('can exit in the middle of traffic', async () => {
    expect(await new Agent('exit').end()).toEqual({ code: 7, signal: null, stdout: 'busy\n', stderr: '' });
  });

  test('loses nothing to workers that are terminated in the middle of traffic', async () => {
    expect(await new Agent('workers').end()).toEqual({
      code: 0,
      signal: null,
      stdout: 'threads 1\nthreads 1\nthreads 1\nthreads 0\n',
      stderr: '',
    });
  });

  test('can have engines in several workers at once, each for itself', async () => {
    const { stdout, ...end } = await new Agent('workers at once').end();

    expect(end).toEqual({ code: 0, signal: null, stderr: '' });
    expect(stdout).toMatch(/^threads [12]\nthreads [12]\nthreads 0\n$/);
  });

  test('has neither thread nor descriptor left after shutdown', async () => {
    expect(await new Agent('shutdown').end()).toMatchObject({
      code: 0,
      stdout: 'descriptors 1 threads 1\ndescriptors 0 threads 0\n',
    });
  });

  test('dies of a policy that throws, as of any exception that nobody catches', async () => {
    const { code, stderr } = await new Agent('throwing').end();

    expect(code).not.toBe(0);
    expect(stderr).toContain('the policy is broken');
  });
});
