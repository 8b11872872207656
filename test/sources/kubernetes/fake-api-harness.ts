/** A plain client of the fake API server, for the tests of the fake itself: undici, and nothing between. */
import { Agent, request } from 'undici';
import { onTestFinished } from 'vitest';
import { errnoOf } from '../../../src/errors.ts';
import {
  type FakeApiOptions,
  type FakeApiServer,
  startFakeApiServer,
} from '../../support/fake-api-server.ts';

export interface ListBody {
  readonly kind: string;
  readonly metadata: {
    readonly resourceVersion?: string;
    readonly continue?: string;
    readonly remainingItemCount?: number;
  };
  readonly items: readonly { readonly kind?: string; readonly metadata: { readonly name: string } }[];
  readonly reason?: string;
}

export interface WatchEvent {
  readonly type: string;
  readonly object: {
    readonly kind: string;
    readonly reason?: string;
    readonly metadata: { readonly name?: string; readonly resourceVersion: string };
  };
}

export const SERVICES = '/api/v1/services';
export const SLICES_V1 = '/apis/discovery.k8s.io/v1/endpointslices';
export const SLICES_V1BETA1 = '/apis/discovery.k8s.io/v1beta1/endpointslices';
const BOUND_MS = 5000;

/** A server and an agent for this test; nothing unexpected may have been asked by its end. */
export async function start(
  options: FakeApiOptions = {},
  agentOptions: Agent.Options = {},
): Promise<{ server: FakeApiServer; agent: Agent }> {
  const server = await startFakeApiServer(options);
  const agent = new Agent({
    allowH2: false,
    bodyTimeout: BOUND_MS,
    headersTimeout: BOUND_MS,
    ...agentOptions,
  });
  onTestFinished(async () => {
    await agent.destroy();
    await server.close();
    server.assertNothingUnexpected();
  });
  return { server, agent };
}

export class Client {
  readonly #server: FakeApiServer;
  readonly #agent: Agent;

  constructor({ server, agent }: { server: FakeApiServer; agent: Agent }) {
    this.#server = server;
    this.#agent = agent;
  }

  async get(
    path: string,
    query: Readonly<Record<string, string>> = {},
    headers: Readonly<Record<string, string>> = {},
  ): ReturnType<typeof request> {
    return request(new URL(path, this.#server.url), { dispatcher: this.#agent, query, headers });
  }

  async list(
    path: string,
    query: Readonly<Record<string, string>> = {},
  ): Promise<ListBody & { code?: number }> {
    const { body } = await this.get(path, query);
    return (await body.json()) as ListBody & { code?: number };
  }

  async watch(
    path: string,
    resourceVersion: number,
    query: Readonly<Record<string, string>> = {},
  ): Promise<EventReader> {
    const { body, statusCode } = await this.get(path, {
      watch: '1',
      resourceVersion: String(resourceVersion),
      allowWatchBookmarks: 'true',
      timeoutSeconds: '300',
      ...query,
    });
    return new EventReader(statusCode, body);
  }
}

/** The lines of a watch, and the chunks in which they came. */
export class EventReader {
  readonly statusCode: number;
  readonly chunks: Buffer[] = [];
  readonly #iterator: AsyncIterator<Buffer>;
  #rest = '';

  constructor(statusCode: number, body: AsyncIterable<Buffer>) {
    this.statusCode = statusCode;
    this.#iterator = body[Symbol.asyncIterator]();
  }

  /** `undefined` at a clean end. Rejects when the connection breaks. */
  async line(): Promise<string | undefined> {
    for (;;) {
      const end = this.#rest.indexOf('\n');
      if (end >= 0) {
        const line = this.#rest.slice(0, end);
        this.#rest = this.#rest.slice(end + 1);
        return line;
      }
      const { done, value } = await this.#iterator.next();
      if (done === true) return undefined;
      this.chunks.push(value);
      // Who cuts characters in two looks at the chunks.
      this.#rest += value.toString();
    }
  }

  async event(): Promise<WatchEvent> {
    const line = await this.line();
    if (line === undefined) throw new Error('the watch has ended');
    return JSON.parse(line) as WatchEvent;
  }

  /** `TYPE name@version` of the next events. */
  async events(count: number): Promise<string[]> {
    const seen: string[] = [];
    while (seen.length < count) {
      const { type, object } = await this.event();
      seen.push(`${type} ${object.metadata.name ?? ''}@${object.metadata.resourceVersion}`);
    }
    return seen;
  }
}

/** The code of what it rejects with, or `none`. */
export const errnoAfter = async (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => 'none',
    (error: unknown) => errnoOf(error) ?? String(error),
  );
