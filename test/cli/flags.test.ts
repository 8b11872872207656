import { describe, expect, it } from 'vitest';
import {
  boolean,
  durationFrom,
  durationsFrom,
  integerBetween,
  text,
  texts,
} from '../../src/cli/flag-types.ts';
import { parseFlags } from '../../src/cli/flags.ts';
import { ProxyError } from '../../src/errors.ts';

const TABLE = {
  name: { type: text, default: 'nobody', help: '', group: '' },
  'dry-run': { type: boolean, default: false, help: '', group: '' },
  v: { type: integerBetween(0, 9), default: 0, shorthand: 'v', help: '', group: '' },
  help: { type: boolean, default: false, shorthand: 'h', help: '', group: '' },
  path: { type: texts, default: ['fallback'], help: '', group: '' },
  wait: { type: durationFrom(1), default: 1_000, help: '', group: '' },
  waits: { type: durationsFrom(1), default: [1], help: '', group: '' },
} as const;

const EXTRAS = { 'old-name': { type: text, default: '', help: '', group: '' } };

function valuesOf(...args: string[]) {
  return parseFlags(args, TABLE, EXTRAS).values;
}

function faultOf(...args: string[]): ProxyError {
  try {
    parseFlags(args, TABLE, EXTRAS);
  } catch (error: unknown) {
    if (error instanceof ProxyError) return error;
    throw error;
  }
  throw new Error(`nothing was wrong with ${args.join(' ')}`);
}

describe('the flag parser', () => {
  it.each([
    { args: ['--name', 'bob'], flag: 'name', value: 'bob' },
    { args: ['--name=bob'], flag: 'name', value: 'bob' },
    { args: ['--name='], flag: 'name', value: '' },
    { args: ['--name', ''], flag: 'name', value: '' },
    { args: ['--name=a=b'], flag: 'name', value: 'a=b' },
    { args: ['--name', '--dry-run'], flag: 'name', value: '--dry-run' },
    { args: ['--name', 'a', '--name', 'b'], flag: 'name', value: 'b' },
    { args: ['--dry-run'], flag: 'dry-run', value: true },
    { args: ['--dry-run=true'], flag: 'dry-run', value: true },
    { args: ['--dry-run=false'], flag: 'dry-run', value: false },
    { args: ['--dry-run', '--dry-run=F'], flag: 'dry-run', value: false },
    { args: ['--dry_run'], flag: 'dry-run', value: true },
    { args: ['-v', '4'], flag: 'v', value: 4 },
    { args: ['-v=4'], flag: 'v', value: 4 },
    { args: ['-v4'], flag: 'v', value: 4 },
    { args: ['--v=4'], flag: 'v', value: 4 },
    { args: ['--v', '4'], flag: 'v', value: 4 },
    { args: ['-hv4'], flag: 'v', value: 4 },
    { args: ['-h'], flag: 'help', value: true },
    { args: ['-h=false'], flag: 'help', value: false },
    { args: ['--path', 'a,b', '--path=c'], flag: 'path', value: ['a', 'b', 'c'] },
    { args: ['--path', ''], flag: 'path', value: [] },
    { args: ['--wait', '1m'], flag: 'wait', value: 60_000 },
    { args: ['--waits', '250ms,500ms,1s,2s'], flag: 'waits', value: [250, 500, 1_000, 2_000] },
    { args: ['--'], flag: 'name', value: 'nobody' },
    { args: [], flag: 'path', value: ['fallback'] },
  ] as const)('reads $args as $flag = $value', ({ args, flag, value }) => {
    expect(valuesOf(...args)[flag]).toEqual(value);
  });

  it.each([
    { args: ['--nmae', 'x'], message: 'unknown flag "--nmae": did you mean --name?' },
    { args: ['--no-such-thing-at-all'], message: 'unknown flag "--no-such-thing-at-all": --help lists them' },
    { args: ['--constructor'], message: 'unknown flag "--constructor": --help lists them' },
    { args: ['--'.concat('=x')], message: 'unknown flag "--": --help lists them' },
    { args: ['-x'], message: 'unknown flag "-x": --help lists them' },
    { args: ['-hx'], message: 'unknown flag "-x": --help lists them' },
  ])('refuses the unknown flag in $args', ({ args, message }) => {
    expect(faultOf(...args)).toMatchObject({ code: 'ERR_FLAG_UNKNOWN', message });
  });

  it.each([
    { args: ['--v', 'x'], message: 'invalid argument "x" for --v: must be an integer from 0 to 9' },
    { args: ['-v10'], message: 'invalid argument "10" for --v: must be an integer from 0 to 9' },
    { args: ['-v', '-1'], message: 'invalid argument "-1" for --v: must be an integer from 0 to 9' },
    { args: ['-v', '1.5'], message: 'invalid argument "1.5" for --v: must be an integer from 0 to 9' },
    { args: ['--v='], message: 'invalid argument "" for --v: must be an integer from 0 to 9' },
    { args: ['--dry-run=yes'], message: 'invalid argument "yes" for --dry-run: must be true or false' },
    {
      args: ['--wait', '0'],
      message:
        'invalid argument "0" for --wait: must be a duration from 1ms to 576h0m0s, such as 250ms, 2s or 1h30m',
    },
    {
      args: ['--waits', '1s,,2s'],
      message:
        'invalid argument "1s,,2s" for --waits: must be one or more, separated by commas, each a duration from 1ms to 576h0m0s, such as 250ms, 2s or 1h30m',
    },
    { args: ['--name'], message: '--name needs a value: text' },
    { args: ['-v'], message: '--v needs a value: an integer from 0 to 9' },
    { args: ['--dry-run', 'next'], message: 'unexpected argument "next": only flags are accepted' },
    { args: ['web'], message: 'unexpected argument "web": only flags are accepted' },
    { args: ['-'], message: 'unexpected argument "-": only flags are accepted' },
    { args: ['--', '--name'], message: 'unexpected argument "--name": only flags are accepted' },
  ])('refuses $args and says what it accepts', ({ args, message }) => {
    expect(faultOf(...args)).toMatchObject({ code: 'ERR_FLAG_VALUE', message });
  });

  it('tells which flags were given, extras too, and never gives an extra a value of its own', () => {
    const { given, values } = parseFlags(['--old_name=x', '-v', '2'], TABLE, EXTRAS);
    expect([...given]).toEqual([
      ['old-name', 'x'],
      ['v', 2],
    ]);
    expect(values).not.toHaveProperty('old-name');
  });
});
