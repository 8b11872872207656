/**
 * What the fake API server is willing to be asked. Everything else is refused, and counts as unexpected: either
 * the client is wrong, or the fake has to learn something.
 */
import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';
import { TLSSocket } from 'node:tls';
import {
  type FakePath,
  type FakeResource,
  PATHS,
  type Selection,
  labelSelection,
  nameSelection,
} from './fake-api-objects.ts';

export type FakeOperation = 'list' | 'watch';

export interface FakeClientCertificate {
  /** `CN=kube-proxy,O=system:node-proxier`, in the order of the certificate. */
  readonly subject: string;
  /** SHA-256, as `AB:CD:…`. */
  readonly fingerprint: string;
}

/** A request as it was recorded. */
export interface FakeApiRequest {
  readonly method: string;
  readonly path: string;
  readonly query: URLSearchParams;
  readonly headers: IncomingHttpHeaders;
  /** `performance.now()` at its arrival. */
  readonly at: number;
  /** The ordinal of its TCP connection, from 1. */
  readonly connection: number;
  /** `undefined` for a path that is none of ours. */
  readonly resource: FakeResource | undefined;
  readonly operation: FakeOperation | undefined;
  readonly authorization: string | undefined;
  readonly userAgent: string | undefined;
  readonly clientCertificate: FakeClientCertificate | undefined;
}

export type Question =
  | {
      readonly operation: 'list';
      readonly path: FakePath;
      readonly selects: Selection;
      readonly hasSelector: boolean;
      /** `undefined`: the newest. */
      readonly resourceVersion: number | undefined;
      /** 0: no limit. */
      readonly limit: number;
      readonly token: string | undefined;
    }
  | {
      readonly operation: 'watch';
      readonly path: FakePath;
      readonly selects: Selection;
      readonly resourceVersion: number;
      readonly timeoutSeconds: number;
    };

export interface Refusal {
  readonly code: 400 | 404 | 405 | 406;
  readonly why: string;
}

export function recordedFrom(message: IncomingMessage, connection: number): FakeApiRequest {
  const url = new URL(message.url ?? '/', 'http://localhost');
  const path = PATHS[url.pathname];
  return {
    method: message.method ?? '',
    path: url.pathname,
    query: url.searchParams,
    headers: message.headers,
    at: performance.now(),
    connection,
    resource: path?.resource,
    operation: path === undefined ? undefined : url.searchParams.has('watch') ? 'watch' : 'list',
    authorization: message.headers.authorization,
    userAgent: message.headers['user-agent'],
    clientCertificate: certificateOf(message),
  };
}

function certificateOf({ socket }: IncomingMessage): FakeClientCertificate | undefined {
  if (!(socket instanceof TLSSocket)) return undefined;
  const certificate = socket.getPeerX509Certificate();
  if (certificate === undefined) return undefined;
  return { subject: certificate.subject.replaceAll('\n', ','), fingerprint: certificate.fingerprint256 };
}

const WHOLE_NUMBER = /^\d{1,15}$/;
const LIST_PARAMETERS: readonly string[] = [
  'resourceVersion',
  'limit',
  'continue',
  'labelSelector',
  'fieldSelector',
];
const WATCH_PARAMETERS: readonly string[] = [
  'watch',
  'resourceVersion',
  'allowWatchBookmarks',
  'timeoutSeconds',
  'labelSelector',
  'fieldSelector',
];

/** What is asked, or why it is refused. */
export function questionFrom(request: FakeApiRequest): Question | Refusal {
  const { query, headers } = request;
  const path = PATHS[request.path];
  if (path === undefined) return { code: 404, why: 'unknown path' };
  if (request.method !== 'GET') return { code: 405, why: 'only GET is allowed' };
  if ('transfer-encoding' in headers || Number(headers['content-length'] ?? 0) > 0) return refused('a body');
  if (headers.accept !== undefined && !/application\/json|\*\/\*/.test(headers.accept)) {
    return { code: 406, why: `accept ${headers.accept}` };
  }
  const parameters = request.operation === 'watch' ? WATCH_PARAMETERS : LIST_PARAMETERS;
  for (const name of new Set(query.keys())) {
    if (!parameters.includes(name)) return refused(`unknown query parameter ${name}`);
    if (query.getAll(name).length > 1) return refused(`repeated query parameter ${name}`);
  }
  const selects = selectionFrom(path, query);
  if (typeof selects !== 'function') return selects;
  return request.operation === 'watch' ? watchFrom(path, selects, query) : listFrom(path, selects, query);
}

function refused(why: string): Refusal {
  return { code: 400, why };
}

function selectionFrom(path: FakePath, query: URLSearchParams): Selection | Refusal {
  const labels = query.get('labelSelector');
  const fields = query.get('fieldSelector');
  if (fields !== null && path.resource !== 'nodes') return refused(`fieldSelector for ${path.resource}`);
  const byLabel = labels === null ? () => true : labelSelection(labels);
  const byName = fields === null ? () => true : nameSelection(fields);
  if (byLabel === undefined) return refused(`labelSelector ${labels}`);
  if (byName === undefined) return refused(`fieldSelector ${fields}`);
  return (object) => byLabel(object) && byName(object);
}

function listFrom(path: FakePath, selects: Selection, query: URLSearchParams): Question | Refusal {
  const version = query.get('resourceVersion');
  const limit = query.get('limit');
  const token = query.get('continue');
  if (version !== null && !WHOLE_NUMBER.test(version)) return refused(`resourceVersion ${version}`);
  if (limit !== null && !WHOLE_NUMBER.test(limit)) return refused(`limit ${limit}`);
  if (token !== null && version !== null) return refused('resourceVersion together with continue');
  // A real server takes it for "exactly that version", which fails as soon as etcd has been compacted.
  if (limit !== null && version !== null && version !== '0') return refused('limit with a resourceVersion');
  return {
    operation: 'list',
    path,
    selects,
    hasSelector: query.has('labelSelector') || query.has('fieldSelector'),
    resourceVersion: version === null ? undefined : Number(version),
    limit: version === null ? Number(limit ?? 0) : 0,
    token: token ?? undefined,
  };
}

function watchFrom(path: FakePath, selects: Selection, query: URLSearchParams): Question | Refusal {
  const version = query.get('resourceVersion') ?? '';
  const timeout = query.get('timeoutSeconds') ?? '';
  if (!/^(1|true)$/.test(query.get('watch') ?? '')) return refused(`watch ${query.get('watch')}`);
  // From 0 a real server would first send all objects as ADDED: no client that has listed wants that.
  if (!WHOLE_NUMBER.test(version) || Number(version) === 0) {
    return refused(`a watch from resourceVersion ${JSON.stringify(version)}`);
  }
  if (!WHOLE_NUMBER.test(timeout) || Number(timeout) === 0) return refused('a watch without timeoutSeconds');
  if (!/^(1|true)$/.test(query.get('allowWatchBookmarks') ?? '')) {
    return refused('a watch without allowWatchBookmarks');
  }
  return {
    operation: 'watch',
    path,
    selects,
    resourceVersion: Number(version),
    timeoutSeconds: Number(timeout),
  };
}
