/**
 * Every error class and code of the proxy. A code never changes its meaning; `docs/errors.md` lists them all
 * (a test compares the two). Callers match on `code` or on the predicates, never on message text.
 */

/** Codes of faults between us and an API server. */
export const API_ERROR_CODES = [
  'ERR_API_CREDENTIALS',
  'ERR_API_UNREACHABLE',
  'ERR_API_CONNECTION',
  'ERR_API_STALLED',
  'ERR_API_STATUS',
  'ERR_API_RESPONSE',
] as const;

/** Codes of faults that throw. */
export const ERROR_CODES = [
  'ERR_FLAG_UNKNOWN',
  'ERR_FLAG_VALUE',
  'ERR_EXEC_NOT_FOUND',
  'ERR_EXEC_FAILED',
  'ERR_EXEC_TIMEOUT',
  'ERR_IPTABLES_UNAVAILABLE',
  'ERR_IPTABLES_RESTORE',
  'ERR_IPTABLES_LOCKED',
  'ERR_IPTABLES_PARSE',
  'ERR_OWNERSHIP_LOST',
  'ERR_INSTANCE_RUNNING',
  'ERR_CONNTRACK_LIST',
  'ERR_CONNTRACK_DELETE',
  'ERR_SYSCTL_WRITE',
  'ERR_PROXY_PORTS_EXHAUSTED',
  'ERR_DESCRIPTORS_EXHAUSTED',
  'ERR_ENGINE_UNAVAILABLE',
  'ERR_LISTENER_OPEN',
  'ERR_STATE_DIR',
  'ERR_ADDRESS',
  'ERR_HTTP_BIND',
  'ERR_SYNC_FAILED',
  ...API_ERROR_CODES,
] as const;

/** Codes of problems in objects or files: reported, never thrown across a room. */
export const PROBLEM_CODES = [
  'ERR_SERVICE_INVALID',
  'ERR_SERVICE_CONFLICT',
  'ERR_SERVICE_UNSUPPORTED',
  'ERR_ENDPOINT_INVALID',
  'ERR_ENDPOINT_CAPTURED',
  'ERR_ENDPOINTSLICE_ORPHAN',
  'ERR_NODE_ADDRESS',
  'ERR_API_OBJECT_INVALID',
  'ERR_MANIFEST_SYNTAX',
  'ERR_MANIFEST_INVALID',
  'ERR_MANIFEST_DUPLICATE',
  'ERR_MANIFEST_UNREADABLE',
] as const;

export type ApiErrorCode = (typeof API_ERROR_CODES)[number];
export type ErrorCode = (typeof ERROR_CODES)[number];
export type ProblemCode = (typeof PROBLEM_CODES)[number];

/** A fault with a stable code. `message` quotes the offending value; `cause` keeps the original error. */
export class ProxyError extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = 'ProxyError';
    this.code = code;
  }
}

/**
 * Something wrong with one object or file that must harm nothing else. `object` names it the way an operator
 * would type it (`Service default/web`, `web.yaml document 2`), `field` is the path inside it ('' when the
 * object as a whole is meant).
 */
export interface Problem {
  readonly code: ProblemCode;
  readonly object: string;
  readonly field: string;
  readonly message: string;
}

/** Identity of a problem, to report each once and to notice when it has gone. */
export function problemKey(problem: Problem): string {
  return `${problem.code}|${problem.object}|${problem.field}|${problem.message}`;
}

export function isProxyError(error: unknown, code?: ErrorCode): error is ProxyError {
  return error instanceof ProxyError && (code === undefined || error.code === code);
}

/** The text of anything that was thrown, causes included, on one line. */
export function errorText(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const own = ownText(error)
    .replaceAll(/\s*\n\s*/g, ' ')
    .trim();
  return error.cause === undefined ? own : `${own}: ${errorText(error.cause)}`;
}

/** Of a host name with several addresses Node gives one error for each, and a message to none of them all. */
function ownText(error: Error): string {
  if (error.message !== '') return error.message;
  return error instanceof AggregateError ? error.errors.map(errorText).join(', ') : error.name;
}

/** The `errno`-style code of a system error (`ECONNREFUSED`), or undefined for anything else. */
export function errnoOf(error: unknown): string | undefined {
  if (typeof error !== 'object' || error === null || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}
