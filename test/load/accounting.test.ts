/** The judge of the load runs: what is a killed backend's failure, and what is the proxy's. */
import { describe, expect, test } from 'vitest';
import { accountFor } from '../support/load-accounting.ts';
import type { CrashedConnection, CrashLog, RequestFailure } from '../support/load-protocol.ts';

const AT_MS = 10_000;

function makeConnection(given: Partial<CrashedConnection> = {}): CrashedConnection {
  return { id: 'kept-1', read: 7, answered: 6, answeredMs: AT_MS - 5, ...given };
}

function makeCrash(given: Partial<CrashLog> = {}): CrashLog {
  return { backend: 'pod1', atMs: AT_MS, connections: [makeConnection()], nameless: 0, ...given };
}

function makeFailure(given: Partial<RequestFailure> = {}): RequestFailure {
  const times = { sentMs: AT_MS - 3, endMs: AT_MS + 4 };
  return { connection: 'kept-1', request: 7, backend: 'pod1', errno: 'ECONNRESET', ...times, ...given };
}

const FRESH = { connection: 'fresh-1', backend: undefined };

describe('a failed request', () => {
  test.for([
    { name: 'that the backend had read', failure: {}, crash: {}, plight: 'unanswered' },
    { name: 'that was on its way to the backend', failure: { request: 8 }, crash: {}, plight: 'unread' },
    {
      name: 'of which the answer had just been sent',
      failure: { request: 6 },
      crash: {},
      plight: 'answered',
    },
    {
      name: 'on a connection from which nothing had been read',
      failure: FRESH,
      crash: { nameless: 1 },
      plight: 'nameless',
    },
  ])('$name is the killed backend’s', ({ failure, crash, plight }) => {
    const { accounted, unaccounted } = accountFor([makeFailure(failure)], [makeCrash(crash)]);
    expect(accounted).toMatchObject([{ plight }]);
    expect(unaccounted).toEqual([]);
  });

  test.for([
    { name: 'on a connection that the backend did not have', failure: { connection: 'kept-2' }, crash: {} },
    { name: 'on a connection of another backend', failure: { backend: 'pod2' }, crash: {} },
    { name: 'that failed before the kill', failure: { endMs: AT_MS - 1 }, crash: {} },
    { name: 'that failed long after the kill', failure: { endMs: AT_MS + 5_000 }, crash: {} },
    { name: 'that had no answer in time', failure: { errno: 'TIMEOUT' }, crash: {} },
    { name: 'that had another’s answer', failure: { errno: 'MISMATCH' }, crash: {} },
    {
      name: 'that was answered long before the kill',
      failure: { request: 6 },
      crash: { connections: [makeConnection({ answeredMs: AT_MS - 500 })] },
    },
    { name: 'on a fresh connection, where the backend knew all of its own', failure: FRESH, crash: {} },
    {
      name: 'on a fresh connection that was begun after the kill',
      failure: { ...FRESH, sentMs: AT_MS + 1 },
      crash: { nameless: 1 },
    },
    {
      name: 'on a connection that somebody had answered on, where the backend knew all of those',
      failure: { connection: 'kept-2' },
      crash: { nameless: 1 },
    },
  ])('$name is nobody’s', ({ failure, crash }) => {
    const failed = makeFailure(failure);
    expect(accountFor([failed], [makeCrash(crash)])).toEqual({ accounted: [], unaccounted: [failed] });
  });

  test('is one for each connection that the backend took along', () => {
    const failures = [makeFailure(), makeFailure(), makeFailure(FRESH), makeFailure(FRESH)];
    const { accounted, unaccounted } = accountFor(failures, [makeCrash({ nameless: 1 })]);
    expect(accounted.map(({ plight }) => plight)).toEqual(['unanswered', 'nameless']);
    expect(unaccounted).toHaveLength(2);
  });

  test('is given to the backend that knew its connection, not to one that may have had it', () => {
    const knew = makeCrash({ backend: 'pod2', connections: [makeConnection({ id: FRESH.connection })] });
    const { accounted } = accountFor([makeFailure(FRESH)], [makeCrash({ nameless: 1 }), knew]);
    expect(accounted).toMatchObject([{ crash: { backend: 'pod2' }, plight: 'unanswered' }]);
  });
});
