/**
 * Where the listeners of a proxy in memory send their clients, asked from outside: a client connects, every dial is
 * refused, and so it is led to each endpoint once. It throws when session affinity is not
 * kept, or kept where there is none.
 */
import type { DesiredListener } from '../../src/desired/desired-state.ts';
import type { ListenerId } from '../../src/engine/engine.ts';
import type { MemoryProxy } from './random-edits-memory.ts';
import { parseProxyHeader } from './proxy-protocol-parser.ts';

const CLIENT = { IPv4: '10.244.1.99', IPv6: 'fd00:244:1::99' } as const;
const OTHER_CLIENT = { IPv4: '10.244.1.98', IPv6: 'fd00:244:1::98' } as const;

const LONGER_THAN_EJECTIONS_MS = 3_600_000;

export interface ListenerReport {
  /** In the order of the dials where the scheduler leaves nothing to chance or to the past, else sorted. */
  readonly endpoints: readonly string[];
  /** What backends are told of where the client connected to. */
  readonly preamble: string;
}

export interface BackendsReport {
  readonly listeners: Readonly<Record<string, ListenerReport>>;
  /** Service ports and families that are counted. */
  readonly counted: readonly string[];
}

export function backendsOf(proxy: MemoryProxy): BackendsReport {
  const listeners: Record<string, ListenerReport> = {};
  const open = [...proxy.openListeners()].sort(([a], [b]) => (a < b ? -1 : 1));
  for (const [key, { id }] of open) {
    const desired = proxy.proxier.desired.listeners.get(key as DesiredListener['key']);
    // Those that were refused are not left out any more.
    proxy.clock.advance(LONGER_THAN_EJECTIONS_MS);
    listeners[key] =
      desired === undefined ? { endpoints: ['not desired'], preamble: '' } : reportOf(proxy, id, desired);
  }
  const counted = proxy.forwarder
    .statistics()
    .servicePorts.map(
      ({ name, family }) => `${name.namespace}/${name.name}:${name.port}/${name.protocol}/${family}`,
    );
  return { listeners, counted: counted.sort() };
}

function reportOf(
  proxy: MemoryProxy,
  id: ListenerId,
  { family, servicePort }: DesiredListener,
): ListenerReport {
  const { sessions } = proxy;
  const endpoints: string[] = [];
  let preamble = 'none';
  const session = sessions.open(id, CLIENT[family]);
  for (let at = sessions.endpointOf(session); at !== undefined; at = sessions.endpointOf(session)) {
    if (endpoints.includes(at)) throw new Error(`${at} is dialled twice in one pass`);
    endpoints.push(at);
    preamble = headerText(sessions.preambleOf(session));
    sessions.failDial(session, 'refused');
  }
  proxy.clock.advance(LONGER_THAN_EJECTIONS_MS);
  const scheduler = servicePort.scheduler ?? proxy.settings.scheduler;
  const hasAffinity = servicePort.sessionAffinity.kind === 'ClientIP';
  const isJudged = endpoints.length > 1 && (hasAffinity || scheduler === 'rr');
  if (isJudged && isSticky(proxy, id, OTHER_CLIENT[family]) !== hasAffinity)
    throw new Error(`${servicePort.key} ${hasAffinity ? 'ties nobody' : 'ties clients'} to an endpoint`);
  return {
    endpoints: scheduler === 'sh' || scheduler === 'dh' ? endpoints : endpoints.sort(),
    preamble,
  };
}

/** Does a client whose earlier connections have ended come to the same endpoint again? */
function isSticky({ sessions }: MemoryProxy, id: ListenerId, client: string): boolean {
  const visits = Array.from({ length: 8 }, () => {
    const session = sessions.open(id, client);
    const endpoint = sessions.endpointOf(session);
    sessions.establish(session);
    sessions.close(session);
    return endpoint;
  });
  return new Set(visits).size === 1;
}

function headerText(bytes: Uint8Array): string {
  if (bytes.length === 0) return 'none';
  const version = bytes[0] === 'P'.charCodeAt(0) ? 'v1' : 'v2';
  const header = parseProxyHeader(version, bytes);
  if (header.kind === 'UNKNOWN') return `${version} unknown`;
  return `${version} ${header.kind} from ${header.from.address.join('.')} to ${header.to.address.join('.')}:${header.to.port}`;
}
