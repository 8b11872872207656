/** Of which UDP portals conntrack is to forget the flows, from one set of rules to the next. */
import { describe, expect, test } from 'vitest';
import type { ListenerKey, Portal, PortalTarget } from '../../src/desired/portal.ts';
import type { IpAddress } from '../../src/model/address.ts';
import type { Cidr } from '../../src/model/cidr.ts';
import { PortalFlows, type Surroundings } from '../../src/sync/portal-flows.ts';
import { cidrs } from '../support/rule-fixture.ts';

const CLUSTER = 'default/dns/UDP/IPv4/cluster' as ListenerKey;
const LOCAL = 'default/dns/UDP/IPv4/local' as ListenerKey;
const PORTS: ReadonlyMap<ListenerKey, number> = new Map([
  [CLUSTER, 20_001],
  [LOCAL, 20_002],
]);

const TO_CLUSTER: PortalTarget = { kind: 'listener', listener: CLUSTER };
const TO_LOCAL: PortalTarget = { kind: 'listener', listener: LOCAL };
const SPLIT: PortalTarget = { kind: 'split', inside: CLUSTER, outside: LOCAL };
const SPLIT_WITH_NOBODY: PortalTarget = { kind: 'split', inside: CLUSTER, outside: undefined };

const COMMON = { servicePortName: 'default/dns', family: 'IPv4', protocol: 'UDP', port: 53 } as const;

function clusterIP(target: PortalTarget, address = '10.96.0.10'): Portal {
  return { ...COMMON, kind: 'clusterIP', address: address as IpAddress, target };
}

function nodePort(target: PortalTarget, address?: string): Portal {
  return { ...COMMON, kind: 'nodePort', port: 30_053, address: address as IpAddress | undefined, target };
}

function loadBalancerIP(...ranges: readonly string[]): Portal {
  const allowedSources = ranges.length === 0 ? undefined : cidrs(...ranges);
  const address = '198.51.100.7' as IpAddress;
  return { ...COMMON, kind: 'loadBalancerIP', address, allowedSources, target: TO_CLUSTER };
}

interface State {
  readonly portals: readonly Portal[];
  readonly ports?: ReadonlyMap<ListenerKey, number>;
}

/** What is to be forgotten when the second follows the first, as `10.96.0.10 53`. */
function movedBetween(first: State, second: State): readonly string[] {
  const flows = new PortalFlows();
  flows.moved(first.portals, first.ports ?? PORTS);
  return flows
    .moved(second.portals, second.ports ?? PORTS)
    .map(({ address, port }) => `${address ?? 'node'} ${port}`);
}

const NONE: State = { portals: [] };
const ON_ANOTHER_PORT = new Map([...PORTS, [CLUSTER, 20_009]] as const);

