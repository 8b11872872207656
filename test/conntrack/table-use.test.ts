/** How full the table is, and when that is told. */
import { expect, test } from 'vitest';
import { TableAlarm, readTableUse } from '../../src/conntrack/table-use.ts';
import { FakeSysctls } from '../support/fake-sysctls.ts';
import { RecordingLogger } from '../support/recording-logger.ts';

const COUNT = 'net.netfilter.nf_conntrack_count';
const MAX = 'net.netfilter.nf_conntrack_max';

test('the kernel tells both numbers, or nothing is known', () => {
  expect(readTableUse(new FakeSysctls({ [COUNT]: 3, [MAX]: 100 }))).toEqual({ entries: 3, max: 100 });
  expect(readTableUse(new FakeSysctls({ [MAX]: 100 }))).toBeUndefined();
  expect(readTableUse(new FakeSysctls({ [COUNT]: 3 }))).toBeUndefined();
});

test('a table that is more than 90 % full is told once, and again only after it was below 80 %', () => {
  const logger = new RecordingLogger();
  const alarm = new TableAlarm(logger);
  const warningsAfter = (...percents: number[]): number => {
    for (const entries of percents) alarm.check({ entries, max: 100 });
    return logger.lines.length;
  };
  expect(warningsAfter(10, 90)).toBe(0);
  expect(warningsAfter(91, 100, 95)).toBe(1);
  expect(warningsAfter(80, 95)).toBe(1);
  expect(warningsAfter(79, 90)).toBe(1);
  expect(warningsAfter(91)).toBe(2);
  expect(logger.lines[0]).toMatchObject({ level: 'warn', fields: { entries: 91, max: 100 } });
});

test('a table of which nothing is known, or that has no limit, is no reason to warn', () => {
  const logger = new RecordingLogger();
  const alarm = new TableAlarm(logger);
  alarm.check(undefined);
  alarm.check({ entries: 5, max: 0 });
  expect(logger.lines).toEqual([]);
});
