/** Which traffic of a Service port goes where: the table in the header of `slot.ts`, row by row. */
import { describe, expect, test } from 'vitest';
import { IP_FAMILIES } from '../../src/model/address.ts';
import type { Endpoint } from '../../src/model/endpoint.ts';
import type { TrafficPolicy } from '../../src/model/service-policy.ts';
import { type NodeTweak, OWN_NODE, cidrs, makeNodeInfo } from '../support/rule-fixture.ts';
import {
  NOT_SERVING,
  type ServicePortTweak,
  TERMINATING,
  addresses,
  makeEndpoint,
} from '../support/snapshots.ts';
import {
  HERE_AND_ELSEWHERE,
  ONLY_CLUSTER_IPS,
  ONLY_ELSEWHERE,
  desiredOf,
  elsewhere,
  endpointsOf,
  here,
  makeWeb,
  ofFamily,
  targetsOf,
} from './policy-fixture.ts';

const POLICIES: readonly TrafficPolicy[] = ['Cluster', 'Local'];
const SITUATIONS: Readonly<Record<string, readonly Endpoint[]>> = {
  'endpoints here and elsewhere': HERE_AND_ELSEWHERE,
  'endpoints elsewhere only': ONLY_ELSEWHERE,
  'an endpoint here that terminates and one ready elsewhere': [
    here('10.0.0.1', TERMINATING),
    elsewhere('10.0.0.2'),
    here('fd00:1::1', TERMINATING),
    elsewhere('fd00:1::2'),
  ],
  'an endpoint here that has stopped serving and one ready elsewhere': [
    here('10.0.0.1', NOT_SERVING),
    elsewhere('10.0.0.2'),
    here('fd00:1::1', NOT_SERVING),
    elsewhere('fd00:1::2'),
  ],
  'endpoints that all terminate elsewhere': [
    elsewhere('10.0.0.2', TERMINATING),
    elsewhere('fd00:1::2', TERMINATING),
  ],
  'endpoints of which none is ready or serves': [
    here('10.0.0.1', NOT_SERVING),
    here('fd00:1::1', NOT_SERVING),
  ],
  'no endpoints': [],
};

/** Who is reachable under policy Local in these situations; in the others nobody is reachable at all. */
const WITH_LOCAL = [
  'endpoints here and elsewhere',
  'an endpoint here that terminates and one ready elsewhere',
];
const WITHOUT_LOCAL = [
  'endpoints elsewhere only',
  'an endpoint here that has stopped serving and one ready elsewhere',
  'endpoints that all terminate elsewhere',
];

function internalTarget(policy: TrafficPolicy, situation: string): string {
  if (WITH_LOCAL.includes(situation)) return policy === 'Local' ? 'local' : 'cluster';
  if (WITHOUT_LOCAL.includes(situation)) return policy === 'Local' ? 'drop' : 'cluster';
  return 'reject';
}

function externalTarget(policy: TrafficPolicy, situation: string): string {
  if (WITH_LOCAL.includes(situation)) {
    return policy === 'Local' ? 'inside cluster, outside local' : 'cluster';
  }
  if (WITHOUT_LOCAL.includes(situation)) {
    return policy === 'Local' ? 'inside cluster, outside nobody' : 'cluster';
  }
  return 'reject';
}

describe('where traffic goes, in both families and for every kind of portal', () => {
  const rows = POLICIES.flatMap((internal) =>
    POLICIES.flatMap((external) =>
      Object.keys(SITUATIONS).map((situation) => ({ internal, external, situation })),
    ),
  );
  test.each(rows)(
    'internal $internal, external $external: $situation',
    ({ internal, external, situation }) => {
      const web = makeWeb({ internalTrafficPolicy: internal, externalTrafficPolicy: external });
      const expected: Record<string, string> = {};
      for (const family of IP_FAMILIES) {
        expected[`${family} clusterIP`] = internalTarget(internal, situation);
        for (const kind of ['loadBalancerIP', 'externalIP', 'nodePort']) {
          expected[`${family} ${kind}`] = externalTarget(external, situation);
        }
      }
      expect(targetsOf(desiredOf(web, SITUATIONS[situation] ?? []))).toEqual(expected);
    },
  );
});

