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
 */
import { Host, ProcessGroup } from './netns-host.ts';
import { buildLabPrefix, NamespaceKeeper, sweepStaleLabs } from './netns-keeper.ts';

export { canMakeNamespaces, isProcessAlive, listNamespaces, sweepStaleLabs } from './netns-keeper.ts';
export type { ExecOptions, ExecResult, ForgedSegment, Host } from './netns-host.ts';

export interface LabOptions {
  /** How many pods; 4 unless told, at most 200. */
  readonly pods?: number;
}

/** A further host with a link of its own to the node. Addresses are in CIDR form, of either family. */
export interface AttachOptions {
  /** The host's name and the end of its namespace's name: lower case letters, digits and hyphens. */
  readonly name: string;
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
  /** The node; its `ipv4` and `ipv6` are those of `eth0`, the node IPs. */
  readonly node: Host;
  /** The node's addresses on the pods' bridge `cni0`. */
  readonly bridge: { readonly ipv4: string; readonly ipv6: string };
  readonly pods: readonly Host[];
  /** The client outside the cluster. */
  readonly ext: Host;
  /** The pod of a number counted from 1, as in its name. Throws when there is none. */
  pod(number: number): Host;
  /** Adds a host. Rejects, leaving the lab usable, when a name, address or route is refused. */
  attach(options: AttachOptions): Promise<Host>;
  /** Makes the host drop what it receives, without any answer, in both families, until the result is called. */
  dropTraffic(host: Host, options?: DropOptions): Promise<() => Promise<void>>;
  /** Kills every process in the lab and removes its namespaces. Idempotent; resolves when nothing is left. */
  close(): Promise<void>;
}

const MAX_PODS = 200;
const BRIDGE = { ipv4: '10.244.1.1', ipv6: 'fd00:244:1::1' } as const;
const NODE_ADDRESSES = ['192.168.77.2', 'fd00:77::2'] as const;
const EXT_ADDRESSES = ['192.168.77.9', 'fd00:77::9'] as const;

/** Builds a lab. The caller closes it (`await using` does). Rejects, leaving nothing, when it cannot be built. */
export async function createLab(options: LabOptions = {}): Promise<Lab> {
  const podCount = options.pods ?? 4;
  if (!Number.isInteger(podCount) || podCount < 0 || podCount > MAX_PODS) {
    throw new RangeError(`pods must be an integer from 0 to ${MAX_PODS}, not ${podCount}`);
  }
  await sweepStaleLabs();
  const keeper = new NamespaceKeeper(buildLabPrefix());
  try {
    await keeper.run(renderLabScript(keeper.prefix, podCount));
  } catch (error: unknown) {
    await keeper.close();
    throw error;
  }
  return new NetnsLab(keeper, podCount);
}

class NetnsLab implements Lab {
  readonly bridge = BRIDGE;
  readonly node: Host;
  readonly pods: readonly Host[];
  readonly ext: Host;
  readonly #keeper: NamespaceKeeper;
  readonly #processes = new ProcessGroup();
  readonly #names = new Set<string>();
  #closing: Promise<void> | undefined;

  constructor(keeper: NamespaceKeeper, podCount: number) {
    this.#keeper = keeper;
    this.node = this.#host('node', NODE_ADDRESSES);
    this.ext = this.#host('ext', EXT_ADDRESSES);
    this.pods = Array.from({ length: podCount }, (_, index) =>
      this.#host(`pod${index + 1}`, podAddresses(index + 1)),
    );
  }

  get prefix(): string {
    return this.#keeper.prefix;
  }

  pod(number: number): Host {
    const pod = this.pods[number - 1];
    if (pod === undefined) throw new RangeError(`no pod${number} in a lab of ${this.pods.length} pods`);
    return pod;
  }

