/**
 * From portals to rules: one rule for each portal in a small chain that is reached in two steps, and a chain of its own
 * where it depends on the sender what happens. Pure.
 *
 *     SERVICES ──► <prefix> ──► (portal) ──► REDIRECT or DNAT to its proxy port
 *         │                        ├─(source ranges)─► F<hash>  one rule for each range
 *         │                        └─(policy Local)──► E<hash>  pods, this node, everybody else
 *         └─(local address)─► NODEPORTS ──► NP-<block> ──► (portal) …
 *
 * NodePorts stand after the addresses, because an external address can be local too.
 */
import type { Capture } from '../desired/desired-state.ts';
import type { Portal } from '../desired/portal.ts';
import { type IpFamily, hostPortText } from '../model/address.ts';
import { type Cidr, LOOPBACK_RANGE, isWholeFamily } from '../model/cidr.ts';
import type { Protocol } from '../model/service-port-name.ts';
import { type ChainSet, chainNamedBy, dispatchByPort, dispatchByPrefix } from './dispatch.ts';
import type { ChainName, Rule, RuleTarget } from './rule.ts';

/** How packets get to a proxy port of this node (`--capture`). */
export type Diversion =
  | { readonly kind: 'redirect' }
  /** By DNAT to the one local address on which all listeners are. */
  | { readonly kind: 'dnat'; readonly address: string };

/** A portal's target, with ports in the place of listeners. */
export type RuleAim =
  | { readonly kind: 'divert'; readonly port: number }
  | { readonly kind: 'split'; readonly insidePort: number; readonly outsidePort: number | undefined }
  | { readonly kind: 'drop'; readonly why: string }
  | { readonly kind: 'reject'; readonly why: string };

export interface AimedPortal {
  readonly portal: Portal;
  readonly aim: RuleAim;
}

export type Chains = Map<ChainName, readonly Rule[]>;

/** `ns/name:port`, and for refusals why: what `iptables-save | grep` for a Service shows. */
function commentOf({ portal, aim }: AimedPortal): string {
  return 'why' in aim ? `${portal.servicePortName} ${aim.why}` : portal.servicePortName;
}

/** The rules of one portal, and the chains of its own that they lead to. */
interface PortalRules {
  readonly rule: Rule;
  readonly chains: Chains;
}

export interface PortalChains {
  /** `addresses` is the chain to enter by; portals that are NodePorts are left out where `nodePorts` is undefined. */
  chainsFrom(addresses: ChainName, nodePorts?: ChainName): Chains;
}

/**
 * `set` keeps apart what stands in the same table. `diversion` is needed where packets are diverted: in nat.
 */
export function dispatchPortals(
  aimed: readonly AimedPortal[],
  context: {
    readonly family: IpFamily;
    readonly capture: Capture;
    readonly set: ChainSet;
    readonly diversion: Diversion | undefined;
  },
): PortalChains {
  const { capture, family, set } = context;
  const rules = aimed.map((one) => ({ portal: one.portal, ...portalRules(one, context) }));
  const addresses = dispatchByPrefix(
    set,
    rules.flatMap(({ portal, rule }) =>
      portal.kind === 'nodePort' ? [] : [{ address: portal.address, rule }],
    ),
  );
  const nodePorts = dispatchByPort(
    `${set}NP`,
    rules.flatMap(({ portal: { kind, protocol, port }, rule }) =>
      kind === 'nodePort' ? [{ protocol, port, rules: [rule] }] : [],
    ),
  );
  return {
    chainsFrom: (first, second) =>
      new Map([
        [first, [...addresses.jumps, ...(second === undefined ? [] : toNodePorts(second, capture, family))]],
        ...(second === undefined ? [] : [[second, nodePorts.jumps] as const]),
        ...addresses.chains,
        ...nodePorts.chains,
        ...rules.flatMap(({ chains }) => [...chains]),
      ]),
  };
}

