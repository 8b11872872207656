/** Who makes room for a new UDP session: whoever has been idle longest among those who hold too many. */
import { describe, expect, test } from 'vitest';
import type { SessionId } from '../../src/engine/engine.ts';
import { UdpRoom } from '../../src/proxy/udp-room.ts';

const DNS = { name: 'dns' };
const NTP = { name: 'ntp' };
const SYSLOG = { name: 'syslog' };

/** A room, and who used what when. */
class Fixture {
  now = 0;
  readonly room: UdpRoom;
  readonly #used = new Map<number, number>();
  readonly #parties = new Map<number, { service: object; client: string }>();
  #lastId = 0;

  constructor({ capacity = 8, maxPerService = 0 } = {}) {
    this.room = new UdpRoom({
      maxPerService,
      capacity: () => capacity,
      lastUsed: (session) => this.#used.get(session),
    });
  }

  /** A new session, and the one that made room for it. */
  open(service: object, client: string): { id: number; victim: number | undefined } {
    this.now += 1;
    const victim = this.room.victimFor({ service, client });
    if (victim !== undefined) this.close(victim);
    this.#lastId += 1;
    const id = this.#lastId;
    this.room.add(id as SessionId, { service, client }, this.now);
    this.#used.set(id, this.now);
    this.#parties.set(id, { service, client });
    return { id, victim };
  }

  use(id: number): void {
    this.now += 1;
    this.#used.set(id, this.now);
  }

  close(id: number): void {
    const parties = this.#parties.get(id);
    if (parties === undefined) throw new Error(`session ${id} is not open`);
    this.room.remove(id as SessionId, parties);
    this.#parties.delete(id);
    this.#used.delete(id);
  }

  isOpen(id: number): boolean {
    return this.#parties.has(id);
  }
}

describe('at the cap', () => {
  test('the session that has been idle longest goes, not the one that is oldest', () => {
    const fixture = new Fixture();
    const ids = Array.from({ length: 8 }, (_, index) => fixture.open({}, `10.0.0.${index}`).id);
    fixture.use(1);
    fixture.use(2);
    expect(fixture.open(DNS, '10.9.9.9').victim).toBe(3);
    expect(ids.filter((id) => fixture.isOpen(id))).toEqual([1, 2, 4, 5, 6, 7, 8]);
    expect(fixture.room.size).toBe(8);
  });

  test('one that was used before the others came goes before them, although they were never used', () => {
    const fixture = new Fixture();
    const { id: first } = fixture.open({}, '10.0.0.0');
    fixture.use(first);
    for (let index = 1; index < 8; index += 1) fixture.open({}, `10.0.0.${index}`);
    expect(fixture.open({}, '10.0.1.0').victim).toBe(first);
  });

  test('one that was used before newer ones came goes before them, wherever it was put back', () => {
    const fixture = new Fixture();
    const ids = Array.from({ length: 8 }, (_, index) => fixture.open({}, `10.0.0.${index}`).id);
    // Every other one is used; then as many come as there is room for.
    for (const id of ids.filter((id) => id % 2 === 0)) fixture.use(id);
    const newcomers = Array.from({ length: 8 }, (_, index) => fixture.open({}, `10.0.1.${index}`));
    expect(new Set(newcomers.map(({ victim }) => victim))).toEqual(new Set(ids));
    expect(newcomers.slice(4).map(({ victim }) => victim)).toEqual(ids.filter((id) => id % 2 === 0));
  });

  test('a client that floods displaces itself, and nobody else', () => {
    const fixture = new Fixture();
    const others = Array.from({ length: 4 }, (_, index) => fixture.open(DNS, `10.0.0.${index}`).id);
    for (let index = 0; index < 1000; index += 1) fixture.open(DNS, '10.6.6.6');
    expect(others.every((id) => fixture.isOpen(id))).toBe(true);
  });

  test('a Service whose many clients flood displaces its own sessions', () => {
    const fixture = new Fixture();
    const others = Array.from({ length: 4 }, (_, index) => fixture.open(NTP, `10.0.0.${index}`).id).slice(
      0,
      2,
    );
    for (const id of [3, 4]) fixture.close(id);
    for (let index = 0; index < 1000; index += 1) fixture.open(SYSLOG, `10.1.${index >> 8}.${index & 255}`);
    expect(others.every((id) => fixture.isOpen(id))).toBe(true);
  });

  test('somebody new is let in at the cost of who holds more than a fourth', () => {
    const fixture = new Fixture();
    const old = fixture.open(NTP, '10.0.0.1').id;
    for (let index = 0; index < 7; index += 1) fixture.open(DNS, '10.6.6.6');
    const { victim } = fixture.open(NTP, '10.0.0.2');
    expect(victim).toBe(old + 1);
    expect(fixture.isOpen(old)).toBe(true);
  });

  test('a client that sends much gives way to none that holds more and is idle', () => {
    const fixture = new Fixture({ capacity: 20 });
    for (let index = 0; index < 19; index += 1) fixture.open(DNS, '10.6.6.6');
    const busy = Array.from({ length: 9 }, () => fixture.open(DNS, '10.0.0.1').id);
    expect(busy.every((id) => fixture.isOpen(id))).toBe(true);
  });

  test('a session that is used all the time outlives any flood of its own group', () => {
    const fixture = new Fixture();
    const busy = fixture.open(DNS, '10.0.0.1').id;
    for (let index = 0; index < 1000; index += 1) {
      fixture.open(DNS, '10.0.0.1');
      fixture.use(busy);
    }
    expect(fixture.isOpen(busy)).toBe(true);
  });
});

test('a Service with a limit of its own displaces its own, however much room there is', () => {
  const fixture = new Fixture({ capacity: 1000, maxPerService: 2 });
  const [first] = [fixture.open(DNS, '10.0.0.1').id, fixture.open(DNS, '10.0.0.2').id];
  expect(fixture.open(NTP, '10.0.0.1').victim).toBeUndefined();
  expect(fixture.open(DNS, '10.0.0.3').victim).toBe(first);
});

test('nothing is remembered of those that are gone', () => {
  const fixture = new Fixture();
  const ids = Array.from({ length: 8 }, (_, index) => fixture.open({}, `10.0.0.${index}`).id);
  for (const id of ids) fixture.close(id);
  expect(fixture.room.size).toBe(0);
  expect(fixture.open(DNS, '10.0.0.1').victim).toBeUndefined();
});
