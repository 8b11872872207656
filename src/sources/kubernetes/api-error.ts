/**
 * What can go wrong between us and an API server, classified once: here, and nowhere else, the codes of Node and
 * undici and the Status objects of Kubernetes (apimachinery `pkg/api/errors`) are read.
 */
import { type ApiErrorCode, ProxyError, errnoOf } from '../../errors.ts';
import { isJsonMap } from '../objects/field-reader.ts';

export interface ApiErrorDetails {
  readonly cause?: unknown;
  /** HTTP status, or the code of an ERROR event. */
  readonly status?: number;
  /** `metav1.Status` reason, such as `Expired`. */
  readonly reason?: string;
  /** What the server asked us to wait. */
  readonly retryAfterMs?: number;
  /** The server knows no resource version as new as the one we named. */
  readonly isVersionTooLarge?: boolean;
}

export class ApiError extends ProxyError {
  readonly status: number | undefined;
  readonly reason: string | undefined;
  readonly retryAfterMs: number | undefined;
  readonly isVersionTooLarge: boolean;

  constructor(code: ApiErrorCode, message: string, details: ApiErrorDetails = {}) {
    super(code, message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = 'ApiError';
    this.status = details.status;
    this.reason = details.reason;
    this.retryAfterMs = details.retryAfterMs;
    this.isVersionTooLarge = details.isVersionTooLarge ?? false;
  }

  /** The resource version or the `continue` token is too old: what happened since can only be seen by a list. */
  get isExpired(): boolean {
    return this.status === 410 || this.reason === 'Expired' || this.reason === 'Gone';
  }

  /** Nobody took the connection: the server's process or its machine is away, or the way there is cut. */
  get isUnreachable(): boolean {
    return this.code === 'ERR_API_UNREACHABLE';
  }

  /** The server had something to say, be it nonsense. */
  get isAnswer(): boolean {
    return this.code === 'ERR_API_STATUS' || this.code === 'ERR_API_RESPONSE';
  }

  /** Another server may do better. A 4xx is an answer to what we asked, and would be the same elsewhere. */
  get isServerFault(): boolean {
    if (this.code === 'ERR_API_STATUS') return (this.status ?? 0) >= 500 && !this.isVersionTooLarge;
    return this.code !== 'ERR_API_CREDENTIALS';
  }
}

const UNREACHABLE: ReadonlySet<string> = new Set([
  'ECONNREFUSED',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'EHOSTDOWN',
  'ENETDOWN',
  'EADDRNOTAVAIL',
  'ENOTFOUND',
  'EAI_AGAIN',
  'ETIMEDOUT',
  'UND_ERR_CONNECT_TIMEOUT',
]);
/** OpenSSL could not make a connection's context of what it was given: our certificate or key. */
const OWN_TLS_FAULT = /^ERR_(?:OSSL)_(?:PEM|X509|UNSUPPORTED)/;
const STALLED: ReadonlySet<string> = new Set([
  'UND_ERR_BODY_TIMEOUT',
  'UND_ERR_HEADERS_TIMEOUT',
  // Of AbortSignal.timeout: the whole answer took too long.
  'TimeoutError',
]);

/** Anything that `request` and its body throw. */
export function apiErrorFromFault(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  const name = error instanceof Error ? error.name : '';
  const errno = errnoOf(error) ?? name;
  if (UNREACHABLE.has(errno)) {
    return new ApiError('ERR_API_UNREACHABLE', 'the API server cannot be reached', { cause: error });
  }
  if (OWN_TLS_FAULT.test(errno)) {
    return new ApiError('ERR_API_CREDENTIALS', 'the TLS certificate or key cannot be used', {
      cause: error,
    });
  }
  if (STALLED.has(errno) || STALLED.has(name)) {
    return new ApiError('ERR_API_STALLED', 'the API server has fallen silent', { cause: error });
  }
  return new ApiError('ERR_API_CONNECTION', 'the connection to the API server broke', { cause: error });
}

/** An answer that is no success. `body` is what came with it, parsed if it is JSON. */
export function apiErrorFromAnswer(answer: {
  readonly status: number;
  readonly body: unknown;
  readonly retryAfter: string | undefined;
}): ApiError {
  const { message, details } = statusFields(answer.body);
  const retryAfterMs = retryAfterFromHeader(answer.retryAfter);
  return new ApiError('ERR_API_STATUS', `the API server answered ${answer.status}${message}`, {
    ...details,
    status: answer.status,
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
  });
}

/** The object of an ERROR event in a watch. */
export function apiErrorFromEvent(object: unknown): ApiError {
  const { message, details } = statusFields(object);
  const code = isJsonMap(object) && typeof object['code'] === 'number' ? object['code'] : undefined;
  return new ApiError('ERR_API_STATUS', `the watch was ended with an error${message}`, {
    ...details,
    ...(code === undefined ? {} : { status: code }),
  });
}

function statusFields(body: unknown): { readonly message: string; readonly details: ApiErrorDetails } {
  if (!isJsonMap(body)) return { message: '', details: {} };
  const reason = typeof body['reason'] === 'string' ? body['reason'] : undefined;
  const text = typeof body['message'] === 'string' ? body['message'] : '';
  const details = isJsonMap(body['details']) ? body['details'] : {};
  const causes: readonly unknown[] = Array.isArray(details['causes']) ? details['causes'] : [];
  // API servers before 1.17 name no cause.
  const isVersionTooLarge =
    causes.some((cause) => isJsonMap(cause) && cause['reason'] === 'ResourceVersionTooLarge') ||
    text.includes('Too large resource version');
  const seconds = details['retryAfterSeconds'];
  return {
    message: text === '' ? '' : `: ${text.slice(0, 300)}`,
    details: {
      isVersionTooLarge,
      ...(reason === undefined ? {} : { reason }),
      ...(typeof seconds === 'number' && seconds > 0 ? { retryAfterMs: seconds * 1000 } : {}),
    },
  };
}

/** RFC 9110, 10.2.3: seconds, which is what API servers send; a date is not understood. */
function retryAfterFromHeader(value: string | undefined): number | undefined {
  return value !== undefined && /^\d{1,9}$/.test(value) ? Number(value) * 1000 : undefined;
}
