/** What an API server says of its clients: its audit log, request by request, and its own counters. */
import { readFile } from 'node:fs/promises';
import type { ApiClient } from './cluster-api.ts';

/** Metadata of every request but the server's own to itself. */
export const AUDIT_POLICY = {
  apiVersion: 'audit.k8s.io/v1',
  kind: 'Policy',
  omitStages: ['RequestReceived'],
  rules: [{ level: 'None', users: ['system:apiserver'] }, { level: 'Metadata' }],
};

export interface AuditedRequest {
  readonly user: string;
  readonly userAgent: string;
  /** The client's address. */
  readonly from: string;
  /** `get`, `list`, `watch`, `create`, …. */
  readonly verb: string;
  /** With the group, where there is one, and the subresource: `pods/status`, `endpointslices.discovery.k8s.io`. */
  readonly resource: string;
  readonly namespace: string;
  readonly name: string;
  readonly uri: string;
  /** The status of the answer. A watch that was begun has 200. */
  readonly code: number;
  /** When it was received, RFC 3339 with microseconds. */
  readonly at: string;
  /** False for a watch that goes on, which 1.20 does not write at all: there it appears when it has ended. */
  readonly isComplete: boolean;
}

export interface AuditFilter {
  readonly user?: string;
  readonly verb?: string;
  readonly resource?: string;
}

/**
 * The requests in a file that the filter lets pass, in the order of their being received. A request is written just
 * after its answer was sent, so a test that looks at once may look too early.
 */
export async function readAuditLog(path: string, filter: AuditFilter = {}): Promise<AuditedRequest[]> {
  const text = await readFile(path, 'utf8').catch(() => '');
  const requestById = new Map<string, AuditedRequest>();
  // What follows the last newline is being written.
  for (const line of text.split('\n').slice(0, -1)) {
    const event = JSON.parse(line) as AuditEvent;
    requestById.set(event.auditID, requestFromEvent(event));
  }
  const matches = (request: AuditedRequest): boolean =>
    (['user', 'verb', 'resource'] as const).every(
      (field) => filter[field] === undefined || filter[field] === request[field],
    );
  return [...requestById.values()]
    .filter(matches)
    .toSorted((one, other) => (one.at < other.at ? -1 : Number(one.at > other.at)));
}

interface AuditEvent {
  readonly auditID: string;
  readonly stage: string;
  readonly verb: string;
  readonly requestURI: string;
  readonly user: { readonly username: string };
  readonly userAgent?: string;
  readonly sourceIPs?: readonly string[];
  readonly objectRef?: {
    readonly resource?: string;
    readonly subresource?: string;
    readonly apiGroup?: string;
    readonly namespace?: string;
    readonly name?: string;
  };
  readonly responseStatus?: { readonly code?: number };
  readonly requestReceivedTimestamp: string;
}

function requestFromEvent(event: AuditEvent): AuditedRequest {
  const { resource = '', subresource, apiGroup, namespace = '', name = '' } = event.objectRef ?? {};
  const group = apiGroup === undefined ? '' : `.${apiGroup}`;
  return {
    // Whoever was refused for want of credentials has no name.
    user: event.user.username ?? '',
    userAgent: event.userAgent ?? '',
    from: event.sourceIPs?.[0] ?? '',
    verb: event.verb,
    resource: `${resource}${group}${subresource === undefined ? '' : `/${subresource}`}`,
    namespace,
    name,
    uri: event.requestURI,
    code: event.responseStatus?.code ?? 0,
    at: event.requestReceivedTimestamp,
    isComplete: event.stage !== 'ResponseStarted',
  };
}

/** One series of `apiserver_request_total`; counted when the request ends, so a watch that goes on is in none. */
export interface RequestCount {
  /** In capitals: `LIST`, `WATCH`. */
  readonly verb: string;
  readonly resource: string;
  readonly subresource: string;
  readonly code: string;
  readonly count: number;
}

/** What a server has counted since it started, of all clients together. */
export async function readRequestCounts(api: ApiClient): Promise<RequestCount[]> {
  const lines = (await api.text('/metrics'))
    .split('\n')
    .filter((line) => line.startsWith('apiserver_request_total{'));
  return lines.map((line) => {
    const label = (name: string): string => new RegExp(`[{,]${name}="([^"]*)"`).exec(line)?.[1] ?? '';
    return {
      verb: label('verb'),
      resource: label('resource'),
      subresource: label('subresource'),
      code: label('code'),
      count: Number(line.slice(line.lastIndexOf(' '))),
    };
  });
}
