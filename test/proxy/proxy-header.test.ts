/** When a backend gets a PROXY header, and what it says: the policy, without a socket. */
import { describe, expect, test } from 'vitest';
import type { SessionId, SocketAddress } from '../../src/engine/engine.ts';
import type { ProxyProtocolVersion } from '../../src/model/service-policy.ts';
import type { ServicePort } from '../../src/model/service-port.ts';
import { parseProxyHeader } from '../support/proxy-protocol-parser.ts';
import { type ServicePortIdentity, makeEndpoints, makeServicePort } from '../support/snapshots.ts';
import { ForwarderFixture, LISTENER } from './forwarder-fixture.ts';

const DESTINATION: SocketAddress = { address: '10.96.0.10', port: 80 };
const SHARED = 'default/web/TCP/IPv4/cluster';
const OF_PORTAL = `${SHARED}/10.96.0.10:80`;

function portWith(
  proxyProtocol: ProxyProtocolVersion | undefined,
  identity: ServicePortIdentity = { name: 'web' },
): ServicePort {
  return makeServicePort(identity, { proxyProtocol });
}

/** One listener, with a destination unless told. */
function serving(
  servicePort: ServicePort,
  destination: SocketAddress | undefined = DESTINATION,
): ForwarderFixture {
  const fixture = new ForwarderFixture();
  fixture.set(makeEndpoints(1, 2), { servicePort, ...(destination === undefined ? {} : { destination }) });
  fixture.bind();
  return fixture;
}

function textOf(fixture: ForwarderFixture, session: SessionId): string {
  return Buffer.from(fixture.sessions.preambleOf(session)).toString('latin1');
}

describe('a TCP session of a Service that asks for a header', () => {
  test('v1 tells the backend client and destination, addresses and ports', () => {
    const fixture = serving(portWith('v1'));

    const session = fixture.sessions.open(LISTENER, '192.168.1.7');

    expect(textOf(fixture, session)).toBe('PROXY TCP4 192.168.1.7 10.96.0.10 40001 80\r\n');
  });

  test('v2 tells the backend client and destination, addresses and ports', () => {
    const fixture = serving(portWith('v2'), { address: 'fd00:10:96::a', port: 443 });

    const session = fixture.sessions.open(LISTENER, 'fd00:10:244::7');

    const address = (text: string): number[] => [...Buffer.from(text, 'hex')];
    expect(parseProxyHeader('v2', fixture.sessions.preambleOf(session))).toEqual({
      kind: 'TCP6',
      from: { address: address('fd000010024400000000000000000007'), port: 40_001 },
      to: { address: address('fd00001000960000000000000000000a'), port: 443 },
      length: 52,
    });
  });

  test('brings it along to every endpoint that is tried', () => {
    const fixture = serving(portWith('v1'));
    const session = fixture.sessions.open(LISTENER);
    const first = textOf(fixture, session);

    fixture.sessions.failDial(session, 'refused');

    expect(fixture.sessions.endpointOf(session)).toBe('10.0.0.2:80');
    expect(textOf(fixture, session)).toBe(first);
    expect(first).toBe('PROXY TCP4 192.168.1.1 10.96.0.10 40001 80\r\n');
  });

  test('brings it along when its endpoint goes away during the dial', () => {
    const servicePort = portWith('v1');
    const fixture = serving(servicePort);
    const session = fixture.sessions.open(LISTENER);

    fixture.set(makeEndpoints(2), { servicePort, destination: DESTINATION });

    expect(fixture.sessions.endpointOf(session)).toBe('10.0.0.2:80');
    expect(textOf(fixture, session)).toBe('PROXY TCP4 192.168.1.1 10.96.0.10 40001 80\r\n');
  });

  test('each tells its own client', () => {
    const fixture = serving(portWith('v1'));

    const texts = ['192.168.1.1', '192.168.1.2'].map((client) =>
      textOf(fixture, fixture.sessions.open(LISTENER, client)),
    );

    expect(texts).toEqual([
      'PROXY TCP4 192.168.1.1 10.96.0.10 40001 80\r\n',
      'PROXY TCP4 192.168.1.2 10.96.0.10 40002 80\r\n',
    ]);
  });
});

