/**
 * One host of a lab: a network namespace with a name and addresses, in which commands and agents run. Every process
 * started here belongs to the lab and is killed when the lab closes; where `setpriv` exists, the kernel also kills
 * it when the thread that started it ends, before the lab's keeper comes round.
 */
import { spawn, spawnSync, type ChildProcess, type SpawnOptions } from 'node:child_process';
import { isIPv4, isIPv6 } from 'node:net';
import { constants } from 'node:os';
import { join } from 'node:path';
import { openAgent, type Agent } from './agent-client.ts';
import { renderAddress } from './netns-script.ts';

const EXEC_DEADLINE_MS = 20_000;

export interface ExecOptions {
  /** What the command reads from its standard input, which is empty otherwise. */
  readonly input?: string;
  /** After this time the command is killed and the promise rejected; 20 s unless told. */
  readonly timeoutMs?: number;
  /** Added to this process's environment. */
  readonly env?: Readonly<Record<string, string>>;
}

export interface ExecResult {
  readonly stdout: string;
  readonly stderr: string;
  /** 128 plus the number of the signal when one ended the command, as a shell has it. */
  readonly exitCode: number;
}

/** One TCP/IPv4 segment that no socket sends. */
export interface ForgedSegment {
  /** Source address and port; they need not be the host's own. */
  readonly src: string;
  readonly sport: number;
  readonly dst: string;
  readonly dport: number;
  readonly seq: number;
  readonly ack: number;
  /** Letters of the TCP flags to set: F, S, R, P, A, U. */
  readonly flags: string;
  /** Payload octets, 0 unless told. */
  readonly payloadBytes?: number;
}

/** All processes that a lab has started and that have not ended. */
export class ProcessGroup {
  readonly #running = new Set<ChildProcess>();

  add<T extends ChildProcess>(child: T): T {
    this.#running.add(child);
    const forget = (): void => void this.#running.delete(child);
    // Not `close`, which does not come for a child whose channel was disconnected.
    child.once('exit', forget);
    child.once('error', forget);
    return child;
  }

  /** Kills all and resolves when all have ended. */
  async close(): Promise<void> {
    const ended = [...this.#running].map(async (child) => {
      const closed = new Promise<void>((resolve) => {
        child.once('exit', () => resolve());
        child.once('error', () => resolve());
      });
      child.kill('SIGKILL');
      await closed;
    });
    await Promise.all(ended);
  }
}

export interface HostOptions {
  readonly name: string;
  readonly netns: string;
  /** The host's addresses without prefix lengths; the first of each family is `ipv4` and `ipv6`. */
  readonly addresses: readonly string[];
}

export class Host {
  /** `node`, `pod1`, `node2`, `node2-pod1`, `ext` or the name given to `attach`. */
  readonly name: string;
  /** The name of the network namespace in `ip netns list`. */
  readonly netns: string;
  readonly #addresses: readonly string[];
  readonly #processes: ProcessGroup;
  #agent: Promise<Agent> | undefined;

  constructor(deps: { readonly processes: ProcessGroup }, options: HostOptions) {
    this.name = options.name;
    this.netns = options.netns;
    this.#addresses = options.addresses;
    this.#processes = deps.processes;
  }

  /** The host's first IPv4 address. Throws when it has none. */
  get ipv4(): string {
    return this.#address(isIPv4, 'IPv4');
  }

  /** The host's first IPv6 address. Throws when it has none. */
  get ipv6(): string {
    return this.#address(isIPv6, 'IPv6');
  }

  /**
   * Starts a command in this namespace. The caller reads its streams; the lab kills it at the latest when it closes.
   * With `detached` it still belongs to the lab.
   */
  spawn(argv: readonly string[], options: SpawnOptions = {}): ChildProcess {
    const [command, ...args] = buildNamespaceCommand(this.netns, argv);
    return this.#processes.add(spawn(command, args, options));
  }

