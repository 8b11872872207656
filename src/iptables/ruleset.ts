/**
 * The rules of `--capture redirect`: from portals to proxy ports. Pure.
 *
 *     nat     PREROUTING, OUTPUT ──► SERVICES ──► <prefix> ──► REDIRECT --to-ports <proxy port>
 *                                        └─(local)─► NODEPORTS ──► NP-<block> ──► REDIRECT
 *     filter  INPUT ──(NEW,INVALID)──► INPUT ──► INVALID   packets conntrack cannot place, to our portals: DROP
 *                                        ├────► G-<block>  redirected: ACCEPT; direct: REFUSE
 *                                        └────► NO-ENDPT-X REJECT
 *             FORWARD, OUTPUT ────────► FORWARD ─► INVALID, NO-ENDPT, NO-ENDPT-X
 *
 * (each name with the prefix `USERSPACE-PROXY-`). NodePorts stand after the addresses, because an external
 * address can be local too. Filter is entered by new and invalid packets only: every packet walks it.
 */
import type { DesiredState } from '../desired/desired-state.ts';
import type { ListenerKey, Portal } from '../desired/portal.ts';
import type { IpFamily } from '../model/address.ts';
import type { Protocol } from '../model/service-port-name.ts';
import { type ChainSet, type Dispatch, dispatchByPort, dispatchByPrefix } from './dispatch.ts';
import {
  CHAIN_PREFIX,
  type ChainName,
  type HookJump,
  type Rule,
  type RuleSet,
  type TableRules,
} from './rule.ts';

const SERVICES: ChainName = `${CHAIN_PREFIX}SERVICES`;
const NODEPORTS: ChainName = `${CHAIN_PREFIX}NODEPORTS`;
const INPUT: ChainName = `${CHAIN_PREFIX}INPUT`;
const FORWARD: ChainName = `${CHAIN_PREFIX}FORWARD`;
const INVALID: ChainName = `${CHAIN_PREFIX}INVALID`;
const REFUSE: ChainName = `${CHAIN_PREFIX}REFUSE`;
const NO_ENDPOINTS: ChainName = `${CHAIN_PREFIX}NO-ENDPT`;
const NO_ENDPOINTS_EXTERNAL: ChainName = `${CHAIN_PREFIX}NO-ENDPT-X`;

/** A proxy port that is open, about to open, or draining: private to redirected traffic. */
export interface GuardedPort {
  readonly family: IpFamily;
  readonly protocol: Protocol;
  readonly port: number;
  /** `ns/name:port`. */
  readonly servicePortName: string;
}

export interface RuleSetInput {
  readonly desired: DesiredState;
  readonly proxyPorts: ReadonlyMap<ListenerKey, number>;
  readonly guardedPorts: readonly GuardedPort[];
}

/** A portal whose listener has no proxy port (it could not be opened) is rejected like one without endpoints. */
export function buildRuleSet(family: IpFamily, input: RuleSetInput): RuleSet {
  const portals = input.desired.portals.filter((portal) => portal.family === family);
  const guarded = input.guardedPorts.filter((port) => port.family === family);
  const targeted = portals.map((portal): TargetedPortal => {
    const port = portal.target.kind === 'listener' ? input.proxyPorts.get(portal.target.listener) : undefined;
    return { portal, target: port === undefined ? rejectTarget(portal) : { kind: 'redirect', port } };
  });
  return { family, nat: buildNat(targeted), filter: buildFilter(targeted, guarded) };
}

function buildNat(targeted: readonly TargetedPortal[]): TableRules {
  const captured = dispatchPortals(targeted.filter(({ target }) => target.kind === 'redirect'));
  return {
    hooks: (['PREROUTING', 'OUTPUT'] as const).map((hook) => ({
      hook,
      rule: { comment: 'Service portals', target: { kind: 'jump', chain: SERVICES } },
    })),
    chains: captured.chainsFrom(SERVICES, NODEPORTS),
  };
}

interface TargetedPortal {
  readonly portal: Portal;
  readonly target: Rule['target'];
}

/** One rule for each portal, reached in two steps; `set` keeps apart what stands in the same table. */
function dispatchPortals(
  targeted: readonly TargetedPortal[],
  set: ChainSet = '',
): { chainsFrom(addresses: ChainName, nodePorts?: ChainName): Map<ChainName, readonly Rule[]> } {
  const rules = targeted.map(({ portal, target }) => ({ portal, rule: portalRule(portal, target) }));
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
        [first, [...addresses.jumps, ...(second === undefined ? [] : [toNodePorts(second)])]],
        ...(second === undefined ? [] : [[second, nodePorts.jumps] as const]),
        ...addresses.chains,
        ...nodePorts.chains,
      ]),
  };
}

