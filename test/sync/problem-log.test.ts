import { expect, test } from 'vitest';
import type { Problem } from '../../src/errors.ts';
import { ProblemLog } from '../../src/sync/problem-log.ts';
import { RecordingLogger } from '../support/recording-logger.ts';

function makeProblem(tweak: Partial<Problem> = {}): Problem {
  return {
    code: 'ERR_SERVICE_INVALID',
    object: 'Service default/web',
    field: 'spec.ports[0].port',
    message: '70000 is outside 1 to 65535',
    ...tweak,
  };
}

function makeLog(): { readonly log: ProblemLog; readonly logger: RecordingLogger } {
  const logger = new RecordingLogger();
  return { log: new ProblemLog(logger), logger };
}

test('a problem is told once, with its object and field, however often the state is recomputed', () => {
  const { log, logger } = makeLog();

  for (let pass = 0; pass < 5; pass += 1) log.update([makeProblem()]);

  expect(logger.lines).toEqual([
    {
      level: 'warn',
      message: 'Invalid object',
      fields: {
        code: 'ERR_SERVICE_INVALID',
        object: 'Service default/web',
        field: 'spec.ports[0].port',
        problem: '70000 is outside 1 to 65535',
      },
    },
  ]);
});

test('a problem that has gone is told once, and told again when it comes back', () => {
  const { log, logger } = makeLog();
  log.update([makeProblem()]);

  log.update([]);
  log.update([]);
  log.update([makeProblem()]);

  expect(logger.lines.map(({ level, message }) => `${level}: ${message}`)).toEqual([
    'warn: Invalid object',
    'info: Invalid object mended or gone',
    'warn: Invalid object',
  ]);
});

test.each<{ name: string; tweak: Partial<Problem> }>([
  { name: 'code', tweak: { code: 'ERR_SERVICE_CONFLICT' } },
  { name: 'object', tweak: { object: 'Service default/api' } },
  { name: 'field', tweak: { field: 'spec.ports[1].port' } },
  { name: 'message', tweak: { message: '0 is outside 1 to 65535' } },
])('a problem with another $name is another problem', ({ tweak }) => {
  const { log, logger } = makeLog();
  log.update([makeProblem()]);

  log.update([makeProblem(tweak)]);

  expect(logger.at('warn')).toHaveLength(2);
  expect(logger.at('info')).toHaveLength(1);
});

test('the same problem from two sources is one', () => {
  const { log, logger } = makeLog();

  log.update([makeProblem(), makeProblem()]);

  expect(logger.lines).toHaveLength(1);
  expect(log.countByCode().ERR_SERVICE_INVALID).toBe(1);
});

test('problems that exist now are counted by code, and every code has a count', () => {
  const { log } = makeLog();
  log.update([makeProblem(), makeProblem({ field: 'other' }), makeProblem({ code: 'ERR_SERVICE_CONFLICT' })]);
  log.update([makeProblem(), makeProblem({ code: 'ERR_SERVICE_CONFLICT' })]);

  expect(log.countByCode()).toMatchObject({
    ERR_SERVICE_INVALID: 1,
    ERR_SERVICE_CONFLICT: 1,
    ERR_ENDPOINT_CAPTURED: 0,
  });
});
