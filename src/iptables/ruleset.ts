/**
 * The rules of one family: from what is to be captured, and the ports of the listeners, to the chains of both tables.
 * Pure.
 *
 *     nat     PREROUTING, OUTPUT ──► SERVICES    to the proxy ports (portal-rules.ts)
 *     filter  INPUT ──(NEW,INVALID)──► INPUT ──► INVALID   packets conntrack cannot place, to our portals: DROP
 *                                        ├────► G-<block>  to proxy ports: diverted ACCEPT; direct REFUSE
 *                                        ├────► H-<block>  health checks: ACCEPT
 *                                        └────► NO-ENDPT-X REJECT or DROP
 *             FORWARD, OUTPUT ────────► FORWARD ─► INVALID, NO-ENDPT, NO-ENDPT-X
 *                                        └────► S-<block>  from UDP proxy ports, in no flow: DROP
 *
 * (each name with the prefix `USERSPACE-PROXY-`). Filter is entered by new and invalid packets only: every packet
 * walks it. What was diverted no longer has a portal for its destination, so whoever meets NO-ENDPT was not let in.
 */
import type { Capture, HealthCheckPort } from '../desired/desired-state.ts';
import type { ListenerKey, Portal } from '../desired/portal.ts';
import type { IpFamily } from '../model/address.ts';
import type { Protocol } from '../model/service-port-name.ts';
import { type Dispatch, dispatchByPort } from './dispatch.ts';
import { type AimedPortal, type Diversion, type RuleAim, dispatchPortals, hostText } from './portal-rules.ts';
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

/** A proxy port that is open, about to open, or draining: private to diverted traffic. */
export interface GuardedPort {
  readonly family: IpFamily;
  readonly protocol: Protocol;
  readonly port: number;
  /** `ns/name:port`. */
  readonly servicePortName: string;
}

export interface RuleSetInput {
  readonly capture: Capture;
  readonly proxyPorts: ReadonlyMap<ListenerKey, number>;
  readonly guardedPorts: readonly GuardedPort[];
  readonly diversion: Diversion;
}

export function buildRuleSet(family: IpFamily, input: RuleSetInput): RuleSet {
  const { capture, proxyPorts, diversion } = input;
  const aimed = capture.portals
    .filter((portal) => portal.family === family)
    .map((portal) => ({ portal, aim: aimOf(portal, proxyPorts) }));
  const guarded = input.guardedPorts.filter((port) => port.family === family);
  return {
    family,
    nat: buildNat(aimed, { family, capture, diversion }),
    filter: buildFilter(aimed, { family, capture, guarded, diversion }),
  };
}

/** A portal whose listener has no proxy port (it could not be opened) is rejected like one without endpoints. */
function aimOf({ target }: Portal, proxyPorts: ReadonlyMap<ListenerKey, number>): RuleAim {
  const noListener: RuleAim = { kind: 'reject', why: 'has no listener' };
  switch (target.kind) {
    case 'listener': {
      const port = proxyPorts.get(target.listener);
      return port === undefined ? noListener : { kind: 'divert', port };
    }
    case 'split': {
      const insidePort = proxyPorts.get(target.inside);
      const outsidePort = target.outside === undefined ? undefined : proxyPorts.get(target.outside);
      const isOutsideMissing = target.outside !== undefined && outsidePort === undefined;
      if (insidePort === undefined || isOutsideMissing) return noListener;
      return { kind: 'split', insidePort, outsidePort };
    }
    case 'drop':
      return { kind: 'drop', why: 'has no local endpoints' };
    case 'reject':
      return { kind: 'reject', why: 'has no endpoints' };
  }
}

function isDiverted({ aim }: AimedPortal): boolean {
  return aim.kind === 'divert' || aim.kind === 'split';
}

function buildNat(
  aimed: readonly AimedPortal[],
  context: { readonly family: IpFamily; readonly capture: Capture; readonly diversion: Diversion },
): TableRules {
  const captured = dispatchPortals(aimed.filter(isDiverted), { ...context, set: '' });
  return {
    hooks: (['PREROUTING', 'OUTPUT'] as const).map((hook) => ({
      hook,
      rule: { comment: 'Service portals', target: { kind: 'jump', chain: SERVICES } },
    })),
    chains: captured.chainsFrom(SERVICES, NODEPORTS),
  };
}

