/** Listeners that share a pool, pools that share a service port, and what outlives which. */
import { describe, expect, test } from 'vitest';
import type { ServicePort } from '../../src/model/service-port.ts';
import {
  NOT_SERVING,
  TERMINATING,
  clientIP,
  makeEndpoint,
  makeEndpoints,
  makeServicePort,
} from '../support/snapshots.ts';
import { ForwarderFixture, WEB_PORT } from './forwarder-fixture.ts';

const CLUSTER = 'default/web/TCP/IPv4/cluster';
const LOCAL = 'default/web/TCP/IPv4/local';
const UDP_PORT = makeServicePort({ name: 'dns', protocol: 'UDP' });
const STICKY_PORT = makeServicePort({ name: 'web' }, { sessionAffinity: clientIP(10_000) });

/** Listener 1 is the cluster's, listener 2 the local one; all endpoints serve. */
function withTwoPools(
  { cluster, local }: { cluster: readonly number[]; local: readonly number[] },
  servicePort: ServicePort = WEB_PORT,
): ForwarderFixture {
  const fixture = new ForwarderFixture();
  const serving = makeEndpoints(...new Set([...cluster, ...local]));
  fixture.set(makeEndpoints(...cluster), { key: CLUSTER, serving, servicePort });
  fixture.set(makeEndpoints(...local), { key: LOCAL, serving, servicePort });
  fixture.bind(1, CLUSTER);
  fixture.bind(2, LOCAL);
  return fixture;
}

/** Listeners 1 and 2, one for each address of a portal, with one pool. */
function withSharedPool(lasts: readonly number[], servicePort: ServicePort = WEB_PORT): ForwarderFixture {
  const fixture = new ForwarderFixture();
  for (const [index, key] of ['web/a', 'web/b'].entries()) {
    fixture.set(makeEndpoints(...lasts), { key, pool: CLUSTER, servicePort });
    fixture.bind(index + 1, key);
  }
  return fixture;
}

