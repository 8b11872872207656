/**
 * The real proxy as a process in a namespace of the lab, with a directory of manifests that the test edits, and
 * the questions a test asks of it. It is started as its users start it: `node src/main.ts --manifests DIR`, with the
 * way of capture and the engine that the suite is run for.
 */
import type { ChildProcess } from 'node:child_process';
import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { captureFlags } from './capture-under-test.ts';
import { engineFlags } from './engine-under-test.ts';
import type { HttpAnswer } from './agent-protocol.ts';
import type { Host } from './netns-host.ts';
import type { LogLine } from './log-sink.ts';
import { type ParsedFamily, parsePrometheusText } from './prometheus-text.ts';
import { waitFor } from './wait.ts';

const MAIN = new URL('../../src/main.ts', import.meta.url).pathname;
const HEALTH_PORT = 10_256;
const METRICS_PORT = 10_249;

export interface ProxyProcessOptions {
  /** File name to YAML text, written before the start. False: no `--manifests`; `args` name another source. */
  readonly manifests?: Readonly<Record<string, string>> | false;
  /** Further flags; later ones win over the defaults of the tests. */
  readonly args?: readonly string[];
  /** The name of its Node object, `--hostname-override`; that of the machine unless told. */
  readonly nodeName?: string;
  /** False: return as soon as the process runs, without waiting for /readyz. */
  readonly awaitReady?: boolean;
  readonly env?: NodeJS.ProcessEnv;
  /** A command that ends in an `exec` of its further arguments, which are the proxy's command line. */
  readonly within?: readonly string[];
}

export interface Exit {
  readonly exitCode: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** Flags that keep tests short: an immediate stop, and rules at most 100 ms after a change. */
const TEST_FLAGS = ['-v', '2', '--drain-timeout', '0', '--iptables-min-sync-period', '100ms'];

/** The proxy port that a rule of iptables-save leads to, by either way of capture; undefined: it leads to none. */
export function divertedPort(rule: string): number | undefined {
  const port = / -j (?:REDIRECT --to-ports |DNAT --to-destination \S+:)(\d+)$/.exec(rule)?.[1];
  return port === undefined ? undefined : Number(port);
}

export class ProxyProcess implements AsyncDisposable {
  /** Scratch directory: `manifests/` and `state/` are in it. */
  readonly directory: string;
  readonly exited: Promise<Exit>;
  /** Standard error, as text. */
  errors = '';
  readonly #host: Host;
  readonly #child: ChildProcess;
  readonly #lines: LogLine[] = [];

