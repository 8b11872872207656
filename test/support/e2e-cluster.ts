/**
 * What the upstream e2e tests take for granted, out of network namespaces: nodes with the proxy on each, pods that
 * answer with their names, and Services that a test creates, edits and deletes. Objects reach the proxies as manifests.
 */
import { createLab, type Host, type Lab } from './netns-lab.ts';
import { manifestText } from './objects.ts';
import { ProxyProcess } from './proxy-process.ts';
import { type E2eSpec, e2eObjects } from './e2e-objects.ts';
import { addressOf, clusterIP, type Family } from './dual-stack.ts';
import type { Target } from './e2e-reach.ts';

export const FAMILIES: readonly Family[] = ['IPv4', 'IPv6'];

/** Where every pod and node answers with its name, over TCP and over UDP. */
export const NAME_PORT = 9376;
/** Where every pod and node sends back what it gets, over TCP and over UDP. */
export const ECHO_PORT = 9377;

export interface E2eOptions {
  /** 1 unless told. */
  readonly nodes?: 1 | 2;
  /** On each node; 3 unless told. */
  readonly pods?: number;
  /** Further flags of every proxy. */
  readonly args?: readonly string[];
}

/** Start it in `beforeAll`, close it in `afterAll`. */
export class E2eCluster implements AsyncDisposable {
  readonly lab: Lab;
  readonly #proxies: ProxyProcess[] = [];
  readonly #args: readonly string[];
  #services = 0;

  private constructor(lab: Lab, args: readonly string[]) {
    this.lab = lab;
    this.#args = args;
  }

  /** Resolves when all proxies are ready. Rejects, leaving nothing, when something cannot be started. */
  static async start({ nodes = 1, pods = 3, args = [] }: E2eOptions = {}): Promise<E2eCluster> {
    const lab = await createLab({ nodes, pods });
    const cluster = new E2eCluster(lab, args);
    try {
      await cluster.#start();
      return cluster;
    } catch (error: unknown) {
      await cluster.close();
      throw error;
    }
  }

  /** `node`, and `node2` where there are two. */
  get nodes(): readonly Host[] {
    return this.#hasTwo ? [this.lab.node, this.lab.node2] : [this.lab.node];
  }

  /** Of each node, in the order of `nodes`. */
  get proxies(): readonly ProxyProcess[] {
    return this.#proxies;
  }

  /** A Service of that name, with addresses and node ports that no other of this cluster has; not created yet. */
  service(name: string): E2eService {
    this.#services += 1;
    return new E2eService(this, { name: `${name}-${this.#services}`, number: this.#services });
  }

  /** The name of the Node object of the host that has this address itself or by a pod; undefined: none has. */
  nodeNameOf(address: string): string | undefined {
    const owns = (host: Host): boolean => [host.ipv4, host.ipv6].includes(address);
    if ([this.lab.node, ...this.lab.pods].some(owns)) return this.lab.node.name;
    return this.#hasTwo && [this.lab.node2, ...this.lab.pods2].some(owns) ? this.lab.node2.name : undefined;
  }

  /** Ends every proxy by that signal and starts another in its place, with its objects and its state. */
  async restartProxies(signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    await Promise.all(
      this.#proxies.map(async (proxy, index) => {
        proxy.signal(signal);
        await proxy.exited;
        this.#proxies[index] = await this.#startProxy(index, proxy.directory);
      }),
    );
  }

  async close(): Promise<void> {
    for (const proxy of this.#proxies) await proxy[Symbol.asyncDispose]();
    await this.lab.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  get #hasTwo(): boolean {
    return this.lab.pods2.length > 0;
  }

  async #start(): Promise<void> {
    const hosts = [...this.nodes, ...this.lab.pods, ...this.lab.pods2];
    await Promise.all(hosts.map(async (host) => serveNames(host)));
    await Promise.all(
      this.nodes.map(async (_, index) => {
        this.#proxies[index] = await this.#startProxy(index);
      }),
    );
  }

  async #startProxy(index: number, directory?: string): Promise<ProxyProcess> {
    const node = this.nodes[index];
    if (node === undefined) throw new RangeError(`no node ${index}`);
    const from = directory === undefined ? {} : { directory };
    return ProxyProcess.start(node, { nodeName: node.name, args: this.#args, ...from });
  }
}

async function serveNames(host: Host): Promise<void> {
  const agent = await host.agent();
  const { name } = host;
  await agent.serveTcp({ port: NAME_PORT, mode: 'identify', name });
  await agent.serveUdp({ port: NAME_PORT, mode: 'identify', name });
  await agent.serveTcp({ port: ECHO_PORT, mode: 'echo', name });
  await agent.serveUdp({ port: ECHO_PORT, mode: 'echo', name });
}

/** A dual-stack Service with its slices: what a test edits. It is the same to every proxy of the cluster. */
export class E2eService {
  readonly name: string;
  readonly #number: number;
  readonly #cluster: E2eCluster;

  constructor(cluster: E2eCluster, { name, number }: { readonly name: string; readonly number: number }) {
    this.#cluster = cluster;
    this.name = name;
    this.#number = number;
  }

  /** Creates it, or makes it what this says; the proxies follow in their time. */
  async write(spec: E2eSpec): Promise<void> {
    const { name } = this;
    const nodeNameOf = (address: string): string | undefined => this.#cluster.nodeNameOf(address);
    const text = manifestText(...e2eObjects(spec, { name, number: this.#number, nodeNameOf }));
    for (const proxy of this.#cluster.proxies) await proxy.writeManifest(`${name}.yaml`, text);
  }

  /** Deletes it with its slices. */
  async delete(): Promise<void> {
    for (const proxy of this.#cluster.proxies) await proxy.removeManifest(`${this.name}.yaml`);
  }

  clusterIP(family: Family): string {
    return clusterIP(this.#number, family);
  }

  /** At its clusterIP. Port 80 and TCP unless told. */
  at(family: Family, { port = 80, protocol = 'TCP' }: Partial<Target> = {}): Target {
    return { host: this.clusterIP(family), port, protocol };
  }

  /** At a node port of that node. The first node port and TCP unless told. */
  atNode(
    node: Host,
    family: Family,
    { port = this.nodePort(), protocol = 'TCP' }: Partial<Target> = {},
  ): Target {
    return { host: addressOf(node, family), port, protocol };
  }

  /** A node port of its own; `index` from 0 to 9. */
  nodePort(index = 0): number {
    return 30_000 + this.#number * 10 + index;
  }

  /** From 203.0.113.0/24 (RFC 5737), or from 2001:db8::/32 (RFC 3849); on no host of the lab. */
  externalIP(family: Family): string {
    return family === 'IPv4' ? `203.0.113.${this.#number}` : `2001:db8:113::${this.#number}`;
  }

  /** From 198.51.100.0/24 (RFC 5737), or from 2001:db8::/32 (RFC 3849); on no host of the lab. */
  loadBalancerIP(family: Family): string {
    return family === 'IPv4' ? `198.51.100.${this.#number}` : `2001:db8:100::${this.#number}`;
  }
}