describe('listeners with one pool', () => {
  test('take turns: the endpoint after that of the other', () => {
    const { sessions } = withSharedPool([1, 2, 3]);

    const endpoints = [1, 2, 1, 2].map((listener) => sessions.endpointOf(sessions.open(listener)));

    expect(endpoints).toEqual(['10.0.0.1:80', '10.0.0.2:80', '10.0.0.3:80', '10.0.0.1:80']);
  });

  test('tie a client together', () => {
    const { sessions } = withSharedPool([1, 2, 3], STICKY_PORT);
    sessions.establish(sessions.open(1, '192.168.1.1'));
    sessions.establish(sessions.open(1, '192.168.1.2'));

    expect(sessions.endpointOf(sessions.open(2, '192.168.1.1'))).toBe('10.0.0.1:80');
    expect(sessions.endpointOf(sessions.open(2, '192.168.1.2'))).toBe('10.0.0.2:80');
  });

  test('have each other’s sessions counted by the scheduler', () => {
    const servicePort = makeServicePort({ name: 'web' }, { scheduler: 'lc' });
    const { sessions } = withSharedPool([1, 2], servicePort);
    const first = sessions.open(1);
    sessions.establish(first);

    expect(sessions.endpointOf(sessions.open(2))).not.toBe(sessions.endpointOf(first));
  });

  test('move what is dialled to an endpoint that is gone, whichever of them is told first', () => {
    const fixture = withSharedPool([1, 2]);
    const [first, , third] = [1, 2, 2].map((listener) => fixture.sessions.open(listener));

    fixture.set(makeEndpoints(2), { key: 'web/b', pool: CLUSTER });

    expect(fixture.sessions.endpointOf(first!)).toBe('10.0.0.2:80');
    expect(fixture.sessions.endpointOf(third!)).toBe('10.0.0.2:80');
    fixture.set(makeEndpoints(2), { key: 'web/a', pool: CLUSTER });
    expect(fixture.statistics).toMatchObject({ sessionsActive: 3, dialRetries: 0 });
  });

  test('are one service port in the metrics', () => {
    const fixture = withSharedPool([1]);

    for (const listener of [1, 2]) fixture.sessions.open(listener);

    expect(fixture.statistics).toMatchObject({ sessionsTotal: 2, sessionsActive: 2 });
  });

  test('log refusals together: one line in ten seconds for the pool', () => {
    const fixture = withSharedPool([]);

    for (const listener of [1, 2, 1]) fixture.sessions.open(listener);

    expect(fixture.logger.withMessage('Clients refused')).toHaveLength(1);
  });

  test('keep position, affinity and counts while one of them is left', () => {
    const fixture = withSharedPool([1, 2], STICKY_PORT);
    fixture.sessions.establish(fixture.sessions.open(1, '192.168.1.1'));
    fixture.unbind(1);

    fixture.forwarder.retainBackends(new Set(['web/b']));

    expect(fixture.statistics).toMatchObject({ sessionsTotal: 1, sessionsActive: 1, affinityEntries: 1 });
    expect(fixture.sessions.endpointOf(fixture.sessions.open(2, '192.168.1.2'))).toBe('10.0.0.2:80');
    expect(fixture.sessions.endpointOf(fixture.sessions.open(2, '192.168.1.1'))).toBe('10.0.0.1:80');
  });

  test('hand everything over to a listener that comes while the last of them drains', () => {
    const fixture = withSharedPool([1, 2], STICKY_PORT);
    fixture.sessions.establish(fixture.sessions.open(1, '192.168.1.1'));
    fixture.set(makeEndpoints(1, 2), { key: CLUSTER, pool: CLUSTER, servicePort: STICKY_PORT });
    fixture.bind(3, CLUSTER);
    fixture.forwarder.retainBackends(new Set([CLUSTER]));
    fixture.unbind(1);
    fixture.unbind(2);

    fixture.forwarder.retainBackends(new Set([CLUSTER]));

    expect(fixture.sessions.endpointOf(fixture.sessions.open(3, '192.168.1.1'))).toBe('10.0.0.1:80');
    expect(fixture.statistics).toMatchObject({ sessionsTotal: 2, affinityEntries: 1 });
  });

  test('forget everything with the last of them', () => {
    const fixture = withSharedPool([1, 2], STICKY_PORT);
    fixture.sessions.establish(fixture.sessions.open(1, '192.168.1.9'));
    for (const listener of [1, 2]) fixture.unbind(listener);
    fixture.forwarder.retainBackends(new Set());
    expect(fixture.forwarder.statistics().servicePorts).toEqual([]);

    fixture.set(makeEndpoints(1, 2), { key: 'web/a', pool: CLUSTER, servicePort: STICKY_PORT });

    expect(fixture.statistics).toMatchObject({ sessionsTotal: 0, affinityEntries: 0 });
  });
});

