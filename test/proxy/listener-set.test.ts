/** How listeners come and go, without a socket. */
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { systemClock } from '../../src/clock.ts';
import type { ListenerId } from '../../src/engine/engine.ts';
import { errnoOf } from '../../src/errors.ts';
import { ListenerSet } from '../../src/proxy/listener-set.ts';
import type { WantedListener } from '../../src/proxy/wanted-listener.ts';
import { ProxyPorts } from '../../src/proxy/proxy-ports.ts';
import { FakeListenerEngine } from '../support/fake-listener-engine.ts';
import { RecordingLogger } from '../support/recording-logger.ts';

const GRACE_MS = 1000;

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  vi.useRealTimers();
});

/** Ports 1000 to 1099, given out in order. */
class Fixture {
  readonly engine = new FakeListenerEngine();
  readonly logger = new RecordingLogger();
  readonly keyById = new Map<ListenerId, string>();
  readonly ports = new ProxyPorts({
    range: { first: 1000, last: 1099 },
    excluded: [],
    random: () => 0,
    remembered: new Map(),
  });
  changes = 0;
  /** For so many listening sockets there are descriptors. */
  room = Number.POSITIVE_INFINITY;
  /** What was guarded whenever the guard was called. */
  readonly guarded: (readonly number[])[] = [];
  readonly set = new ListenerSet(
    {
      engine: this.engine,
      binding: {
        bindListener: (id, key) => {
          if (!this.engine.listeners.has(id)) throw new Error(`listener ${id} is bound and not open`);
          this.keyById.set(id, key);
        },
        unbindListener: (id) => {
          if (!this.keyById.delete(id)) throw new Error(`listener ${id} was not bound`);
        },
      },
      ports: this.ports,
      hasRoomToListen: (sockets) => this.set.socketCount + sockets <= this.room,
      clock: systemClock,
      logger: this.logger,
      onChange: () => {
        this.changes += 1;
      },
    },
    { gracePeriodMs: GRACE_MS },
  );

  readonly guard = async (): Promise<void> => {
    this.guarded.push(this.guardedPorts);
  };

  get guardedPorts(): readonly number[] {
    return this.set.guardedPorts().map(({ port }) => port);
  }

  /** A pass: opens what is wanted, then lets the rest go. The errnos of faults. */
  async sync(...wanted: readonly WantedListener[]): Promise<readonly (string | undefined)[]> {
    const faults = await this.set.ensureOpen(wanted, this.guard);
    for (const family of ['IPv4', 'IPv6'] as const) {
      this.set.retainKeys(family, new Set(wanted.map(({ key }) => key)));
    }
    return faults.map(({ cause }) => errnoOf(cause));
  }
}

function tcp(key: string, tweak: Partial<WantedListener> = {}): WantedListener {
  return {
    key,
    servicePortName: `default/${key}`,
    protocol: 'TCP',
    family: 'IPv4',
    addresses: ['0.0.0.0'],
    ...tweak,
  };
}

function udp(key: string, ...addresses: readonly string[]): WantedListener {
  return tcp(key, { protocol: 'UDP', addresses });
}

