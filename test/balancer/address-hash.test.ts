import { describe, expect, test } from 'vitest';
import { hashText } from '../../src/balancer/text-hash.ts';
import { Random, seeds } from '../support/random.ts';
import { EVEN, SchedulerFixture, clientsOf, countsOf, endpointsOf, unevenness } from './scheduler-fixture.ts';

const CLIENT_COUNT = 10_000;
const FAMILIES = ['IPv4', 'IPv6'] as const;

/** What each scheduler goes by, and what it does not. */
const SUBJECTS = [
  {
    name: 'sh',
    pick: (fixture: SchedulerFixture, address: string, refused?: ReadonlySet<string>) =>
      fixture.pick(address, refused),
    pickByOther: (fixture: SchedulerFixture, other: string) => fixture.pick('10.0.0.1', new Set(), other),
  },
  {
    name: 'dh',
    pick: (fixture: SchedulerFixture, address: string, refused?: ReadonlySet<string>) =>
      fixture.pick('10.0.0.1', refused, address),
    pickByOther: (fixture: SchedulerFixture, other: string) => fixture.pick(other),
  },
] as const;

describe.each(SUBJECTS)('$name', ({ name, pick, pickByOther }) => {
  describe.each(FAMILIES)('with %s', (family) => {
    const clients = clientsOf(CLIENT_COUNT, family);

    test.each([2, 3, 5, 10, 50, 250])('10,000 addresses spread evenly over %i endpoints', (size) => {
      const fixture = new SchedulerFixture(name, endpointsOf(size, family));

      expect(
        unevenness(
          clients.map((client) => pick(fixture, client)),
          size,
        ),
      ).toBeLessThan(EVEN);
    });

    test('those of a refused endpoint spread evenly over the others, and nobody else moves', () => {
      const endpoints = endpointsOf(10, family);
      const fixture = new SchedulerFixture(name, endpoints);
      const [refused = ''] = endpoints.map(({ key }) => key);
      const home = new Map(clients.map((client) => [client, pick(fixture, client)]));
      const concerned = clients.filter((client) => home.get(client) === refused);

      const moved = concerned.map((client) => pick(fixture, client, new Set([refused])));

      expect(moved).not.toContain(refused);
      expect(unevenness(moved, 9)).toBeLessThan(EVEN);
      const others = clients.filter((client) => home.get(client) !== refused);
      expect(others.every((client) => pick(fixture, client, new Set([refused])) === home.get(client))).toBe(
        true,
      );
    });

    test('those of an endpoint that goes spread over the others, and return when it does', () => {
      const endpoints = endpointsOf(10, family);
      const fixture = new SchedulerFixture(name, endpoints);
      const [gone = ''] = endpoints.map(({ key }) => key);
      const before = clients.map((client) => pick(fixture, client));

      fixture.scheduler.setEndpoints(endpoints.slice(1));
      const during = clients.map((client) => pick(fixture, client));
      fixture.scheduler.setEndpoints(endpoints);

      const moved = during.filter((key, index) => key !== before[index]);
      expect(moved.length).toBe(before.filter((key) => key === gone).length);
      expect(unevenness(moved, 9)).toBeLessThan(EVEN);
      expect(clients.map((client) => pick(fixture, client))).toEqual(before);
    });

    test('one that comes takes an even share, and nobody moves elsewhere', () => {
      const endpoints = endpointsOf(11, family);
      const fixture = new SchedulerFixture(name, endpoints.slice(1));
      const before = clients.map((client) => pick(fixture, client));

      fixture.scheduler.setEndpoints(endpoints);
      const after = clients.map((client) => pick(fixture, client));

      const moved = clients.filter((_, index) => after[index] !== before[index]);
      expect(countsOf(moved.map((client) => pick(fixture, client)))).toEqual(
        new Map([[endpoints[0]?.key, moved.length]]),
      );
      expect(unevenness(after, 11)).toBeLessThan(EVEN);
    });
  });

  test('an address keeps its endpoint, whatever else is picked', () => {
    const fixture = new SchedulerFixture(name, endpointsOf(20));
    const home = pick(fixture, '10.1.2.3');

    for (const client of clientsOf(100)) {
      pick(fixture, client);
      expect(pick(fixture, '10.1.2.3')).toBe(home);
    }
  });

  test('sessions, the other address and chance do not matter', () => {
    const endpoints = endpointsOf(20);
    const fixture = new SchedulerFixture(name, endpoints, new Random(1));
    const other = new SchedulerFixture(name, endpoints, new Random(2));
    for (const { key } of endpoints.slice(0, 10)) other.sessions.began(key);

    const clients = clientsOf(100);

    expect(clients.map((client) => pick(other, client))).toEqual(
      clients.map((client) => pick(fixture, client)),
    );
    expect(new Set(clients.map((client) => pickByOther(fixture, client))).size).toBe(1);
  });

  test('each address has an order of its own: it is not the same neighbour who takes over', () => {
    const endpoints = endpointsOf(4);
    const orders = clientsOf(CLIENT_COUNT).map((client) =>
      orderOf(new SchedulerFixture(name, endpoints), client).join(),
    );

    expect(unevenness(orders, 24)).toBeLessThan(EVEN);
  });

  test.each(seeds(5))(
    'of any of the endpoints it takes the first in the order of the address (seed %i)',
    (seed) => {
      const random = new Random(seed);
      const all = endpointsOf(12);
      const client = random.pick(clientsOf(1000));
      const order = orderOf(new SchedulerFixture(name, all), client);
      const fixture = new SchedulerFixture(name, all);

      for (let step = 0; step < 200; step += 1) {
        const present = all.filter(() => random.below(3) > 0);
        const refused = new Set(all.filter(() => random.below(3) === 0).map(({ key }) => key));
        fixture.scheduler.setEndpoints(present);

        const allowed = new Set(present.map(({ key }) => key).filter((key) => !refused.has(key)));
        expect(pick(fixture, client, refused)).toBe(order.find((key) => allowed.has(key)));
      }
    },
  );

  /** Every endpoint, in the order in which the address gets them when one after another refuses. */
  function orderOf(fixture: SchedulerFixture, address: string): string[] {
    const refused = new Set<string>();
    for (let key = pick(fixture, address); key !== undefined; key = pick(fixture, address, refused))
      refused.add(key);
    return [...refused];
  }
});

