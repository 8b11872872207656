/**
 * Services whose set of listeners changes while they live: one for all portals or one for each (PROXY protocol), the
 * cluster's endpoints or those of this node (traffic policies). The real listeners and the real forwarder, synced as
 * the proxier does, without a socket.
 */
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { systemClock } from '../../src/clock.ts';
import type { SessionId, SocketAddress } from '../../src/engine/engine.ts';
import { hostPortText } from '../../src/model/address.ts';
import type { ProxyProtocolVersion } from '../../src/model/service-policy.ts';
import { Forwarder } from '../../src/proxy/forwarder.ts';
import { ListenerSet } from '../../src/proxy/listener-set.ts';
import { ProxyPorts } from '../../src/proxy/proxy-ports.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { FakeListenerEngine } from '../support/fake-listener-engine.ts';
import { FakeSessions } from '../support/fake-sessions.ts';
import { makeForwarderOptions } from '../support/forwarder-options.ts';
import { Random, seeds } from '../support/random.ts';
import { RecordingLogger } from '../support/recording-logger.ts';
import { makeEndpoints, makeServicePort } from '../support/snapshots.ts';

const GRACE_MS = 1000;
const CLUSTER = 'default/web/TCP/IPv4/cluster';
const LOCAL = 'default/web/TCP/IPv4/local';
const PORTALS: readonly SocketAddress[] = [
  { address: '10.96.0.10', port: 80 },
  { address: '192.0.2.1', port: 80 },
  { address: '192.168.77.2', port: 30_080 },
];

interface Shape {
  readonly pools: readonly string[];
  /** With it there is a listener for each portal, without one for each pool. */
  readonly proxyProtocol: ProxyProtocolVersion | undefined;
}

const SHARED: Shape = { pools: [CLUSTER], proxyProtocol: undefined };
const PER_PORTAL: Shape = { pools: [CLUSTER], proxyProtocol: 'v1' };

interface ListenerOfShape {
  readonly key: string;
  readonly pool: string;
  readonly destination: SocketAddress | undefined;
}

function listenersOf({ pools, proxyProtocol }: Shape): readonly ListenerOfShape[] {
  return pools.flatMap((pool): readonly ListenerOfShape[] =>
    proxyProtocol === undefined
      ? [{ key: pool, pool, destination: undefined }]
      : PORTALS.map((destination) => ({
          key: `${pool}/${hostPortText(destination.address, destination.port)}`,
          pool,
          destination,
        })),
  );
}

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  vi.useRealTimers();
});

class Fixture {
  readonly engine = new FakeListenerEngine();
  readonly clock = new FakeClock();
  readonly sessions = new FakeSessions(this.clock);
  readonly #logger = new RecordingLogger();
  readonly #forwarder = new Forwarder(
    { clock: this.clock, logger: this.#logger, listeningSockets: () => 0 },
    makeForwarderOptions({ dialTimeoutsMs: [250] }),
  );
  readonly ports: ProxyPorts;
  readonly listeners: ListenerSet;
  #keys: ReadonlySet<string> = new Set();

  constructor(remembered: ReadonlyMap<string, number> = new Map()) {
    this.sessions.policy = this.#forwarder;
    this.#forwarder.attach(this.sessions);
    this.ports = new ProxyPorts({
      range: { first: 1000, last: 1099 },
      excluded: [],
      random: () => 0,
      remembered,
    });
    this.listeners = new ListenerSet(
      {
        engine: this.engine,
        binding: this.#forwarder,
        ports: this.ports,
        hasRoomToListen: () => true,
        clock: systemClock,
        logger: this.#logger,
        onChange: () => this.#forwarder.retainBackends(this.#keys),
      },
      { gracePeriodMs: GRACE_MS },
    );
  }

  /** A pass of the proxier for this shape. */
  async sync(shape: Shape, endpoints = makeEndpoints(1)): Promise<void> {
    const wanted = listenersOf(shape);
    const servicePort = makeServicePort({ name: 'web' }, { proxyProtocol: shape.proxyProtocol });
    const servingKeys = new Set(endpoints.map(({ key }) => key));
    this.#keys = new Set(wanted.map(({ key }) => key));
    for (const { key, pool, destination } of wanted) {
      this.#forwarder.setBackends(key, {
        pool,
        servicePort,
        family: 'IPv4',
        endpoints,
        servingKeys,
        destination,
      });
    }
    const faults = await this.listeners.ensureOpen(
      wanted.map(({ key }) => ({
        key,
        servicePortName: 'default/web',
        protocol: 'TCP' as const,
        family: 'IPv4' as const,
        addresses: ['0.0.0.0'],
      })),
      async () => {},
    );
    if (faults.length > 0) throw new Error(faults.map(({ message }) => message).join());
    this.listeners.retainKeys('IPv4', this.#keys);
    this.#forwarder.retainBackends(this.#keys);
  }

  /** A client at a proxy port that is open, draining or not. */
  connect(port: number): SessionId {
    return this.sessions.open(this.engine.idOf(port));
  }

  headerAt(port: number): string {
    return Buffer.from(this.sessions.preambleOf(this.connect(port))).toString('latin1');
  }

  get sessionsTotal(): readonly number[] {
    return this.#forwarder.statistics().servicePorts.map(({ sessionsTotal }) => sessionsTotal);
  }

  get proxyPorts(): readonly number[] {
    return [...this.listeners.proxyPorts().values()];
  }
}

