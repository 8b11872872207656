/** How long watches are asked for, which of their ends need no word, and when silence calls for a list. */
import { describe, expect, test } from 'vitest';
import { type WatchEnd, WatchLiveness } from '../../../src/sources/kubernetes/watch-liveness.ts';

const ALMOST_ONE = 0.999_999;
const STALL_MS = 60_000;
/** Half of the watchdog's time: from here on a watch that told nothing was silent. */
const HALF_MS = STALL_MS / 2;
const LONG = 300;
const SHORT = 30;

function livenessOf(options: { random?: () => number; stallTimeoutMs?: number } = {}): WatchLiveness {
  const { random = () => 0, stallTimeoutMs = STALL_MS } = options;
  return new WatchLiveness({ random }, { stallTimeoutMs });
}

/** In peace, after the time that was asked for, and silent: unless tweaked. */
function end(tweak: Partial<WatchEnd> = {}): WatchEnd {
  return { how: 'peace', livedMs: HALF_MS, bookmarks: 0, events: 0, ...tweak };
}

const SILENT = end();
const BOOKMARK = end({ bookmarks: 1 });
const EVENT = end({ events: 1 });
const BOTH = end({ bookmarks: 1, events: 1 });
const STALL = end({ how: 'stall', livedMs: STALL_MS });

/** After how many of these ends, one after the other, a list was due. */
function listsAfter(liveness: WatchLiveness, ends: readonly WatchEnd[]): number[] {
  return ends.flatMap((one, index) => {
    liveness.watchEnded(one);
    return liveness.takeListDue() ? [index + 1] : [];
  });
}

function times<T>(count: number, value: T): T[] {
  return Array.from({ length: count }, () => value);
}

describe('a watch is asked for', () => {
  test.for([
    { stallTimeoutMs: 90_000, shortest: 45, longest: 71 },
    { stallTimeoutMs: 60_000, shortest: 30, longest: 47 },
    { stallTimeoutMs: 10_000, shortest: 5, longest: 7 },
    { stallTimeoutMs: 3000, shortest: 2, longest: 2 },
    { stallTimeoutMs: 1000, shortest: 2, longest: 2 },
    { stallTimeoutMs: 1, shortest: 2, longest: 2 },
  ])(
    '$shortest to $longest s until a bookmark came, with a watchdog of $stallTimeoutMs ms',
    ({ stallTimeoutMs, shortest, longest }) => {
      expect(livenessOf({ stallTimeoutMs }).timeoutSeconds()).toBe(shortest);
      expect(livenessOf({ stallTimeoutMs, random: () => ALMOST_ONE }).timeoutSeconds()).toBe(longest);
    },
  );

  test.for([3000, 4500, 10_000, 60_000, 90_000, 3_600_000])(
    'a time that is over well before a watchdog of %i ms',
    (stallTimeoutMs) => {
      const liveness = livenessOf({ stallTimeoutMs, random: () => ALMOST_ONE });
      expect(liveness.timeoutSeconds() * 1000).toBeLessThanOrEqual(0.8 * stallTimeoutMs);
    },
  );

  test.for([
    { random: 0, seconds: 300 },
    { random: 0.499, seconds: 449 },
    { random: ALMOST_ONE, seconds: 599 },
  ])('$seconds s once a bookmark came', ({ random, seconds }) => {
    const liveness = livenessOf({ random: () => random });
    liveness.watchEnded(BOOKMARK);
    expect(liveness.timeoutSeconds()).toBe(seconds);
  });

  test.for<{ name: string; ends: WatchEnd[]; seconds: number }>([
    { name: 'a short time after events alone: they prove no bookmarks', ends: [EVENT], seconds: SHORT },
    { name: 'a short time after silence', ends: [SILENT, SILENT], seconds: SHORT },
    { name: 'a short time after a stall', ends: [STALL], seconds: SHORT },
    { name: 'a long time after a bookmark among events', ends: [BOTH], seconds: LONG },
    {
      name: 'a long time after a bookmark in a watch that broke',
      ends: [end({ how: 'other', livedMs: 1, bookmarks: 1 })],
      seconds: LONG,
    },
    {
      name: 'a long time after a bookmark in a short watch that stalled',
      ends: [{ ...STALL, bookmarks: 1 }],
      seconds: LONG,
    },
    {
      name: 'a long time after long watches that ended in peace or broke, however silent they were',
      ends: [BOOKMARK, SILENT, EVENT, end({ how: 'other' })],
      seconds: LONG,
    },
    { name: 'a short time after a long one that stalled', ends: [BOOKMARK, STALL], seconds: SHORT },
    {
      name: 'a short time after a long one that stalled, whatever had come in it',
      ends: [BOOKMARK, { ...STALL, bookmarks: 5 }],
      seconds: SHORT,
    },
    {
      name: 'a short time after that, while bookmarks come among events only',
      ends: [BOOKMARK, STALL, BOTH, EVENT, SILENT],
      seconds: SHORT,
    },
    {
      name: 'a long time again once a bookmark came in a watch without other events',
      ends: [BOOKMARK, STALL, BOTH, BOOKMARK],
      seconds: LONG,
    },
    {
      name: 'a short time after the second long one that stalled too',
      ends: [BOOKMARK, STALL, BOOKMARK, STALL],
      seconds: SHORT,
    },
  ])('$name', ({ ends, seconds }) => {
    const liveness = livenessOf();
    for (const one of ends) liveness.watchEnded(one);
    expect(liveness.timeoutSeconds()).toBe(seconds);
  });
});

