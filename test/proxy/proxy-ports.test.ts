import { describe, expect, test } from 'vitest';
import { isProxyError } from '../../src/errors.ts';
import { PORT_REST_MS, ProxyPorts, type ProxyPortsOptions } from '../../src/proxy/proxy-ports.ts';

const TCP = 'TCP/IPv4';

/** Ports 1000 to 1003 and the first free one, unless told. */
function makePorts(tweak: Partial<ProxyPortsOptions> = {}): ProxyPorts {
  return new ProxyPorts({
    range: { first: 1000, last: 1003 },
    excluded: [],
    random: () => 0,
    remembered: new Map(),
    ...tweak,
  });
}

function faultOf(act: () => unknown): unknown {
  try {
    return act();
  } catch (error) {
    return error;
  }
}

describe('the range', () => {
  // portallocator_test.go: TestRangeAllocatorEmpty
  test.each([
    { name: 'is empty', tweak: { range: { first: 1000, last: 999 } } },
    { name: 'lies within what others use', tweak: { excluded: [{ first: 500, last: 2000 }] } },
    {
      name: 'is used up by several others',
      tweak: {
        excluded: [
          { first: 1000, last: 1001 },
          { first: 1002, last: 1005 },
        ],
      },
    },
  ])('a range that $name is refused', ({ tweak }) => {
    expect(
      isProxyError(
        faultOf(() => makePorts(tweak)),
        'ERR_PROXY_PORTS_EXHAUSTED',
      ),
    ).toBe(true);
  });

  // TestRangeAllocatorFullyAllocated
  test('when all ports are taken the next one is an error, and a release makes room', () => {
    const ports = makePorts();
    const taken = ['a', 'b', 'c', 'd'].map((key) => ports.take(key, TCP, 0));
    expect(new Set(taken)).toEqual(new Set([1000, 1001, 1002, 1003]));
    expect(ports.takenCount).toBe(4);
    expect(
      isProxyError(
        faultOf(() => ports.take('e', TCP, 0)),
        'ERR_PROXY_PORTS_EXHAUSTED',
      ),
    ).toBe(true);

    ports.release(TCP, 1002, 0);

    expect(ports.take('e', TCP, 0)).toBe(1002);
  });

  // TestRangeAllocator_RandomishAllocation
  test('the order is random: two allocators do not give the same ports', () => {
    const range = { first: 1000, last: 1999 };
    const take = (): string => {
      const ports = makePorts({ range, random: Math.random });
      return Array.from({ length: 50 }, (_, index) => ports.take(`key ${index}`, TCP, 0)).join();
    };

    expect(take()).not.toBe(take());
  });

  test('excluded ports are never given out', () => {
    const ports = makePorts({ excluded: [{ first: 1001, last: 1002 }], random: () => 0.5 });

    expect(new Set(['a', 'b'].map((key) => ports.take(key, TCP, 0)))).toEqual(new Set([1000, 1003]));
    expect(isProxyError(faultOf(() => ports.take('c', TCP, 0)))).toBe(true);
  });

  test('protocols and families are numbered independently', () => {
    const ports = makePorts({ range: { first: 1000, last: 1000 } });

    expect(
      (['TCP/IPv4', 'UDP/IPv4', 'TCP/IPv6', 'UDP/IPv6'] as const).map((space) => ports.take(space, space, 0)),
    ).toEqual([1000, 1000, 1000, 1000]);
  });
});

describe('what is remembered', () => {
  test('a listener gets the port it had in the last run, whoever asks first', () => {
    const ports = makePorts({ remembered: new Map([['mine', 1000]]) });

    expect(ports.take('another', TCP, 0)).not.toBe(1000);
    expect(ports.take('mine', TCP, 0)).toBe(1000);
  });

  test('a listener gets the port back that it gave back', () => {
    const ports = makePorts();
    ports.take('a', TCP, 0);
    const port = ports.take('mine', TCP, 0);
    ports.release(TCP, port, 0);

    expect(ports.take('mine', TCP, 0)).toBe(port);
  });

  test('two listeners that remember one port do not both get it', () => {
    const ports = makePorts({
      remembered: new Map([
        ['one', 1002],
        ['two', 1002],
      ]),
    });

    expect(ports.take('one', TCP, 0)).toBe(1002);
    expect(ports.take('two', TCP, 0)).not.toBe(1002);
  });

  test.each([
    { name: 'outside the range', port: 4000 },
    { name: 'that is excluded now', port: 1003 },
  ])('a remembered port $name is not used', ({ port }) => {
    const ports = makePorts({
      remembered: new Map([['mine', port]]),
      excluded: [{ first: 1003, last: 1003 }],
    });

    expect(ports.take('mine', TCP, 0)).toBe(1000);
  });

  test('a remembered port is given to another one when nothing else is left', () => {
    const ports = makePorts({ range: { first: 1000, last: 1000 }, remembered: new Map([['mine', 1000]]) });

    expect(ports.take('another', TCP, 0)).toBe(1000);
  });

  test.each([
    'default/web:http/TCP/IPv4/cluster',
    'default/web:http/TCP/IPv4/local',
    'default/web:http/TCP/IPv4/cluster/10.96.0.10:80',
    'default/web:http/TCP/IPv6/cluster/[fd00:96::a]:80',
  ])('is remembered by the whole key: %s', (key) => {
    const remembered = new Map([
      ['default/web:http/TCP/IPv4/cluster', 1001],
      ['default/web:http/TCP/IPv4/local', 1002],
      ['default/web:http/TCP/IPv4/cluster/10.96.0.10:80', 1003],
      ['default/web:http/TCP/IPv6/cluster/[fd00:96::a]:80', 1000],
    ]);

    expect(makePorts({ remembered }).take(key, TCP, 0)).toBe(remembered.get(key));
  });

  test('a forgotten port is not taken again while there are others', () => {
    const ports = makePorts();
    const port = ports.take('mine', TCP, 0);
    ports.forget('mine');
    ports.release(TCP, port, 0);

    expect(ports.take('mine', TCP, 0)).not.toBe(port);
  });
});

