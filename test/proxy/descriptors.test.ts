/** The process stays below its limit of open files, whoever wants them. */
import { describe, expect, test } from 'vitest';
import { Descriptors } from '../../src/proxy/descriptors.ts';

const RESERVE = 96;

class Fixture {
  listeningSockets = 0;
  udpSessions = 0;
  tcpConnections = 0;
  readonly descriptors: Descriptors;

  constructor({ limit = RESERVE + 1000, maxConnections = 0, maxUdpSessions = 4096 } = {}) {
    const { use } = this;
    this.descriptors = new Descriptors({ limit, reserve: RESERVE, maxConnections, maxUdpSessions, use });
  }

  readonly use = (): { listeningSockets: number; udpSessions: number; tcpConnections: number } => ({
    listeningSockets: this.listeningSockets,
    udpSessions: this.udpSessions,
    tcpConnections: this.tcpConnections,
  });
}

describe('with room for 1,000 descriptors', () => {
  test('TCP may have all but what is kept for UDP, two for each connection', () => {
    expect(new Fixture().descriptors.tcpCapacity()).toBe((1000 - 125) / 2 - 0.5);
  });

  test('listening sockets and UDP sessions leave less for TCP', () => {
    const fixture = new Fixture();
    fixture.listeningSockets = 200;
    fixture.udpSessions = 300;
    expect(fixture.descriptors.tcpCapacity()).toBe(250);
  });

  test('UDP may have what TCP does not use, all but a fourth, and always what is kept for it', () => {
    const fixture = new Fixture();
    expect(fixture.descriptors.udpCapacity()).toBe(750);
    fixture.tcpConnections = 400;
    expect(fixture.descriptors.udpCapacity()).toBe(200);
    fixture.tcpConnections = 437;
    expect(fixture.descriptors.udpCapacity()).toBe(126);
  });

  test('whatever comes first, both together never need more than there are', () => {
    for (let udpSessions = 0; udpSessions <= 1000; udpSessions += 7) {
      const fixture = new Fixture();
      fixture.udpSessions = udpSessions;
      fixture.tcpConnections = fixture.descriptors.tcpCapacity();
      expect(2 * fixture.tcpConnections + udpSessions).toBeLessThanOrEqual(1000);
      expect(fixture.descriptors.udpCapacity()).toBeLessThanOrEqual(
        Math.max(udpSessions, 1000 - 2 * fixture.tcpConnections),
      );
    }
  });

  test('UDP never takes all: a fourth of the descriptors is left for TCP, however early UDP came', () => {
    const fixture = new Fixture();
    fixture.udpSessions = fixture.descriptors.udpCapacity();
    expect(fixture.descriptors.tcpCapacity()).toBe(125);
  });

  test('listeners may take three fourths of it, so that something is left to carry', () => {
    const fixture = new Fixture();
    fixture.listeningSockets = 700;
    expect([fixture.descriptors.hasRoomToListen(50), fixture.descriptors.hasRoomToListen(51)]).toEqual([
      true,
      false,
    ]);
  });
});

test('the flags are caps where descriptors would allow more', () => {
  const { descriptors } = new Fixture({ maxConnections: 10, maxUdpSessions: 20 });
  expect([descriptors.tcpCapacity(), descriptors.udpCapacity()]).toEqual([10, 20]);
});

test('no limit of open files is no limit', () => {
  const { descriptors } = new Fixture({ limit: Number.POSITIVE_INFINITY });
  expect([descriptors.tcpCapacity(), descriptors.udpCapacity()]).toEqual([Number.POSITIVE_INFINITY, 4096]);
  expect(descriptors.hasRoomToListen(1_000_000)).toBe(true);
});

test('a limit below what is reserved refuses TCP, and computes no negative number', () => {
  const { descriptors } = new Fixture({ limit: 64 });
  expect([descriptors.tcpCapacity(), descriptors.udpCapacity()]).toEqual([0, 1]);
});
