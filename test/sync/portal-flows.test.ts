/** Of which portals conntrack is to forget the flows, from one set of rules to the next. */
import { describe, expect, test } from 'vitest';
import type { MovedPortal } from '../../src/conntrack/moved-portal.ts';
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

const AROUND: Surroundings = {
  listenAddresses: ['127.0.0.1'],
  podSources: [],
  nodePortRanges: [],
  localhostNodePorts: true,
  localAddresses: [],
};

/** What is to be forgotten when the second follows the first, as `10.96.0.10 53`. */
function movedBetween(first: State, second: State): readonly string[] {
  const flows = new PortalFlows();
  flows.moved(first.portals, first.ports ?? PORTS, AROUND);
  return flows
    .moved(second.portals, second.ports ?? PORTS, AROUND)
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
      name: 'when another comes: only of that one',
      first: { portals: [clusterIP(TO_CLUSTER)] },
      second: { portals: [clusterIP(TO_CLUSTER), { ...nodePort(SPLIT), protocol: 'TCP' }] },
      moved: ['node 30053'],
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
      name: 'when nobody was let in before and nobody is now',
      first: { portals: [clusterIP({ kind: 'drop' })] },
      second: { portals: [clusterIP({ kind: 'reject' })] },
    },
  ])('but not $name', ({ first, second }) => {
    expect(movedBetween(first, second)).toEqual([]);
  });

  describe('at addresses of the node', () => {
    const NODE = ['127.0.0.1', '192.168.77.2', '::1', 'fd00:77::2'];
    const surroundings = (localAddresses: readonly string[], ranges: readonly Cidr[] = []): Surroundings => ({
      ...AROUND,
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
      { name: 'that come', second: [...NODE, '192.168.78.2'], moved: ['node 30053'] },
      { name: 'that go', second: ['127.0.0.1', '::1', 'fd00:77::2'], moved: ['node 30053'] },
      { name: 'of the other family: none', second: [...NODE, 'fd00:78::2'], moved: [] },
      { name: 'in another order: none', second: NODE.toReversed(), moved: [] },
    ])('$name', ({ second, moved }) => {
      expect(movedAt([nodePort(SPLIT)], NODE, second)).toEqual(moved);
    });

    test('are told with those that the node has and has no more', () => {
      const flows = new PortalFlows();
      flows.moved([nodePort(SPLIT)], PORTS, surroundings(['10.0.0.1', '10.0.0.2']));
      const [moved] = flows.moved([nodePort(SPLIT)], PORTS, surroundings(['10.0.0.2', '10.0.0.3']));
      expect(moved?.surroundings.localAddresses).toEqual(new Set(['10.0.0.2', '10.0.0.3']));
      expect(moved?.surroundings.goneAddresses).toEqual(new Set(['10.0.0.1']));
    });

    test('that go concern every UDP portal that REDIRECT leads to them, and no TCP', () => {
      const portals = [
        clusterIP(TO_CLUSTER),
        { ...clusterIP(TO_CLUSTER, '10.96.0.11'), protocol: 'TCP' as const },
      ];
      const flows = new PortalFlows();
      const redirected = (...listenAddresses: string[]): Surroundings => ({ ...AROUND, listenAddresses });
      flows.moved(portals, PORTS, redirected('127.0.0.1'));
      expect(flows.moved(portals, PORTS, redirected('127.0.0.1', '192.168.78.2'))).toEqual([]);
      expect(flows.moved(portals, PORTS, redirected('127.0.0.1'))).toMatchObject([{ address: '10.96.0.10' }]);
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
      ...AROUND,
      podSources: cidrs(text).map((cidr) => ({ kind: 'cidr', cidr })),
    });
    flows.moved(portals, PORTS, byRange('10.244.1.0/24'));
    expect(flows.moved(portals, PORTS, byRange('10.244.2.0/24'))).toMatchObject([
      { address: undefined, port: 30_053 },
    ]);
  });

  test('also of a portal that goes, once nothing is known of them', () => {
    const flows = new PortalFlows();
    flows.moved([clusterIP(TO_CLUSTER)], PORTS, AROUND);
    flows.reset();
    expect(flows.moved([], PORTS, AROUND)).toMatchObject([{ address: '10.96.0.10', port: 53 }]);
  });

  test('again once somebody else had changed the rules: those that went past us', () => {
    const flows = new PortalFlows();
    flows.moved([clusterIP(TO_CLUSTER)], PORTS, AROUND);
    flows.reset();
    expect(flows.moved([clusterIP(TO_CLUSTER)], PORTS, AROUND)).toMatchObject([
      { family: 'IPv4', protocol: 'UDP', address: '10.96.0.10', port: 53, isDoubtful: true },
    ]);
  });
});

