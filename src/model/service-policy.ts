/**
 * How the traffic of a Service is to be treated: affinity, traffic policies, health check, and what our own
 * annotations say. Pure; what cannot be used is reported and replaced by the default.
 */
import type { V1Service } from '@kubernetes/client-node';
import { type Report, isPortNumber, quoted } from './object.ts';

/** How new clients are tied to endpoints (`spec.sessionAffinity`). */
export type SessionAffinity =
  | { readonly kind: 'None' }
  /** `timeoutMs` since the client's last new connection; core/v1 default 10800 s, range 1 s to 86400 s. */
  | { readonly kind: 'ClientIP'; readonly timeoutMs: number };

/** Local: only to endpoints on this node (core/v1 `spec.internalTrafficPolicy`, `spec.externalTrafficPolicy`). */
export type TrafficPolicy = 'Cluster' | 'Local';

/** How the next endpoint is chosen; the names and their meaning are those of IPVS (`net/netfilter/ipvs`, all weights 1). */
export const SCHEDULERS = ['rr', 'random', 'lc', 'sh', 'dh', 'sed', 'nq'] as const;
export type SchedulerName = (typeof SCHEDULERS)[number];

/** Versions of the PROXY protocol header (haproxy `doc/proxy-protocol.txt`). */
export const PROXY_PROTOCOL_VERSIONS = ['v1', 'v2'] as const;
export type ProxyProtocolVersion = (typeof PROXY_PROTOCOL_VERSIONS)[number];

export const SCHEDULER_ANNOTATION = 'userspace-proxy.io/scheduler';
export const PROXY_PROTOCOL_ANNOTATION = 'userspace-proxy.io/proxy-protocol';

export const DEFAULT_AFFINITY_TIMEOUT_SECONDS = 10_800;
export const MAX_AFFINITY_TIMEOUT_SECONDS = 86_400;

export interface ServicePolicy {
  readonly sessionAffinity: SessionAffinity;
  readonly internalTrafficPolicy: TrafficPolicy;
  /** Of NodePorts, external IPs and load balancer IPs. */
  readonly externalTrafficPolicy: TrafficPolicy;
  /** 0: none. Only load balancers with external policy Local have one (component-helpers `NeedsHealthCheck`). */
  readonly healthCheckNodePort: number;
  /** Undefined: the one of --scheduler. */
  readonly scheduler: SchedulerName | undefined;
  /** The header that backends get before each connection. Undefined: none. */
  readonly proxyProtocol: ProxyProtocolVersion | undefined;
}

export function servicePolicyOf(service: V1Service, report: Report): ServicePolicy {
  const externalTrafficPolicy = trafficPolicyOf(service, 'externalTrafficPolicy', report);
  return {
    sessionAffinity: sessionAffinityOf(service, report),
    internalTrafficPolicy: trafficPolicyOf(service, 'internalTrafficPolicy', report),
    externalTrafficPolicy,
    healthCheckNodePort: externalTrafficPolicy === 'Local' ? healthCheckNodePortOf(service, report) : 0,
    scheduler: annotatedChoice(service, { name: SCHEDULER_ANNOTATION, choices: SCHEDULERS }, report),
    proxyProtocol: annotatedChoice(
      service,
      { name: PROXY_PROTOCOL_ANNOTATION, choices: PROXY_PROTOCOL_VERSIONS },
      report,
    ),
  };
}

function sessionAffinityOf({ spec }: V1Service, report: Report): SessionAffinity {
  const kind = spec?.sessionAffinity ?? 'None';
  if (kind === 'None' || kind === '') return { kind: 'None' };
  if (kind !== 'ClientIP') {
    report('spec.sessionAffinity', `${quoted(kind)} is neither "None" nor "ClientIP"; taken as "None"`);
    return { kind: 'None' };
  }
  const asked = spec?.sessionAffinityConfig?.clientIP?.timeoutSeconds ?? 0;
  const seconds = asked === 0 ? DEFAULT_AFFINITY_TIMEOUT_SECONDS : asked;
  if (Number.isInteger(seconds) && seconds >= 1 && seconds <= MAX_AFFINITY_TIMEOUT_SECONDS) {
    return { kind, timeoutMs: seconds * 1000 };
  }
  report(
    'spec.sessionAffinityConfig.clientIP.timeoutSeconds',
    `${seconds} is outside 1 to ${MAX_AFFINITY_TIMEOUT_SECONDS}; taken as ${DEFAULT_AFFINITY_TIMEOUT_SECONDS}`,
  );
  return { kind, timeoutMs: DEFAULT_AFFINITY_TIMEOUT_SECONDS * 1000 };
}

function trafficPolicyOf(
  { spec }: V1Service,
  field: 'internalTrafficPolicy' | 'externalTrafficPolicy',
  report: Report,
): TrafficPolicy {
  const policy = spec?.[field] ?? '';
  if (policy === 'Local') return policy;
  if (policy !== '' && policy !== 'Cluster') {
    report(`spec.${field}`, `${quoted(policy)} is neither "Cluster" nor "Local"; taken as "Cluster"`);
  }
  return 'Cluster';
}

function healthCheckNodePortOf({ spec }: V1Service, report: Report): number {
  const port = spec?.healthCheckNodePort ?? 0;
  if (spec?.type !== 'LoadBalancer' || port === 0) return 0;
  if (isPortNumber(port)) return port;
  report('spec.healthCheckNodePort', `${port} is outside 1 to 65535; no health check`);
  return 0;
}

function annotatedChoice<T extends string>(
  { metadata }: V1Service,
  { name, choices }: { readonly name: string; readonly choices: readonly T[] },
  report: Report,
): T | undefined {
  const text = metadata?.annotations?.[name]?.trim() ?? '';
  if (text === '') return undefined;
  const choice = choices.find((one) => one === text);
  if (choice === undefined) {
    report(`metadata.annotations[${name}]`, `${quoted(text)} is none of ${choices.join(', ')}; ignored`);
  }
  return choice;
}