  private constructor(host: Host, child: ChildProcess, directory: string) {
    this.#host = host;
    this.#child = child;
    this.directory = directory;
    const { promise, resolve } = Promise.withResolvers<Exit>();
    child.once('close', (exitCode, signal) => resolve({ exitCode, signal }));
    this.exited = promise;
    let rest = '';
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      const lines = (rest + text).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) this.#lines.push(JSON.parse(line) as LogLine);
    });
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.errors += text;
    });
  }

  /** Starts a proxy on that host. With `directory` it takes over the manifests and state of an earlier one. */
  static async start(
    host: Host,
    options: ProxyProcessOptions & { readonly directory?: string } = {},
  ): Promise<ProxyProcess> {
    const directory = options.directory ?? (await mkdtemp(join(tmpdir(), 'kup-proxy-')));
    const manifests = join(directory, 'manifests');
    await host.run(['mkdir', '-p', manifests]);
    for (const [name, text] of Object.entries(options.manifests === false ? {} : (options.manifests ?? {})))
      await writeFile(join(manifests, name), text);
    const { within = [], args = [], nodeName } = options;
    const flags = [
      ...(options.manifests === false ? [] : ['--manifests', manifests]),
      '--state-dir',
      join(directory, 'state'),
      ...TEST_FLAGS,
      ...(nodeName === undefined ? [] : ['--hostname-override', nodeName]),
      ...captureFlags(args),
      ...engineFlags(args),
    ];
    const argv = [...within, process.execPath, MAIN, ...flags, ...args];
    const child = host.spawn(argv, {
      stdio: ['ignore', 'pipe', 'pipe'],
      ...(options.env === undefined ? {} : { env: options.env }),
    });
    const proxy = new ProxyProcess(host, child, directory);
    if (options.awaitReady !== false) await proxy.ready();
    return proxy;
  }

  get pid(): number {
    const { pid } = this.#child;
    if (pid === undefined) throw new Error('the proxy was not started');
    return pid;
  }

  get isRunning(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** The log so far. */
  get log(): readonly LogLine[] {
    return this.#lines;
  }

  /** Waits for a line of the log that `matches`, and gives it. */
  async logged(matches: (line: LogLine) => boolean, what: string, timeoutMs = 5000): Promise<LogLine> {
    return waitFor(() => this.#lines.find(matches), { timeoutMs, what: `a log line: ${what}` });
  }

  /** Resolves when /readyz says yes; rejects at once when the process has ended instead. */
  async ready(timeoutMs = 15_000): Promise<void> {
    const isReady = async (): Promise<boolean> => {
      if (!this.isRunning) return true;
      return (await this.health('/readyz')).status === 200;
    };
    await waitFor(isReady, { timeoutMs, what: 'the proxy to be ready' });
    if (!this.isRunning) {
      throw new Error(
        `the proxy ended: ${this.errors}${this.#lines.map((line) => JSON.stringify(line)).join('\n')}`,
      );
    }
  }

  /** Writes a manifest as editors and ConfigMaps do, by an atomic rename. */
  async writeManifest(name: string, text: string): Promise<void> {
    const path = join(this.directory, 'manifests', name);
    await writeFile(`${path}.part`, text);
    await rename(`${path}.part`, path);
  }

  async removeManifest(name: string): Promise<void> {
    await rm(join(this.directory, 'manifests', name));
  }

  async health(path: string): Promise<HttpAnswer> {
    return (await this.#host.agent()).httpGet({ host: '127.0.0.1', port: HEALTH_PORT, path });
  }

  async page(path: string): Promise<HttpAnswer> {
    return (await this.#host.agent()).httpGet({ host: '127.0.0.1', port: METRICS_PORT, path });
  }

  async metrics(): Promise<ReadonlyMap<string, ParsedFamily>> {
    return parsePrometheusText((await this.page('/metrics')).body);
  }

  /** The sum of the samples of that name whose labels include these; 0 when there is none. */
  async metric(name: string, labels: Readonly<Record<string, string>> = {}): Promise<number> {
    const families = await this.metrics();
    return [...families.values()]
      .flatMap(({ samples }) => samples)
      .filter((sample) => sample.name === name)
      .filter((sample) => Object.entries(labels).every(([label, value]) => sample.labels[label] === value))
      .reduce((sum, { value }) => sum + value, 0);
  }

  /** Our rules in one family's tables, as iptables-save prints them. */
  async rules(family: 'IPv4' | 'IPv6' = 'IPv4'): Promise<readonly string[]> {
    const saved = await this.#host.run([family === 'IPv4' ? 'iptables-save' : 'ip6tables-save']);
    return saved.split('\n').filter((line) => line.includes('USERSPACE-PROXY-'));
  }

  /** The proxy port that rules with this comment (`ns/name:port`) lead to. Rejects when there is none. */
  async proxyPort(
    servicePortName: string,
    { protocol = 'tcp', family = 'IPv4' }: { protocol?: 'tcp' | 'udp'; family?: 'IPv4' | 'IPv6' } = {},
  ): Promise<number> {
    const ports = (await this.rules(family))
      .filter((line) => line.includes(`-p ${protocol} `) && line.includes(`"${servicePortName}"`))
      .map(divertedPort);
    const port = ports.find((each) => each !== undefined);
    if (port === undefined) throw new Error(`no ${protocol} ${family} rule diverts ${servicePortName}`);
    return port;
  }

  /** Waits until traffic of that Service port is diverted to its proxy port, which it gives. */
  async captured(
    servicePortName: string,
    at: { protocol?: 'tcp' | 'udp'; family?: 'IPv4' | 'IPv6' } = {},
  ): Promise<number> {
    return waitFor(async () => this.proxyPort(servicePortName, at), {
      timeoutMs: 5000,
      what: `rules for ${servicePortName}`,
    });
  }

  signal(signal: NodeJS.Signals): void {
    process.kill(this.pid, signal);
  }

  /** SIGTERM, and the exit; keeps the directory. */
  async stop(): Promise<Exit> {
    if (this.isRunning) this.signal('SIGTERM');
    return this.exited;
  }

  /** Ends the process at once and removes the directory. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.isRunning) this.signal('SIGKILL');
    await this.exited;
    await rm(this.directory, { recursive: true, force: true });
  }
}