/** One jump for each range of the addresses on which NodePorts are served; the kernel knows which of them are local. */
function toNodePorts(chain: ChainName, capture: Capture, family: IpFamily): readonly Rule[] {
  const ranges = capture.nodePortRanges[family];
  const jumps = ranges.map(
    (range): Rule => ({
      ...(isWholeFamily(range) ? {} : { destination: range.text }),
      isToLocalAddress: true,
      comment: 'NodePorts: after the addresses',
      target: { kind: 'jump', chain },
    }),
  );
  if (capture.localhostNodePorts || jumps.length === 0) return jumps;
  const spared: Rule = {
    destination: LOOPBACK_RANGE[family].text,
    comment: 'no NodePorts on loopback addresses',
    target: { kind: 'return' },
  };
  return [spared, ...jumps];
}

interface PortalContext {
  readonly family: IpFamily;
  readonly capture: Capture;
  readonly diversion: Diversion | undefined;
}

function portalRules(aimed: AimedPortal, context: PortalContext): PortalRules {
  const { portal, aim } = aimed;
  const match = {
    ...(portal.address === undefined ? {} : { destination: hostText(portal.address, portal.family) }),
    protocol: portal.protocol,
    destinationPort: portal.port,
    comment: commentOf(aimed),
  };
  if (aim.kind === 'drop' || aim.kind === 'reject') {
    return { rule: { ...match, target: refusal(aim.kind, portal.protocol) }, chains: new Map() };
  }
  const chains: Chains = new Map();
  const target = divertingTarget(aimed, aim, { ...context, chains });
  if (portal.kind !== 'loadBalancerIP' || portal.allowedSources === undefined) {
    return { rule: { ...match, target }, chains };
  }
  const place = hostPortText(portal.address, portal.port);
  const fence = chainNamedBy('F', `${portal.servicePortName}/${portal.protocol}/${place}`);
  chains.set(
    fence,
    portal.allowedSources.map((range) => ({
      ...sourceOf(range),
      protocol: portal.protocol,
      comment: `${portal.servicePortName} loadBalancerSourceRanges`,
      target,
    })),
  );
  return { rule: { ...match, target: { kind: 'jump', chain: fence } }, chains };
}

/** To the proxy port, or by a chain that looks at the sender; that chain is put into `chains`. */
function divertingTarget(
  { portal }: AimedPortal,
  aim: Extract<RuleAim, { kind: 'divert' | 'split' }>,
  { family, capture, diversion, chains }: PortalContext & { readonly chains: Chains },
): RuleTarget {
  if (diversion === undefined) throw new TypeError(`${portal.servicePortName} cannot be diverted here`);
  const divert = (port: number): RuleTarget =>
    diversion.kind === 'redirect'
      ? { kind: 'redirect', port }
      : { kind: 'dnat', address: diversion.address, port };
  if (aim.kind === 'divert') return divert(aim.port);
  const { protocol, servicePortName: name } = portal;
  const inside = divert(aim.insidePort);
  const rules: Rule[] = capture.podSources[family].map((source) => ({
    ...(source.kind === 'cidr' ? sourceOf(source.cidr) : { inInterface: source.name }),
    protocol,
    comment: `${name} from pods`,
    target: inside,
  }));
  rules.push({ isFromLocalAddress: true, protocol, comment: `${name} from this node`, target: inside });
  if (aim.outsidePort !== undefined) {
    rules.push({ protocol, comment: `${name} from elsewhere`, target: divert(aim.outsidePort) });
  }
  // Its content follows from the two ports: portals that lead to the same share it.
  const chain = chainNamedBy('E', `${name}/${protocol}/${aim.insidePort}/${aim.outsidePort ?? 'nowhere'}`);
  chains.set(chain, rules);
  return { kind: 'jump', chain };
}

/** A range that holds everybody is no condition: iptables-save does not print it either. */
function sourceOf(range: Cidr): Pick<Rule, 'source'> {
  return isWholeFamily(range) ? {} : { source: range.text };
}

/** One address as a range of its own. */
export function hostText(address: string, family: IpFamily): string {
  return `${address}/${family === 'IPv4' ? 32 : 128}`;
}

/**
 * TCP hears a reset: an ICMPv6 error comes back while the client's connect() still owns the socket, is taken for
 * a soft one (net/ipv6/tcp_ipv6.c, tcp_v6_err), and the refusal would take a retransmission, a second.
 */
function refusal(kind: 'drop' | 'reject', protocol: Protocol): RuleTarget {
  if (kind === 'drop') return { kind };
  return { kind, with: protocol === 'TCP' ? 'tcp-reset' : 'port-unreachable' };
}
