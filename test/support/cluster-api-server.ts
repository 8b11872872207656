/** One kube-apiserver of a control plane: its life, its faults, and clients of it. */
import { ApiClient, ApiError, type Credentials } from './cluster-api.ts';
import {
  type AuditedRequest,
  type AuditFilter,
  readAuditLog,
  readRequestCounts,
  type RequestCount,
} from './cluster-audit.ts';
import { Program } from './cluster-program.ts';
import { type ControlPlaneFiles, TOKENS } from './control-plane-files.ts';
import { API_PORT, type ApiServerFlags, renderApiServerArgv } from './control-plane-flags.ts';
import type { Host } from './netns-host.ts';

const START_DEADLINE_MS = 60_000;
/** It lets requests under way end before it goes. */
const STOP_DEADLINE_MS = 75_000;

export interface ApiServerOptions {
  readonly files: ControlPlaneFiles;
  /** The name of its files: log, audit log, socket. */
  readonly name: string;
  /** The authority of its certificate, PEM. */
  readonly ca: string;
  readonly flags: Omit<ApiServerFlags, 'auditLog'>;
}

export interface StartOptions {
  /** `ready` unless told. */
  readonly until?: 'accepting' | 'serving' | 'ready';
}

export class ApiServer {
  readonly address: string;
  /** `https://10.99.0.2:6443`: for the node, pods and `ext`. */
  readonly url: string;
  /** The administrator's client of this server. */
  readonly api: ApiClient;
  readonly #host: Host;
  readonly #program: Program;
  readonly #auditLog: string;
  readonly #socketPath: string;
  readonly #ca: string;
  readonly #clients: ApiClient[] = [];

  /** Does not start it. */
  constructor(host: Host, { files, name, ca, flags }: ApiServerOptions) {
    this.#host = host;
    this.address = flags.address;
    this.url = `https://${flags.address}:${API_PORT}`;
    this.#auditLog = files.in(`${name}-audit.log`);
    this.#socketPath = files.in(`${name}.sock`);
    this.#ca = ca;
    this.#program = new Program(host, {
      argv: renderApiServerArgv(files, { ...flags, auditLog: this.#auditLog }),
      logPath: files.in(`${name}.log`),
    });
    this.api = this.client(TOKENS.admin);
  }

  get isRunning(): boolean {
    return this.#program.isRunning;
  }

  /** Opens the way from the test process, which stays over all restarts. Once, before anything is asked. */
  async open(): Promise<void> {
    const agent = await this.#host.agent();
    await agent.openRelay({ path: this.#socketPath, host: this.address, port: API_PORT });
  }

  /** A client of this server with other credentials; closed with the control plane, if not before. */
  client(credentials: Credentials): ApiClient {
    const client = new ApiClient({ socketPath: this.#socketPath, ca: this.#ca, credentials });
    this.#clients.push(client);
    return client;
  }

  /**
   * Starts it, on the data that is there. Resolves when /readyz is ok, which includes RBAC's own roles; or earlier:
   * `accepting`: the kernel takes connections, which then wait for seconds; `serving`: it answers, if only by errors.
   */
  async start({ until = 'ready' }: StartOptions = {}): Promise<void> {
    this.#program.start();
    const agent = await this.#host.agent();
    const accepts = async (): Promise<boolean> => {
      const { outcome } = await agent.tcpProbe({ host: this.address, port: API_PORT, timeoutMs: 1_000 });
      return outcome === 'connected';
    };
    await this.#program.ready('to accept connections', accepts, START_DEADLINE_MS);
    if (until === 'accepting') return;
    await this.#program.ready('to answer', async () => this.#answers(), START_DEADLINE_MS);
    if (until === 'ready') await this.ready();
  }

  /** Resolves when /readyz is ok. */
  async ready(timeoutMs = START_DEADLINE_MS): Promise<void> {
    const isReady = async (): Promise<boolean> => (await this.api.text('/readyz')) === 'ok';
    await this.#program.ready('to be ready', isReady, timeoutMs);
  }

  /** SIGKILL; resolves when it has ended. Idempotent. */
  async kill(): Promise<void> {
    await this.#program.end('SIGKILL');
  }

  /**
   * SIGTERM; resolves when it has ended. Idempotent. It closes its port at once, and then waits for its clients: with
   * a watch open, a whole minute.
   */
  async stop(): Promise<void> {
    await this.#program.end('SIGTERM', STOP_DEADLINE_MS);
  }

  /** SIGSTOP: the kernel still accepts its connections, and nobody answers. */
  pause(): void {
    this.#program.signal('SIGSTOP');
  }

  resume(): void {
    this.#program.signal('SIGCONT');
  }

  async logTail(): Promise<string> {
    return this.#program.logTail();
  }

  async auditedRequests(filter?: AuditFilter): Promise<AuditedRequest[]> {
    return readAuditLog(this.#auditLog, filter);
  }

  async requestCounts(): Promise<RequestCount[]> {
    return readRequestCounts(this.api);
  }

  /** Kills it and closes all clients. Idempotent. */
  async close(): Promise<void> {
    await Promise.all([this.kill(), ...this.#clients.map(async (client) => client.close())]);
  }

  async #answers(): Promise<boolean> {
    try {
      await this.api.text('/livez');
      return true;
    } catch (error: unknown) {
      if (error instanceof ApiError) return true;
      throw error;
    }
  }
}
