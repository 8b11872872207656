/** Builders and texts for the tests of what one Service port contributes to the desired state. */
import { type DesiredState, buildDesiredState } from '../../src/desired/desired-state.ts';
import type { ListenerKey, Portal } from '../../src/desired/portal.ts';
import { type IpFamily, familyOf } from '../../src/model/address.ts';
import type { Endpoint } from '../../src/model/endpoint.ts';
import type { ServicePort } from '../../src/model/service-port.ts';
import type { Random } from '../support/random.ts';
import { type NodeTweak, OWN_NODE, cidrs, makeNodeView } from '../support/rule-fixture.ts';
import {
  NOT_SERVING,
  type ServicePortTweak,
  TERMINATING,
  addresses,
  makeEndpoint,
  makeServicePort,
  makeSnapshot,
} from '../support/snapshots.ts';

/** Every kind of portal in both families. */
export const EVERY_PORTAL: ServicePortTweak = {
  clusterIPs: addresses('10.96.0.10', 'fd00:96::a'),
  externalIPs: addresses('192.0.2.7', '2001:db8::7'),
  loadBalancerIPs: addresses('198.51.100.7', '2001:db8:1::7'),
  nodePort: 30_080,
};

/** Nothing external. */
export const ONLY_CLUSTER_IPS: ServicePortTweak = { externalIPs: [], loadBalancerIPs: [], nodePort: 0 };

/** `default/web` with every kind of portal, unless tweaked. */
export function makeWeb(tweak: ServicePortTweak = {}): ServicePort {
  return makeServicePort({ name: 'web' }, { ...EVERY_PORTAL, ...tweak });
}

/** Ready on this node at port 8080, unless tweaked. */
export function here(address: string, tweak: Partial<Endpoint> = {}): Endpoint {
  return makeEndpoint(address, 8080, { nodeName: OWN_NODE, ...tweak });
}

/** As `here`, on another node. */
export function elsewhere(address: string, tweak: Partial<Endpoint> = {}): Endpoint {
  return makeEndpoint(address, 8080, { nodeName: 'node2', ...tweak });
}

/** In both families, an endpoint here and one elsewhere. */
export const HERE_AND_ELSEWHERE = [
  here('10.0.0.1'),
  elsewhere('10.0.0.2'),
  here('fd00:1::1'),
  elsewhere('fd00:1::2'),
] as const;

export const ONLY_ELSEWHERE = [elsewhere('10.0.0.2'), elsewhere('fd00:1::2')] as const;

export function desiredOf(
  servicePort: ServicePort,
  endpoints: readonly Endpoint[],
  node: NodeTweak = {},
): DesiredState {
  return buildDesiredState(makeSnapshot([servicePort, endpoints]), makeNodeView(node));
}

/** What of a listener's key comes after its Service port and family. */
function listenerText(key: ListenerKey): string {
  return key.split('/').slice(4).join('/');
}

/** `cluster`, `inside cluster, outside local`, `inside cluster, outside nobody`, `drop`, `reject`. */
export function targetText({ target }: Portal): string {
  switch (target.kind) {
    case 'listener':
      return listenerText(target.listener);
    case 'split': {
      const outside = target.outside === undefined ? 'nobody' : listenerText(target.outside);
      return `inside ${listenerText(target.inside)}, outside ${outside}`;
    }
    case 'drop':
    case 'reject':
      return target.kind;
  }
}

/** By family and kind, where its traffic goes; several of a kind that go to one place are one. */
export function targetsOf(desired: DesiredState): Record<string, string> {
  const texts = new Map<string, Set<string>>();
  for (const portal of desired.capture.portals) {
    const key = `${portal.family} ${portal.kind}`;
    texts.set(key, (texts.get(key) ?? new Set()).add(targetText(portal)));
  }
  return Object.fromEntries([...texts].map(([key, targets]) => [key, [...targets].join(' and ')]));
}

/** By what of their keys comes after the Service port, the addresses that listeners may use. */
export function endpointsOf(desired: DesiredState, family?: IpFamily): Record<string, string[]> {
  return Object.fromEntries(
    [...desired.listeners.values()]
      .filter((listener) => family === undefined || listener.family === family)
      .map(({ key, endpoints }) => [
        key.split('/').slice(3).join('/'),
        endpoints.map(({ address }) => address),
      ]),
  );
}

export function ofFamily(endpoints: readonly Endpoint[], family: IpFamily): readonly Endpoint[] {
  return endpoints.filter(({ address }) => familyOf(address) === family);
}

/** `default/s<index>`, with everything that matters to the decision by chance; few addresses, so that they meet. */
export function randomServicePort(random: Random, index: number): ServicePort {
  const policy = (): 'Cluster' | 'Local' => random.pick(['Cluster', 'Local']);
  return makeServicePort(
    { name: `s${index}`, protocol: random.pick(['TCP', 'UDP']) },
    {
      clusterIPs: addresses(`10.96.0.${index}`, `fd00:96::${index}`),
      externalIPs: random.next() < 0.5 ? addresses('192.0.2.7', '2001:db8::7') : [],
      loadBalancerIPs: random.next() < 0.5 ? addresses(`198.51.100.${random.below(3)}`) : [],
      nodePort: random.next() < 0.5 ? 30_000 + random.below(5) : 0,
      internalTrafficPolicy: policy(),
      externalTrafficPolicy: policy(),
      loadBalancerSourceRanges: {
        IPv4: random.pick([undefined, [], cidrs('203.0.113.0/24'), cidrs('192.168.77.0/24', '0.0.0.0/0')]),
        IPv6: undefined,
      },
      healthCheckNodePort: random.next() < 0.3 ? 31_000 + index : 0,
      proxyProtocol: random.pick([undefined, 'v1', 'v2'] as const),
      scheduler: random.pick([undefined, 'dh'] as const),
      createdAt: random.below(2),
    },
  );
}

/** A few that may be captured themselves, here or elsewhere, in any condition. */
export function randomEndpoints(random: Random): readonly Endpoint[] {
  return Array.from({ length: random.below(4) }, (_, index) =>
    makeEndpoint(random.pick([`10.0.0.${index}`, `fd00:1::${index}`, `10.96.0.${index}`]), 80, {
      ...random.pick([{}, TERMINATING, NOT_SERVING]),
      nodeName: random.pick([OWN_NODE, 'node2']),
      zoneHints: random.pick([[], ['zone-a'], ['zone-b']]),
    }),
  );
}