describe('the listeners of a Service port', () => {
  const CLUSTER = { cluster: ['10.0.0.1', '10.0.0.2'] };
  const LOCAL = { local: ['10.0.0.1'] };
  const ipv4 = (entries: Record<string, string[]>): Record<string, string[]> =>
    Object.fromEntries(Object.entries(entries).map(([key, value]) => [`IPv4/${key}`, value]));

  test.each<{ name: string; tweak: ServicePortTweak; expected: Record<string, string[]> }>([
    { name: 'are one where both policies are Cluster', tweak: {}, expected: CLUSTER },
    {
      name: 'are two where external traffic is Local: this node and its pods may go anywhere',
      tweak: { externalTrafficPolicy: 'Local' },
      expected: { ...CLUSTER, ...LOCAL },
    },
    {
      name: 'are two where internal traffic is Local and there is external traffic',
      tweak: { internalTrafficPolicy: 'Local' },
      expected: { ...LOCAL, ...CLUSTER },
    },
    {
      name: 'are two where both are Local and there is external traffic',
      tweak: { internalTrafficPolicy: 'Local', externalTrafficPolicy: 'Local' },
      expected: { ...LOCAL, ...CLUSTER },
    },
    {
      name: 'are the local one alone where internal traffic is Local and there is no other',
      tweak: { ...ONLY_CLUSTER_IPS, internalTrafficPolicy: 'Local' },
      expected: LOCAL,
    },
    {
      name: 'are that of the cluster alone where external traffic is Local and there is none',
      tweak: { ...ONLY_CLUSTER_IPS, externalTrafficPolicy: 'Local' },
      expected: CLUSTER,
    },
  ])('$name', ({ tweak, expected }) => {
    const web = makeWeb(tweak);
    const desired = desiredOf(web, HERE_AND_ELSEWHERE);
    expect(endpointsOf(desired, 'IPv4')).toEqual(ipv4(expected));
  });

  test('share a pool with no other policy or family', () => {
    const web = makeWeb({ internalTrafficPolicy: 'Local', externalTrafficPolicy: 'Local' });
    const pools = [...desiredOf(web, HERE_AND_ELSEWHERE).listeners.values()].map(({ pool }) => pool);
    expect(pools).toHaveLength(4);
    expect(new Set(pools).size).toBe(4);
  });

  test('are there before there are endpoints, and none has any', () => {
    const web = makeWeb({ internalTrafficPolicy: 'Local', externalTrafficPolicy: 'Local' });
    expect(endpointsOf(desiredOf(web, []))).toEqual({
      'IPv4/local': [],
      'IPv4/cluster': [],
      'IPv6/local': [],
      'IPv6/cluster': [],
    });
  });

  test('keep what still serves, wherever it runs and whoever may use it: its UDP flows live on', () => {
    const web = makeWeb({ externalTrafficPolicy: 'Local' });
    const desired = desiredOf(web, [
      here('10.0.0.1'),
      elsewhere('10.0.0.2', TERMINATING),
      here('10.0.0.3', NOT_SERVING),
      elsewhere('fd00:1::2'),
    ]);
    for (const { servingKeys } of desired.listeners.values()) {
      expect([...servingKeys]).toEqual(['10.0.0.1:8080', '10.0.0.2:8080', '[fd00:1::2]:8080']);
    }
  });

  test('may use near endpoints under policy Cluster, and all of this node under policy Local', () => {
    const web = makeWeb({ externalTrafficPolicy: 'Local' });
    const desired = desiredOf(
      web,
      [
        here('10.0.0.1', { zoneHints: ['zone-b'] }),
        elsewhere('10.0.0.2', { zoneHints: ['zone-a'] }),
        elsewhere('10.0.0.3', { zoneHints: ['zone-c'] }),
      ],
      { node: makeNodeInfo() },
    );
    expect(endpointsOf(desired, 'IPv4')).toEqual({
      'IPv4/cluster': ['10.0.0.2'],
      'IPv4/local': ['10.0.0.1'],
    });
  });

  test('look at hints in each family by itself', () => {
    const desired = desiredOf(
      makeWeb(ONLY_CLUSTER_IPS),
      [
        elsewhere('10.0.0.1', { zoneHints: ['zone-a'] }),
        elsewhere('10.0.0.2', { zoneHints: ['zone-b'] }),
        elsewhere('fd00:1::1', { zoneHints: ['zone-a'] }),
        elsewhere('fd00:1::2'),
      ],
      { node: makeNodeInfo() },
    );
    expect(endpointsOf(desired)).toEqual({
      'IPv4/cluster': ['10.0.0.1'],
      'IPv6/cluster': ['fd00:1::1', 'fd00:1::2'],
    });
  });
});