describe('a listener key', () => {
  test('that is told another pool uses that from its next session on', () => {
    const fixture = withTwoPools({ cluster: [1], local: [2] });

    fixture.set(makeEndpoints(3), { key: LOCAL, pool: 'another' });
    fixture.forwarder.retainBackends(new Set([CLUSTER, LOCAL]));

    expect(fixture.sessions.endpointOf(fixture.sessions.open(2))).toBe('10.0.0.3:80');
  });

  test('that is told another pool and left the last one behind lets that go, and what it had counted stays', () => {
    const fixture = new ForwarderFixture();
    fixture.set(makeEndpoints(1), { key: CLUSTER, pool: 'old', servicePort: STICKY_PORT });
    fixture.bind(1, CLUSTER);
    fixture.sessions.establish(fixture.sessions.open(1));

    fixture.set(makeEndpoints(1), { key: CLUSTER, pool: 'new', servicePort: STICKY_PORT });
    expect(fixture.statistics).toMatchObject({ sessionsTotal: 1, affinityEntries: 1 });
    fixture.forwarder.retainBackends(new Set([CLUSTER]));

    expect(fixture.statistics).toMatchObject({ sessionsTotal: 1, affinityEntries: 0 });
  });

  test('that disappears takes no live session along, and each of them still ends once', () => {
    const fixture = withTwoPools({ cluster: [1], local: [2] });
    const { sessions } = fixture;
    const [established, dialling] = [sessions.open(2), sessions.open(2)];
    sessions.establish(established);
    sessions.carry(established, 10, 20);
    fixture.unbind(2);

    fixture.forwarder.retainBackends(new Set([CLUSTER]));
    expect(sessions.closes.size).toBe(0);
    sessions.establish(dialling);
    sessions.carry(established, 1, 2);
    for (const session of [established, dialling]) sessions.close(session);

    expect(fixture.statistics).toMatchObject({
      sessionsTotal: 2,
      sessionsActive: 0,
      bytesToBackend: 11,
      bytesFromBackend: 22,
      closes: { fin: 2 },
    });
  });

  test('that disappears leaves a dial its other endpoints', () => {
    const fixture = withTwoPools({ cluster: [1], local: [2, 3] });
    const session = fixture.sessions.open(2);
    fixture.unbind(2);
    fixture.forwarder.retainBackends(new Set([CLUSTER]));

    fixture.sessions.failDial(session, 'refused');

    expect(fixture.sessions.endpointOf(session)).toBe('10.0.0.3:80');
  });
});

describe('two pools of one service port', () => {
  test('each have their own endpoints and turns', () => {
    const { sessions } = withTwoPools({ cluster: [1, 2], local: [2] });

    const endpoints = [2, 2, 1, 1].map((listener) => sessions.endpointOf(sessions.open(listener)));

    expect(endpoints).toEqual(['10.0.0.2:80', '10.0.0.2:80', '10.0.0.1:80', '10.0.0.2:80']);
  });

  test('are one in the metrics', () => {
    const fixture = withTwoPools({ cluster: [1], local: [1] }, STICKY_PORT);
    const { sessions } = fixture;
    const [ofCluster, ofLocal, failing] = [sessions.open(1), sessions.open(2), sessions.open(2)];
    sessions.establish(ofCluster);
    sessions.establish(ofLocal);
    sessions.failDial(failing, 'refused');
    sessions.carry(ofCluster, 1, 10);
    sessions.carry(ofLocal, 2, 20);
    sessions.close(ofLocal);

    expect(fixture.statistics).toMatchObject({
      name: WEB_PORT.name,
      family: 'IPv4',
      sessionsTotal: 3,
      sessionsActive: 1,
      bytesToBackend: 3,
      bytesFromBackend: 30,
      dials: { ok: 2, refused: 1 },
      failures: { exhausted: 1 },
      closes: { fin: 1, refused: 1 },
      // The client is known to each of them; that of the failing dial was freed.
      affinityEntries: 1,
    });
  });

  test('of two families are two in the metrics', () => {
    const fixture = withTwoPools({ cluster: [1], local: [] });
    fixture.forwarder.setBackends('six', {
      pool: 'six',
      servicePort: WEB_PORT,
      family: 'IPv6',
      endpoints: [makeEndpoint('fd00::1', 80)],
      servingKeys: new Set(),
      destination: undefined,
    });

    const readings = fixture.forwarder.statistics().servicePorts;

    expect(readings.map(({ family }) => family)).toEqual(['IPv4', 'IPv6']);
  });

  test('keep the counts of the one that is forgotten, and none goes backwards', () => {
    const fixture = withTwoPools({ cluster: [1], local: [1] }, STICKY_PORT);
    const { sessions } = fixture;
    for (const listener of [1, 2]) {
      sessions.establish(sessions.open(listener));
      sessions.failDial(sessions.open(listener), 'refused');
      // 100 clients are remembered, so that these push out others.
      for (let client = 0; client < 150; client += 1) {
        const session = sessions.open(listener, `192.168.7.${client}`);
        sessions.establish(session);
        sessions.carry(session, 1, 1);
        if (client % 2 === 0) sessions.close(session);
      }
    }
    const before = fixture.statistics;
    expect(before).toMatchObject({ sessionsTotal: 304, bytesToBackend: 300, affinityEntries: 200 });
    expect(before.affinityEvictions).toBeGreaterThan(0);
    fixture.unbind(2);

    fixture.forwarder.retainBackends(new Set([CLUSTER]));

    expect(fixture.statistics).toEqual(Object.assign(before, { affinityEntries: 100 }));
  });

  test('which take turns, as policies are switched there and back, add up', () => {
    const fixture = new ForwarderFixture();
    for (let round = 0; round < 6; round += 1) {
      const [key, other] = round % 2 === 0 ? [CLUSTER, LOCAL] : [LOCAL, CLUSTER];
      fixture.set(makeEndpoints(1), { key });
      fixture.bind(round, key);
      fixture.forwarder.retainBackends(new Set([key]));
      fixture.unbind(round - 1);
      fixture.forwarder.retainBackends(new Set([key]));
      fixture.sessions.establish(fixture.sessions.open(round));
      expect(fixture.statistics.sessionsTotal).toBe(round + 1);
      // The other one is forgotten: a listener that asks for it gets nothing.
      fixture.bind(99, other);
      expect(fixture.sessions.closes.get(fixture.sessions.open(99))).toBe('refused');
    }

    expect(fixture.statistics).toMatchObject({ sessionsTotal: 6, sessionsActive: 6, dials: { ok: 6 } });
  });
});

