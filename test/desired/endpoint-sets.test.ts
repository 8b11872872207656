/**
 * CategorizeEndpoints as a table: who may get new connections, for each traffic policy. The rows are those of
 * kube-proxy's `pkg/proxy/topology_test.go` as far as they do not depend on the Service, and more; the others are
 * in `slot.test.ts`.
 */
import { describe, expect, test } from 'vitest';
import { type Place, endpointSetsOf, isLocal } from '../../src/desired/endpoint-sets.ts';
import type { Endpoint } from '../../src/model/endpoint.ts';
import { Random, seeds } from '../support/random.ts';
import { NOT_SERVING, TERMINATING, makeEndpoint } from '../support/snapshots.ts';

const HERE = 'node1';
const THERE = 'node2';
const PLACE = { nodeName: HERE, zone: 'zone-a' };

const READY: Partial<Endpoint> = {};
/** Terminating, and its readiness probe has begun to fail. */
const DEAD: Partial<Endpoint> = { ready: false, serving: false, terminating: true };
/** Fails its readiness probe only: kube-proxy's slices then say neither ready nor serving. */
const UNREADY = NOT_SERVING;

type Tweaks = Partial<Endpoint>;

function forZones(...zoneHints: readonly string[]): Tweaks {
  return { zoneHints };
}

function forNodes(...nodeHints: readonly string[]): Tweaks {
  return { nodeHints };
}

const ON_THIS_NODE: Tweaks = { nodeName: HERE };
const ON_ANOTHER: Tweaks = { nodeName: THERE };

/** The endpoint `10.0.0.<last>:80`. */
function at(last: number, ...tweaks: readonly Tweaks[]): Endpoint {
  return makeEndpoint(`10.0.0.${last}`, 80, Object.assign({}, ...tweaks) as Tweaks);
}

function lasts(endpoints: readonly Endpoint[]): number[] {
  return endpoints.map(({ address }) => Number(address.split('.').at(-1)));
}

describe('new connections under policy Cluster go to', () => {
  test.each<{ name: string; endpoints: readonly Endpoint[]; cluster: readonly number[] }>([
    { name: 'nobody where there is nobody', endpoints: [], cluster: [] },
    { name: 'all that are ready, wherever they run', endpoints: [at(1), at(2, ON_ANOTHER)], cluster: [1, 2] },
    { name: 'none that is not ready', endpoints: [at(1), at(2, UNREADY)], cluster: [1] },
    { name: 'nobody when none is ready', endpoints: [at(1, UNREADY), at(2, UNREADY)], cluster: [] },
    {
      name: 'none that is terminating while one is ready',
      endpoints: [at(1, TERMINATING), at(2), at(3, TERMINATING)],
      cluster: [2],
    },
    {
      name: 'those that serve while they terminate when none is ready',
      endpoints: [at(1, TERMINATING), at(2, UNREADY), at(3, TERMINATING)],
      cluster: [1, 3],
    },
    {
      name: 'none that has stopped serving, also when all are terminating',
      endpoints: [at(1, DEAD), at(2, TERMINATING)],
      cluster: [2],
    },
    { name: 'nobody when all are terminating and none serves', endpoints: [at(1, DEAD)], cluster: [] },
    {
      name: 'none that serves, is not ready, and is not terminating',
      endpoints: [at(1, { ready: false, serving: true })],
      cluster: [],
    },
    {
      name: 'whatever is called ready, without a second question',
      endpoints: [at(1, { serving: false }), at(2, { terminating: true, serving: false })],
      cluster: [1, 2],
    },
  ])('$name', ({ endpoints, cluster }) => {
    expect(lasts(endpointSetsOf(endpoints, PLACE).cluster)).toEqual(cluster);
  });
});

