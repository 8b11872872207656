/**
 * The lab of the netns tests and of the demo: one Kubernetes node with its pods and an outside client, each a
 * network namespace of its own, dual-stack. Nothing outside these namespaces is changed, and a keeper removes them
 * all even if the process that made the lab is killed.
 *
 *     pod1 10.244.1.11  pod2 10.244.1.12  …        (fd00:244:1::11, …; default routes via the bridge)
 *       │ vp1             │ vp2     hairpin on
 *     ┌─┴─────────────────┴───────────┐
 *     │ cni0 10.244.1.1, fd00:244:1::1│  node
 *     │ eth0 192.168.77.2, fd00:77::2 │            (default routes via ext; forwards both families)
 *     └─┬─────────────────────────────┘
 *       │ eth0 192.168.77.9, fd00:77::9
 *      ext                                         (default routes via node)
 *
 * With `podLinks: 'unnumbered'` there is no bridge, and no address on the node's end of any pod's veth, as with
 * Calico. The node has a route to each pod, answers ARP for the pods' gateway, and filters by reverse path.
 *
 *     pod1 10.244.1.11/32, fd00:244:1::11/128      (default via 169.254.1.1, fe80::ecee:eeff:feee:eeee)
 *       │ vp1: only fe80::ecee:eeff:feee:eeee      (the same on every vpN)
 *      node                                        (10.244.1.11 dev vp1, fd00:244:1::11 dev vp1)
 *
 * With `nodes: 2` there is a second node with as many pods, and a bridge where the cable to ext was:
 *
 *      node   10.244.1.0/24, fd00:244:1::/64       node2  10.244.2.0/24, fd00:244:2::/64
 *       │ eth0 192.168.77.2, fd00:77::2              │ eth0 192.168.77.3, fd00:77::3
 *     ┌─┴────────────────────────────────────────────┴─┐
 *     │ br0                                            │  segment (a namespace of its own, no host)
 *     └─┬──────────────────────────────────────────────┘
 *       │ eth0 192.168.77.9, fd00:77::9
 *      ext                                         (routes to both nodes' pods; the rest via node)
 */
import { type PodLinks, podLinksUnderTest } from './capture-under-test.ts';
import { Host, ProcessGroup } from './netns-host.ts';
import { buildLabPrefix, NamespaceKeeper, sweepStaleLabs } from './netns-keeper.ts';
import { EXT_ADDRESSES, type LabShape, type NodeNumber, type NodePlan, planNodes } from './netns-plan.ts';
import { renderAttachScript, renderLabScript } from './netns-script.ts';

export { canMakeNamespaces, isProcessAlive, listNamespaces, sweepStaleLabs } from './netns-keeper.ts';
export type { ExecOptions, ExecResult, ForgedSegment, Host } from './netns-host.ts';

export interface LabOptions {
  /** How many pods on each node; 4 unless told, at most 200. */
  readonly pods?: number;
  /** How many nodes; 1 unless told. */
  readonly nodes?: NodeNumber;
  /** How pods are joined to their node; unless told, what KUP_TEST_POD_LINKS says, else `bridged`. */
  readonly podLinks?: PodLinks;
}

/** A further host with a link of its own to the node. Addresses are in CIDR form, of either family. */
export interface AttachOptions {
  /** The host's name and the end of its namespace's name: lower case letters, digits and hyphens. */
  readonly name: string;
  /** The node it is joined to: `node` unless told. */
  readonly to?: Host;
  /** The name of the node's end of the link, at most 15 characters; the host's end is `eth0`. */
  readonly nodeInterface: string;
  readonly nodeAddresses: readonly string[];
  readonly hostAddresses: readonly string[];
  /** What follows `ip route add` in the host: `default via 10.9.0.1`. */
  readonly hostRoutes: readonly string[];
  /** What follows `ip route add` on the node: `10.50.0.0/16 via 10.9.0.2 src 10.9.0.1`. */
  readonly nodeRoutes?: readonly string[];
}

export interface DropOptions {
  /** Destination port; every port unless told. */
  readonly port?: number;
  /** `tcp` unless told. */
  readonly protocol?: 'tcp' | 'udp';
  /** Drops only what opens a TCP connection, so that established ones live on; off unless told. */
  readonly synOnly?: boolean;
}

export interface Lab extends AsyncDisposable {
  /** What the names of all its namespaces begin with. */
  readonly prefix: string;
  readonly podLinks: PodLinks;
  /** The node; its `ipv4` and `ipv6` are those of `eth0`, the node IPs. */
  readonly node: Host;
  /** The second node. Throws when there is none. */
  readonly node2: Host;
  /** The first node's addresses on its pods' bridge `cni0`. Throws where pod links are unnumbered: there is none. */
  readonly bridge: { readonly ipv4: string; readonly ipv6: string };
  /** The first node's pods: `pod1`, … */
  readonly pods: readonly Host[];
  /** The second node's pods: `node2-pod1`, …; none where there is one node. */
  readonly pods2: readonly Host[];
  /** The client outside the cluster. */
  readonly ext: Host;
  /** The first node's pod of a number counted from 1, as in its name. Throws when there is none. */
  pod(number: number): Host;
  /** As `pod`, of the second node. */
  podOn2(number: number): Host;
  /** Adds a host. Rejects, leaving the lab usable, when a name, address or route is refused. */
  attach(options: AttachOptions): Promise<Host>;
  /** Makes the host drop what it receives, without any answer, in both families, until the result is called. */
  dropTraffic(host: Host, options?: DropOptions): Promise<() => Promise<void>>;
  /** Kills every process in the lab and removes its namespaces. Idempotent; resolves when nothing is left. */
  close(): Promise<void>;
}