function buildFilter(
  aimed: readonly AimedPortal[],
  {
    family,
    capture,
    guarded,
    diversion,
  }: {
    readonly family: IpFamily;
    readonly capture: Capture;
    readonly guarded: readonly GuardedPort[];
    readonly diversion: Diversion;
  },
): TableRules {
  const dispatch = (portals: readonly AimedPortal[], set: '' | 'R' | 'X') =>
    dispatchPortals(portals, { family, capture, set, diversion: undefined });
  const unlet = aimed.flatMap(refusalOfTheRest);
  const isInternal = ({ portal }: AimedPortal): boolean => portal.kind === 'clusterIP';
  const internal = dispatch(unlet.filter(isInternal), 'R');
  const external = dispatch(
    unlet.filter((one) => !isInternal(one)),
    'X',
  );
  const invalid = dispatch(
    aimed.map(({ portal }) => ({ portal, aim: { kind: 'drop', why: 'is not for stray packets' } })),
    '',
  );
  const guard = buildGuard(guarded, listenAddress(diversion, family));
  const leaks = buildLeakGuard(guarded);
  const healthChecks = buildHealthChecks(capture.healthCheckPorts.filter((port) => port.family === family));
  const toInternal = jumpTo(NO_ENDPOINTS, 'clusterIPs without endpoints');
  const toExternal = jumpTo(NO_ENDPOINTS_EXTERNAL, 'external portals without endpoints');
  return {
    hooks: [enter('INPUT', INPUT), enter('FORWARD', FORWARD), enter('OUTPUT', FORWARD)],
    chains: new Map<ChainName, readonly Rule[]>([
      // The guard first: a health check that has the number of a proxy port does not open it.
      [INPUT, [toInvalid, ...guard.jumps, ...healthChecks.jumps, toExternal]],
      [FORWARD, [toInvalid, ...leaks.jumps, toInternal, toExternal]],
      [REFUSE, refuseRules],
      ...guard.chains,
      ...leaks.chains,
      ...healthChecks.chains,
      ...invalid.chainsFrom(INVALID, NODEPORTS),
      ...internal.chainsFrom(NO_ENDPOINTS),
      ...external.chainsFrom(NO_ENDPOINTS_EXTERNAL, `${NO_ENDPOINTS_EXTERNAL}N`),
    ]),
  };
}

/** What becomes of the packets of a portal that nat has not diverted; none where it diverts them all. */
function refusalOfTheRest({ portal, aim }: AimedPortal): readonly AimedPortal[] {
  const drop = (why: string): readonly AimedPortal[] => [{ portal, aim: { kind: 'drop', why } }];
  if (aim.kind === 'drop' || aim.kind === 'reject') return [{ portal, aim }];
  if (aim.kind === 'split' && aim.outsidePort === undefined) {
    return drop(portal.kind === 'clusterIP' ? 'is not for clients outside' : 'has no local endpoints');
  }
  const isFenced = portal.kind === 'loadBalancerIP' && portal.allowedSources !== undefined;
  return isFenced ? drop('is only for its loadBalancerSourceRanges') : [];
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

/** The one address that listeners are on, as a range; undefined where they are on several. */
function listenAddress(diversion: Diversion, family: IpFamily): string | undefined {
  return diversion.kind === 'dnat' ? hostText(diversion.address, family) : undefined;
}

/**
 * What was diverted carries conntrack's state DNAT and is let in, whatever the firewall's default is. Where all listeners
 * are on one address, the same port of another one is another program's.
 */
function buildGuard(guarded: readonly GuardedPort[], destination: string | undefined): Dispatch {
  // The order in which listeners came and went makes no difference.
  const inOrder = guarded.toSorted((a, b) => a.port - b.port);
  return dispatchByPort(
    'G',
    inOrder.map(({ protocol, port, servicePortName: comment }) => {
      const match = {
        ...(destination === undefined ? {} : { destination }),
        protocol,
        destinationPort: port,
        comment,
      };
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
 * A UDP proxy port only ever answers. What it sends when conntrack has forgotten the flow would leave untranslated, from
 * an address that the client never asked, and open a flow of its own, by which the client gets past the guard.
 */
function buildLeakGuard(guarded: readonly GuardedPort[]): Dispatch {
  const inOrder = guarded.filter(({ protocol }) => protocol === 'UDP').toSorted((a, b) => a.port - b.port);
  return dispatchByPort(
    'S',
    inOrder.map(({ protocol, port, servicePortName: comment }) => ({
      protocol,
      port,
      rules: [{ protocol, sourcePort: port, comment, target: { kind: 'drop' } }],
    })),
  );
}

/** Load balancers are let in whatever the firewall's default is, also to hear that there are no endpoints. */
function buildHealthChecks(ports: readonly HealthCheckPort[]): Dispatch {
  return dispatchByPort(
    'H',
    ports.map(({ port, serviceName }) => {
      const comment = `${serviceName} health check`;
      const match = { protocol: 'TCP', destinationPort: port, conntrackStates: ['NEW'], comment } as const;
      return { protocol: 'TCP', port, rules: [{ ...match, target: { kind: 'accept' } }] };
    }),
  );
}