describe('families are decided one by one', () => {
  test.each(IP_FAMILIES)('with endpoints in %s alone the other rejects', (family) => {
    const other = family === 'IPv4' ? 'IPv6' : 'IPv4';
    const desired = desiredOf(
      makeWeb({ externalTrafficPolicy: 'Local' }),
      ofFamily(HERE_AND_ELSEWHERE, family),
    );
    expect(targetsOf(desired)).toMatchObject({
      [`${family} clusterIP`]: 'cluster',
      [`${family} nodePort`]: 'inside cluster, outside local',
      [`${other} clusterIP`]: 'reject',
      [`${other} nodePort`]: 'reject',
    });
  });

  test('an endpoint here in one family is no endpoint here in the other', () => {
    const web = makeWeb({ internalTrafficPolicy: 'Local', externalTrafficPolicy: 'Local' });
    expect(targetsOf(desiredOf(web, [here('10.0.0.1'), elsewhere('fd00:1::2')]))).toMatchObject({
      'IPv4 clusterIP': 'local',
      'IPv4 externalIP': 'inside cluster, outside local',
      'IPv6 clusterIP': 'drop',
      'IPv6 externalIP': 'inside cluster, outside nobody',
    });
  });

  test.each<{ name: string; tweak: ServicePortTweak }>([
    { name: 'an externalIP', tweak: { externalIPs: addresses('2001:db8::7') } },
    { name: 'a load balancer address', tweak: { loadBalancerIPs: addresses('2001:db8:1::7') } },
  ])('with $name in IPv6 alone there is external traffic there only', ({ tweak }) => {
    const web = makeWeb({ ...ONLY_CLUSTER_IPS, internalTrafficPolicy: 'Local', ...tweak });
    expect(Object.keys(endpointsOf(desiredOf(web, HERE_AND_ELSEWHERE)))).toEqual([
      'IPv4/local',
      'IPv6/local',
      'IPv6/cluster',
    ]);
  });

  test('with NodePorts served in IPv4 alone there is external traffic there only', () => {
    const node: NodeTweak = {
      settings: { nodePortAddresses: 'primary' },
      node: makeNodeInfo({ internalIPs: addresses('192.168.77.2') }),
    };
    const web = makeWeb({ externalIPs: [], loadBalancerIPs: [], internalTrafficPolicy: 'Local' });
    expect(Object.keys(endpointsOf(desiredOf(web, HERE_AND_ELSEWHERE, node)))).toEqual([
      'IPv4/local',
      'IPv4/cluster',
      'IPv6/local',
    ]);
  });
});

describe('which endpoints are of this node', () => {
  test('is told by the name of the node alone, also where the Node object is not known', () => {
    const web = makeWeb({ ...ONLY_CLUSTER_IPS, internalTrafficPolicy: 'Local' });
    const endpoints = [
      makeEndpoint('10.0.0.1', 8080, { nodeName: OWN_NODE }),
      makeEndpoint('192.168.77.2', 8080, { nodeName: 'node2' }),
      makeEndpoint('10.0.0.3', 8080),
    ];
    expect(endpointsOf(desiredOf(web, endpoints), 'IPv4')).toEqual({ 'IPv4/local': ['10.0.0.1'] });
    const renamed = { settings: { nodeName: 'node2' } };
    expect(endpointsOf(desiredOf(web, endpoints, renamed), 'IPv4')).toEqual({
      'IPv4/local': ['192.168.77.2'],
    });
  });
});