describe('new connections under policy Local go to', () => {
  test.each<{ name: string; endpoints: readonly Endpoint[]; local: readonly number[] }>([
    { name: 'nobody where there is nobody', endpoints: [], local: [] },
    {
      name: 'those on this node that are ready, and no others',
      endpoints: [at(1, ON_THIS_NODE), at(2, ON_ANOTHER), at(3, ON_THIS_NODE, UNREADY)],
      local: [1],
    },
    { name: 'all when all run here', endpoints: [at(1, ON_THIS_NODE), at(2, ON_THIS_NODE)], local: [1, 2] },
    { name: 'nobody when all run elsewhere', endpoints: [at(1, ON_ANOTHER)], local: [] },
    { name: 'none whose slice names no node', endpoints: [at(1), at(2, ON_THIS_NODE)], local: [2] },
    {
      name: 'none on a node whose name only begins like this one’s',
      endpoints: [at(1, { nodeName: 'node11' }), at(2, { nodeName: 'NODE1' })],
      local: [],
    },
    {
      name: 'none that is terminating here while one is ready here',
      endpoints: [at(1, ON_THIS_NODE, TERMINATING), at(2, ON_THIS_NODE)],
      local: [2],
    },
    {
      name: 'those that serve while they terminate here when none is ready here',
      endpoints: [at(1, ON_THIS_NODE, TERMINATING), at(2, ON_THIS_NODE, DEAD), at(3, ON_ANOTHER)],
      local: [1],
    },
    {
      name: 'nobody when what terminates here has stopped serving',
      endpoints: [at(1, ON_THIS_NODE, DEAD), at(2, ON_ANOTHER)],
      local: [],
    },
    {
      name: 'nobody when what terminates and serves is elsewhere',
      endpoints: [at(1, ON_THIS_NODE, UNREADY), at(2, ON_ANOTHER, TERMINATING)],
      local: [],
    },
  ])('$name', ({ endpoints, local }) => {
    expect(lasts(endpointSetsOf(endpoints, PLACE).local)).toEqual(local);
  });
});

describe('each set falls back by itself:', () => {
  test.each<{ name: string; endpoints: readonly Endpoint[]; cluster: number[]; local: number[] }>([
    {
      name: 'the local one, while others are ready elsewhere',
      endpoints: [at(1, ON_ANOTHER), at(2, ON_THIS_NODE, TERMINATING)],
      cluster: [1],
      local: [2],
    },
    {
      name: 'both, when nobody is ready anywhere',
      endpoints: [at(1, ON_ANOTHER, TERMINATING), at(2, ON_THIS_NODE, TERMINATING)],
      cluster: [1, 2],
      local: [2],
    },
    {
      name: 'the one of the cluster alone, when nothing terminates here',
      endpoints: [at(1, ON_ANOTHER, TERMINATING), at(2, ON_THIS_NODE, DEAD)],
      cluster: [1],
      local: [],
    },
    {
      name: 'neither, when one is ready here',
      endpoints: [at(1, ON_ANOTHER, TERMINATING), at(2, ON_THIS_NODE), at(3, ON_THIS_NODE, TERMINATING)],
      cluster: [2],
      local: [2],
    },
  ])('$name', ({ endpoints, cluster, local }) => {
    const sets = endpointSetsOf(endpoints, PLACE);
    expect({ cluster: lasts(sets.cluster), local: lasts(sets.local) }).toEqual({ cluster, local });
  });
});

