/** What can go wrong with an API server, told apart once and for all. */
import { describe, expect, test } from 'vitest';
import { errorText } from '../../../src/errors.ts';
import {
  ApiError,
  apiErrorFromAnswer,
  apiErrorFromEvent,
  apiErrorFromFault,
} from '../../../src/sources/kubernetes/api-error.ts';
import { MAX_BACKOFF_MS } from '../../../src/sources/kubernetes/backoff.ts';

function systemError(code: string): Error {
  return Object.assign(new Error(`connect ${code} 192.0.2.1:6443`), { code });
}

function answer(status: number, body: unknown = {}, retryAfter?: string): ApiError {
  return apiErrorFromAnswer({ status, body, retryAfter });
}

describe('a fault of a request', () => {
  test.for([
    ...['ECONNREFUSED', 'EHOSTUNREACH', 'ENETUNREACH', 'ENOTFOUND', 'EAI_AGAIN', 'ETIMEDOUT'].map((code) => ({
      name: code,
      fault: systemError(code),
      code: 'ERR_API_UNREACHABLE',
    })),
    {
      name: 'a connect time-out',
      fault: systemError('UND_ERR_CONNECT_TIMEOUT'),
      code: 'ERR_API_UNREACHABLE',
    },
    {
      name: 'a refusal at every address of a name',
      fault: Object.assign(new AggregateError([systemError('ECONNREFUSED')]), { code: 'ECONNREFUSED' }),
      code: 'ERR_API_UNREACHABLE',
    },
    {
      name: 'silence before the answer',
      fault: systemError('UND_ERR_HEADERS_TIMEOUT'),
      code: 'ERR_API_STALLED',
    },
    { name: 'silence in the answer', fault: systemError('UND_ERR_BODY_TIMEOUT'), code: 'ERR_API_STALLED' },
    { name: 'a deadline', fault: new DOMException('too long', 'TimeoutError'), code: 'ERR_API_STALLED' },
    { name: 'being given up', fault: new DOMException('stop', 'AbortError'), code: 'ERR_API_CONNECTION' },
    { name: 'ECONNRESET', fault: systemError('ECONNRESET'), code: 'ERR_API_CONNECTION' },
    { name: 'EPIPE', fault: systemError('EPIPE'), code: 'ERR_API_CONNECTION' },
    { name: 'a certificate', fault: systemError('DEPTH_ZERO_SELF_SIGNED_CERT'), code: 'ERR_API_CONNECTION' },
    { name: 'a broken socket', fault: systemError('UND_ERR_SOCKET'), code: 'ERR_API_CONNECTION' },
    { name: 'a fault of ours', fault: new TypeError('x is no function'), code: 'ERR_API_CONNECTION' },
    { name: 'text', fault: 'ECONNREFUSED', code: 'ERR_API_CONNECTION' },
    { name: 'nothing', fault: undefined, code: 'ERR_API_CONNECTION' },
  ])('$name is $code, and keeps its cause', ({ fault, code }) => {
    const error = apiErrorFromFault(fault);
    expect(error).toMatchObject({ code, status: undefined, retryAfterMs: undefined });
    expect(error.cause).toBe(fault);
    expect(error.isUnreachable).toBe(code === 'ERR_API_UNREACHABLE');
    expect(error.isServerFault).toBe(true);
    expect(error.isExpired).toBe(false);
  });

  test.for([
    'ERR_OSSL_PEM_NO_START_LINE',
    'ERR_OSSL_PEM_BAD_BASE64_DECODE',
    'ERR_OSSL_PEM_BAD_END_LINE',
    'ERR_OSSL_X509_KEY_VALUES_MISMATCH',
  ])('%s is of our own certificate, key or CA: no fault of the server', (code) => {
    const fault = systemError(code);
    const error = apiErrorFromFault(fault);
    expect(error).toMatchObject({
      code: 'ERR_API_CREDENTIALS',
      isServerFault: false,
      isUnreachable: false,
      isAnswer: false,
    });
    expect(error.cause).toBe(fault);
  });

  test('that was told apart already stays as it is', () => {
    const error = new ApiError('ERR_API_CREDENTIALS', 'no token');
    expect(apiErrorFromFault(error)).toBe(error);
  });

  test('reads with the words of its cause', () => {
    expect(errorText(apiErrorFromFault(systemError('ECONNREFUSED')))).toBe(
      'the API server cannot be reached: connect ECONNREFUSED 192.0.2.1:6443',
    );
  });
});

