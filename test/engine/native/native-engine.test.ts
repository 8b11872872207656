/** Listeners, figures and the end of the native engine, on a fake addon. */
import { describe, expect, test } from 'vitest';
import { NativeEngine } from '../../../src/engine/native/native-engine.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { FakeNativeAddon } from '../../support/fake-native-addon.ts';
import { NativeEngineFixture, OPTIONS, TCP, UDP, dial, id, listenerId } from './native-engine-fixture.ts';

const EMFILE = 24;
const EADDRINUSE = 98;
const EADDRNOTAVAIL = 99;

describe('the start', () => {
  test('hands on the options, with defaults for what only this engine has', () => {
    expect(new NativeEngineFixture().addon.options).toEqual({ ...OPTIONS, maxUnreported: 32, maxPipes: 32 });
    expect(new NativeEngineFixture({ ...OPTIONS, maxPipes: 5 }).addon.options).toMatchObject({ maxPipes: 5 });
  });

  test('without a descriptor for it fails with a code and the errno', () => {
    const addon = new FakeNativeAddon();
    addon.startErrno = EMFILE;
    const policy = { handle: () => [] };

    expect(() => new NativeEngine({ clock: new FakeClock(), policy }, OPTIONS, addon)).toThrow(
      expect.objectContaining({
        code: 'ERR_ENGINE_UNAVAILABLE',
        cause: expect.objectContaining({ code: 'EMFILE', errno: -EMFILE }),
      }),
    );
  });
});

describe('listeners', () => {
  test('have ids of their own, and what they were asked for', async () => {
    const { engine, addon } = new NativeEngineFixture();

    const ids = [
      await engine.open(TCP),
      await engine.open(UDP),
      await engine.open({ ...TCP, addresses: [] }),
      await engine.open({ ...TCP, family: 'IPv6', addresses: [] }),
      await engine.open({ ...UDP, addresses: [] }),
    ];

    expect(ids).toEqual([-1, -2, -3, -4, -5]);
    expect(addon.calls.filter((call) => call.startsWith('open'))).toEqual([
      'open -1 TCP 80 0.0.0.0',
      'open -2 UDP 53 127.0.0.1,10.0.0.1',
      'open -3 TCP 80 0.0.0.0',
      'open -4 TCP 80 ::',
      'open -5 UDP 53 ',
    ]);
  });

  test("that cannot be opened reject as the other engine's do, with an error like the system's", async () => {
    const { engine, addon } = new NativeEngineFixture();
    addon.errno = EADDRINUSE;

    await expect(engine.open(TCP)).rejects.toMatchObject({
      code: 'ERR_LISTENER_OPEN',
      message: 'cannot listen on TCP port 80 on 0.0.0.0',
      cause: {
        message: 'listen EADDRINUSE: address already in use 0.0.0.0:80',
        code: 'EADDRINUSE',
        errno: -EADDRINUSE,
        syscall: 'listen',
        address: '0.0.0.0',
        port: 80,
      },
    });
    addon.errno = EADDRNOTAVAIL;
    await expect(engine.open(UDP)).rejects.toMatchObject({
      cause: { message: 'bind EADDRNOTAVAIL: address not available port 53', syscall: 'bind', port: 53 },
    });
    expect(addon.calls).not.toContain('keep alive');
  });

  test('of UDP follow their addresses, those of TCP have none to follow', async () => {
    const { engine, addon } = new NativeEngineFixture();
    const tcp = await engine.open(TCP);
    const udp = await engine.open(UDP);

    await engine.setAddresses(tcp, ['10.0.0.2']);
    await engine.setAddresses(udp, ['10.0.0.2']);
    await engine.setAddresses(listenerId(-9), ['10.0.0.2']);
    addon.errno = EADDRINUSE;
    const failing = engine.setAddresses(udp, ['10.0.0.2', '10.0.0.3']);

    await expect(failing).rejects.toMatchObject({
      code: 'ERR_LISTENER_OPEN',
      message: 'cannot listen on all of 10.0.0.2, 10.0.0.3',
      cause: { code: 'EADDRINUSE', syscall: 'bind', port: 53 },
    });
    expect(addon.calls.filter((call) => call.startsWith('addresses'))).toEqual([
      'addresses -2 53 10.0.0.2',
      'addresses -2 53 10.0.0.2,10.0.0.3',
    ]);
  });

  test('are closed once the engine says so, and only once', async () => {
    const { engine, addon } = new NativeEngineFixture();
    const listener = await engine.open(UDP);
    let isClosed = false;

    const closing = Promise.all([engine.close(listener), engine.close(listener)]).then(() => {
      isClosed = true;
    });
    await engine.setAddresses(listener, ['10.0.0.2']);
    expect(isClosed).toBe(false);
    addon.happen({ kind: 'listenerClosed', listener });
    await closing;
    await engine.close(listener);

    expect(addon.calls.filter((call) => !call.startsWith('open'))).toEqual([
      'keep alive',
      'close -1',
      'let go',
    ]);
  });
});

