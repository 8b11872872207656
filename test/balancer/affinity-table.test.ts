import { describe, expect, test } from 'vitest';
import { AffinityTable } from '../../src/balancer/affinity-table.ts';

const TIMEOUT_MS = 1000;

function makeTable({ timeoutMs = TIMEOUT_MS, capacity = 100 } = {}): AffinityTable {
  return new AffinityTable({ timeoutMs, capacity });
}

describe('how long a client is tied', () => {
  test.each([
    { name: 'at once', atMs: 0, expected: 'a' },
    { name: 'just before the time-out', atMs: TIMEOUT_MS - 1, expected: 'a' },
    { name: 'exactly at the time-out', atMs: TIMEOUT_MS, expected: 'a' },
    { name: 'just after the time-out', atMs: TIMEOUT_MS + 1, expected: undefined },
  ])('$name it is tied to $expected', ({ atMs, expected }) => {
    const table = makeTable();
    table.bind('client', 'a', 0);

    expect(table.endpointOf('client', atMs)).toBe(expected);
  });

  test('every connection renews: the time slides', () => {
    const table = makeTable();
    table.bind('client', 'a', 0);
    table.bind('client', 'a', 900);

    expect(table.endpointOf('client', 1900)).toBe('a');
    expect(table.endpointOf('client', 1901)).toBeUndefined();
  });

  test('asking does not renew', () => {
    const table = makeTable();
    table.bind('client', 'a', 0);
    table.endpointOf('client', 900);

    expect(table.endpointOf('client', 1001)).toBeUndefined();
  });

  test('a client nobody knows is tied to nobody', () => {
    expect(makeTable().endpointOf('client', 0)).toBeUndefined();
  });

  test('a changed time-out holds at once for those that are tied already', () => {
    const table = makeTable();
    table.bind('client', 'a', 0);

    table.setTimeoutMs(500);
    expect(table.endpointOf('client', 500)).toBe('a');
    table.setTimeoutMs(2000);
    expect(table.endpointOf('client', 2000)).toBe('a');
    table.setTimeoutMs(1000);

    expect(table.endpointOf('client', 1500)).toBeUndefined();
  });

  test('a tie that ran out unseen holds again when the time-out is lengthened, one that was seen does not', () => {
    const table = makeTable();
    table.bind('unseen', 'a', 0);
    table.bind('seen', 'a', 0);
    expect(table.endpointOf('seen', 1500)).toBeUndefined();

    table.setTimeoutMs(2000);

    expect(table.endpointOf('unseen', 1600)).toBe('a');
    expect(table.endpointOf('seen', 1600)).toBeUndefined();
  });

  test('expired clients do not stay in memory once anybody is tied', () => {
    const table = makeTable();
    table.bind('first', 'a', 0);
    table.bind('second', 'a', 500);

    table.bind('third', 'a', 1200);

    expect(table.size).toBe(2);
    expect(table.evictions).toBe(0);
  });
});

test('binding again moves the client', () => {
  const table = makeTable();
  table.bind('client', 'a', 0);

  table.bind('client', 'b', 1);

  expect(table.endpointOf('client', 1)).toBe('b');
  expect(table.size).toBe(1);
});

describe('its capacity', () => {
  test('above it the client that has been away longest is forgotten', () => {
    const table = makeTable({ capacity: 2 });
    table.bind('first', 'a', 0);
    table.bind('second', 'a', 1);
    table.bind('first', 'a', 2);

    table.bind('third', 'a', 3);

    expect(table.endpointOf('second', 3)).toBeUndefined();
    expect(table.endpointOf('first', 3)).toBe('a');
    expect(table.endpointOf('third', 3)).toBe('a');
    expect(table.evictions).toBe(1);
  });

  test('at it nobody is forgotten', () => {
    const table = makeTable({ capacity: 2 });
    table.bind('first', 'a', 0);
    table.bind('second', 'a', 1);
    table.bind('second', 'b', 2);

    expect(table.size).toBe(2);
    expect(table.evictions).toBe(0);
  });
});

describe('letting clients go', () => {
  test('a client is freed from the endpoint that failed it', () => {
    const table = makeTable();
    table.bind('client', 'a', 0);

    table.release('client', 'a');

    expect(table.endpointOf('client', 0)).toBeUndefined();
  });

  test('a client that is tied to another endpoint by now stays there', () => {
    const table = makeTable();
    table.bind('client', 'b', 0);

    table.release('client', 'a');

    expect(table.endpointOf('client', 0)).toBe('b');
  });

  test('only the clients of endpoints that are gone are freed', () => {
    const table = makeTable();
    table.bind('one', 'a', 0);
    table.bind('two', 'b', 0);
    table.bind('three', 'c', 0);

    table.retainEndpoints(new Set(['a', 'c']));

    expect(['one', 'two', 'three'].map((client) => table.endpointOf(client, 0))).toEqual([
      'a',
      undefined,
      'c',
    ]);
  });
});