describe('the end of a watch', () => {
  test.for<{ name: string; before: WatchEnd[]; last: WatchEnd; isRoutine: boolean }>([
    {
      name: 'cut after 10 s is routine',
      before: [],
      last: end({ how: 'other', livedMs: 10_000 }),
      isRoutine: true,
    },
    {
      name: 'cut sooner is none',
      before: [],
      last: end({ how: 'other', livedMs: 9999 }),
      isRoutine: false,
    },
    {
      name: 'cut sooner is none, whatever came in it and before',
      before: [BOOKMARK],
      last: end({ how: 'other', livedMs: 9999, bookmarks: 1, events: 1 }),
      isRoutine: false,
    },
    { name: 'that stalled is none while no bookmark ever came', before: [], last: STALL, isRoutine: false },
    {
      name: 'that stalled after the very first bookmark is none: it was a short one',
      before: [],
      last: { ...STALL, bookmarks: 1 },
      isRoutine: false,
    },
    {
      name: 'that stalled is routine when it was a long one',
      before: [BOOKMARK],
      last: STALL,
      isRoutine: true,
    },
    {
      name: 'that stalled is none when the long one before it did',
      before: [BOOKMARK, STALL],
      last: STALL,
      isRoutine: false,
    },
    {
      name: 'that stalled is routine again once a bookmark came alone',
      before: [BOOKMARK, STALL, BOOKMARK],
      last: STALL,
      isRoutine: true,
    },
  ])('$name', ({ before, last, isRoutine }) => {
    const liveness = livenessOf();
    for (const one of before) liveness.watchEnded(one);
    expect(liveness.watchEnded(last)).toEqual({ isRoutine });
  });
});

describe('a list is due', () => {
  test('not before a watch has ended', () => {
    expect(livenessOf().takeListDue()).toBe(false);
  });

  test('after two silent watches, then after 4, 8, 16 and 32 more, and after each 32 from then on', () => {
    expect(listsAfter(livenessOf(), times(130, SILENT))).toEqual([2, 6, 14, 30, 62, 94, 126]);
  });

  test.for<WatchEnd['how']>(['peace', 'stall', 'other'])('however they ended (%s)', (how) => {
    expect(listsAfter(livenessOf(), times(6, end({ how })))).toEqual([2, 6]);
  });

  test('once, not again for the same silence', () => {
    const liveness = livenessOf();
    for (const one of [SILENT, SILENT]) liveness.watchEnded(one);
    expect([liveness.takeListDue(), liveness.takeListDue()]).toEqual([true, false]);
  });

  test('also later, when nobody asked at once', () => {
    const liveness = livenessOf();
    for (const one of times(5, SILENT)) liveness.watchEnded(one);
    expect(liveness.takeListDue()).toBe(true);
    expect(listsAfter(liveness, times(4, SILENT))).toEqual([4]);
  });

  test('never for watches that lived for less than half of the time of the watchdog', () => {
    for (const how of ['peace', 'stall', 'other'] as const) {
      expect(listsAfter(livenessOf(), times(100, end({ how, livedMs: HALF_MS - 1 })))).toEqual([]);
    }
  });

  test('for two that were silent, also when some between them ended too soon to tell', () => {
    const soon = end({ how: 'other', livedMs: 0 });
    expect(listsAfter(livenessOf(), [SILENT, soon, soon, SILENT, soon])).toEqual([4]);
  });

  test.for([
    { name: 'a bookmark', heard: BOOKMARK },
    { name: 'an event', heard: EVENT },
    { name: 'an event, however short the watch was', heard: end({ how: 'other', livedMs: 0, events: 1 }) },
    { name: 'a bookmark before a stall', heard: { ...STALL, bookmarks: 1 } },
  ])('after two again once something was heard: $name', ({ heard }) => {
    expect(listsAfter(livenessOf(), [SILENT, heard, SILENT, heard, SILENT])).toEqual([]);
    expect(listsAfter(livenessOf(), [...times(6, SILENT), heard, SILENT, SILENT])).toEqual([2, 6, 9]);
  });
});