const MAX_PODS = 200;

/** Builds a lab. The caller closes it (`await using` does). Rejects, leaving nothing, when it cannot be built. */
export async function createLab(options: LabOptions = {}): Promise<Lab> {
  const { pods = 4, nodes = 1, podLinks = podLinksUnderTest() } = options;
  if (!Number.isInteger(pods) || pods < 0 || pods > MAX_PODS) {
    throw new RangeError(`pods must be an integer from 0 to ${MAX_PODS}, not ${pods}`);
  }
  await sweepStaleLabs();
  const keeper = new NamespaceKeeper(buildLabPrefix());
  const shape = { pods, nodes, podLinks };
  try {
    await keeper.run(renderLabScript(keeper.prefix, shape));
  } catch (error: unknown) {
    await keeper.close();
    throw error;
  }
  return new NetnsLab(keeper, shape);
}

class NetnsLab implements Lab {
  readonly podLinks: PodLinks;
  readonly node: Host;
  readonly pods: readonly Host[];
  readonly pods2: readonly Host[];
  readonly ext: Host;
  readonly #keeper: NamespaceKeeper;
  readonly #processes = new ProcessGroup();
  /** Also of the namespace that is no host, in labs that have it. */
  readonly #names = new Set<string>(['segment']);
  readonly #node2: Host | undefined;
  readonly #bridge: { readonly ipv4: string; readonly ipv6: string };
  #closing: Promise<void> | undefined;

  constructor(keeper: NamespaceKeeper, shape: LabShape) {
    const [first, second] = planNodes(shape);
    if (first === undefined) throw new Error('a lab has a node');
    this.#keeper = keeper;
    this.podLinks = shape.podLinks;
    this.node = this.#host(first);
    this.pods = this.#podsOf(first);
    this.#node2 = second && this.#host(second);
    this.pods2 = second === undefined ? [] : this.#podsOf(second);
    this.ext = this.#host({ name: 'ext', addresses: EXT_ADDRESSES });
    this.#bridge = { ipv4: first.bridge[0], ipv6: first.bridge[1] };
  }

  get prefix(): string {
    return this.#keeper.prefix;
  }

  get node2(): Host {
    if (this.#node2 === undefined) throw new Error('no second node in this lab');
    return this.#node2;
  }

  get bridge(): Lab['bridge'] {
    if (this.podLinks !== 'bridged') throw new Error(`no bridge in a lab with ${this.podLinks} pod links`);
    return this.#bridge;
  }

  pod(number: number): Host {
    const pod = this.pods[number - 1];
    if (pod === undefined) throw new RangeError(`no pod${number} in a lab of ${this.pods.length} pods`);
    return pod;
  }

  podOn2(number: number): Host {
    const pod = this.pods2[number - 1];
    if (pod === undefined) throw new RangeError(`no pod${number} on node2, which has ${this.pods2.length}`);
    return pod;
  }

  async attach(options: AttachOptions): Promise<Host> {
    if (!/^[a-z0-9-]+$/.test(options.name))
      throw new Error(`not a host name: ${JSON.stringify(options.name)}`);
    if (this.#names.has(options.name)) throw new Error(`the lab has a host ${options.name} already`);
    const { name, to = this.node, nodeRoutes = [], ...link } = options;
    const netns = `${this.prefix}${name}`;
    this.#names.add(name);
    try {
      await this.#keeper.run(renderAttachScript({ ...link, nodeRoutes, netns, node: to.netns }));
    } catch (error: unknown) {
      this.#names.delete(name);
      await this.#keeper.run(`ip netns del ${netns} || true`);
      throw error;
    }
    return this.#host({ name, addresses: options.hostAddresses.map((cidr) => cidr.replace(/\/.*/, '')) });
  }

  async dropTraffic(host: Host, options: DropOptions = {}): Promise<() => Promise<void>> {
    const { port, protocol = 'tcp', synOnly = false } = options;
    const match = ['INPUT', '-p', protocol];
    if (port !== undefined) match.push('--dport', String(port));
    if (synOnly) match.push('--syn');
    const change = async (operation: '-I' | '-D'): Promise<void> => {
      for (const command of ['iptables', 'ip6tables']) {
        await host.run([command, '-w', '5', operation, ...match, '-j', 'DROP']);
      }
    };
    await change('-I');
    return async () => change('-D');
  }

  async close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #close(): Promise<void> {
    // The keeper also kills what the processes themselves have started.
    await Promise.all([this.#processes.close(), this.#keeper.close()]);
  }

  #podsOf(node: NodePlan): readonly Host[] {
    return node.pods.map((pod) => this.#host(pod));
  }

  #host({ name, addresses }: { readonly name: string; readonly addresses: readonly string[] }): Host {
    this.#names.add(name);
    return new Host({ processes: this.#processes }, { name, netns: `${this.prefix}${name}`, addresses });
  }
}