describe('opening', () => {
  test('what is wanted is opened, bound to its key, and offered to the rules', async () => {
    const fixture = new Fixture();

    expect(await fixture.sync(tcp('web'), udp('dns', '10.0.0.1'))).toEqual([]);

    expect(fixture.set.proxyPorts()).toEqual(
      new Map([
        ['web', 1000],
        ['dns', 1000],
      ]),
    );
    expect([...fixture.keyById.values()]).toEqual(['web', 'dns']);
    expect(fixture.set.openCount).toBe(2);
    expect(fixture.changes).toBe(0);
  });

  test('the guard comes before any port opens, and that port is among those it sees', async () => {
    const fixture = new Fixture();
    let openAtGuard: readonly number[] | undefined;
    const guard = async (): Promise<void> => {
      openAtGuard = fixture.engine.ports;
      expect(fixture.guardedPorts).toEqual([1000, 1001]);
      expect(fixture.set.proxyPorts()).toEqual(new Map());
      expect(fixture.set.plannedPorts()).toEqual(
        new Map([
          ['a', 1000],
          ['b', 1001],
        ]),
      );
    };

    await fixture.set.ensureOpen([tcp('a'), tcp('b')], guard);

    expect(openAtGuard).toEqual([]);
    expect(fixture.engine.ports).toEqual([1000, 1001]);
  });

  test('its version changes whenever the ports do, and not otherwise', async () => {
    const fixture = new Fixture();
    const versions: number[] = [];
    const note = (): void => {
      versions.push(fixture.set.version);
    };
    note();
    await fixture.sync(tcp('web'));
    note();
    await fixture.sync();
    note();
    await vi.advanceTimersByTimeAsync(GRACE_MS);
    note();
    expect(versions).toEqual([...new Set(versions)].toSorted((a, b) => a - b));
    await fixture.sync(tcp('web'));
    const opened = fixture.set.version;

    await fixture.sync(tcp('web'));

    expect(fixture.set.version).toBe(opened);
  });

  test('what is open stays open, and needs no guard', async () => {
    const fixture = new Fixture();
    await fixture.sync(tcp('web'));

    await fixture.sync(tcp('web'));

    expect(fixture.engine.calls).toEqual(['open 1000']);
    expect(fixture.guarded).toEqual([[1000]]);
  });

  test('a guard that fails is thrown, nothing opens, and the next call goes on with the same ports', async () => {
    const fixture = new Fixture();
    const fault = new Error('iptables is locked');

    await expect(
      fixture.set.ensureOpen([tcp('a'), tcp('b')], async () => {
        throw fault;
      }),
    ).rejects.toBe(fault);
    expect(fixture.engine.ports).toEqual([]);
    expect(fixture.set.proxyPorts()).toEqual(new Map());
    await fixture.sync(tcp('a'), tcp('b'));

    expect(fixture.guarded).toEqual([[1000, 1001]]);
    expect(fixture.engine.calls).toEqual(['open 1000', 'open 1001']);
  });

  test('what was waiting behind a failed guard and is not wanted any more gives its port back', async () => {
    const fixture = new Fixture();
    await fixture.set
      .ensureOpen([tcp('a')], async () => {
        throw new Error('locked');
      })
      .catch(() => {});

    await fixture.sync(tcp('b'));

    expect(fixture.guardedPorts).toEqual([1001]);
    expect(fixture.ports.takenCount).toBe(1);
    expect(fixture.set.drainingCount).toBe(0);
  });

  test('addresses that changed while the guard failed are those that are opened', async () => {
    const fixture = new Fixture();
    await fixture.set
      .ensureOpen([udp('dns', '10.0.0.1')], async () => {
        throw new Error('locked');
      })
      .catch(() => {});

    await fixture.sync(udp('dns', '10.0.0.2'));

    expect([...fixture.engine.listeners.values()].map(({ addresses }) => addresses)).toEqual([['10.0.0.2']]);
  });
});

describe('a clash', () => {
  test('moves only the listener that clashed, behind a guard of its own', async () => {
    const fixture = new Fixture();
    fixture.engine.held.add(':1001');

    expect(await fixture.sync(tcp('a'), tcp('b'), tcp('c'))).toEqual([]);

    expect(fixture.set.proxyPorts()).toEqual(
      new Map([
        ['a', 1000],
        ['c', 1002],
        ['b', 1003],
      ]),
    );
    expect(fixture.guarded[0]).toEqual([1000, 1001, 1002]);
    expect(new Set(fixture.guarded[1])).toEqual(new Set([1000, 1002, 1003]));
  });

  test('that never ends becomes a fault, and the others open', async () => {
    const fixture = new Fixture();
    for (let port = 1000; port < 1100; port += 1) fixture.engine.held.add(`10.0.0.9:${port}`);

    expect(await fixture.sync(udp('dns', '10.0.0.9'), tcp('web'))).toEqual(['EADDRINUSE']);

    expect([...fixture.set.proxyPorts().keys()]).toEqual(['web']);
    expect(fixture.guarded.length).toBeLessThan(20);
  });
});