function toNodePorts(chain: ChainName): Rule {
  return {
    isToLocalAddress: true,
    comment: 'NodePorts: after the addresses',
    target: { kind: 'jump', chain },
  };
}

function portalRule(portal: Portal, target: Rule['target']): Rule {
  const common = {
    protocol: portal.protocol,
    destinationPort: portal.port,
    comment: commentOf(portal, target),
    target,
  };
  if (portal.kind === 'nodePort') return common;
  return { destination: `${portal.address}/${portal.family === 'IPv4' ? 32 : 128}`, ...common };
}

/** `iptables-save | grep` for a Service shows also why it is refused. */
function commentOf({ servicePortName, target: { kind } }: Portal, target: Rule['target']): string {
  if (target.kind !== 'reject') return servicePortName;
  return `${servicePortName} has no ${kind === 'reject' ? 'endpoints' : 'listener'}`;
}

function buildFilter(targeted: readonly TargetedPortal[], guarded: readonly GuardedPort[]): TableRules {
  const guard = buildGuard(guarded);
  const rejected = targeted.filter(({ target }) => target.kind === 'reject');
  const isInternal = ({ portal }: TargetedPortal): boolean => portal.kind === 'clusterIP';
  const internal = dispatchPortals(rejected.filter(isInternal), 'R');
  const external = dispatchPortals(
    rejected.filter((one) => !isInternal(one)),
    'X',
  );
  const invalid = dispatchPortals(targeted.map(({ portal }) => ({ portal, target: { kind: 'drop' } })));
  const toInternal = jumpTo(NO_ENDPOINTS, 'clusterIPs without endpoints');
  const toExternal = jumpTo(NO_ENDPOINTS_EXTERNAL, 'external portals without endpoints');
  return {
    hooks: [enter('INPUT', INPUT), enter('FORWARD', FORWARD), enter('OUTPUT', FORWARD)],
    chains: new Map<ChainName, readonly Rule[]>([
      [INPUT, [toInvalid, ...guard.jumps, toExternal]],
      [FORWARD, [toInvalid, toInternal, toExternal]],
      [REFUSE, refuseRules],
      ...guard.chains,
      ...invalid.chainsFrom(INVALID, NODEPORTS),
      ...internal.chainsFrom(NO_ENDPOINTS),
      ...external.chainsFrom(NO_ENDPOINTS_EXTERNAL, `${NO_ENDPOINTS_EXTERNAL}N`),
    ]),
  };
}

function enter(hook: HookJump['hook'], chain: ChainName): HookJump {
  return {
    hook,
    rule: {
      conntrackStates: ['INVALID', 'NEW'],
      comment: 'Service portals and proxy ports',
      target: { kind: 'jump', chain },
    },
  };
}

/**
 * A packet that conntrack calls INVALID is not translated: the kernel would answer it with a reset that ends
 * a healthy connection.
 */
const toInvalid: Rule = {
  conntrackStates: ['INVALID'],
  comment: 'would be answered with a reset',
  target: { kind: 'jump', chain: INVALID },
};

function jumpTo(chain: ChainName, comment: string): Rule {
  return { comment, target: { kind: 'jump', chain } };
}

/** A direct SYN or datagram hears at once that nobody is there; a stray segment hears nothing. */
const refuseRules: readonly Rule[] = [
  {
    protocol: 'TCP',
    isSyn: true,
    comment: 'proxy ports are private',
    target: { kind: 'reject', with: 'tcp-reset' },
  },
  {
    protocol: 'UDP',
    comment: 'proxy ports are private',
    target: { kind: 'reject', with: 'port-unreachable' },
  },
  { comment: 'proxy ports are private', target: { kind: 'drop' } },
];

/** What came through REDIRECT carries conntrack's state DNAT and is let in, whatever the firewall's default is. */
function buildGuard(guarded: readonly GuardedPort[]): Dispatch {
  return dispatchByPort(
    'G',
    guarded.map(({ protocol, port, servicePortName: comment }) => {
      const match = { protocol, destinationPort: port, comment };
      return {
        protocol,
        port,
        rules: [
          { ...match, conntrackStates: ['DNAT'], target: { kind: 'accept' } },
          { ...match, target: { kind: 'jump', chain: REFUSE } },
        ],
      };
    }),
  );
}

/**
 * TCP hears a reset: an ICMPv6 error comes back while the client's connect() still owns the socket, is taken for
 * a soft one (net/ipv6/tcp_ipv6.c, tcp_v6_err), and the refusal would take a retransmission, a second.
 */
function rejectTarget({ protocol }: Portal): Rule['target'] {
  return { kind: 'reject', with: protocol === 'TCP' ? 'tcp-reset' : 'port-unreachable' };
}