describe('a port that somebody else had meanwhile', () => {
  /** `mine` had port 1000 first, `another` had it after that and gave it back at `PORT_REST_MS`. */
  function makeHandedOn(): ProxyPorts {
    const ports = makePorts({ range: { first: 1000, last: 1001 } });
    ports.release(TCP, ports.take('mine', TCP, 0), 0);
    const port = ports.take('another', TCP, PORT_REST_MS);
    expect(port).toBe(1000);
    ports.release(TCP, port, PORT_REST_MS);
    return ports;
  }

  test('rests for whoever had it before, too', () => {
    expect(makeHandedOn().take('mine', TCP, PORT_REST_MS + 1)).toBe(1001);
  });

  test('is given back at once to the one that had it last', () => {
    expect(makeHandedOn().take('another', TCP, PORT_REST_MS + 1)).toBe(1000);
  });

  test('in another protocol is not that port', () => {
    const ports = makePorts({ range: { first: 1000, last: 1001 } });
    ports.release(TCP, ports.take('web/TCP', TCP, 0), 0);
    ports.release('UDP/IPv4', ports.take('web/UDP', 'UDP/IPv4', 0), 0);

    expect(ports.take('web/TCP', TCP, 1)).toBe(1000);
  });
});

describe('rest', () => {
  test('a port that was given back rests for everybody else', () => {
    const ports = makePorts({ range: { first: 1000, last: 1001 } });
    const port = ports.take('mine', TCP, 0);
    ports.release(TCP, port, 0);

    expect(ports.take('another', TCP, PORT_REST_MS - 1)).not.toBe(port);
  });

  test('a port that has rested is given out again', () => {
    const ports = makePorts({ range: { first: 1000, last: 1001 } });
    ports.release(TCP, ports.take('mine', TCP, 0), 0);
    ports.forget('mine');

    expect(ports.take('another', TCP, PORT_REST_MS)).toBe(1000);
  });

  test('when all rest, the one that has rested longest is given out', () => {
    const ports = makePorts();
    const taken = ['a', 'b', 'c', 'd'].map((key) => ports.take(key, TCP, 0));
    for (const [index, port] of taken.toReversed().entries()) ports.release(TCP, port, index);
    for (const key of ['a', 'b', 'c', 'd']) ports.forget(key);

    expect(ports.take('another', TCP, 10)).toBe(taken[3]);
  });
});

test('after a clash the listener gets another port, and the port rests', () => {
  const ports = makePorts();
  const port = ports.take('mine', TCP, 0);

  ports.clash('mine', TCP, port, 0);

  const next = ports.take('mine', TCP, 0);
  expect(next).not.toBe(port);
  expect(ports.takenCount).toBe(1);
  expect(ports.take('another', TCP, 0)).not.toBe(port);
  ports.release(TCP, next, 0);
  expect(ports.take('mine', TCP, 0)).toBe(next);
});

describe('the ports of another instance on the node', () => {
  test('are nobody’s, not even of whoever remembers them', () => {
    const ports = makePorts({ remembered: new Map([['a', 1000]]) });
    ports.setForeign(new Set(['TCP/IPv4/1000', 'TCP/IPv4/1001']), 0);
    expect(ports.take('a', TCP, 0)).toBe(1002);
    expect(ports.take('b', TCP, 0)).toBe(1003);
  });

  test('are free in another protocol or family', () => {
    const ports = makePorts();
    ports.setForeign(new Set(['TCP/IPv4/1000']), 0);
    expect(ports.take('a', 'UDP/IPv4', 0)).toBe(1000);
    expect(ports.take('b', 'TCP/IPv6', 0)).toBe(1000);
  });

  test('rest when it has ended', () => {
    const ports = makePorts();
    ports.setForeign(new Set(['TCP/IPv4/1000']), 0);
    ports.setForeign(new Set(), 10);
    expect(ports.take('a', TCP, 10)).toBe(1001);
    const later = makePorts();
    later.setForeign(new Set(['TCP/IPv4/1000']), 0);
    later.setForeign(new Set(), 10);
    expect(later.take('a', TCP, 10 + PORT_REST_MS)).toBe(1000);
  });

  test('are taken before a listener gets none: what it says may be false', () => {
    const ports = makePorts();
    ports.setForeign(new Set([1000, 1001, 1002, 1003].map((port) => `TCP/IPv4/${port}`)), 0);
    expect(ports.take('a', TCP, 0)).toBe(1000);
  });

  test('are only believed within the range', () => {
    const ports = makePorts({ excluded: [{ first: 1003, last: 1003 }] });
    expect([999, 1000, 1002, 1003].map((port) => ports.isCandidate(port))).toEqual([
      false,
      true,
      true,
      false,
    ]);
  });
});