describe('other faults', () => {
  test('are returned, and the others open', async () => {
    const fixture = new Fixture();
    fixture.engine.faults.set(1000, 'EMFILE');

    expect(await fixture.sync(tcp('a'), tcp('b'))).toEqual(['EMFILE']);

    expect(fixture.set.proxyPorts()).toEqual(new Map([['b', 1001]]));
  });

  test('are tried again by the next call, on the same port', async () => {
    const fixture = new Fixture();
    fixture.engine.faults.set(1000, 'EMFILE');
    await fixture.sync(tcp('a'));
    fixture.engine.faults.clear();

    expect(await fixture.sync(tcp('a'))).toEqual([]);

    expect(fixture.set.proxyPorts()).toEqual(new Map([['a', 1000]]));
    expect(fixture.keyById.size).toBe(1);
  });

  test('no port left is a fault of those without one', async () => {
    const fixture = new Fixture();
    const wanted = Array.from({ length: 102 }, (_, index) => tcp(`service ${index}`));

    const faults = await fixture.set.ensureOpen(wanted, fixture.guard);

    expect(faults.map(({ code }) => code)).toEqual([
      'ERR_PROXY_PORTS_EXHAUSTED',
      'ERR_PROXY_PORTS_EXHAUSTED',
    ]);
    expect(fixture.set.openCount).toBe(100);
  });

  test('no descriptor left is a fault of those that need one, until there is room', async () => {
    const fixture = new Fixture();
    fixture.room = 3;
    const wanted = [tcp('web'), udp('dns', '10.0.0.1', '10.0.0.2', '10.0.0.3'), tcp('api')];

    const faults = await fixture.set.ensureOpen(wanted, fixture.guard);
    expect(faults.map(({ code, message }) => `${code} ${message.split(':')[0]}`)).toEqual([
      'ERR_DESCRIPTORS_EXHAUSTED default/dns',
    ]);
    expect([...fixture.set.proxyPorts().keys()]).toEqual(['web', 'api']);

    fixture.room = 5;
    expect(await fixture.set.ensureOpen(wanted, fixture.guard)).toEqual([]);
    expect([fixture.set.openCount, fixture.set.socketCount]).toEqual([3, 5]);
  });

  test('the engine says how many sockets a listener takes, however many addresses it has', async () => {
    const fixture = new Fixture();
    fixture.engine.hasSocketPerAddress = false;
    fixture.room = 2;
    const wanted = [tcp('web'), udp('dns', '10.0.0.1', '10.0.0.2', '10.0.0.3'), udp('ntp', '10.0.0.1')];

    const faults = await fixture.set.ensureOpen(wanted, fixture.guard);

    expect(faults.map(({ code, message }) => `${code} ${message}`)).toEqual([
      expect.stringContaining('ERR_DESCRIPTORS_EXHAUSTED default/ntp: no room for 1 more'),
    ]);
    expect(fixture.set.socketCount).toBe(2);
  });

  test('as many sockets are counted as listen, also while they close and after their addresses have changed', async () => {
    const fixture = new Fixture();
    await fixture.sync(tcp('web'), udp('dns', '10.0.0.1', '10.0.0.2'));
    expect(fixture.set.socketCount).toBe(3);
    await fixture.sync(tcp('web'), udp('dns', '10.0.0.1'));
    expect(fixture.set.socketCount).toBe(2);
    await fixture.sync(udp('dns', '10.0.0.1'));
    expect(fixture.set.socketCount).toBe(2);
    await vi.advanceTimersByTimeAsync(GRACE_MS);
    expect(fixture.set.socketCount).toBe(1);
  });
});

