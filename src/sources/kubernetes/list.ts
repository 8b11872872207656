/**
 * One complete list, or none: in one answer from the server's watch cache where `resourceVersion` allows it, else
 * consistent from etcd in pages. A list that changed between two pages is no list of one moment and is read again,
 * whole.
 */
import { isJsonMap, valueText } from '../objects/field-reader.ts';
import type { ApiClient } from './api-client.ts';
import { ApiError } from './api-error.ts';
import type { Endpoint } from './resource.ts';

const PAGE_SIZE = 500;
/** Five million objects: a server that always promises more is not believed. */
const MAX_PAGES = 10_000;
/** Of one answer, from request to last byte. */
const DEADLINE_MS = 120_000;
const SILENCE_TIMEOUT_MS = 30_000;

/**
 * `any`: whatever the server has at hand (`resourceVersion=0`). `notOlderThan`: at hand too, but no older than
 * that version, if need be consistent. `consistent`: as of now (API concepts, "Semantics for get and list").
 */
export type Freshness =
  | { readonly kind: 'any' }
  | { readonly kind: 'notOlderThan'; readonly resourceVersion: string }
  | { readonly kind: 'consistent' };

export interface ObjectList {
  readonly items: readonly unknown[];
  /** Of the moment the list is of; a watch goes on from here. */
  readonly resourceVersion: string;
}

interface Page extends ObjectList {
  /** '' : this was the last. */
  readonly next: string;
}

export interface ListRequest {
  readonly endpoint: Endpoint;
  readonly query: Readonly<Record<string, string>>;
  readonly freshness: Freshness;
  readonly signal: AbortSignal;
}

export async function listObjects(
  client: Pick<ApiClient, 'getJson'>,
  wanted: ListRequest,
): Promise<ObjectList> {
  const { freshness } = wanted;
  switch (freshness.kind) {
    case 'any':
      return wholePage(client, wanted, { resourceVersion: '0' });
    case 'notOlderThan':
      try {
        return await wholePage(client, wanted, { resourceVersion: freshness.resourceVersion });
      } catch (error) {
        // What the server has at hand is older: a restored etcd, or a resource in which nothing happens, whose cache
        // need not follow the versions of the others.
        if (!(error instanceof ApiError) || !error.isVersionTooLarge) throw error;
        return listObjects(client, { ...wanted, freshness: { kind: 'consistent' } });
      }
    case 'consistent':
      return (await pagedList(client, wanted)) ?? wholePage(client, wanted, {});
  }
}

/** Without `limit` there is one page. */
async function wholePage(
  client: Pick<ApiClient, 'getJson'>,
  wanted: ListRequest,
  query: Readonly<Record<string, string>>,
): Promise<ObjectList> {
  const { next, ...list } = await readPage(client, wanted, query);
  if (next === '') return list;
  throw new ApiError('ERR_API_RESPONSE', 'the API server answered with a part of the list, not asked for');
}

/** Undefined when the list did not stay the same while it was read. */
async function pagedList(
  client: Pick<ApiClient, 'getJson'>,
  wanted: ListRequest,
): Promise<ObjectList | undefined> {
  const items: unknown[] = [];
  let resourceVersion: string | undefined;
  let token = '';
  for (let count = 0; count < MAX_PAGES; count += 1) {
    const query: Record<string, string> = { limit: String(PAGE_SIZE) };
    if (token !== '') query['continue'] = token;
    let page: Page;
    try {
      page = await readPage(client, wanted, query);
    } catch (error) {
      // The token outlived what etcd keeps of old versions.
      if (token !== '' && error instanceof ApiError && error.isExpired) return undefined;
      throw error;
    }
    resourceVersion ??= page.resourceVersion;
    if (page.resourceVersion !== resourceVersion) return undefined;
    for (const item of page.items) items.push(item);
    if (page.next === '') return { items, resourceVersion };
    if (page.next === token) break;
    token = page.next;
  }
  throw new ApiError('ERR_API_RESPONSE', 'the API server promises more pages of the list without end');
}

async function readPage(
  client: Pick<ApiClient, 'getJson'>,
  { endpoint, query, signal }: ListRequest,
  version: Readonly<Record<string, string>>,
): Promise<Page> {
  const answer = await client.getJson({
    path: endpoint.path,
    query: { ...query, ...version },
    silenceTimeoutMs: SILENCE_TIMEOUT_MS,
    signal: AbortSignal.any([signal, AbortSignal.timeout(DEADLINE_MS)]),
  });
  return pageFromAnswer(answer, endpoint);
}

function pageFromAnswer(answer: unknown, { path, listKind }: Endpoint): Page {
  const fault = (what: string): ApiError =>
    new ApiError('ERR_API_RESPONSE', `the API server answered ${path} with no ${listKind}: ${what}`);
  if (!isJsonMap(answer)) throw fault(`it is ${valueText(answer)}`);
  if (answer['kind'] !== listKind) throw fault(`kind is ${valueText(answer['kind'])}`);
  // Go writes an empty list as null.
  const items = answer['items'] ?? [];
  if (!Array.isArray(items)) throw fault(`items is ${valueText(items)}`);
  const metadata = isJsonMap(answer['metadata']) ? answer['metadata'] : {};
  const { resourceVersion } = metadata;
  const next = metadata['continue'] ?? '';
  if (typeof resourceVersion !== 'string' || resourceVersion === '') {
    throw fault(`metadata.resourceVersion is ${valueText(resourceVersion)}`);
  }
  if (typeof next !== 'string') throw fault(`metadata.continue is ${valueText(next)}`);
  return { items: items as readonly unknown[], resourceVersion, next };
}
