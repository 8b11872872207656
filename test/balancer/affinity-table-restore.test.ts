/** What a table hands out, and takes back in another life. */
import { describe, expect, test } from 'vitest';
import { type AffinityTie, AffinityTable } from '../../src/balancer/affinity-table.ts';

const TIMEOUT_MS = 1000;

function makeTable({ timeoutMs = TIMEOUT_MS, capacity = 100 } = {}): AffinityTable {
  return new AffinityTable({ timeoutMs, capacity });
}

function tie(client: string, endpointKey: string, lastUsed: number): AffinityTie {
  return { client, endpointKey, lastUsed };
}

describe('the ties of a table', () => {
  test('are those in force, the longest unused first', () => {
    const table = makeTable();
    table.bind('first', 'a', 0);
    table.bind('second', 'a', 500);
    table.bind('third', 'b', 600);
    table.bind('second', 'b', 700);

    expect([...table.ties(1000)].map(({ client }) => client)).toEqual(['first', 'third', 'second']);
    expect([...table.ties(1001)]).toEqual([tie('third', 'b', 600), tie('second', 'b', 700)]);
  });

  test('can be walked over twice, and while clients come and go', () => {
    const table = makeTable();
    table.bind('first', 'a', 0);
    table.bind('second', 'a', 1);
    const ties = table.ties(1);
    const seen: AffinityTie[] = [];
    for (const one of ties) {
      seen.push(one);
      if (seen.length === 1) table.bind('first', 'b', 2);
    }

    expect(seen).toEqual([tie('first', 'a', 0), tie('second', 'a', 1), tie('first', 'b', 2)]);
    expect([...ties]).toEqual([tie('second', 'a', 1), tie('first', 'b', 2)]);
  });
});

describe('restored ties', () => {
  test('hold for the rest of their time, and not a moment longer', () => {
    const table = makeTable();
    table.restore([tie('client', 'a', -400)], 0);

    expect(table.endpointOf('client', 600)).toBe('a');
    expect(table.endpointOf('client', 601)).toBeUndefined();
  });

  test('are left out when their time is up', () => {
    const table = makeTable();
    table.restore([tie('late', 'a', -1001), tie('just', 'a', -1000)], 0);

    expect(table.size).toBe(1);
    expect(table.endpointOf('just', 0)).toBe('a');
  });

  test.each([
    { name: 'a client that was tied later', restoredAt: 9, expected: 'mine' },
    { name: 'a client that was tied at the same time', restoredAt: 10, expected: 'mine' },
    { name: 'a client that was tied before', restoredAt: 11, expected: 'restored' },
  ])('leave $name with the tie that is $expected', ({ restoredAt, expected }) => {
    const table = makeTable();
    table.bind('client', 'mine', 10);
    table.restore([tie('client', 'restored', restoredAt)], 20);

    expect(table.size).toBe(1);
    expect(table.endpointOf('client', 20)).toBe(expected);
    expect(table.endpointOf('client', 1012)).toBeUndefined();
  });

  test('of one client twice are the one that was used last', () => {
    const table = makeTable();
    table.restore([tie('client', 'a', -10), tie('client', 'b', -5), tie('client', 'c', -7)], 0);

    expect(table.size).toBe(1);
    expect(table.endpointOf('client', 0)).toBe('b');
  });

  test('never go beyond the capacity: the longest unused of both are forgotten, and counted', () => {
    const table = makeTable({ capacity: 3 });
    table.bind('now', 'a', 0);
    table.restore([tie('newer', 'a', -10), tie('oldest', 'a', -30), tie('older', 'a', -20)], 0);

    expect([...table.ties(0)].map(({ client }) => client)).toEqual(['older', 'newer', 'now']);
    expect(table.evictions).toBe(1);
  });

  test('expire in their order among those that were tied before and after', () => {
    const table = makeTable();
    table.bind('bound', 'a', 0);
    table.restore([tie('restored', 'a', -500)], 0);
    table.bind('later', 'a', 501);
    expect(table.size).toBe(2);

    table.bind('last', 'a', 1001);

    expect([...table.ties(1001)].map(({ client }) => client)).toEqual(['later', 'last']);
  });
});

describe('the count of changes', () => {
  test.each([
    { name: 'a client is tied', change: (table: AffinityTable) => table.bind('other', 'a', 1) },
    { name: 'a client is tied again', change: (table: AffinityTable) => table.bind('client', 'a', 1) },
    { name: 'a client is freed', change: (table: AffinityTable) => table.release('client', 'a') },
    { name: 'an endpoint goes', change: (table: AffinityTable) => table.retainEndpoints(new Set(['b'])) },
    { name: 'ties are restored', change: (table: AffinityTable) => table.restore([tie('x', 'a', 0)], 1) },
  ])('grows when $name', ({ change }) => {
    const table = makeTable();
    table.bind('client', 'a', 0);
    const before = table.changes;
    change(table);
    expect(table.changes).toBeGreaterThan(before);
  });

  test.each([
    { name: 'a client is looked up', act: (table: AffinityTable) => table.endpointOf('client', 1) },
    { name: 'nobody is freed', act: (table: AffinityTable) => table.release('client', 'b') },
    {
      name: 'every endpoint stays',
      act: (table: AffinityTable) => table.retainEndpoints(new Set(['a'])),
    },
    {
      name: 'no restored tie holds',
      act: (table: AffinityTable) => table.restore([tie('x', 'a', -2000)], 1),
    },
  ])('stays when $name', ({ act }) => {
    const table = makeTable();
    table.bind('client', 'a', 0);
    const before = table.changes;
    act(table);
    expect(table.changes).toBe(before);
  });
});