describe('flows are forgotten', () => {
  test.each<{ name: string; first: State; second: State; moved: readonly string[] }>([
    {
      name: 'when a portal comes',
      first: NONE,
      second: { portals: [clusterIP(TO_CLUSTER)] },
      moved: ['10.96.0.10 53'],
    },
    {
      name: 'when it goes',
      first: { portals: [clusterIP(TO_CLUSTER)] },
      second: NONE,
      moved: ['10.96.0.10 53'],
    },
    {
      name: 'when it comes to be rejected',
      first: { portals: [clusterIP(TO_CLUSTER)] },
      second: { portals: [clusterIP({ kind: 'reject' })] },
      moved: ['10.96.0.10 53'],
    },
    {
      name: 'when it comes to be dropped',
      first: { portals: [clusterIP(TO_LOCAL)] },
      second: { portals: [clusterIP({ kind: 'drop' })] },
      moved: ['10.96.0.10 53'],
    },
    {
      name: 'when it leads to another listener',
      first: { portals: [clusterIP(TO_CLUSTER)] },
      second: { portals: [clusterIP(TO_LOCAL)] },
      moved: ['10.96.0.10 53'],
    },
    {
      name: 'when its listener has another port',
      first: { portals: [clusterIP(TO_CLUSTER)] },
      second: { portals: [clusterIP(TO_CLUSTER)], ports: ON_ANOTHER_PORT },
      moved: ['10.96.0.10 53'],
    },
    {
      name: 'when its listener lost its port',
      first: { portals: [clusterIP(TO_CLUSTER)] },
      second: { portals: [clusterIP(TO_CLUSTER)], ports: new Map([[LOCAL, 20_002]]) },
      moved: ['10.96.0.10 53'],
    },
    {
      name: 'when only some senders are led elsewhere',
      first: { portals: [nodePort(TO_CLUSTER)] },
      second: { portals: [nodePort(SPLIT)] },
      moved: ['node 30053'],
    },
    {
      name: 'when the listener of those inside has another port',
      first: { portals: [nodePort(SPLIT)] },
      second: { portals: [nodePort(SPLIT)], ports: ON_ANOTHER_PORT },
      moved: ['node 30053'],
    },
    {
      name: 'when the listener of those outside has another port',
      first: { portals: [nodePort(SPLIT)] },
      second: { portals: [nodePort(SPLIT)], ports: new Map([...PORTS, [LOCAL, 20_009]] as const) },
      moved: ['node 30053'],
    },
    {
      name: 'when there is no place left for those outside',
      first: { portals: [nodePort(SPLIT)] },
      second: { portals: [nodePort(SPLIT_WITH_NOBODY)] },
      moved: ['node 30053'],
    },
    {
      name: 'when those outside may not come any more, and nobody else is led elsewhere',
      first: { portals: [nodePort(TO_CLUSTER)] },
      second: { portals: [nodePort(SPLIT_WITH_NOBODY)] },
      moved: ['node 30053'],
    },
    {
      name: 'when others may come to a load balancer address',
      first: { portals: [loadBalancerIP('203.0.113.0/24')] },
      second: { portals: [loadBalancerIP('203.0.114.0/24')] },
      moved: ['198.51.100.7 53'],
    },
    {
      name: 'when not everybody may come any more',
      first: { portals: [loadBalancerIP()] },
      second: { portals: [loadBalancerIP('203.0.113.0/24')] },
      moved: ['198.51.100.7 53'],
    },
    {
      name: 'when everybody may come that nobody could',
      first: { portals: [{ ...loadBalancerIP(), allowedSources: [] } as Portal] },
      second: { portals: [loadBalancerIP()] },
      moved: ['198.51.100.7 53'],
    },
    {
      name: 'when a NodePort is told by address, of it as a whole and of each',
      first: { portals: [nodePort(TO_CLUSTER)] },
      second: { portals: [nodePort(TO_CLUSTER, '127.0.0.1'), nodePort(TO_CLUSTER, '192.168.77.2')] },
      moved: ['node 30053', '127.0.0.1 30053', '192.168.77.2 30053'],
    },
  ])('$name', ({ first, second, moved }) => {
    expect(movedBetween(first, second)).toEqual(moved);
  });

  test.each<{ name: string; first: State; second: State }>([
    {
      name: 'while nothing changes',
      first: { portals: [clusterIP(TO_CLUSTER), nodePort(SPLIT), loadBalancerIP('203.0.113.0/24')] },
      second: { portals: [clusterIP(TO_CLUSTER), nodePort(SPLIT), loadBalancerIP('203.0.113.0/24')] },
    },
    {
      name: 'of a portal beside another that comes',
      first: { portals: [clusterIP(TO_CLUSTER)] },
      second: { portals: [clusterIP(TO_CLUSTER), { ...nodePort(SPLIT), protocol: 'TCP' }] },
    },
    {
      name: 'when nobody was let in before and nobody is now',
      first: { portals: [clusterIP({ kind: 'drop' })] },
      second: { portals: [clusterIP({ kind: 'reject' })] },
    },
    {
      name: 'of TCP: connections live on',
      first: { portals: [{ ...clusterIP(TO_CLUSTER), protocol: 'TCP' }] },
      second: { portals: [{ ...clusterIP(TO_LOCAL), protocol: 'TCP' }] },
    },
  ])('but not $name', ({ first, second }) => {
    expect(movedBetween(first, second)).toEqual([]);
  });

  describe('at addresses of the node', () => {
    const NODE = ['127.0.0.1', '192.168.77.2', '::1', 'fd00:77::2'];
    const surroundings = (localAddresses: readonly string[], ranges: readonly Cidr[] = []): Surroundings => ({
      podSources: [],
      nodePortRanges: ranges,
      localAddresses,
    });
    const movedAt = (
      portals: readonly Portal[],
      first: readonly string[],
      second: readonly string[],
    ): readonly string[] => {
      const flows = new PortalFlows();
      flows.moved(portals, PORTS, surroundings(first));
      return flows
        .moved(portals, PORTS, surroundings(second))
        .map(({ address, port }) => `${address ?? 'node'} ${port}`);
    };

    test.each<{ name: string; second: readonly string[]; moved: readonly string[] }>([
      {
        name: 'that comes, those to its NodePorts, and to no other address: they go on',
        second: [...NODE, '192.168.78.2'],
        moved: ['192.168.78.2 30053'],
      },
      {
        name: 'that goes, those to its NodePorts',
        second: ['127.0.0.1', '::1', 'fd00:77::2'],
        moved: ['192.168.77.2 30053'],
      },
      { name: 'of the other family, none', second: [...NODE, 'fd00:78::2'], moved: [] },
      { name: 'in another order, none', second: NODE.toReversed(), moved: [] },
    ])('$name', ({ second, moved }) => {
      expect(movedAt([nodePort(SPLIT)], NODE, second)).toEqual(moved);
    });

    test('say nothing about portals that are addresses themselves', () => {
      const portals = [clusterIP(TO_CLUSTER), nodePort(TO_CLUSTER, '192.168.77.2')];
      expect(movedAt(portals, NODE, [...NODE, '192.168.78.2'])).toEqual([]);
    });

    test('are those of the last time: what came stays', () => {
      const flows = new PortalFlows();
      const more = [...NODE, '192.168.78.2'];
      for (const addresses of [NODE, more]) flows.moved([nodePort(SPLIT)], PORTS, surroundings(addresses));
      expect(flows.moved([nodePort(SPLIT)], PORTS, surroundings(more))).toEqual([]);
    });

    test('in other ranges: all that go to NodePorts', () => {
      const flows = new PortalFlows();
      const portals = [nodePort(SPLIT), clusterIP(TO_CLUSTER)];
      flows.moved(portals, PORTS, surroundings(NODE, cidrs('192.168.0.0/16')));
      expect(flows.moved(portals, PORTS, surroundings(NODE, cidrs('10.0.0.0/8')))).toMatchObject([
        { address: undefined, port: 30_053 },
      ]);
    });
  });

  test('when pods are told otherwise, those of portals that ask', () => {
    const flows = new PortalFlows();
    const portals = [nodePort(SPLIT), clusterIP(TO_CLUSTER)];
    const byRange = (text: string): Surroundings => ({
      podSources: cidrs(text).map((cidr) => ({ kind: 'cidr', cidr })),
      nodePortRanges: [],
      localAddresses: [],
    });
    flows.moved(portals, PORTS, byRange('10.244.1.0/24'));
    expect(flows.moved(portals, PORTS, byRange('10.244.2.0/24'))).toMatchObject([
      { address: undefined, port: 30_053 },
    ]);
  });

  test('also of a portal that goes, once nothing is known of them', () => {
    const flows = new PortalFlows();
    flows.moved([clusterIP(TO_CLUSTER)], PORTS);
    flows.reset();
    expect(flows.moved([], PORTS)).toMatchObject([{ address: '10.96.0.10', port: 53 }]);
  });

  test('again once somebody else had changed the rules: those that went past us', () => {
    const flows = new PortalFlows();
    flows.moved([clusterIP(TO_CLUSTER)], PORTS);
    flows.reset();
    expect(flows.moved([clusterIP(TO_CLUSTER)], PORTS)).toEqual([
      { family: 'IPv4', address: '10.96.0.10', port: 53, stalePorts: [53] },
    ]);
  });
});