describe('of a portal that has moved it is told', () => {
  const told = (
    first: readonly Portal[],
    second: readonly Portal[],
    ports = PORTS,
    around: Surroundings = AROUND,
  ): readonly MovedPortal[] => {
    const flows = new PortalFlows();
    flows.moved(first, PORTS, around);
    return flows.moved(second, ports, around);
  };

  test('where it leads and where it led', () => {
    expect(told([clusterIP(TO_CLUSTER)], [clusterIP(TO_CLUSTER)], ON_ANOTHER_PORT)).toMatchObject([
      { route: { insidePort: 20_009, outsidePort: 20_009 }, formerPorts: [20_001, 20_001] },
    ]);
  });

  test('that it leads nowhere any more', () => {
    expect(told([clusterIP(TO_LOCAL)], [])).toMatchObject([
      { route: undefined, formerPorts: [20_002, 20_002] },
    ]);
  });

  test('who is let in, and who is led where', () => {
    expect(told([], [loadBalancerIP('10.0.0.0/8')])).toMatchObject([
      { route: { allowedSources: cidrs('10.0.0.0/8') } },
    ]);
    expect(told([], [nodePort(SPLIT), nodePort(SPLIT_WITH_NOBODY, '127.0.0.1')])).toMatchObject([
      { route: { insidePort: 20_001, outsidePort: 20_002 } },
      { route: { insidePort: 20_001, outsidePort: undefined } },
    ]);
  });

  test('whether more than ports is different, or nobody knows what was before', () => {
    const doubts = (moved: readonly MovedPortal[]): readonly boolean[] =>
      moved.map(({ isDoubtful }) => isDoubtful);
    expect(doubts(new PortalFlows().moved([clusterIP(TO_CLUSTER)], PORTS, AROUND))).toEqual([true]);
    expect(doubts(told([nodePort(TO_CLUSTER)], [nodePort(SPLIT)]))).toEqual([true]);
    expect(doubts(told([nodePort(SPLIT)], [nodePort(SPLIT)], ON_ANOTHER_PORT))).toEqual([false]);
  });

  test('which addresses have another portal on a NodePort’s number', () => {
    const external: Portal = { ...loadBalancerIP(), port: 30_053 };
    const other: Portal = { ...loadBalancerIP(), port: 30_054 };
    expect(told([external, other], [external, other, nodePort(TO_CLUSTER)])).toMatchObject([
      { address: undefined, takenAddresses: new Set(['198.51.100.7']) },
    ]);
  });

  test('nothing of a NodePort at an address that has another portal on its number', () => {
    const external: Portal = { ...loadBalancerIP(), port: 30_053 };
    expect(told([external], [external, nodePort(TO_LOCAL, '198.51.100.7')])).toEqual([]);
  });

  test('where listeners are', () => {
    const listenAddresses = ['169.254.77.1'];
    expect(told([], [clusterIP(TO_CLUSTER)], PORTS, { ...AROUND, listenAddresses })).toMatchObject([
      { surroundings: { listenAddresses: new Set(listenAddresses) } },
    ]);
  });

  test('of TCP as of UDP', () => {
    const tcp: Portal = { ...clusterIP(TO_CLUSTER), protocol: 'TCP' };
    expect(told([], [tcp])).toMatchObject([{ protocol: 'TCP', address: '10.96.0.10' }]);
  });
});