  /** Runs a command to its end. A non-zero exit code is a result; running out of time is an error. */
  async exec(argv: readonly string[], options: ExecOptions = {}): Promise<ExecResult> {
    const child = this.spawn(argv, { stdio: 'pipe', env: { ...process.env, ...options.env } });
    const timeoutMs = options.timeoutMs ?? EXEC_DEADLINE_MS;
    let isLate = false;
    const timer = setTimeout(() => {
      isLate = true;
      child.kill('SIGKILL');
    }, timeoutMs);
    try {
      const stdout: Buffer[] = [];
      const stderr: Buffer[] = [];
      child.stdout?.on('data', (chunk: Buffer) => stdout.push(chunk));
      child.stderr?.on('data', (chunk: Buffer) => stderr.push(chunk));
      // A command that ends without reading its input is no fault of the caller.
      child.stdin?.on('error', () => undefined);
      child.stdin?.end(options.input ?? '');
      const exitCode = await new Promise<number>((resolve, reject) => {
        child.once('error', reject);
        child.once('close', (code, signal) => {
          resolve(code ?? 128 + (signal === null ? 0 : constants.signals[signal]));
        });
      });
      const result = {
        stdout: Buffer.concat(stdout).toString(),
        stderr: Buffer.concat(stderr).toString(),
        exitCode,
      };
      if (isLate)
        throw new Error(`${this.name}: no end of \`${argv.join(' ')}\` in ${timeoutMs} ms; ${result.stderr}`);
      return result;
    } finally {
      clearTimeout(timer);
    }
  }

  /** As `exec`, but a non-zero exit code throws with what the command wrote. Resolves with its standard output. */
  async run(argv: readonly string[], options: ExecOptions = {}): Promise<string> {
    const { stdout, stderr, exitCode } = await this.exec(argv, options);
    if (exitCode !== 0) {
      throw new Error(
        `${this.name}: \`${argv.join(' ')}\` ended with ${exitCode}: ${stderr.trim() || stdout.trim()}`,
      );
    }
    return stdout;
  }

  /**
   * Adds an address in CIDR form to an interface, usable at once; `ipv4` and `ipv6` stay what they are. Rejects when
   * the interface has it already.
   */
  async addAddress(cidr: string, device = 'eth0'): Promise<void> {
    await this.run(['ip', ...renderAddress(cidr, device).split(' ')]);
  }

  /**
   * Removes an address in CIDR form from an interface. Rejects when the interface does not have it. The kernel may
   * take along later IPv4 addresses of the same subnet, and routes that need the address.
   */
  async removeAddress(cidr: string, device = 'eth0'): Promise<void> {
    await this.run(['ip', 'address', 'del', cidr, 'dev', device]);
  }

  /** The agent in this namespace, started by the first call. One that has ended is not started again. */
  async agent(): Promise<Agent> {
    this.#agent ??= openAgent({
      name: this.name,
      spawn: (argv, options) => this.spawn(argv, options),
    });
    return this.#agent;
  }

  /** Sends one TCP segment through a raw socket, with correct checksums; no socket of this host knows of it. */
  async forgeSegment(segment: ForgedSegment): Promise<void> {
    const { src, sport, dst, dport, seq, ack, flags, payloadBytes = 0 } = segment;
    const args = [src, sport, dst, dport, seq, ack, flags, payloadBytes].map(String);
    await this.run(['perl', join(import.meta.dirname, 'forge-segment.pl'), ...args]);
  }

  #address(isFamily: (address: string) => boolean, family: string): string {
    const address = this.#addresses.find(isFamily);
    if (address === undefined) throw new Error(`${this.name} has no ${family} address`);
    return address;
  }
}

/** `argv` as a command that runs in the namespace and, if the machine can, dies with the thread that starts it. */
function buildNamespaceCommand(netns: string, argv: readonly string[]): [string, ...string[]] {
  const inNamespace: [string, ...string[]] = ['ip', 'netns', 'exec', netns, ...argv];
  return hasSetpriv() ? ['setpriv', '--pdeathsig', 'KILL', ...inNamespace] : inNamespace;
}

let setprivAnswer: boolean | undefined;
function hasSetpriv(): boolean {
  setprivAnswer ??= spawnSync('setpriv', ['--pdeathsig', 'KILL', 'true'], { stdio: 'ignore' }).status === 0;
  return setprivAnswer;
}