describe('zone hints', () => {
  const three = [at(1, forZones('zone-a')), at(2, forZones('zone-b')), at(3, forZones('zone-c'))];

  test.each<{ name: string; endpoints: readonly Endpoint[]; zone?: string; cluster: readonly number[] }>([
    { name: 'choose the endpoints for this zone', endpoints: three, cluster: [1] },
    { name: 'choose by the zone of the node', endpoints: three, zone: 'zone-c', cluster: [3] },
    { name: 'are ignored when none is for this zone', endpoints: three, zone: 'zone-d', cluster: [1, 2, 3] },
    { name: 'are ignored while the zone is not known', endpoints: three, zone: '', cluster: [1, 2, 3] },
    {
      name: 'are ignored while the zone is not known, also where one is for a zone without name',
      endpoints: [at(1, forZones('')), at(2, forZones('zone-b'))],
      zone: '',
      cluster: [1, 2],
    },
    {
      name: 'are ignored when one ready endpoint has none',
      endpoints: [...three, at(4)],
      cluster: [1, 2, 3, 4],
    },
    {
      name: 'count when only endpoints that are not ready have none',
      endpoints: [...three, at(4, UNREADY), at(5, TERMINATING)],
      cluster: [1],
    },
    {
      name: 'are ignored when the only endpoint for this zone is not ready',
      endpoints: [at(1, forZones('zone-a'), UNREADY), at(2, forZones('zone-b'))],
      cluster: [2],
    },
    {
      name: 'may name several zones',
      endpoints: [at(1, forZones('zone-b', 'zone-a')), at(2, forZones('zone-b', 'zone-c'))],
      cluster: [1],
    },
    {
      name: 'are hints for the zone of the client, not of the endpoint',
      endpoints: [at(1, ON_ANOTHER, forZones('zone-a')), at(2, ON_THIS_NODE, forZones('zone-b'))],
      cluster: [1],
    },
  ])('$name', ({ endpoints, zone = 'zone-a', cluster }) => {
    expect(lasts(endpointSetsOf(endpoints, { ...PLACE, zone }).cluster)).toEqual(cluster);
  });
});

describe('node hints', () => {
  const two = [at(1, forNodes(HERE)), at(2, forNodes(THERE))];

  test.each<{ name: string; endpoints: readonly Endpoint[]; zone?: string; cluster: readonly number[] }>([
    { name: 'choose the endpoints for this node', endpoints: two, cluster: [1] },
    { name: 'choose also while the zone is not known', endpoints: two, zone: '', cluster: [1] },
    {
      name: 'are ignored when none is for this node',
      endpoints: [at(1, forNodes('node3')), at(2, forNodes(THERE))],
      cluster: [1, 2],
    },
    { name: 'are ignored when one ready endpoint has none', endpoints: [...two, at(3)], cluster: [1, 2, 3] },
    {
      name: 'count when only endpoints that are not ready have none',
      endpoints: [...two, at(3, UNREADY), at(4, DEAD)],
      cluster: [1],
    },
    {
      name: 'are ignored when the only endpoint for this node is not ready',
      endpoints: [at(1, forNodes(HERE), UNREADY), at(2, forNodes(THERE))],
      cluster: [2],
    },
    {
      name: 'go before zone hints',
      endpoints: [
        at(1, forNodes(HERE), forZones('zone-b')),
        at(2, forNodes(THERE), forZones('zone-a')),
        at(3, forNodes(HERE), forZones('zone-a')),
      ],
      cluster: [1, 3],
    },
    {
      name: 'leave the choice to zone hints when none is for this node',
      endpoints: [at(1, forNodes('node3'), forZones('zone-a')), at(2, forNodes(THERE), forZones('zone-b'))],
      cluster: [1],
    },
    {
      name: 'leave the choice to zone hints when one endpoint has none',
      endpoints: [at(1, forNodes(HERE), forZones('zone-b')), at(2, forZones('zone-a'))],
      cluster: [2],
    },
    {
      name: 'leave the choice to nobody when the zone hints are incomplete too',
      endpoints: [at(1, forNodes(HERE), forZones('zone-a')), at(2, forZones('zone-a')), at(3)],
      cluster: [1, 2, 3],
    },
  ])('$name', ({ endpoints, zone = 'zone-a', cluster }) => {
    expect(lasts(endpointSetsOf(endpoints, { ...PLACE, zone }).cluster)).toEqual(cluster);
  });
});

