import { describe, expect, it } from 'vitest';
import { parseDurationMs, renderDuration } from '../../src/cli/duration.ts';

describe('a duration', () => {
  it.each([
    { text: '0', ms: 0 },
    { text: '0s', ms: 0 },
    { text: '-0', ms: 0 },
    { text: '250ms', ms: 250 },
    { text: '1s', ms: 1_000 },
    { text: '1.5s', ms: 1_500 },
    { text: '1.001s', ms: 1_001 },
    { text: '.5s', ms: 500 },
    { text: '1.s', ms: 1_000 },
    { text: '1h2m3.5s', ms: 3_723_500 },
    { text: '1m30s', ms: 90_000 },
    { text: '1s1s', ms: 2_000 },
    { text: '+2m', ms: 120_000 },
    { text: '-2m', ms: -120_000 },
    { text: '1us', ms: 0.001 },
    { text: '1\u00b5s', ms: 0.001 },
    { text: '1\u03bcs', ms: 0.001 },
    { text: '1ns', ms: 0.000_001 },
    { text: '2562047h', ms: 2_562_047 * 3_600_000 },
  ])('written $text is $ms ms', ({ text, ms }) => {
    expect(parseDurationMs(text)).toBe(ms);
  });

  it.each([
    '',
    ' ',
    '30',
    '1.5',
    's',
    '-',
    '.s',
    '1 s',
    '1d',
    '1S',
    '1ms ',
    '1s-1s',
    '00',
    'Infinity',
    '1e3s',
    '9999999h',
  ])('is not written %j', (text) => {
    expect(parseDurationMs(text)).toBeUndefined();
  });

  it.each([
    { ms: 0, text: '0s' },
    { ms: 0.000_001, text: '1ns' },
    { ms: 0.0015, text: '1.5\u00b5s' },
    { ms: 250, text: '250ms' },
    { ms: 1.5, text: '1.5ms' },
    { ms: 1_000, text: '1s' },
    { ms: 1_001, text: '1.001s' },
    { ms: 120_000, text: '2m0s' },
    { ms: 3_600_000, text: '1h0m0s' },
    { ms: 3_723_500, text: '1h2m3.5s' },
    { ms: -90_000, text: '-1m30s' },
  ])('of $ms ms is shown as Go shows it, $text', ({ ms, text }) => {
    expect(renderDuration(ms)).toBe(text);
  });

  it('survives being shown and read again, at any size to the nanosecond', () => {
    for (let magnitude = 1; magnitude < 9e15; magnitude *= 3) {
      for (const nanoseconds of [
        magnitude,
        magnitude + 1,
        magnitude * 2 - 1,
        Math.trunc(magnitude / 1e6) * 1e6,
      ]) {
        const ms = nanoseconds / 1e6;
        expect(parseDurationMs(renderDuration(ms)), `${nanoseconds} ns`).toBe(ms);
        expect(renderDuration(parseDurationMs(renderDuration(ms)) ?? Number.NaN)).toBe(renderDuration(ms));
      }
    }
  });
});
