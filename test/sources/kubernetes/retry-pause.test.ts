/** The pause after a failure: how long it is, and what ends it early. */
import { afterEach, describe, expect, test } from 'vitest';
import { ApiError, apiErrorFromAnswer } from '../../../src/sources/kubernetes/api-error.ts';
import { Backoff } from '../../../src/sources/kubernetes/backoff.ts';
import { RetryPause } from '../../../src/sources/kubernetes/retry-pause.ts';
import { ServerList } from '../../../src/sources/kubernetes/server-list.ts';
import { GateServer } from '../../support/gate-server.ts';

const random = (): number => 0;
const ROUTINE = { isRoutine: true };
const SERIOUS = { isRoutine: false };
const UNREACHABLE = new ApiError('ERR_API_UNREACHABLE', 'nobody there');
const BROKEN = new ApiError('ERR_API_CONNECTION', 'broken');
const SICK = apiErrorFromAnswer({ status: 503, body: {}, retryAfter: undefined });
const FORBIDDEN = apiErrorFromAnswer({ status: 403, body: {}, retryAfter: undefined });
const EXPIRED = apiErrorFromAnswer({ status: 410, body: {}, retryAfter: undefined });
/** Longer than any test may take. */
const FOR_EVER_MS = 600_000;

function serversOf(count: number): ServerList {
  const urls = Array.from({ length: count }, (_, index) => new URL(`https://127.0.0.1:${index + 1}`));
  return new ServerList({ random }, urls);
}

function pauseOf(servers: ServerList): { pause: RetryPause; backoff: Backoff } {
  const backoff = new Backoff({ random });
  return { pause: new RetryPause({ backoff, servers }), backoff };
}

const busy = (retryAfter: string): ApiError => apiErrorFromAnswer({ status: 429, body: {}, retryAfter });

describe('how long the pause is', () => {
  test.for([
    {
      name: 'of one server: the back-off',
      servers: 1,
      errors: [BROKEN, BROKEN, BROKEN],
      waits: [800, 1600, 3200],
    },
    {
      name: 'of three servers: none until each was tried, then the back-off',
      servers: 3,
      errors: [BROKEN, UNREACHABLE, BROKEN, BROKEN, BROKEN, BROKEN],
      waits: [0, 0, 800, 0, 0, 1600],
    },
    {
      name: 'of three servers that answer what all would answer: the back-off',
      servers: 3,
      errors: [FORBIDDEN, FORBIDDEN],
      waits: [800, 1600],
    },
    {
      name: 'of two servers, one broken and one that forbids: none to get there, then the back-off',
      servers: 2,
      errors: [BROKEN, FORBIDDEN, FORBIDDEN],
      waits: [0, 800, 1600],
    },
    { name: 'what the server asks for, when that is longer', servers: 1, errors: [busy('7')], waits: [7000] },
    {
      name: 'the back-off, when that is longer',
      servers: 1,
      errors: [busy('0'), busy('1')],
      waits: [800, 1600],
    },
    { name: '30 s, when the server asks for more', servers: 1, errors: [busy('86400')], waits: [30_000] },
  ])('$name', ({ servers, errors, waits }) => {
    const { pause } = pauseOf(serversOf(servers));
    expect(errors.map((error) => pause.failed(error, SERIOUS))).toEqual(waits);
  });

  test('none when it is routine, which is counted: what follows waits as if it had', () => {
    const { pause } = pauseOf(serversOf(1));
    expect(pause.failed(EXPIRED, ROUTINE)).toBe(0);
    expect(pause.failures).toBe(1);
    expect(pause.failed(EXPIRED, SERIOUS)).toBe(1600);
  });

  test('the shortest again after a success, and all servers are there to be tried', () => {
    const { pause } = pauseOf(serversOf(2));
    const three = (): number[] => [0, 0, 0].map(() => pause.failed(BROKEN, SERIOUS));
    expect(three()).toEqual([0, 800, 0]);
    pause.succeeded();
    expect(pause.failures).toBe(0);
    expect(three()).toEqual([0, 800, 0]);
  });

  test('the shortest again with the first answer after an outage, not with one after another fault', () => {
    const { pause } = pauseOf(serversOf(1));
    for (const error of [UNREACHABLE, UNREACHABLE, UNREACHABLE]) pause.failed(error, SERIOUS);
    pause.answered();
    expect(pause.failed(EXPIRED, ROUTINE)).toBe(0);
    expect(pause.failures).toBe(1);
    pause.answered();
    expect(pause.failed(EXPIRED, SERIOUS)).toBe(1600);
  });

  test('the shortest again with the first answer after an outage that began with a broken watch', () => {
    const { pause } = pauseOf(serversOf(1));
    pause.succeeded();
    for (const error of [BROKEN, UNREACHABLE, UNREACHABLE]) pause.failed(error, SERIOUS);
    pause.answered();
    expect(pause.failed(EXPIRED, ROUTINE)).toBe(0);
    expect(pause.failures).toBe(1);
  });

  test('counts no failure that another server was tried after', () => {
    const { pause } = pauseOf(serversOf(3));
    pause.failed(BROKEN, SERIOUS);
    pause.failed(BROKEN, SERIOUS);
    expect(pause.failures).toBe(0);
    pause.failed(BROKEN, SERIOUS);
    expect(pause.failures).toBe(1);
  });
});

