/**
 * A KubernetesSource that asks fake API servers, with everything it says and counts. Its clock stands still until a
 * test moves it: a watch has "lived for a second" when the test says so.
 */
import { isDeepStrictEqual } from 'node:util';
import type { V1EndpointSlice, V1ObjectMeta, V1Service } from '@kubernetes/client-node';
import { type Problem, ProxyError } from '../../src/errors.ts';
import type { NodeInfo } from '../../src/model/node.ts';
import type { SourceObjects } from '../../src/model/snapshot.ts';
import {
  ApiStatistics,
  type ListReason,
  type ResourceName,
} from '../../src/sources/kubernetes/api-statistics.ts';
import { AnonymousCredentials } from '../../src/sources/kubernetes/credentials.ts';
import {
  KubernetesSource,
  type KubernetesSourceDeps,
  type KubernetesSourceOptions,
} from '../../src/sources/kubernetes/kubernetes-source.ts';
import { trimEndpointSlice, trimService } from '../../src/sources/kubernetes/trim.ts';
import {
  type FakeApiOptions,
  type FakeApiServer,
  startFakeApiServer,
  statusObject,
} from './fake-api-server.ts';
import type { FakeWatch } from './fake-api-watch.ts';
import { FakeClock } from './fake-clock.ts';
import { type ServiceTweak, makeService, makeSlice } from './objects.ts';
import { RecordingLogger } from './recording-logger.ts';
import { waitFor } from './wait.ts';

/** A loaded machine is slow; nothing that is waited for takes a tenth of it elsewhere. */
const OBSERVED_WITHIN_MS = 10_000;
const LOOKED_FOR_EVERY_MS = 2;
/** As kube-proxy writes it. */
export const OUR_SELECTOR = '!service.kubernetes.io/service-proxy-name,!service.kubernetes.io/headless';

export interface Telling {
  readonly objects: SourceObjects;
  readonly problems: readonly Problem[];
}

export interface SourceSetup extends Partial<Omit<KubernetesSourceOptions, 'servers'>> {
  /** Asked after the first one fails. */
  readonly otherServers?: readonly FakeApiServer[];
  readonly credentials?: KubernetesSourceDeps['credentials'];
  /** 0 unless told: waits are the shortest that are possible, which makes them exact lower bounds. */
  readonly random?: () => number;
  /** Within every telling, as the work that it causes. */
  readonly onTelling?: (source: SourceUnderTest) => void;
}

export interface FailureLine {
  readonly level: 'warn' | 'debug';
  readonly resource: ResourceName;
  readonly operation: 'list' | 'watch';
  readonly error: ProxyError;
  /** How long it is waited. */
  readonly retryMs: number;
  /** In a row. */
  readonly failures: number;
}

/** Services default/web and default/db, a slice of web, and the Node n1; text of several bytes per character. */
export async function startSeededServer(options: FakeApiOptions = {}): Promise<FakeApiServer> {
  const server = await startFakeApiServer(options);
  seed(server);
  return server;
}

export function seed(server: FakeApiServer): void {
  server.put('services', makeService('web', annotated('Grüße 🦀')));
  server.put('services', makeService('db'));
  server.put('endpointslices', servingSlice('web', ['10.1.0.1', '10.1.0.2']));
  server.put('nodes', { metadata: { name: 'n1', labels: { zone: 'a' } } });
}

/** A slice that is the same in every version of the API. */
export function servingSlice(service: string, addresses: readonly string[]): V1EndpointSlice {
  return makeSlice(service, addresses, (slice) => {
    for (const endpoint of slice.endpoints ?? []) endpoint.conditions = { ready: true, serving: true };
  });
}

/** A tweak: these fields of its metadata are so. */
export function withMetadata(fields: V1ObjectMeta): ServiceTweak {
  return ({ metadata }) => {
    Object.assign(metadata ?? {}, fields);
  };
}

/** A tweak that the source is to see. */
export function annotated(note: string): ServiceTweak {
  return withMetadata({ annotations: { 'userspace-proxy.io/note': note } });
}

/** What a source has to tell of that server, at last. */
export function truthOf(server: FakeApiServer, selector = OUR_SELECTOR): SourceObjects {
  return {
    services: server.objects('services', selector).map((one) => trimService(one as V1Service)),
    endpointSlices: server
      .objects('endpointslices', selector)
      .map((one) => trimEndpointSlice(one as unknown as V1EndpointSlice)),
  };
}

export function keysOf({ services, endpointSlices }: SourceObjects): string[] {
  const key = ({ metadata }: V1Service | V1EndpointSlice): string =>
    `${metadata?.namespace}/${metadata?.name}`;
  return [
    ...services.map((service) => `Service ${key(service)}`),
    ...endpointSlices.map((slice) => `EndpointSlice ${key(slice)}`),
  ];
}

/** The one watch of that resource that is open. */
export function openWatch(server: FakeApiServer, resource: ResourceName): FakeWatch {
  const [watch, ...others] = server.watches(resource);
  if (watch === undefined || others.length > 0) {
    throw new Error(`${others.length + (watch === undefined ? 0 : 1)} watches of ${resource} are open`);
  }
  return watch;
}

/** The open watch is told that its version is too old: the source has to list again. */
export function expire(server: FakeApiServer, resource: ResourceName): void {
  const watch = openWatch(server, resource);
  void watch.event('ERROR', statusObject({ code: 410, message: 'too old resource version' }));
  watch.end();
}

/** The open watch of that resource has told something and lived for a second when the server ends it in order. */
export function endInPeace(source: SourceUnderTest, server: FakeApiServer, resource: ResourceName): void {
  const watch = openWatch(server, resource);
  server.bookmark(resource);
  source.clock.advance(1000);
  watch.end();
}

