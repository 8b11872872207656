/** Every code is told on docs/errors.md, and every code is one that can really happen. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import {
  ERROR_CODES,
  PROBLEM_CODES,
  type Problem,
  ProxyError,
  errnoOf,
  errorText,
  isProxyError,
  problemKey,
} from '../src/errors.ts';
import { readSourceTexts } from './support/source-imports.ts';

const page = readFileSync(join(import.meta.dirname, '..', 'docs', 'errors.md'), 'utf8');

/** The codes in the first column of the table below a heading. */
function codesBelow(heading: string): readonly string[] {
  const section = page.split(/^## /m).find((text) => text.startsWith(heading)) ?? '';
  return [...section.matchAll(/^\| `(ERR_[A-Z0-9_]+)` \| [^|]+ \| [^|]+ \|$/gm)].map(([, code = '']) => code);
}

describe('docs/errors.md', () => {
  test('lists the faults that throw, in the order of the source', () => {
    expect(codesBelow('Faults')).toEqual(ERROR_CODES);
  });

  test('lists the problems in objects and files, in the order of the source', () => {
    expect(codesBelow('Problems')).toEqual(PROBLEM_CODES);
  });

  test('speaks of no code that does not exist', () => {
    const known: readonly string[] = [...ERROR_CODES, ...PROBLEM_CODES];
    const named = [...page.matchAll(/ERR_[A-Z0-9_]+/g)].map(([code]) => code);
    expect(named.filter((code) => !known.includes(code))).toEqual([]);
  });
});

describe('codes', () => {
  const texts = readSourceTexts().filter(({ path }) => path !== 'errors.ts');

  test.each([...ERROR_CODES])('%s is thrown somewhere', (code) => {
    const thrown = new RegExp(`new (?:Proxy|Api)Error\\(\\s*'${code}'`);
    expect(texts.filter(({ text }) => thrown.test(text)).map(({ path }) => path)).not.toEqual([]);
  });

  test.each([...PROBLEM_CODES])('%s is reported somewhere', (code) => {
    expect(texts.filter(({ text }) => text.includes(`'${code}'`)).map(({ path }) => path)).not.toEqual([]);
  });

  test('are each either a fault or a problem, and stand once', () => {
    const all: readonly string[] = [...ERROR_CODES, ...PROBLEM_CODES];
    expect(new Set(all).size).toBe(all.length);
    expect(
      all.filter((code) => !/^ERR_[A-Z0-9]+(?:_[A-Z0-9]+)+$/.test(code) && code !== 'ERR_ADDRESS'),
    ).toEqual([]);
  });

  test('are written nowhere in src that src/errors.ts does not know', () => {
    const known: readonly string[] = [...ERROR_CODES, ...PROBLEM_CODES];
    const unknown = texts.flatMap(({ path, text }) =>
      [...text.matchAll(/['`](ERR_[A-Z0-9_]+)['`]/g)]
        .map(([, code = '']) => code)
        .filter((code) => !known.includes(code))
        .map((code) => `${path}: ${code}`),
    );
    expect(unknown).toEqual([]);
  });
});

describe('a ProxyError', () => {
  const cause = Object.assign(new Error('connect failed'), { code: 'ECONNREFUSED' });
  const error = new ProxyError('ERR_LISTENER_OPEN', 'cannot listen', { cause });

  test('keeps its code and cause', () => {
    expect(error).toMatchObject({ name: 'ProxyError', code: 'ERR_LISTENER_OPEN', cause });
  });

  test('is known by its code, and not by another', () => {
    expect(isProxyError(error)).toBe(true);
    expect(isProxyError(error, 'ERR_LISTENER_OPEN')).toBe(true);
    expect(isProxyError(error, 'ERR_STATE_DIR')).toBe(false);
    expect(isProxyError(cause)).toBe(false);
    expect(isProxyError(undefined)).toBe(false);
  });

  test('is one line with its causes', () => {
    expect(errorText(error)).toBe('cannot listen: connect failed');
    expect(errorText(new Error('', { cause: 'why' }))).toBe('Error: why');
    expect(errorText('thrown text')).toBe('thrown text');
    expect(errorText(undefined)).toBe('undefined');
  });
});

describe('errnoOf', () => {
  test.each<{ name: string; error: unknown; errno: string | undefined }>([
    { name: 'a system error', error: Object.assign(new Error('x'), { code: 'EPIPE' }), errno: 'EPIPE' },
    { name: 'an error without code', error: new Error('x'), errno: undefined },
    { name: 'a code that is no text', error: { code: 17 }, errno: undefined },
    { name: 'null', error: null, errno: undefined },
    { name: 'text', error: 'EPIPE', errno: undefined },
  ])('of $name is $errno', ({ error, errno }) => {
    expect(errnoOf(error)).toBe(errno);
  });
});

describe('the key of a problem', () => {
  const problem: Problem = {
    code: 'ERR_SERVICE_INVALID',
    object: 'Service a/b',
    field: 'spec',
    message: 'm',
  };

  test('is the same for the same problem', () => {
    expect(problemKey({ ...problem })).toBe(problemKey(problem));
  });

  test.each<Partial<Problem>>([
    { code: 'ERR_SERVICE_CONFLICT' },
    { object: 'Service a/c' },
    { field: 'spec.ports' },
    { message: 'n' },
  ])('differs with %j', (difference) => {
    expect(problemKey({ ...problem, ...difference })).not.toBe(problemKey(problem));
  });
});
