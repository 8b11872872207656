/**
 * A real control plane on a host of its own in a lab: etcd, kube-apiserver and kube-controller-manager, with the
 * controllers that make endpoints of pods, and without whatever would miss the kubelets.
 *
 *     node  control0 10.99.0.1 ──────── eth0 10.99.0.2  kube-apiserver :6443      control
 *      (forwards for pods and ext)           10.99.0.3  a second one, when asked for
 *                                            127.0.0.1  etcd :2379
 *
 * The test process, in none of the namespaces, reaches them by unix sockets in the scratch directory. All programs
 * belong to the lab, and the directory is removed even if this process is killed.
 */
import { writeFile } from 'node:fs/promises';
import type { ApiClient, Credentials } from './cluster-api.ts';
import { ApiServer, type StartOptions } from './cluster-api-server.ts';
import { clusterAssets, whyNoCluster } from './cluster-assets.ts';
import type { AuditedRequest, AuditFilter, RequestCount } from './cluster-audit.ts';
import type { CertificateAuthority, KeyPair, Subject } from './cluster-certificates.ts';
import { ScratchDirectory } from './cluster-directory.ts';
import { Etcd } from './cluster-etcd.ts';
import { ClusterObjects } from './cluster-objects.ts';
import { pathOf } from './cluster-paths.ts';
import { Program } from './cluster-program.ts';
import type { ClientTrust } from './cluster-trust.ts';
import { ControlPlaneFiles, TOKENS } from './control-plane-files.ts';
import { NETWORK, renderControllerManagerArgv } from './control-plane-flags.ts';
import { type Authorities, type Kubeconfig, renderKubeconfig, writeFiles } from './control-plane-setup.ts';
import type { Host, Lab } from './netns-lab.ts';

const CONTROLLERS_DEADLINE_MS = 60_000;

export interface ControlPlaneOptions {
  /** Cluster IPs of both families, an alpha feature in 1.20; on unless told. */
  readonly dualStack?: boolean;
  /** False: no controllers, so that only the test makes slices; on unless told. */
  readonly controllers?: boolean;
  /** Further flags of every kube-apiserver; they win over the harness's own. */
  readonly apiServerFlags?: readonly string[];
  readonly controllerManagerFlags?: readonly string[];
}

/** What `start` has made before there is anything to start. */
interface Parts extends Authorities {
  readonly host: Host;
  readonly directory: ScratchDirectory;
  readonly files: ControlPlaneFiles;
}

export class ControlPlane implements AsyncDisposable {
  /** `10.99.0.2`, where all of it runs. */
  readonly host: Host;
  readonly apiServer: ApiServer;
  readonly etcd: Etcd;
  /** Makes the usual objects through the first API server, as the administrator. */
  readonly objects: ClusterObjects;
  /** The authority of the API servers' certificates. */
  readonly serverCa: CertificateAuthority;
  /** The authority of client certificates that is trusted from the start. */
  readonly clientCa: CertificateAuthority;
  readonly #options: ControlPlaneOptions;
  readonly #files: ControlPlaneFiles;
  readonly #directory: ScratchDirectory;
  readonly #trust: ClientTrust;
  readonly #servers: ApiServer[] = [];
  #controllerManager: Program | undefined;
  #kubeconfigs = 0;
  #closing: Promise<void> | undefined;

  private constructor(parts: Parts, options: ControlPlaneOptions) {
    this.#options = options;
    this.host = parts.host;
    this.#directory = parts.directory;
    this.#files = parts.files;
    this.serverCa = parts.serverCa;
    this.clientCa = parts.clientCa;
    this.#trust = parts.trust;
    this.etcd = new Etcd(parts.host, parts.files);
    this.apiServer = this.#buildApiServer('kube-apiserver', NETWORK.servers[0]);
    this.objects = new ClusterObjects(this.api);
  }

  /**
   * Starts one, as the host `control` of the lab, once for each lab. Resolves when the API server is ready and the
   * controllers work. The caller closes it, before the lab or after.
   */
  static async start(lab: Lab, options: ControlPlaneOptions = {}): Promise<ControlPlane> {
    const assets = clusterAssets();
    if (assets === undefined) throw new Error(`no control plane: ${whyNoCluster()}`);
    const directory = await ScratchDirectory.create();
    let plane: ControlPlane | undefined;
    try {
      const files = new ControlPlaneFiles(directory.path, assets);
      const [host, authorities] = await Promise.all([attach(lab), writeFiles(files)]);
      plane = new ControlPlane({ host, directory, files, ...authorities }, options);
      await plane.#start();
      return plane;
    } catch (error: unknown) {
      await (plane ?? { close: async () => directory.remove() }).close();
      throw error;
    }
  }

  /** The administrator's client of the first API server. */
  get api(): ApiClient {
    return this.apiServer.api;
  }

  /** The first API server's URL for clients in the lab. */
  get url(): string {
    return this.apiServer.url;
  }

  /** The file of the authority of the API servers' certificates. */
  get serverCaPath(): string {
    return this.#files.serverCa;
  }

  /** A client of the first API server with other credentials. */
  client(credentials: Credentials): ApiClient {
    return this.apiServer.client(credentials);
  }

  /** Writes a kubeconfig with everything in it, and gives its path. */
  async writeKubeconfig({ credentials, server = this.url }: Kubeconfig): Promise<string> {
    this.#kubeconfigs += 1;
    const path = this.#files.in(`kubeconfig-${this.#kubeconfigs}`);
    await writeFile(path, renderKubeconfig({ credentials, server }, this.serverCa.cert), { mode: 0o600 });
    return path;
  }