describe('the pause ends', () => {
  let stop = new AbortController();
  afterEach(() => {
    stop.abort();
    stop = new AbortController();
  });

  /** The pause of somebody else, for whom every server was unreachable. */
  const waitOutOutage = async (servers: ServerList): Promise<void> => {
    const { pause } = pauseOf(servers);
    for (let count = 0; count < servers.size; count += 1) pause.failed(UNREACHABLE, SERIOUS);
    await pause.wait(FOR_EVER_MS, stop.signal);
  };

  test.for([UNREACHABLE, BROKEN])('when its time is over ($code)', async (error) => {
    const gate = await GateServer.make();
    const { pause } = pauseOf(new ServerList({ random }, [gate.url]));
    pause.failed(error, SERIOUS);
    await pause.wait(10, stop.signal);
    await pause.wait(0, stop.signal);
    expect(gate.connections).toBe(0);
  });

  test('early when a server that refused takes connections again, and the back-off begins anew', async () => {
    const gate = await GateServer.make();
    const servers = new ServerList({ random }, [new URL('https://127.0.0.1:1'), gate.url]);
    const { pause, backoff } = pauseOf(servers);
    for (let count = 0; count < 10; count += 1) backoff.failed();
    for (const error of [UNREACHABLE, UNREACHABLE]) pause.failed(error, SERIOUS);
    const waiting = pause.wait(FOR_EVER_MS, stop.signal);
    await gate.open();
    await waiting;
    expect(servers.current).toBe(gate.url);
    expect(pause.failures).toBe(0);
    expect(pause.failed(UNREACHABLE, SERIOUS)).toBe(0);
    expect(pause.failed(UNREACHABLE, SERIOUS)).toBe(800);
  });

  test('for all who wait when a server takes connections again', async () => {
    const gate = await GateServer.make();
    const servers = new ServerList({ random }, [gate.url]);
    const pauses = [1, 2, 3].map(() => pauseOf(servers).pause);
    const waiting = Promise.all(
      pauses.map(async (pause) => {
        pause.failed(UNREACHABLE, SERIOUS);
        await pause.wait(FOR_EVER_MS, stop.signal);
      }),
    );
    await gate.open();
    await waiting;
  });

  test('not early where the server did take the connection: that it still does is no news', async () => {
    const gate = await GateServer.make();
    await gate.open();
    const servers = new ServerList({ random }, [gate.url]);
    const { pause } = pauseOf(servers);
    pause.failed(BROKEN, SERIOUS);
    let hasEnded = false;
    const waiting = pause.wait(FOR_EVER_MS, stop.signal).then(() => {
      hasEnded = true;
    });
    // By the end of this one, which is told by a probe, the other would have ended as well.
    await waitOutOutage(servers);
    expect(hasEnded).toBe(false);
    stop.abort();
    await waiting;
    expect(pause.failures).toBe(1);
  });

  test('not early where one server is dead and the other, which is sick, takes connections all the time', async () => {
    const gate = await GateServer.make();
    await gate.open();
    const servers = new ServerList({ random }, [new URL('https://127.0.0.1:1'), gate.url]);
    const { pause } = pauseOf(servers);
    for (const error of [SICK, UNREACHABLE]) pause.failed(error, SERIOUS);
    let hasEnded = false;
    const waiting = pause.wait(FOR_EVER_MS, stop.signal).then(() => {
      hasEnded = true;
    });
    await waitOutOutage(servers);
    expect(hasEnded).toBe(false);
    stop.abort();
    await waiting;
    expect(pause.failures).toBe(1);
  });

  test('not early a second time where what takes connections has not answered since', async () => {
    const gate = await GateServer.make();
    await gate.open();
    const servers = new ServerList({ random }, [gate.url]);
    const { pause } = pauseOf(servers);
    pause.failed(UNREACHABLE, SERIOUS);
    await pause.wait(FOR_EVER_MS, stop.signal);
    expect(pause.failures).toBe(0);
    // Something in front of the server, that takes every connection.
    expect([0, 0].map(() => pause.failed(UNREACHABLE, SERIOUS))).toEqual([800, 1600]);
    let hasEnded = false;
    const waiting = pause.wait(FOR_EVER_MS, stop.signal).then(() => {
      hasEnded = true;
    });
    await waitOutOutage(servers);
    expect(hasEnded).toBe(false);
    expect(pause.failures).toBe(2);
    stop.abort();
    await waiting;
  });

  test('early again in the next outage, once the server has answered', async () => {
    const gate = await GateServer.make();
    await gate.open();
    const { pause } = pauseOf(new ServerList({ random }, [gate.url]));
    for (const _ of ['first', 'second']) {
      for (let count = 0; count < 3; count += 1) pause.failed(UNREACHABLE, SERIOUS);
      await pause.wait(FOR_EVER_MS, stop.signal);
      expect(pause.failures).toBe(0);
      pause.answered();
    }
  });

  test('with its time, and then nobody looks for a server any more', async () => {
    const gate = await GateServer.make();
    await gate.open();
    const witness = await GateServer.make();
    await witness.open();
    const { pause } = pauseOf(new ServerList({ random }, [gate.url]));
    pause.failed(UNREACHABLE, SERIOUS);
    await pause.wait(10, stop.signal);
    await waitOutOutage(new ServerList({ random }, [witness.url]));
    expect(gate.connections).toBe(0);
    expect(pause.failures).toBe(1);
  });

  test.for([
    { name: 'while time passes', error: BROKEN },
    { name: 'while a server is looked for', error: UNREACHABLE },
  ])('at once, and without an error, when it is given up $name', async ({ error }) => {
    const gate = await GateServer.make();
    const { pause } = pauseOf(new ServerList({ random }, [gate.url]));
    pause.failed(error, SERIOUS);
    const waiting = pause.wait(FOR_EVER_MS, stop.signal);
    stop.abort();
    await waiting;
    await pause.wait(FOR_EVER_MS, stop.signal);
    expect(gate.connections).toBe(0);
  });
});
