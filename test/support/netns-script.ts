/**
 * The shell scripts that build a lab, for its keeper to run. Pure: a plan in, text out. Commands of one namespace are
 * gathered into one `ip -batch`, because processes are what a lab's making takes time for.
 */
import type { PodLinks } from './capture-under-test.ts';
import { EXT_ADDRESSES, type LabShape, type NodePlan, planNodes, type PodPlan } from './netns-plan.ts';

/** A link between a host of the lab and a namespace that is made for it. Addresses are in CIDR form. */
export interface AttachedLink {
  /** Names of namespaces. */
  readonly node: string;
  readonly netns: string;
  readonly nodeInterface: string;
  readonly nodeAddresses: readonly string[];
  readonly hostAddresses: readonly string[];
  /** What follows `ip route add`. */
  readonly hostRoutes: readonly string[];
  readonly nodeRoutes: readonly string[];
}

/** Of the node's end of every unnumbered veth: pods know it, and the link-local address made of it, beforehand. */
const UNNUMBERED_MAC = 'ee:ee:ee:ee:ee:ee';
const UNNUMBERED_LINK_LOCAL = 'fe80::ecee:eeff:feee:eeee';

/** Calico's: on no interface at all; the node answers for it because it has a route to anywhere (proxy ARP). */
const UNNUMBERED_GATEWAY = '169.254.1.1';

/** Makes every namespace of a lab, whose names begin with `prefix`, with its links, addresses and routes. */
export function renderLabScript(prefix: string, shape: LabShape): string {
  const nodes = planNodes(shape);
  const hasSegment = nodes.length > 1;
  const hosts = [...nodes.flatMap(({ name, pods }) => [name, ...pods.map((pod) => pod.name)]), 'ext'];
  return [
    renderBatch(
      undefined,
      [...hosts, ...(hasSegment ? ['segment'] : [])].map((name) => `netns add ${prefix}${name}`),
    ),
    ...nodes.map(({ name }) => renderNodeSettings(`${prefix}${name}`)),
    hasSegment
      ? renderSegment(prefix, [...nodes.map(({ name }) => name), 'ext'])
      : renderBatch(`${prefix}node`, [`link add eth0 type veth peer name eth0 netns ${prefix}ext`]),
    ...nodes.map((node) => renderNode(prefix, { node, others: nodes, podLinks: shape.podLinks })),
    renderHost(
      `${prefix}ext`,
      [`${EXT_ADDRESSES[0]}/24`, `${EXT_ADDRESSES[1]}/64`],
      [
        ...(nodes[0]?.addresses ?? []).map((address) => `default via ${address}`),
        ...(hasSegment ? nodes.flatMap(renderPodRoutes) : []),
      ],
    ),
    ...nodes.flatMap((node) => node.pods.map((pod) => renderPod(prefix, pod, { node, ...shape }))),
  ].join('\n');
}

/** Makes the namespace of an attached host and its link. */
export function renderAttachScript(link: AttachedLink): string {
  const { node, netns, nodeInterface, nodeAddresses, hostAddresses, hostRoutes, nodeRoutes } = link;
  return [
    renderBatch(undefined, [`netns add ${netns}`]),
    renderBatch(node, [
      `link add ${nodeInterface} type veth peer name eth0 netns ${netns}`,
      ...nodeAddresses.map((cidr) => renderAddress(cidr, nodeInterface)),
      `link set ${nodeInterface} up`,
    ]),
    renderHost(netns, hostAddresses, hostRoutes),
    ...(nodeRoutes.length === 0
      ? []
      : [
          renderBatch(
            node,
            nodeRoutes.map((route) => `route add ${route}`),
          ),
        ]),
  ].join('\n');
}

/** What follows `ip` to add an address. Duplicate address detection would hold an IPv6 one back for a second or two. */
export function renderAddress(cidr: string, device: string): string {
  return `address add ${cidr} dev ${device}${cidr.includes(':') ? ' nodad' : ''}`;
}

/** One `ip -batch` in a namespace (in the caller's own when undefined): a single process for all commands. */
function renderBatch(netns: string | undefined, commands: readonly string[]): string {
  return `ip ${netns === undefined ? '' : `-netns ${netns} `}-batch - <<'END'\n${commands.join('\n')}\nEND`;
}

/**
 * A node forwards. It asks for neighbours from its link-local addresses when it does, and stays silent while these
 * are tentative; so no detection of duplicates on any interface it will get.
 */
function renderNodeSettings(netns: string): string {
  return `ip netns exec ${netns} sh -ec '
      echo 1 >/proc/sys/net/ipv4/ip_forward
      echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
      echo 0 >/proc/sys/net/ipv6/conf/all/accept_dad
      echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad'`;
}