describe('clusterIPs that are not for clients outside the cluster', () => {
  const PODS_BY_CIDR: NodeTweak = {
    settings: {
      externalClusterIP: false,
      localDetection: { kind: 'cidrs', cidrs: cidrs('10.244.0.0/16') },
    },
  };

  test('are for this node and its pods where those can be told', () => {
    expect(targetsOf(desiredOf(makeWeb(), HERE_AND_ELSEWHERE, PODS_BY_CIDR))).toMatchObject({
      'IPv4 clusterIP': 'inside cluster, outside nobody',
      // No range of IPv6 pods is known.
      'IPv6 clusterIP': 'cluster',
    });
  });

  test('are for everybody where no pod can be told from others', () => {
    const node = { settings: { externalClusterIP: false } };
    expect(targetsOf(desiredOf(makeWeb(), HERE_AND_ELSEWHERE, node))).toMatchObject({
      'IPv4 clusterIP': 'cluster',
      'IPv6 clusterIP': 'cluster',
    });
  });

  test('are so under policy Local too, with the endpoints of this node', () => {
    const web = makeWeb({ internalTrafficPolicy: 'Local' });
    expect(targetsOf(desiredOf(web, HERE_AND_ELSEWHERE, PODS_BY_CIDR))).toMatchObject({
      'IPv4 clusterIP': 'inside local, outside nobody',
    });
    expect(targetsOf(desiredOf(web, ONLY_ELSEWHERE, PODS_BY_CIDR))).toMatchObject({
      'IPv4 clusterIP': 'drop',
    });
    expect(targetsOf(desiredOf(web, [], PODS_BY_CIDR))).toMatchObject({ 'IPv4 clusterIP': 'reject' });
  });

  test('say nothing about external portals', () => {
    expect(targetsOf(desiredOf(makeWeb(), HERE_AND_ELSEWHERE, PODS_BY_CIDR))).toMatchObject({
      'IPv4 loadBalancerIP': 'cluster',
      'IPv4 externalIP': 'cluster',
      'IPv4 nodePort': 'cluster',
    });
  });

  test('are for everybody unless told, also where pods can be told', () => {
    const settings = { ...PODS_BY_CIDR.settings, externalClusterIP: true };
    expect(targetsOf(desiredOf(makeWeb(), HERE_AND_ELSEWHERE, { settings }))).toMatchObject({
      'IPv4 clusterIP': 'cluster',
    });
  });
});

describe('policies Local without an endpoint here are counted:', () => {
  const NONE = { internal: 0, external: 0 };

  test.each<{
    name: string;
    tweak: ServicePortTweak;
    endpoints: readonly Endpoint[];
    IPv4: { internal: number; external: number };
    IPv6?: { internal: number; external: number };
  }>([
    { name: 'none under policy Cluster', tweak: {}, endpoints: ONLY_ELSEWHERE, IPv4: NONE },
    {
      name: 'internal',
      tweak: { internalTrafficPolicy: 'Local' },
      endpoints: ONLY_ELSEWHERE,
      IPv4: { internal: 1, external: 0 },
    },
    {
      name: 'external, once for all its portals',
      tweak: { externalTrafficPolicy: 'Local' },
      endpoints: ONLY_ELSEWHERE,
      IPv4: { internal: 0, external: 1 },
    },
    {
      name: 'both',
      tweak: { internalTrafficPolicy: 'Local', externalTrafficPolicy: 'Local' },
      endpoints: ONLY_ELSEWHERE,
      IPv4: { internal: 1, external: 1 },
    },
    {
      name: 'no external one where there is no external traffic',
      tweak: { ...ONLY_CLUSTER_IPS, externalTrafficPolicy: 'Local' },
      endpoints: ONLY_ELSEWHERE,
      IPv4: NONE,
    },
    {
      name: 'none where nobody is anywhere: that is another state',
      tweak: { internalTrafficPolicy: 'Local', externalTrafficPolicy: 'Local' },
      endpoints: [],
      IPv4: NONE,
    },
    {
      name: 'none where one terminates here and still serves',
      tweak: { internalTrafficPolicy: 'Local', externalTrafficPolicy: 'Local' },
      endpoints: [here('10.0.0.1', TERMINATING), here('fd00:1::1', TERMINATING)],
      IPv4: NONE,
    },
    {
      name: 'in the family that is without',
      tweak: { internalTrafficPolicy: 'Local' },
      endpoints: [here('10.0.0.1'), elsewhere('fd00:1::2')],
      IPv4: NONE,
      IPv6: { internal: 1, external: 0 },
    },
  ])('$name', ({ tweak, endpoints, IPv4, IPv6 = IPv4 }) => {
    expect(desiredOf(makeWeb(tweak), endpoints).noLocalEndpoints).toEqual({ IPv4, IPv6 });
  });
});