describe('UDP flows to an endpoint that two pools share', () => {
  /** Endpoint 1 is in both; a flow of each listener is at it. */
  function withFlows() {
    const fixture = withTwoPools({ cluster: [1], local: [1] }, UDP_PORT);
    const flows = [fixture.sessions.open(1), fixture.sessions.open(2)];
    for (const flow of flows) fixture.sessions.establish(flow);
    /** What every pool is told of: `usable` by it, `known` at all. */
    const tell = (usable: readonly number[], known: Parameters<ForwarderFixture['set']>[0]): void => {
      const serving = known.filter(({ ready, serving: isServing }) => ready || isServing);
      for (const key of [CLUSTER, LOCAL])
        fixture.set(makeEndpoints(...usable), { key, serving, servicePort: UDP_PORT });
    };
    return { fixture, flows, tell };
  }

  test('go on while it terminates and serves, though new flows go elsewhere', () => {
    const { fixture, tell } = withFlows();

    tell([2], [makeEndpoint('10.0.0.1', 80, TERMINATING), ...makeEndpoints(2)]);

    expect(fixture.sessions.closes.size).toBe(0);
    for (const listener of [1, 2]) {
      expect(fixture.sessions.endpointOf(fixture.sessions.open(listener, '192.168.1.2'))).toBe('10.0.0.2:80');
    }
  });

  test.each([
    {
      name: 'when it serves no more',
      known: [makeEndpoint('10.0.0.1', 80, NOT_SERVING), ...makeEndpoints(2)],
    },
    { name: 'when it is gone', known: makeEndpoints(2) },
  ])('are cut $name, in both', ({ known }) => {
    const { fixture, flows, tell } = withFlows();

    tell([2], known);

    expect(fixture.sessions.closes).toEqual(new Map(flows.map((flow) => [flow, 'stopped'])));
  });

  test('are cut in the pool that was told, and in the other when it is told', () => {
    const { fixture, flows } = withFlows();

    fixture.set(makeEndpoints(2), { key: LOCAL, servicePort: UDP_PORT });
    expect([...fixture.sessions.closes.keys()]).toEqual([flows[1]]);
    fixture.set(makeEndpoints(2), { key: CLUSTER, servicePort: UDP_PORT });

    expect([...fixture.sessions.closes.keys()]).toEqual([flows[1], flows[0]]);
  });

  test('go on where it is no longer used but still serves: another node’s, or another zone’s', () => {
    const { fixture } = withFlows();

    fixture.set(makeEndpoints(2), { key: LOCAL, serving: makeEndpoints(1, 2), servicePort: UDP_PORT });

    expect(fixture.sessions.closes.size).toBe(0);
  });
});