describe('an answer', () => {
  test('has the words of a Status, of plain text, and of nothing at all', () => {
    expect(answer(403, { message: 'services is forbidden' }).message).toBe(
      'the API server answered 403: services is forbidden',
    );
    for (const body of [{}, [], null, undefined, 'text', 17, { message: 17 }, { message: '' }]) {
      expect(answer(503, body).message).toBe('the API server answered 503');
    }
  });

  test('is cut where somebody says too much', () => {
    expect(answer(500, { message: 'x'.repeat(100_000) }).message.length).toBeLessThan(400);
  });

  test.for([
    { name: 'the status 410', error: answer(410), isExpired: true },
    { name: 'the reason Expired', error: answer(400, { reason: 'Expired' }), isExpired: true },
    { name: 'the reason Gone', error: answer(500, { reason: 'Gone' }), isExpired: true },
    { name: 'the status 404', error: answer(404, { reason: 'NotFound' }), isExpired: false },
    { name: 'the status 504', error: answer(504, { reason: 'Timeout' }), isExpired: false },
  ])('with $name: is the version expired?', ({ error, isExpired }) => {
    expect(error.isExpired).toBe(isExpired);
  });

  test.for([
    { name: '400', error: answer(400), isServerFault: false },
    { name: '401', error: answer(401), isServerFault: false },
    { name: '403', error: answer(403), isServerFault: false },
    { name: '404', error: answer(404), isServerFault: false },
    { name: '410', error: answer(410), isServerFault: false },
    { name: '429', error: answer(429), isServerFault: false },
    { name: '500', error: answer(500), isServerFault: true },
    { name: '503', error: answer(503), isServerFault: true },
    { name: 'no status', error: apiErrorFromEvent({}), isServerFault: false },
    { name: 'no credentials', error: new ApiError('ERR_API_CREDENTIALS', ''), isServerFault: false },
    { name: 'no sense', error: new ApiError('ERR_API_RESPONSE', ''), isServerFault: true },
  ])('with $name: may another server do better?', ({ error, isServerFault }) => {
    expect(error.isServerFault).toBe(isServerFault);
  });

  test.for([
    {
      name: 'as a cause',
      body: {
        reason: 'Timeout',
        details: { causes: [{ reason: 'Other' }, { reason: 'ResourceVersionTooLarge' }] },
      },
      isVersionTooLarge: true,
    },
    {
      name: 'in words, as servers before 1.17',
      body: { message: 'Timeout: Too large resource version: 9, current: 7' },
      isVersionTooLarge: true,
    },
    {
      name: 'not at all',
      body: { reason: 'Timeout', details: { causes: [{ reason: 'Other' }, null] } },
      isVersionTooLarge: false,
    },
    { name: 'with causes that are no list', body: { details: { causes: {} } }, isVersionTooLarge: false },
  ])('of 504 that says $name that the version is too large', ({ body, isVersionTooLarge }) => {
    expect(answer(504, body)).toMatchObject({ isVersionTooLarge, isServerFault: !isVersionTooLarge });
  });

  test.for([
    { name: 'seconds in the header', error: answer(429, {}, '3'), retryAfterMs: 3000 },
    { name: 'none in the header', error: answer(429, {}, '0'), retryAfterMs: 0 },
    {
      name: 'seconds in the Status',
      error: answer(429, { details: { retryAfterSeconds: 2 } }),
      retryAfterMs: 2000,
    },
    {
      name: 'both: the header',
      error: answer(429, { details: { retryAfterSeconds: 2 } }, '5'),
      retryAfterMs: 5000,
    },
    { name: 'a date', error: answer(429, {}, 'Sat, 21 Nov 2026 10:00:00 GMT'), retryAfterMs: undefined },
    {
      name: 'a negative number',
      error: answer(429, { details: { retryAfterSeconds: -2 } }, '-5'),
      retryAfterMs: undefined,
    },
    {
      name: 'text',
      error: answer(429, { details: { retryAfterSeconds: '2' } }, 'soon'),
      retryAfterMs: undefined,
    },
    {
      name: 'no number',
      error: answer(429, { details: { retryAfterSeconds: Number.NaN } }),
      retryAfterMs: undefined,
    },
  ])('asks to wait: $name', ({ error, retryAfterMs }) => {
    expect(error.retryAfterMs).toBe(retryAfterMs);
  });

  test('that asks to wait for years is a number all the same, for the pause to bound', () => {
    const { retryAfterMs } = answer(429, {}, '999999999');
    expect(retryAfterMs).toBeGreaterThan(MAX_BACKOFF_MS);
    expect(Number.isFinite(retryAfterMs)).toBe(true);
  });
});

describe('an ERROR event', () => {
  test('has the code and the words of its Status', () => {
    const error = apiErrorFromEvent({
      kind: 'Status',
      code: 410,
      reason: 'Expired',
      message: 'too old resource version',
    });
    expect(error).toMatchObject({ code: 'ERR_API_STATUS', status: 410, reason: 'Expired', isExpired: true });
    expect(error.message).toBe('the watch was ended with an error: too old resource version');
  });

  test.for([undefined, null, 'text', 17, [], {}, { code: '410' }, { reason: 7, details: [] }])(
    'of %j is one without a code',
    (object) => {
      expect(apiErrorFromEvent(object)).toMatchObject({
        code: 'ERR_API_STATUS',
        status: undefined,
        isExpired: false,
      });
    },
  );
});
