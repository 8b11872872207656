/** A portal is diverted or refused at every moment of a pass. */
import { describe, expect, test } from 'vitest';
import type { ListenerKey, Portal, PortalTarget } from '../../src/desired/portal.ts';
import { tableOrder } from '../../src/sync/table-order.ts';
import { addresses } from '../support/snapshots.ts';

const LISTENER = 'default/web/IPv4/cluster' as ListenerKey;
const DIVERTED: PortalTarget = { kind: 'listener', listener: LISTENER };
const SPLIT: PortalTarget = { kind: 'split', inside: LISTENER, outside: undefined };

function portal(last: number, target: PortalTarget): Portal {
  const [address] = addresses(`10.96.0.${last}`);
  if (address === undefined) throw new TypeError('no address');
  return {
    kind: 'clusterIP',
    servicePortName: 'default/web',
    family: 'IPv4',
    protocol: 'TCP',
    address,
    port: 80,
    target,
  };
}

describe('the tables are committed', () => {
  test.each<{ name: string; before: Portal[]; after: Portal[]; first: 'nat' | 'filter' }>([
    { name: 'a portal appears', before: [], after: [portal(1, DIVERTED)], first: 'nat' },
    { name: 'a portal is gone', before: [portal(1, DIVERTED)], after: [], first: 'nat' },
    {
      name: 'a portal gets its first endpoint',
      before: [portal(1, { kind: 'reject' })],
      after: [portal(1, DIVERTED)],
      first: 'nat',
    },
    {
      name: 'a portal loses its last endpoint',
      before: [portal(1, DIVERTED), portal(2, DIVERTED)],
      after: [portal(1, { kind: 'reject' }), portal(2, DIVERTED)],
      first: 'filter',
    },
    {
      name: 'a portal loses its last endpoint for this traffic',
      before: [portal(1, SPLIT)],
      after: [portal(1, { kind: 'drop' })],
      first: 'filter',
    },
    {
      name: 'one gains and another loses',
      before: [portal(1, DIVERTED), portal(2, { kind: 'reject' })],
      after: [portal(1, { kind: 'reject' }), portal(2, DIVERTED)],
      first: 'nat',
    },
    { name: 'nothing changes', before: [portal(1, DIVERTED)], after: [portal(1, DIVERTED)], first: 'nat' },
  ])('$first first when $name', ({ before, after, first }) => {
    expect(tableOrder(before, after)[0]).toBe(first);
  });
});
