/** What the fake API server has seen, and promises of what it is to see. */
import type { FakeResource } from './fake-api-objects.ts';
import type { FakeApiRequest, FakeOperation } from './fake-api-request.ts';
import type { FakeWatch } from './fake-api-watch.ts';
import { waitFor } from './wait.ts';

const OBSERVED_WITHIN_MS = 10_000;
/** In the same process a request takes less than a millisecond. */
const LOOKED_FOR_EVERY_MS = 2;

export interface RequestFilter {
  readonly resource?: FakeResource;
  readonly operation?: FakeOperation;
  readonly where?: (request: FakeApiRequest) => boolean;
}

export interface WithinOptions {
  /** 10 s unless told. */
  readonly timeoutMs?: number;
}

export class FakeApiRecord {
  readonly requests: FakeApiRequest[] = [];
  readonly watches: FakeWatch[] = [];
  readonly unexpected: string[] = [];
  readonly #handedOut = new WeakSet<FakeApiRequest | FakeWatch>();

  requestsOf(resource: FakeResource, operation?: FakeOperation): readonly FakeApiRequest[] {
    return this.requests.filter(
      (request) => request.resource === resource && request.operation === (operation ?? request.operation),
    );
  }

  async nextRequest(filter: RequestFilter, options: WithinOptions): Promise<FakeApiRequest> {
    const { resource, operation, where = () => true } = filter;
    return this.#next(
      () =>
        this.requests.find(
          (request) =>
            !this.#handedOut.has(request) &&
            request.resource === (resource ?? request.resource) &&
            request.operation === (operation ?? request.operation) &&
            where(request),
        ),
      `a request to ${operation ?? 'list or watch'} ${resource ?? 'anything'}`,
      options,
    );
  }

  async nextWatch(resource: FakeResource, options: WithinOptions): Promise<FakeWatch> {
    return this.#next(
      () =>
        this.watches.find(
          (watch) => watch.resource === resource && watch.isOpen && !this.#handedOut.has(watch),
        ),
      `a watch of ${resource}`,
      options,
    );
  }

  /** What has come so far is no longer to come. */
  skip(): void {
    for (const seen of [...this.requests, ...this.watches]) this.#handedOut.add(seen);
  }

  assertNothingUnexpected(): void {
    if (this.unexpected.length === 0) return;
    throw new Error(`the fake API server was asked what it was not told:\n${this.unexpected.join('\n')}`);
  }

  async #next<T extends FakeApiRequest | FakeWatch>(
    find: () => T | undefined,
    what: string,
    { timeoutMs = OBSERVED_WITHIN_MS }: WithinOptions,
  ): Promise<T> {
    const found = await waitFor(() => find() ?? this.#nothing(), {
      timeoutMs,
      what,
      intervalMs: LOOKED_FOR_EVERY_MS,
    });
    this.#handedOut.add(found);
    return found;
  }

  #nothing(): never {
    const seen = this.requests.map(({ method, path, query }) => `${method} ${path}?${query.toString()}`);
    throw new Error(`the requests so far: ${seen.slice(-20).join(', ')}`);
  }
}