/** The bridge that joins `eth0` of those hosts, in a namespace of its own: nothing done to a host can hurt it. */
function renderSegment(prefix: string, names: readonly string[]): string {
  return renderBatch(`${prefix}segment`, [
    'link add br0 type bridge',
    'link set br0 up',
    ...names.flatMap((name) => [
      `link add ${name} type veth peer name eth0 netns ${prefix}${name}`,
      `link set ${name} master br0 up`,
    ]),
  ]);
}

function renderNode(
  prefix: string,
  at: { readonly node: NodePlan; readonly others: readonly NodePlan[]; readonly podLinks: PodLinks },
): string {
  const { name, addresses, pods } = at.node;
  const isBridged = at.podLinks === 'bridged';
  const lines = [
    renderBatch(`${prefix}${name}`, [
      'link set lo up',
      renderAddress(`${addresses[0]}/24`, 'eth0'),
      renderAddress(`${addresses[1]}/64`, 'eth0'),
      'link set eth0 up',
      ...(isBridged ? renderBridge(at.node) : []),
      ...pods.flatMap((pod) => (isBridged ? renderPort(prefix, pod) : renderUnnumbered(prefix, pod))),
      ...EXT_ADDRESSES.map((address) => `route add default via ${address}`),
      ...at.others
        .filter((other) => other.name !== name)
        .flatMap(renderPodRoutes)
        .map((route) => `route add ${route}`),
    ]),
  ];
  if (!isBridged && pods.length > 0) lines.push(renderUnnumberedSettings(`${prefix}${name}`));
  return lines.join('\n');
}

/** With a fixed MAC address, which a bridge otherwise takes from its ports, and changes with them. */
function renderBridge({ bridge, bridgeMac }: NodePlan): readonly string[] {
  return [
    `link add cni0 address ${bridgeMac} type bridge`,
    renderAddress(`${bridge[0]}/24`, 'cni0'),
    renderAddress(`${bridge[1]}/64`, 'cni0'),
    'link set cni0 up',
  ];
}

function renderPort(prefix: string, { name, nodeInterface }: PodPlan): readonly string[] {
  return [
    `link add ${nodeInterface} type veth peer name eth0 netns ${prefix}${name}`,
    `link set ${nodeInterface} master cni0 up`,
    `link set ${nodeInterface} type bridge_slave hairpin on`,
  ];
}

function renderUnnumbered(prefix: string, { name, nodeInterface, addresses }: PodPlan): readonly string[] {
  return [
    `link add ${nodeInterface} address ${UNNUMBERED_MAC} type veth peer name eth0 netns ${prefix}${name}`,
    // The kind of link-local address that can be told from the MAC address.
    `link set ${nodeInterface} addrgenmode eui64`,
    `link set ${nodeInterface} up`,
    `route add ${addresses[0]}/32 dev ${nodeInterface} scope link`,
    `route add ${addresses[1]}/128 dev ${nodeInterface}`,
  ];
}

/**
 * Of the kernel's two reverse path filters, `all` and the interface's own, the laxer counts. Without a delay the
 * kernel answers at once for an address that is not its own, instead of after up to 0.8 s.
 */
function renderUnnumberedSettings(netns: string): string {
  return `ip netns exec ${netns} sh -ec '
      echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter
      for settings in /proc/sys/net/ipv4/conf/vp*; do
        echo 1 >$settings/rp_filter
        echo 1 >$settings/proxy_arp
      done
      for settings in /proc/sys/net/ipv4/neigh/vp*; do echo 0 >$settings/proxy_delay; done'`;
}

/** How other hosts of the segment get to the node's pods. */
function renderPodRoutes({ podCidrs, addresses }: NodePlan): readonly string[] {
  return [`${podCidrs[0]} via ${addresses[0]}`, `${podCidrs[1]} via ${addresses[1]}`];
}

function renderPod(
  prefix: string,
  { name, addresses: [ipv4, ipv6] }: PodPlan,
  { node, podLinks }: { readonly node: NodePlan; readonly podLinks: PodLinks },
): string {
  const netns = `${prefix}${name}`;
  if (podLinks === 'bridged') {
    const routes = node.bridge.map((address) => `default via ${address}`);
    return renderHost(netns, [`${ipv4}/24`, `${ipv6}/64`], routes);
  }
  return renderHost(
    netns,
    [`${ipv4}/32`, `${ipv6}/128`],
    [`default via ${UNNUMBERED_GATEWAY} dev eth0 onlink`, `default via ${UNNUMBERED_LINK_LOCAL} dev eth0`],
  );
}

/** It may have to ask for neighbours from its link-local address at once, for packets that have another's source. */
function renderHost(netns: string, addresses: readonly string[], routes: readonly string[]): string {
  return [
    `ip netns exec ${netns} sh -ec 'echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad'`,
    renderBatch(netns, [
      'link set lo up',
      ...addresses.map((cidr) => renderAddress(cidr, 'eth0')),
      'link set eth0 up',
      ...routes.map((route) => `route add ${route}`),
    ]),
  ].join('\n');
}