describe('a listener that is not wanted any more', () => {
  test('accepts, guarded and without rules, for the grace period; then it is closed, and the rules must follow', async () => {
    const fixture = new Fixture();
    await fixture.sync(tcp('web'), tcp('api'));

    await fixture.sync(tcp('api'));
    expect(fixture.set.proxyPorts()).toEqual(new Map([['api', 1001]]));
    expect(new Set(fixture.guardedPorts)).toEqual(new Set([1000, 1001]));
    expect(fixture.set.drainingCount).toBe(1);
    await vi.advanceTimersByTimeAsync(GRACE_MS - 1);
    expect(fixture.engine.ports).toEqual([1000, 1001]);
    expect(fixture.changes).toBe(0);
    await vi.advanceTimersByTimeAsync(1);

    expect(fixture.engine.ports).toEqual([1001]);
    expect(fixture.guardedPorts).toEqual([1001]);
    expect(fixture.set.drainingCount).toBe(0);
    expect([...fixture.keyById.values()]).toEqual(['api']);
    expect(fixture.ports.takenCount).toBe(1);
    expect(fixture.changes).toBe(1);
  });

  test('is guarded until it is closed, however long closing takes', async () => {
    const fixture = new Fixture();
    await fixture.sync(tcp('web'));
    await fixture.sync();
    const gate = Promise.withResolvers<void>();
    fixture.engine.gate = async () => gate.promise;

    await vi.advanceTimersByTimeAsync(GRACE_MS);
    expect(fixture.guardedPorts).toEqual([1000]);
    expect(fixture.changes).toBe(0);
    gate.resolve();
    await vi.advanceTimersByTimeAsync(0);

    expect(fixture.guardedPorts).toEqual([]);
    expect(fixture.changes).toBe(1);
  });

  test('wanted again while it closes, it is opened on another port', async () => {
    const fixture = new Fixture();
    await fixture.sync(tcp('web'));
    await fixture.sync();
    const gate = Promise.withResolvers<void>();
    fixture.engine.gate = async () => gate.promise;
    await vi.advanceTimersByTimeAsync(GRACE_MS);

    const syncing = fixture.sync(tcp('web'));
    gate.resolve();
    await syncing;

    expect(fixture.set.proxyPorts()).toEqual(new Map([['web', 1001]]));
    expect(fixture.engine.ports).toEqual([1001]);
  });

  test('wanted again during the grace period, it goes on as if nothing had been', async () => {
    const fixture = new Fixture();
    await fixture.sync(tcp('web'));
    await fixture.sync();
    await vi.advanceTimersByTimeAsync(GRACE_MS / 2);

    await fixture.sync(tcp('web'));
    await vi.advanceTimersByTimeAsync(10 * GRACE_MS);

    expect(fixture.engine.calls).toEqual(['open 1000']);
    expect(fixture.set.proxyPorts()).toEqual(new Map([['web', 1000]]));
    expect([...fixture.keyById.values()]).toEqual(['web']);
    expect(fixture.changes).toBe(0);
  });

  test('wanted again during the grace period on other addresses, it has those at once', async () => {
    const fixture = new Fixture();
    await fixture.sync(udp('dns', '10.0.0.1'));
    await fixture.sync();

    await fixture.sync(udp('dns', '10.0.0.1', '10.0.0.2'));

    expect(fixture.engine.calls).toEqual(['open 1000', 'addresses 1000 10.0.0.1,10.0.0.2']);
  });

  test('wanted again after the grace period, it is opened on its old port', async () => {
    const fixture = new Fixture();
    await fixture.sync(tcp('web'));
    await fixture.sync();
    await vi.advanceTimersByTimeAsync(GRACE_MS);

    await fixture.sync(tcp('web'));

    expect(fixture.engine.calls).toEqual(['open 1000', 'close 1000', 'open 1000']);
  });

  test('only listeners of the family that was synced are let go', async () => {
    const fixture = new Fixture();
    await fixture.sync(tcp('four'), tcp('six', { family: 'IPv6', addresses: ['::'] }));

    fixture.set.retainKeys('IPv4', new Set());
    await vi.advanceTimersByTimeAsync(GRACE_MS);

    expect([...fixture.set.proxyPorts().keys()]).toEqual(['six']);
  });

  test('nothing closes any more after close()', async () => {
    const fixture = new Fixture();
    await fixture.sync(tcp('web'));
    await fixture.sync();

    fixture.set.close();
    fixture.set.close();
    await vi.advanceTimersByTimeAsync(10 * GRACE_MS);

    expect(fixture.engine.calls).toEqual(['open 1000']);
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe("the node's addresses", () => {
  test('are followed by UDP listeners on the port they have', async () => {
    const fixture = new Fixture();
    await fixture.sync(udp('dns', '10.0.0.1'));

    await fixture.sync(udp('dns', '10.0.0.1', '10.0.0.2'));
    await fixture.sync(udp('dns', '10.0.0.1', '10.0.0.2'));

    expect(fixture.engine.calls).toEqual(['open 1000', 'addresses 1000 10.0.0.1,10.0.0.2']);
  });

  test('that clash move the listener to another port, and the old one drains', async () => {
    const fixture = new Fixture();
    await fixture.sync(udp('dns', '10.0.0.1'), udp('other', '10.0.0.1'));
    fixture.engine.held.add('10.0.0.2:1000');

    const both = ['10.0.0.1', '10.0.0.2'];
    expect(await fixture.sync(udp('dns', ...both), udp('other', ...both))).toEqual([]);

    expect(fixture.set.proxyPorts()).toEqual(
      new Map([
        ['other', 1001],
        ['dns', 1002],
      ]),
    );
    expect(fixture.set.drainingCount).toBe(1);
    expect(new Set(fixture.guardedPorts)).toEqual(new Set([1000, 1001, 1002]));
    await vi.advanceTimersByTimeAsync(GRACE_MS);
    expect(fixture.engine.ports).toEqual([1001, 1002]);
    expect([...fixture.keyById.values()].toSorted()).toEqual(['dns', 'other']);
  });

  test('that clash take nothing away before the rules point at the new port', async () => {
    const fixture = new Fixture();
    await fixture.sync(udp('dns', '10.0.0.1'));
    fixture.engine.held.add('10.0.0.2:1000');
    const wanted = udp('dns', '10.0.0.1', '10.0.0.2');

    // The rules could not be written: nobody says what may go.
    await fixture.set.ensureOpen([wanted], fixture.guard);
    await vi.advanceTimersByTimeAsync(10 * GRACE_MS);
    expect(fixture.engine.ports).toEqual([1000, 1001]);
    expect(new Set(fixture.guardedPorts)).toEqual(new Set([1000, 1001]));
    await fixture.sync(wanted);
    await vi.advanceTimersByTimeAsync(GRACE_MS);

    expect(fixture.engine.ports).toEqual([1001]);
    expect(fixture.set.proxyPorts()).toEqual(new Map([['dns', 1001]]));
  });

  test('that clash are not followed by the listener that drains for them when it is wanted again', async () => {
    const fixture = new Fixture();
    await fixture.sync(udp('dns', '10.0.0.1'));
    fixture.engine.held.add('10.0.0.2:1000');
    await fixture.sync(udp('dns', '10.0.0.1', '10.0.0.2'));
    await fixture.sync();

    await fixture.sync(udp('dns', '10.0.0.1', '10.0.0.2'));

    expect(fixture.set.proxyPorts()).toEqual(new Map([['dns', 1001]]));
    expect(fixture.engine.calls.filter((call) => call.startsWith('open'))).toEqual([
      'open 1000',
      'open 1001',
    ]);
  });

  test('that cannot be bound for another reason are a fault, tried again by the next call', async () => {
    const fixture = new Fixture();
    await fixture.sync(udp('dns', '10.0.0.1'));
    fixture.engine.faults.set(1000, 'EADDRNOTAVAIL');
    const wanted = udp('dns', '10.0.0.1', '10.0.0.2');

    expect(await fixture.sync(wanted)).toEqual(['EADDRNOTAVAIL']);
    expect(fixture.set.proxyPorts()).toEqual(new Map([['dns', 1000]]));
    fixture.engine.faults.clear();

    expect(await fixture.sync(wanted)).toEqual([]);
  });
});