describe('of a portal that is diverted', () => {
  const second = (portal: Portal, first: readonly Portal[], ports = PORTS): unknown => {
    const flows = new PortalFlows();
    flows.moved(first, PORTS);
    return flows.moved([portal], ports).map(({ stalePorts }) => stalePorts);
  };

  test('all flows are forgotten at the first pass, when nobody knows what was before', () => {
    expect(new PortalFlows().moved([clusterIP(TO_CLUSTER)], PORTS)).toMatchObject([
      { stalePorts: undefined },
    ]);
  });

  test('those that were never diverted are, when it is new', () => {
    expect(second(clusterIP(TO_CLUSTER), [])).toEqual([[53]]);
  });

  test('those to its former port are too, when it has another', () => {
    expect(second(clusterIP(TO_CLUSTER), [clusterIP(TO_CLUSTER)], ON_ANOTHER_PORT)).toEqual([
      [53, PORTS.get(CLUSTER)],
    ]);
  });

  test('all are, when it is for other senders', () => {
    expect(second(loadBalancerIP('10.0.0.0/8'), [loadBalancerIP()])).toEqual([undefined]);
    expect(
      second(nodePort({ kind: 'split', inside: CLUSTER, outside: LOCAL }), [nodePort(TO_CLUSTER)]),
    ).toEqual([undefined]);
  });
});