/** Starts it. Dispose of it before its servers. */
export async function startSource(server: FakeApiServer, setup: SourceSetup = {}): Promise<SourceUnderTest> {
  const source = new SourceUnderTest(server, setup);
  await source.start();
  return source;
}

/** Started, and has caught up with the server. */
export async function startSyncedSource(
  server: FakeApiServer,
  setup: SourceSetup = {},
): Promise<SourceUnderTest> {
  const source = await startSource(server, setup);
  await source.caughtUp();
  return source;
}

export class SourceUnderTest implements AsyncDisposable {
  readonly clock = new FakeClock();
  readonly logger = new RecordingLogger();
  readonly statistics = new ApiStatistics();
  /** Every call of `onChange`. */
  readonly tellings: Telling[] = [];
  /** Every call of `onNodeChange`. */
  readonly nodes: (NodeInfo | undefined)[] = [];
  /** What was told, and was missing from the next telling: in the order in which it went. */
  readonly vanished: string[] = [];
  readonly #servers: readonly [FakeApiServer, ...FakeApiServer[]];
  readonly #source: KubernetesSource;
  #handedOut = 0;

  constructor(server: FakeApiServer, setup: SourceSetup) {
    const { otherServers = [], credentials, random = () => 0, onTelling, ...options } = setup;
    this.#servers = [server, ...otherServers];
    this.#source = new KubernetesSource(
      {
        clock: this.clock,
        logger: this.logger,
        credentials: credentials ?? new AnonymousCredentials(),
        statistics: this.statistics,
        random,
        onChange: (objects, problems) => {
          this.#told({ objects, problems });
          onTelling?.(this);
        },
        onNodeChange: (node) => this.nodes.push(node),
      },
      {
        servers: this.#servers.map(({ url }) => url),
        nodeName: 'n1',
        serviceProxyName: '',
        stallTimeoutMs: 60_000,
        version: '0.0.0',
        backoff: { minMs: 20, maxMs: 100 },
        ...options,
      },
    );
  }

  async start(): Promise<void> {
    await this.#source.start();
  }

  async close(): Promise<void> {
    await this.#source.close();
  }

  /** Also asserts that no server was asked what it was not told. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
    for (const server of this.#servers) server.assertNothingUnexpected();
  }

  /** The last telling. */
  get view(): SourceObjects {
    const last = this.tellings.at(-1);
    if (last === undefined) throw new Error('nothing was told yet');
    return last.objects;
  }

  get isWatching(): boolean {
    return [...this.statistics.resources.values()].every(({ isWatching }) => isWatching);
  }

  /** The oldest telling that was not yet handed out, as soon as it is there. */
  async nextChange(): Promise<Telling> {
    const telling = await this.observed(() => this.tellings[this.#handedOut], 'a change');
    this.#handedOut += 1;
    return telling;
  }

  /** `condition` has come true. */
  async observed<T>(
    condition: () => T,
    what: string,
    timeoutMs: number = OBSERVED_WITHIN_MS,
  ): Promise<Exclude<T, false | 0 | '' | null | undefined>> {
    return waitFor(condition, { what, timeoutMs, intervalMs: LOOKED_FOR_EVERY_MS });
  }

  /** All is watched, and the last telling is what the server has: nothing was lost, nothing invented. */
  async caughtUp(
    options: { server?: FakeApiServer; selector?: string; timeoutMs?: number } = {},
  ): Promise<void> {
    const { server = this.#servers[0], selector, timeoutMs } = options;
    const isSo = (): boolean =>
      this.isWatching && isDeepStrictEqual(this.tellings.at(-1)?.objects, truthOf(server, selector));
    await this.observed(isSo, 'the source to tell what the server has', timeoutMs);
  }

  /** Of every failure `resource operation CODE`, in order. Throws when the statistics count other ones. */
  failures(): string[] {
    const failures = this.failureLines().map(
      ({ resource, operation, error }) => `${resource} ${operation} ${error.code}`,
    );
    for (const [resource, statistics] of this.statistics.resources) {
      for (const [code, count] of statistics.failures) {
        const logged = failures.filter(
          (line) => line.startsWith(`${resource} `) && line.endsWith(` ${code}`),
        );
        if (logged.length !== count)
          throw new Error(`${count} ${code} of ${resource}, ${failures.join(', ')}`);
      }
      const counted = [...statistics.failures.values()].reduce((sum, count) => sum + count, 0);
      const lines = failures.filter((line) => line.startsWith(`${resource} `));
      if (lines.length !== counted)
        throw new Error(`${counted} failures of ${resource}, ${failures.join(', ')}`);
    }
    return failures;
  }

  /** What was logged of every failure; a watch that is merely too far behind is one that is not waited for. */
  failureLines(): FailureLine[] {
    return this.logger.lines.flatMap(({ level, fields }) => {
      const { resource, operation = 'watch', error, retryMs = 0, failures = 1 } = fields;
      if (!(error instanceof ProxyError)) return [];
      return [{ level, resource, operation, error, retryMs, failures } as FailureLine];
    });
  }

  /** Why that resource was listed, and how often; what never happened is left out. */
  lists(resource: ResourceName): Partial<Record<ListReason, number>> {
    return Object.fromEntries([...this.statistics.of(resource).lists].filter(([, count]) => count > 0));
  }

  #told(telling: Telling): void {
    const before = this.tellings.at(-1);
    const keys = new Set(keysOf(telling.objects));
    if (before !== undefined) this.vanished.push(...keysOf(before.objects).filter((key) => !keys.has(key)));
    this.tellings.push(telling);
  }
}