test('the process is kept alive by a listener, and by a session, and by nothing else', async () => {
  const { engine, addon } = new NativeEngineFixture();
  const calls = (): readonly string[] => addon.calls.filter((call) => !/open|close/.test(call));
  expect(calls()).toEqual([]);

  const listener = await engine.open(TCP);
  addon.happen({ kind: 'opened', session: 1 }, { kind: 'opened', session: 2 });
  addon.happen({ kind: 'established', session: 1 });
  void engine.close(listener);
  addon.happen({ kind: 'listenerClosed', listener }, { kind: 'closed', session: 1 });
  expect(calls()).toEqual(['keep alive']);
  addon.happen({ kind: 'closed', session: 2 });

  expect(calls()).toEqual(['keep alive', 'let go']);
});

describe('figures', () => {
  test('are those of the engine', () => {
    const { engine, addon } = new NativeEngineFixture();
    addon.counts = [1, 2, 3, 4, 5];
    addon.bytes = [7, 70, 700, 8, 80, 800];

    expect(engine.totals()).toEqual({
      datagramsIn: 1,
      datagramsOut: 2,
      datagramsDropped: 3,
      flowControlPauses: 4,
      listenerErrors: 5,
    });
    expect([...engine.sessionBytes()]).toEqual([
      { session: 7, bytesIn: 70, bytesOut: 700 },
      { session: 8, bytesIn: 80, bytesOut: 800 },
    ]);
  });

  test('tell the last use of a session by our clock', () => {
    const { engine, addon, clock } = new NativeEngineFixture();
    clock.advance(500);
    addon.usedAt.set(1, addon.nowMs + 400);

    expect(engine.lastUsed(id(1))).toBe(400);
    expect(engine.lastUsed(id(2))).toBeUndefined();
  });
});

describe('the end', () => {
  test('stops the thread, reports what is left, and lets go of everything, once', async () => {
    const { engine, addon, calls } = new NativeEngineFixture();
    const listener = await engine.open(TCP);
    addon.happen({ kind: 'opened', session: 1 });
    const closing = engine.close(listener);
    addon.counts = [0, 0, 0, 0, 1];
    addon.onStop = () => addon.queue.push({ kind: 'closed', session: 1, cause: 'stopped' });

    await Promise.all([engine.shutdown(), engine.shutdown(), closing]);
    await engine.shutdown();

    expect(calls).toEqual([['opened 1'], ['closed 1']]);
    expect(addon.calls).toEqual(['open -1 TCP 80 0.0.0.0', 'keep alive', 'close -1', 'stop', 'release']);
    expect(engine.totals().listenerErrors).toBe(1);
  });

  test('has everything that comes after it ignored, and nothing opened', async () => {
    const { engine, addon } = new NativeEngineFixture();
    addon.happen({ kind: 'opened', session: 1 });
    const listener = await engine.open(TCP);
    await engine.shutdown();

    engine.answer(id(1), dial());
    engine.reset([id(1)]);
    await engine.setAddresses(listener, []);
    await engine.close(listener);

    expect(engine.lastUsed(id(1))).toBeUndefined();
    expect([...engine.sessionBytes()]).toEqual([]);
    await expect(engine.open(TCP)).rejects.toMatchObject({ code: 'ERR_LISTENER_OPEN' });
    expect(addon.submitted).toEqual([]);
  });

  test('from within a call of the policy waits for that call, and loses no event', async () => {
    const fixture = new NativeEngineFixture();
    const { engine, addon } = fixture;
    addon.onStop = () => addon.queue.push({ kind: 'closed', session: 1, cause: 'stopped' });
    const ending: Promise<void>[] = [];
    fixture.decide = ({ kind }) => {
      if (kind === 'opened') ending.push(engine.shutdown());
      return dial();
    };

    addon.happen({ kind: 'opened', session: 1 });
    await Promise.all(ending);

    expect(fixture.calls).toEqual([['opened 1'], ['closed 1']]);
    expect(addon.submitted).toEqual([]);
    expect(addon.calls).toEqual(['keep alive', 'stop', 'release'].slice(1));
  });

  test('comes in time when the rest of a large batch was put off', async () => {
    const fixture = new NativeEngineFixture();
    fixture.addon.happen(
      ...Array.from({ length: 10_000 }, (_, index) => ({ kind: 'opened', session: index + 1 }) as const),
    );

    await fixture.engine.shutdown();

    expect(fixture.events).toHaveLength(10_000);
    expect(fixture.addon.calls.at(-1)).toBe('release');
  });
});