  async attach(options: AttachOptions): Promise<Host> {
    if (!/^[a-z0-9-]+$/.test(options.name))
      throw new Error(`not a host name: ${JSON.stringify(options.name)}`);
    if (this.#names.has(options.name)) throw new Error(`the lab has a host ${options.name} already`);
    this.#names.add(options.name);
    try {
      await this.#keeper.run(renderAttachScript(this.#keeper.prefix, options));
    } catch (error: unknown) {
      this.#names.delete(options.name);
      await this.#keeper.run(`ip netns del ${this.#keeper.prefix}${options.name} || true`);
      throw error;
    }
    return this.#host(
      options.name,
      options.hostAddresses.map((cidr) => cidr.replace(/\/.*/, '')),
    );
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

  #host(name: string, addresses: readonly string[]): Host {
    this.#names.add(name);
    return new Host(
      { processes: this.#processes },
      { name, netns: `${this.#keeper.prefix}${name}`, addresses },
    );
  }
}

function podAddresses(number: number): [string, string] {
  return [`10.244.1.${10 + number}`, `fd00:244:1::${10 + number}`];
}

/** Duplicate address detection would hold an IPv6 address back for a second or two. */
function renderAddress(cidr: string, device: string): string {
  return `address add ${cidr} dev ${device}${cidr.includes(':') ? ' nodad' : ''}`;
}

/** One `ip -batch` in a namespace (in the caller's own when undefined): a single process for all commands. */
function renderBatch(netns: string | undefined, commands: readonly string[]): string {
  return `ip ${netns === undefined ? '' : `-netns ${netns} `}-batch - <<'END'\n${commands.join('\n')}\nEND`;
}

function renderLabScript(prefix: string, podCount: number): string {
  const node = `${prefix}node`;
  const ext = `${prefix}ext`;
  const pods = Array.from({ length: podCount }, (_, index) => index + 1);
  return [
    renderBatch(undefined, [
      `netns add ${node}`,
      `netns add ${ext}`,
      ...pods.map((number) => `netns add ${prefix}pod${number}`),
    ]),
    // The node asks for neighbours from its link-local addresses when it forwards, and stays silent while these are
    // tentative; so no detection of duplicates on any interface it will get.
    `ip netns exec ${node} sh -ec '
      echo 1 >/proc/sys/net/ipv4/ip_forward
      echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
      echo 0 >/proc/sys/net/ipv6/conf/all/accept_dad
      echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad'`,
    renderBatch(node, [
      'link set lo up',
      // With a fixed address, which a bridge otherwise takes from its ports, and changes with them.
      'link add cni0 address 0a:58:0a:f4:01:01 type bridge',
      renderAddress(`${BRIDGE.ipv4}/24`, 'cni0'),
      renderAddress(`${BRIDGE.ipv6}/64`, 'cni0'),
      'link set cni0 up',
      `link add eth0 type veth peer name eth0 netns ${ext}`,
      renderAddress('192.168.77.2/24', 'eth0'),
      renderAddress('fd00:77::2/64', 'eth0'),
      'link set eth0 up',
      ...pods.flatMap((number) => [
        `link add vp${number} type veth peer name eth0 netns ${prefix}pod${number}`,
        `link set vp${number} master cni0 up`,
        `link set vp${number} type bridge_slave hairpin on`,
      ]),
      'route add default via 192.168.77.9',
      'route add default via fd00:77::9',
    ]),
    renderHost(
      ext,
      ['192.168.77.9/24', 'fd00:77::9/64'],
      ['default via 192.168.77.2', 'default via fd00:77::2'],
    ),
    ...pods.map((number) => {
      const [ipv4, ipv6] = podAddresses(number);
      return renderHost(
        `${prefix}pod${number}`,
        [`${ipv4}/24`, `${ipv6}/64`],
        [`default via ${BRIDGE.ipv4}`, `default via ${BRIDGE.ipv6}`],
      );
    }),
  ].join('\n');
}

function renderHost(netns: string, addresses: readonly string[], routes: readonly string[]): string {
  return renderBatch(netns, [
    'link set lo up',
    ...addresses.map((cidr) => renderAddress(cidr, 'eth0')),
    'link set eth0 up',
    ...routes.map((route) => `route add ${route}`),
  ]);
}

function renderAttachScript(prefix: string, options: AttachOptions): string {
  const { name, nodeInterface, nodeAddresses, hostAddresses, hostRoutes, nodeRoutes = [] } = options;
  const netns = `${prefix}${name}`;
  return [
    renderBatch(undefined, [`netns add ${netns}`]),
    renderBatch(`${prefix}node`, [
      `link add ${nodeInterface} type veth peer name eth0 netns ${netns}`,
      ...nodeAddresses.map((cidr) => renderAddress(cidr, nodeInterface)),
      `link set ${nodeInterface} up`,
    ]),
    renderHost(netns, hostAddresses, hostRoutes),
    ...(nodeRoutes.length === 0
      ? []
      : [
          renderBatch(
            `${prefix}node`,
            nodeRoutes.map((route) => `route add ${route}`),
          ),
        ]),
  ].join('\n');
}
