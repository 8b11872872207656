/** What is to be deleted is found in a dump by address and port, and said in few deletions that spare what goes on. */
import { expect, test } from 'vitest';
import type { Flow } from '../../src/conntrack/flow.ts';
import type { MovedPortal } from '../../src/conntrack/moved-portal.ts';
import { StaleFlows } from '../../src/conntrack/stale-flows.ts';
import type { IpAddress } from '../../src/model/address.ts';
import { cidrs } from '../support/rule-fixture.ts';
import { makeFlow, makeMovedPortal, makeUndivertedFlow, routeTo } from '../support/moved-portals.ts';

function selectionsOf(portals: readonly MovedPortal[], flows: readonly Flow[]): readonly string[] {
  const stale = new StaleFlows(portals);
  for (const flow of flows) stale.add(flow);
  return stale.selections().chosen.map((words) => words.join(' '));
}

/** So many clients' flows, which differ in nothing else. */
function many(count: number, tweak: Partial<Flow> = {}): readonly Flow[] {
  return Array.from({ length: count }, (_, index) => makeFlow({ ...tweak, sourcePort: 1024 + index }));
}

const FENCED = makeMovedPortal({ route: routeTo(20_001, { allowedSources: cidrs('10.244.1.0/24') }) });
const UNDIVERTED = '--orig-dst 10.96.0.10 --orig-port-dst 53 --reply-src 10.96.0.10 --reply-port-src 53';
const TO_20001 = '--orig-dst 10.96.0.10 --orig-port-dst 53 --reply-src 10.244.1.1 --reply-port-src 20001';

test('nothing stale, nothing deleted', () => {
  expect(selectionsOf([makeMovedPortal()], many(3))).toEqual([]);
});

test('any number of flows that lead to the same wrong place are one deletion', () => {
  const before = Array.from({ length: 1000 }, (_, index) => makeUndivertedFlow({ sourcePort: 1024 + index }));
  expect(selectionsOf([makeMovedPortal()], [...before, ...many(3)])).toEqual([UNDIVERTED]);
});

test('where good ones lead to the same place, the stale ones are deleted one by one', () => {
  const other = makeFlow({ source: '10.244.2.14', sourcePort: 999 });
  expect(selectionsOf([FENCED], [...many(3), other])).toEqual([
    `${TO_20001} --orig-src 10.244.2.14 --orig-port-src 999`,
  ]);
});

test('and all of them at once, good ones too, when they are too many: each deletion costs a dump', () => {
  const others = many(17, { source: '10.244.2.14' });
  expect(selectionsOf([FENCED], [...many(1), ...others])).toEqual([TO_20001]);
  expect(selectionsOf([FENCED], [...many(1), ...others.slice(1)])).toHaveLength(16);
});

test('flows to portals that have not moved are let alone', () => {
  const elsewhere = [
    makeUndivertedFlow({ destination: '10.96.0.11' }),
    makeUndivertedFlow({ destinationPort: 54 }),
  ];
  expect(selectionsOf([makeMovedPortal()], elsewhere)).toEqual([]);
});

test('a portal at the address itself comes before a NodePort, and so does one that has not moved', () => {
  const address = '192.168.77.2' as IpAddress;
  const flow = makeFlow({ destination: address, destinationPort: 30_053, replySourcePort: 20_002 });
  const nodePort = makeMovedPortal({ address: undefined, port: 30_053, route: routeTo(20_001) });
  const external = makeMovedPortal({ address, port: 30_053, route: routeTo(20_002) });
  expect(selectionsOf([nodePort], [flow])).toHaveLength(1);
  expect(selectionsOf([nodePort, external], [flow])).toEqual([]);
  expect(selectionsOf([{ ...nodePort, takenAddresses: new Set([address]) }], [flow])).toEqual([]);
});

test('more than are wanted at a time are left, and those of the portals that come first are not among them', () => {
  const portals = ['10.96.0.10', '10.96.0.11', '10.96.0.12'].map((address) =>
    makeMovedPortal({ address: address as IpAddress }),
  );
  const stale = new StaleFlows(portals);
  for (const destination of ['10.96.0.12', '10.96.0.11', '10.96.0.10']) {
    stale.add(makeUndivertedFlow({ destination, replySource: destination }));
  }
  const { chosen, left } = stale.selections(2);
  expect(chosen.map((words) => words[1])).toEqual(['10.96.0.10', '10.96.0.11']);
  expect([...left]).toEqual([portals[2]]);
});
