/** Only so many dials at a time for each Service port; the others wait in the order they came. */
import { expect, test } from 'vitest';
import type { SessionId } from '../../src/engine/engine.ts';
import { DialSlots } from '../../src/proxy/dial-slots.ts';

const WEB = {};
const DNS = {};
const DEADLINE = 1000;

const id = (number: number): SessionId => number as SessionId;

test('those above the number wait, and have their turn in the order they came', () => {
  const slots = new DialSlots(2);
  expect([1, 2, 3, 4].map((each) => slots.enter(WEB, id(each), DEADLINE))).toEqual([
    true,
    true,
    false,
    false,
  ]);
  expect([slots.waiting, slots.next(WEB, 0)]).toEqual([2, undefined]);
  slots.leave(WEB, id(1));
  expect(slots.next(WEB, 0)).toEqual({ session: 3, isLate: false });
  expect([slots.waiting, slots.next(WEB, 0)]).toEqual([1, undefined]);
});

test('whoever has a slot keeps it from one dial to the next', () => {
  const slots = new DialSlots(1);
  slots.enter(WEB, id(1), DEADLINE);
  slots.enter(WEB, id(2), DEADLINE);
  expect(slots.enter(WEB, id(1), DEADLINE)).toBe(true);
  expect([...slots.dialling(WEB)]).toEqual([1]);
});

test('one Service port waits for none of another', () => {
  const slots = new DialSlots(1);
  slots.enter(WEB, id(1), DEADLINE);
  expect([slots.enter(WEB, id(2), DEADLINE), slots.enter(DNS, id(3), DEADLINE)]).toEqual([false, true]);
});

test('who has waited beyond his time is told so, also while no slot is free', () => {
  const slots = new DialSlots(1);
  slots.enter(WEB, id(1), DEADLINE);
  slots.enter(WEB, id(2), 500);
  slots.enter(WEB, id(3), DEADLINE);
  expect(slots.next(WEB, 501)).toEqual({ session: 2, isLate: true });
  expect(slots.next(WEB, 501)).toBeUndefined();
  slots.leave(WEB, id(1));
  expect(slots.next(WEB, 501)).toEqual({ session: 3, isLate: false });
});

test('who gave up waiting has no turn, and nothing is left of a Service port that nobody dials', () => {
  const slots = new DialSlots(1);
  for (const each of [1, 2, 3]) slots.enter(WEB, id(each), DEADLINE);
  slots.leave(WEB, id(2));
  slots.leave(WEB, id(1));
  slots.leave(WEB, id(1));
  expect(slots.next(WEB, 0)).toEqual({ session: 3, isLate: false });
  slots.leave(WEB, id(3));
  expect([slots.waiting, [...slots.dialling(WEB)], slots.next(WEB, 0)]).toEqual([0, [], undefined]);
});