describe('no header is sent', () => {
  test('for a Service that asks for none, though the destination is known', () => {
    const fixture = serving(portWith(undefined));

    expect(textOf(fixture, fixture.sessions.open(LISTENER))).toBe('');
  });

  test('where several portals lead to the listener, so that the destination is not known', () => {
    const fixture = new ForwarderFixture();
    fixture.set(makeEndpoints(1), { servicePort: portWith('v2') });
    fixture.bind();

    expect(textOf(fixture, fixture.sessions.open(LISTENER))).toBe('');
  });

  test('over UDP', () => {
    const fixture = serving(portWith('v2', { name: 'dns', protocol: 'UDP' }));

    expect(textOf(fixture, fixture.sessions.open(LISTENER))).toBe('');
  });
});

describe('the annotation of a live Service', () => {
  test('changed from v1 to v2 counts from the next connection on', () => {
    const fixture = serving(portWith('v1'));
    const before = fixture.sessions.open(LISTENER);
    expect(textOf(fixture, before)).toBe('PROXY TCP4 192.168.1.1 10.96.0.10 40001 80\r\n');

    fixture.set(makeEndpoints(1, 2), { servicePort: portWith('v2'), destination: DESTINATION });

    fixture.sessions.establish(before);
    const after = fixture.sessions.open(LISTENER);
    expect(parseProxyHeader('v2', fixture.sessions.preambleOf(after))).toMatchObject({ kind: 'TCP4' });
  });

  test('set: the listener that all portals shared drains without header, those of its portals have one', () => {
    const fixture = new ForwarderFixture();
    fixture.set(makeEndpoints(1), { key: SHARED, servicePort: portWith(undefined) });
    fixture.bind(1, SHARED);

    fixture.set(makeEndpoints(1), {
      key: OF_PORTAL,
      pool: SHARED,
      servicePort: portWith('v1'),
      destination: DESTINATION,
    });
    fixture.bind(2, OF_PORTAL);
    fixture.forwarder.retainBackends(new Set([OF_PORTAL]));

    expect(textOf(fixture, fixture.sessions.open(1))).toBe('');
    expect(textOf(fixture, fixture.sessions.open(2))).toBe('PROXY TCP4 192.168.1.1 10.96.0.10 40002 80\r\n');
  });

  test('taken away: the listeners of the portals drain without header, like the shared one', () => {
    const fixture = new ForwarderFixture();
    fixture.set(makeEndpoints(1), {
      key: OF_PORTAL,
      pool: SHARED,
      servicePort: portWith('v1'),
      destination: DESTINATION,
    });
    fixture.bind(2, OF_PORTAL);

    fixture.set(makeEndpoints(1), { key: SHARED, servicePort: portWith(undefined) });
    fixture.bind(1, SHARED);
    fixture.forwarder.retainBackends(new Set([SHARED]));

    expect([1, 2].map((listener) => textOf(fixture, fixture.sessions.open(listener)))).toEqual(['', '']);
  });

  test('set while a dial is under way: that client had connected before, and gets none', () => {
    const fixture = new ForwarderFixture();
    fixture.set(makeEndpoints(1, 2), { servicePort: portWith(undefined) });
    fixture.bind();
    const session = fixture.sessions.open(LISTENER);

    fixture.set(makeEndpoints(1, 2), { servicePort: portWith('v1'), destination: DESTINATION });
    fixture.sessions.failDial(session, 'refused');

    expect(textOf(fixture, session)).toBe('');
    expect(textOf(fixture, fixture.sessions.open(LISTENER))).toContain('PROXY TCP4 192.168.1.1 10.96.0.10');
  });
});

describe('the destination', () => {
  test('is what the dh scheduler chooses by: each portal has its endpoint, whoever the client is', () => {
    const servicePort = makeServicePort({ name: 'web' }, { scheduler: 'dh' });
    const fixture = new ForwarderFixture();
    const endpoints = makeEndpoints(...Array.from({ length: 50 }, (_, index) => index + 1));
    const portals = Array.from({ length: 20 }, (_, index) => ({ address: `10.96.0.${index}`, port: 80 }));
    for (const [index, destination] of portals.entries()) {
      const key = `${SHARED}/${destination.address}:80`;
      fixture.set(endpoints, { key, pool: SHARED, servicePort, destination });
      fixture.bind(index, key);
    }
    const endpointsOf = (listener: number): Set<string | undefined> =>
      new Set(
        ['192.168.1.1', '192.168.1.2', '192.168.7.9'].map((client) =>
          fixture.sessions.endpointOf(fixture.sessions.open(listener, client)),
        ),
      );

    const chosen = portals.map((_, listener) => endpointsOf(listener));

    expect(chosen.map(({ size }) => size)).toEqual(portals.map(() => 1));
    expect(new Set(chosen.flatMap((ofOne) => [...ofOne])).size).toBeGreaterThan(5);
  });
});
