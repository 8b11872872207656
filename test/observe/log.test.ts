/** The real pino logger, writing into a sink or a child process's standard output. */
import { spawn, spawnSync } from 'node:child_process';
import { openSync } from 'node:fs';
import { Writable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { setImmediate } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { ProxyError } from '../../src/errors.ts';
import type { Logger } from '../../src/log.ts';
import { boundedDestination, createLogger } from '../../src/observe/log.ts';
import { LogSink } from '../support/log-sink.ts';

const clock = { wallTime: () => Date.UTC(2026, 10, 21, 6, 30) };

function makeLogger(verbosity: number): { log: Logger; sink: LogSink } {
  const sink = new LogSink();
  return { log: createLogger({ verbosity, destination: sink, clock }), sink };
}

test('a line is one JSON object with level, time, the fields and msg, and nothing else', () => {
  const { log, sink } = makeLogger(0);

  log.info({ servicePort: 'default/web:http', listeners: 2 }, 'Listener opened');

  expect(sink.text).toBe(
    '{"level":"info","time":"2026-11-21T06:30:00.000Z","servicePort":"default/web:http","listeners":2,"msg":"Listener opened"}\n',
  );
});

test('a message with a percent sign stays as it is', () => {
  const { log, sink } = makeLogger(0);

  log.warn({ value: 'x' }, '100%s full');

  expect(sink.lines[0]).toMatchObject({ level: 'warn', msg: '100%s full' });
});

test.each([
  { verbosity: 0, levels: ['error', 'warn', 'info'] },
  { verbosity: 1, levels: ['error', 'warn', 'info'] },
  { verbosity: 2, levels: ['error', 'warn', 'info', 'debug'] },
  { verbosity: 3, levels: ['error', 'warn', 'info', 'debug'] },
  { verbosity: 4, levels: ['error', 'warn', 'info', 'debug', 'trace'] },
  { verbosity: 10, levels: ['error', 'warn', 'info', 'debug', 'trace'] },
])('-v $verbosity writes $levels', ({ verbosity, levels }) => {
  const { log, sink } = makeLogger(verbosity);

  for (const level of ['error', 'warn', 'info', 'debug', 'trace'] as const) log[level]({}, 'hello');

  expect(sink.lines.map((line) => line['level'])).toEqual(levels);
  expect(log.isLevelEnabled('debug')).toBe(levels.includes('debug'));
  expect(log.isLevelEnabled('trace')).toBe(levels.includes('trace'));
});

test('an Error in the field error shows its code and the whole chain of causes', () => {
  const { log, sink } = makeLogger(0);
  const root = Object.assign(new Error('listen EADDRINUSE'), { code: 'EADDRINUSE' });
  const middle = new Error('wrapped', { cause: root });

  log.error({ error: new ProxyError('ERR_HTTP_BIND', 'cannot serve', { cause: middle }) }, 'Cannot bind');

  expect(sink.lines[0]?.['error']).toEqual({
    type: 'ProxyError',
    message: 'cannot serve',
    code: 'ERR_HTTP_BIND',
    cause: {
      type: 'Error',
      message: 'wrapped',
      stack: expect.stringContaining('log.test.ts') as unknown,
      cause: { type: 'Error', message: 'listen EADDRINUSE', code: 'EADDRINUSE' },
    },
  });
});

test('the errors of an AggregateError are shown, and what is no Error is shown as it is', () => {
  const { log, sink } = makeLogger(0);
  const refused = Object.assign(new Error('connect'), { code: 'ECONNREFUSED' });

  log.warn({ error: Object.assign(new AggregateError([refused, 'odd']), { code: 'ECONNREFUSED' }) }, 'first');
  log.warn({ error: 'a string' }, 'second');

  expect(sink.lines[0]?.['error']).toMatchObject({ errors: [{ code: 'ECONNREFUSED' }, 'odd'] });
  expect(sink.lines[1]?.['error']).toBe('a string');
});

test('a chain of causes that bites its own tail is cut and harms nothing', () => {
  const { log, sink } = makeLogger(0);
  const error = new Error('loop');
  error.cause = error;

  log.error({ error }, 'odd');

  expect(sink.lines).toHaveLength(1);
});

const PROGRAM = `
  import { createLogger } from ${JSON.stringify(new URL('../../src/observe/log.ts', import.meta.url).href)};
  const log = createLogger({ verbosity: 0 });
  log.info({ number: 1 }, 'written');
  log.info({ number: 2 }, 'written');
  process.exit(7);
`;

test('without a destination the lines go to standard output, all of them before an exit', () => {
  const child = spawnSync(process.execPath, ['--input-type=module', '-e', PROGRAM], { encoding: 'utf8' });

  expect(child.stderr).toBe('');
  expect(child.status).toBe(7);
  expect(
    child.stdout
      .trimEnd()
      .split('\n')
      .map((line) => (JSON.parse(line) as { number: number }).number),
  ).toEqual([1, 2]);
});

test('a full disk under the log loses lines and never ends the process', () => {
  const full = openSync('/dev/full', 'w');

  const child = spawnSync(process.execPath, ['--input-type=module', '-e', PROGRAM], {
    encoding: 'utf8',
    stdio: ['ignore', full, 'pipe'],
  });

  expect(child.stderr).toBe('');
  expect(child.status).toBe(7);
});

test('a reader that has stopped loses lines and never stops the process', async () => {
  const url = JSON.stringify(new URL('../../src/observe/log.ts', import.meta.url).href);
  const program = `
    import { createLogger } from ${url};
    const log = createLogger({ verbosity: 0 });
    for (let line = 0; line < 20_000; line += 1) log.info({ filler: 'x'.repeat(200) }, 'written');
    process.stderr.write('still here');
    process.exit(7);
  `;
  const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  // Nobody reads child.stdout: 4 MB of lines meet a pipe of 64 KiB.
  const said = text(child.stderr);
  const { promise, resolve } = Promise.withResolvers<number | null>();
  child.once('exit', resolve);

  expect(await promise).toBe(7);
  expect(await said).toBe('still here');
  child.stdout.destroy();
});

test('lines that were dropped are counted when there is room again', async () => {
  const written: string[] = [];
  let drain: (() => void) | undefined;
  const slow = new Writable({
    decodeStrings: false,
    write: (line: string, _encoding, done) => {
      written.push(line);
      drain = done;
    },
  });
  const log = createLogger({ verbosity: 0, destination: boundedDestination(slow) });
  for (let line = 0; line < 6; line += 1) log.info({ filler: 'x'.repeat(300_000) }, 'written');
  while (slow.writableLength > 0) {
    drain?.();
    await setImmediate();
  }
  log.info({}, 'room again');
  drain?.();
  await setImmediate();

  const lines = written.map((line) => JSON.parse(line) as { msg: string; dropped?: number });
  expect(lines.map(({ msg }) => msg)).toEqual([
    ...Array<string>(4).fill('written'),
    'Log lines dropped',
    'room again',
  ]);
  expect(lines[4]).toMatchObject({ level: 'warn', dropped: 2 });
});