describe('a Service that asks for the PROXY protocol', () => {
  test('gets a listener for each portal, and the one they shared drains without header', async () => {
    const fixture = new Fixture();
    await fixture.sync(SHARED);

    await fixture.sync(PER_PORTAL);

    expect(fixture.listeners.proxyPorts()).toEqual(
      new Map([
        [`${CLUSTER}/10.96.0.10:80`, 1001],
        [`${CLUSTER}/192.0.2.1:80`, 1002],
        [`${CLUSTER}/192.168.77.2:30080`, 1003],
      ]),
    );
    expect([1000, 1001, 1002, 1003].map((port) => fixture.headerAt(port))).toEqual([
      '',
      'PROXY TCP4 192.168.1.1 10.96.0.10 40002 80\r\n',
      'PROXY TCP4 192.168.1.1 192.0.2.1 40003 80\r\n',
      'PROXY TCP4 192.168.1.1 192.168.77.2 40004 30080\r\n',
    ]);
    await vi.advanceTimersByTimeAsync(GRACE_MS);
    expect(fixture.engine.ports).toEqual([1001, 1002, 1003]);
  });

  test('and no more within the grace period has the listener it had, which never closed', async () => {
    const fixture = new Fixture();
    await fixture.sync(SHARED);
    await fixture.sync(PER_PORTAL);
    await vi.advanceTimersByTimeAsync(GRACE_MS / 2);

    await fixture.sync(SHARED, makeEndpoints(2));
    expect(fixture.proxyPorts).toEqual([1000]);
    expect([1000, 1001].map((port) => fixture.headerAt(port))).toEqual(['', '']);
    expect(fixture.sessions.endpointOf(fixture.connect(1002))).toBe('10.0.0.2:80');
    await vi.advanceTimersByTimeAsync(10 * GRACE_MS);

    expect(fixture.engine.ports).toEqual([1000]);
    expect(fixture.engine.calls.filter((call) => call.endsWith('1000'))).toEqual(['open 1000']);
    expect(fixture.sessionsTotal).toEqual([3]);
  });

  test('and no more, and then again, all within the grace period, has the listeners of its portals back', async () => {
    const fixture = new Fixture();
    await fixture.sync(SHARED);
    await fixture.sync(PER_PORTAL);
    await fixture.sync(SHARED);

    await fixture.sync({ ...PER_PORTAL, proxyProtocol: 'v1' });
    await vi.advanceTimersByTimeAsync(10 * GRACE_MS);

    expect(fixture.engine.ports).toEqual([1001, 1002, 1003]);
    expect(fixture.engine.calls).toEqual(['open 1000', 'open 1001', 'open 1002', 'open 1003', 'close 1000']);
    expect(fixture.headerAt(1002)).toBe('PROXY TCP4 192.168.1.1 192.0.2.1 40001 80\r\n');
  });

  test('in another version keeps its listeners', async () => {
    const fixture = new Fixture();
    await fixture.sync(PER_PORTAL);
    const calls = fixture.engine.calls.length;

    await fixture.sync({ ...PER_PORTAL, proxyProtocol: 'v2' });

    expect(fixture.engine.calls).toHaveLength(calls);
    expect(fixture.headerAt(1000)).toContain('QUIT');
  });

  test('has the same ports for the same portals after a restart', async () => {
    const before = new Fixture();
    await before.sync(SHARED);
    await before.sync(PER_PORTAL);
    const remembered = before.listeners.proxyPorts();

    const after = new Fixture(remembered);
    await after.sync(PER_PORTAL);

    expect(after.listeners.proxyPorts()).toEqual(remembered);
    expect(remembered.size).toBe(PORTALS.length);
  });
});

describe('a Service whose sets of listeners keep changing', () => {
  const shapes: readonly Shape[] = [
    SHARED,
    PER_PORTAL,
    { ...PER_PORTAL, proxyProtocol: 'v2' },
    { pools: [CLUSTER, LOCAL], proxyProtocol: undefined },
    { pools: [CLUSTER, LOCAL], proxyProtocol: 'v1' },
    { pools: [LOCAL], proxyProtocol: undefined },
    { pools: [LOCAL], proxyProtocol: 'v2' },
  ];

  test.each(seeds(20))(
    'refuses nobody, keeps its ports and its counts, and leaves nothing behind (seed %i)',
    async (seed) => {
      const random = new Random(seed);
      const fixture = new Fixture();
      const portByKey = new Map<string, number>();
      let connected = 0;
      for (let round = 0; round < 60; round += 1) {
        const shape = random.pick(shapes);
        await fixture.sync(shape);
        for (const [key, port] of fixture.listeners.proxyPorts()) {
          expect(portByKey.get(key) ?? port, `port of ${key}`).toBe(port);
          portByKey.set(key, port);
          expect(fixture.headerAt(port) === '', `header at ${key}`).toBe(shape.proxyProtocol === undefined);
          connected += 1;
        }
        // Those that drain serve whoever still comes.
        for (const port of fixture.engine.ports) {
          expect(fixture.sessions.endpointOf(fixture.connect(port))).toBe('10.0.0.1:80');
          connected += 1;
        }
        expect(fixture.sessionsTotal).toEqual([connected]);
        await vi.advanceTimersByTimeAsync(random.below(1.5 * GRACE_MS));
      }

      await fixture.sync(SHARED);
      await vi.advanceTimersByTimeAsync(GRACE_MS);

      expect(fixture.listeners.proxyPorts()).toEqual(new Map([[CLUSTER, portByKey.get(CLUSTER)]]));
      expect(fixture.engine.ports).toEqual([portByKey.get(CLUSTER)]);
      expect(fixture.ports.takenCount).toBe(1);
      expect(fixture.listeners.guardedPorts()).toHaveLength(1);
      expect(fixture.sessions.closes.size).toBe(0);
      expect(vi.getTimerCount()).toBe(0);
      expect(new Set(portByKey.values()).size).toBe(portByKey.size);
    },
  );
});