describe('hints of either kind', () => {
  test('say nothing about policy Local', () => {
    const endpoints = [
      at(1, ON_THIS_NODE, forNodes(THERE), forZones('zone-b')),
      at(2, ON_THIS_NODE, forNodes(HERE), forZones('zone-a')),
      at(3, ON_ANOTHER, forNodes(HERE), forZones('zone-a')),
    ];
    const { cluster, local } = endpointSetsOf(endpoints, PLACE);
    expect(lasts(cluster)).toEqual([2, 3]);
    expect(lasts(local)).toEqual([1, 2]);
  });

  test('may leave the two sets with nobody in common', () => {
    const endpoints = [at(1, ON_THIS_NODE, forZones('zone-b')), at(2, ON_ANOTHER, forZones('zone-a'))];
    const { cluster, local } = endpointSetsOf(endpoints, PLACE);
    expect(lasts(cluster)).toEqual([2]);
    expect(lasts(local)).toEqual([1]);
  });

  test('say nothing about the fallback: it is there to lose no connection', () => {
    const endpoints = [
      at(1, TERMINATING, forNodes(HERE), forZones('zone-a')),
      at(2, TERMINATING, forNodes(THERE), forZones('zone-b')),
      at(3, TERMINATING),
    ];
    expect(lasts(endpointSetsOf(endpoints, PLACE).cluster)).toEqual([1, 2, 3]);
  });
});

describe('isLocal', () => {
  test('is nothing without a name: neither is a slice that names no node local to a node without one', () => {
    expect(isLocal(at(1), { nodeName: '', zone: '' })).toBe(false);
    expect(isLocal(at(1, ON_THIS_NODE), { nodeName: '', zone: '' })).toBe(false);
    expect(isLocal(at(1, ON_THIS_NODE), PLACE)).toBe(true);
  });
});

/** Of what a slice may say, everything by chance. */
function randomEndpoints(random: Random): readonly Endpoint[] {
  const hints = (values: readonly string[]): readonly string[] =>
    values.filter(() => random.next() < 0.5).slice(0, random.next() < 0.1 ? 0 : 2);
  return Array.from({ length: random.below(6) }, (_, index) =>
    at(index + 1, random.pick([READY, READY, UNREADY, TERMINATING, DEAD]), {
      nodeName: random.pick(['', HERE, THERE]),
      zoneHints: hints(['zone-a', 'zone-b']),
      nodeHints: hints([HERE, THERE]),
    }),
  );
}

/** What is promised of the sets, each as what holds. */
function promises(endpoints: readonly Endpoint[], place: Place): Record<string, boolean> {
  const { cluster, local } = endpointSetsOf(endpoints, place);
  const usable = endpoints.filter(({ ready, serving, terminating }) => ready || (serving && terminating));
  const inOrder = (set: readonly Endpoint[]): readonly Endpoint[] =>
    endpoints.filter((endpoint) => set.includes(endpoint));
  const isMixed = (set: readonly Endpoint[]): boolean => new Set(set.map(({ ready }) => ready)).size > 1;
  return {
    somebodyWhereAnybodyIsUsable: cluster.length > 0 === usable.length > 0,
    somebodyHereWhereAnybodyHereIsUsable:
      local.length > 0 === usable.some((endpoint) => isLocal(endpoint, place)),
    onlyUsable: [...cluster, ...local].every((endpoint) => usable.includes(endpoint)),
    readyAndTerminatingNeverTogether: !isMixed(cluster) && !isMixed(local),
    onlyLocalOnes: local.every((endpoint) => isLocal(endpoint, place)),
    orderKept:
      inOrder(cluster).every((endpoint, index) => endpoint === cluster[index]) &&
      inOrder(local).every((endpoint, index) => endpoint === local[index]),
  };
}

describe('whatever the endpoints are', () => {
  test.each(seeds(5))('the sets keep what is promised of them (seed %i)', (seed) => {
    const random = new Random(seed);
    for (let round = 0; round < 500; round += 1) {
      const endpoints = randomEndpoints(random);
      const place = { nodeName: HERE, zone: random.pick(['', 'zone-a', 'zone-c']) };
      const broken = Object.entries(promises(endpoints, place)).filter(([, holds]) => !holds);
      expect({ broken, endpoints, place }).toEqual({ broken: [], endpoints, place });
    }
  });
});