// Nodes of several versions serve the same clients during an upgrade. Whoever must change these moves everybody.
test.each([
  { client: '10.0.0.1', expected: '10.244.0.48:8080' },
  { client: '10.0.0.2', expected: '10.244.0.78:8080' },
  { client: '192.168.1.77', expected: '10.244.0.98:8080' },
  { client: 'fd00::1', expected: '10.244.0.11:8080' },
  { client: '2001:db8::a:b', expected: '10.244.0.92:8080' },
])('$client has the same endpoint in every process and version', ({ client, expected }) => {
  expect(new SchedulerFixture('sh', endpointsOf(100)).pick(client)).toBe(expected);
});

test('under dh all clients of a listener that cannot tell what they asked for share an endpoint', () => {
  const fixture = new SchedulerFixture('dh', endpointsOf(10));

  expect(new Set(clientsOf(100).map((client) => fixture.pick(client, new Set(), ''))).size).toBe(1);
});

// The bound is worth something only if it finds what a worse hash does.
test('without the mixing of address and endpoint the spread would not pass for even', () => {
  const endpoints = endpointsOf(10);
  const picked = clientsOf(CLIENT_COUNT).map((client) => {
    const scores = endpoints.map(({ key }) => (hashText(client, 1) ^ hashText(key, 2)) >>> 0);
    return scores.indexOf(Math.max(...scores));
  });

  expect(unevenness(picked, 10)).toBeGreaterThan(EVEN);
});
