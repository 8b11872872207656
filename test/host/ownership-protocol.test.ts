/** What instances say to each other: whole, and never more than it says. */
import { describe, expect, test } from 'vitest';
import {
  type OwnershipMessage,
  parseMessage,
  portsWithout,
  renderMessage,
  unionOfPorts,
} from '../../src/host/ownership-protocol.ts';
import { portOf } from './ownership-fixture.ts';

const MESSAGES: readonly OwnershipMessage[] = [
  { type: 'takeover' },
  { type: 'standby', ports: [portOf(20_001)] },
  { type: 'yielded', generation: 7, ports: [portOf(20_001, { protocol: 'UDP', family: 'IPv6' })] },
  { type: 'accepted' },
  { type: 'refused', reason: 'not now' },
  { type: 'programmed' },
  { type: 'retired' },
  { type: 'stopping' },
  { type: 'ports', ports: [] },
];

test.each(MESSAGES)('$type arrives as it was sent, in one line', (message) => {
  const line = renderMessage(message);
  expect(line.indexOf('\n')).toBe(line.length - 1);
  expect(parseMessage(line.trimEnd())).toEqual(message);
});

test.each([
  '',
  'null',
  '[]',
  '"takeover"',
  '{',
  '{"type":"takeover"}',
  '{"version":2,"type":"takeover"}',
  '{"version":1}',
  '{"version":1,"type":"yielded","ports":[]}',
  '{"version":1,"type":"yielded","generation":-1,"ports":[]}',
  '{"version":1,"type":"yielded","generation":1e99,"ports":[]}',
])('%s is no message', (line) => {
  expect(parseMessage(line)).toBeUndefined();
});

describe('ports', () => {
  test.each([
    { name: 'no number', port: { port: '20001' } },
    { name: 'no port', port: { port: 65_536 } },
    { name: 'another family', port: { family: 'IPX' } },
    { name: 'another protocol', port: { protocol: 'SCTP' } },
    { name: 'a name that could be more than a comment', port: { servicePortName: 'a" -j ACCEPT\n' } },
    { name: 'a name without end', port: { servicePortName: 'x'.repeat(300) } },
  ])('with $name are left out, and the rest is kept', ({ port }) => {
    const ports = [portOf(20_001), { ...portOf(20_002), ...port }];
    expect(parseMessage(JSON.stringify({ version: 1, type: 'ports', ports }))).toEqual({
      type: 'ports',
      ports: [portOf(20_001)],
    });
  });

  test('are none where there is no list', () => {
    expect(parseMessage('{"version":1,"type":"ports","ports":{}}')).toEqual({ type: 'ports', ports: [] });
  });

  test('are the same by family, protocol and number', () => {
    const udp = portOf(20_001, { protocol: 'UDP' });
    const v6 = portOf(20_001, { family: 'IPv6' });
    expect(unionOfPorts([[portOf(20_001)], [udp, v6, portOf(20_001)]])).toHaveLength(3);
    expect(portsWithout([portOf(20_001), udp], [udp])).toEqual([portOf(20_001)]);
  });
});