  // --- who is trusted ---

  /** Another authority of client certificates; nobody trusts it yet. */
  async createClientCa(name: string): Promise<CertificateAuthority> {
    return this.#trust.createAuthority(name);
  }

  async issueClientCert({
    ca = this.clientCa,
    ...subject
  }: Subject & { readonly ca?: CertificateAuthority }): Promise<KeyPair> {
    return ca.issueClientCert(subject);
  }

  /**
   * Makes the client certificates of these authorities valid and all others invalid, and resolves when every running
   * API server sees it so: after up to a minute, when each has looked at its file again, or with `restart` at once.
   */
  async trustClientCAs(
    authorities: readonly CertificateAuthority[],
    { restart = false }: { readonly restart?: boolean } = {},
  ): Promise<void> {
    await this.#trust.write(authorities);
    const running = this.#servers.filter(({ isRunning }) => isRunning);
    for (const server of restart ? running : []) {
      await server.kill();
      await server.start();
    }
    await Promise.all(running.map(async (server) => this.#trust.effective(server, authorities)));
  }

  // --- faults; those of a further API server are methods of its own ---

  /** SIGKILL; resolves when it has ended. */
  async killApiServer(): Promise<void> {
    await this.apiServer.kill();
  }

  /** SIGTERM; resolves when it has ended: with a watch open, after a minute. */
  async stopApiServer(): Promise<void> {
    await this.apiServer.stop();
  }

  /** Starts it again on the same data. Resolves when it is ready, or earlier when told so. */
  async startApiServer(options?: StartOptions): Promise<void> {
    await this.apiServer.start(options);
  }

  pauseApiServer(): void {
    this.apiServer.pause();
  }

  resumeApiServer(): void {
    this.apiServer.resume();
  }

  /**
   * A second API server on the same etcd, at 10.99.0.3:6443; resolves when it is ready. The controllers know the
   * first one only.
   */
  async addApiServer(): Promise<ApiServer> {
    const address = NETWORK.servers[this.#servers.length];
    if (address === undefined) throw new Error(`there are ${this.#servers.length} API servers already`);
    const server = this.#buildApiServer(`kube-apiserver-${this.#servers.length + 1}`, address);
    await server.open();
    await server.start();
    return server;
  }

  /**
   * Forgets the history before the current revision, and gives that. API servers answer watches from a history of
   * their own, so only one that is started again, or a resource without such a cache (events), shows it by 410.
   */
  async compactEtcd(): Promise<number> {
    return this.etcd.compact();
  }

  // --- what clients cost ---

  /** What the API servers were asked, by their audit logs; a moment late. */
  async auditedRequests(filter?: AuditFilter): Promise<AuditedRequest[]> {
    return (await Promise.all(this.#servers.map(async (server) => server.auditedRequests(filter)))).flat();
  }

  /** What the first API server has counted since it started. */
  async requestCounts(): Promise<RequestCount[]> {
    return this.apiServer.requestCounts();
  }

  /** The last lines that kube-controller-manager wrote. */
  async controllersLogTail(): Promise<string> {
    return (await this.#controllerManager?.logTail()) ?? '';
  }

  /** Kills all programs and removes the directory; the host, with its agent, stays in the lab. Idempotent. */
  async close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #close(): Promise<void> {
    const closing = [this.#controllerManager?.end('SIGKILL'), this.etcd.close()];
    await Promise.all([...closing, ...this.#servers.map(async (server) => server.close())]);
    await this.#directory.remove();
  }

  async #start(): Promise<void> {
    await Promise.all([this.etcd.start(), this.apiServer.open()]);
    // The controllers wait ten seconds for a healthy server, and then end.
    await this.apiServer.start({ until: 'serving' });
    await Promise.all([
      this.apiServer.ready(),
      this.#options.controllers === false ? undefined : this.#startControllers(),
    ]);
  }

  async #startControllers(): Promise<void> {
    const program = new Program(this.host, {
      argv: renderControllerManagerArgv(this.#files, {
        kubeconfig: await this.writeKubeconfig({ credentials: TOKENS.controllers }),
        isDualStack: this.#isDualStack,
        further: this.#options.controllerManagerFlags ?? [],
      }),
      logPath: this.#files.in('kube-controller-manager.log'),
    });
    this.#controllerManager = program;
    program.start();
    // The first thing that a controller makes of its own accord.
    const works = async (): Promise<boolean> =>
      (await this.api.get(pathOf('serviceaccounts', { namespace: 'default', name: 'default' }))) !==
      undefined;
    await program.ready('to make a service account', works, CONTROLLERS_DEADLINE_MS);
  }

  get #isDualStack(): boolean {
    return this.#options.dualStack !== false;
  }

  #buildApiServer(name: string, address: string): ApiServer {
    const server = new ApiServer(this.host, {
      files: this.#files,
      name,
      ca: this.serverCa.cert,
      flags: {
        address,
        isDualStack: this.#isDualStack,
        further: this.#options.apiServerFlags ?? [],
      },
    });
    this.#servers.push(server);
    return server;
  }
}

/** With its agent: starting that takes as long as the certificates do. */
async function attach(lab: Lab): Promise<Host> {
  const host = await lab.attach({
    name: 'control',
    nodeInterface: 'control0',
    nodeAddresses: [NETWORK.node],
    hostAddresses: NETWORK.servers.map((address) => `${address}/${NETWORK.prefixLength}`),
    hostRoutes: [`default via ${NETWORK.gateway}`],
  });
  await host.agent();
  return host;
}
