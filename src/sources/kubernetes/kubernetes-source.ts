/**
 * Services, EndpointSlices and the own Node from an API server: one reflector and one store each. Nothing is told
 * before all three have listed everything once; from then on every change is told at once, and what comes
 * together is told together.
 */
import type { V1EndpointSlice, V1Node, V1Service } from '@kubernetes/client-node';
import type { Clock, MonotonicMs } from '../../clock.ts';
import type { Problem } from '../../errors.ts';
import { problemKey } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { type NodeInfo, nodeInfoFromNode } from '../../model/node.ts';
import type { SourceObjects } from '../../model/snapshot.ts';
import { ApiClient } from './api-client.ts';
import type { ApiStatistics } from './api-statistics.ts';
import { Backoff, type BackoffOptions } from './backoff.ts';
import type { Credentials } from './credentials.ts';
import { ObjectStore } from './object-store.ts';
import { Reflector } from './reflector.ts';
import { type Resource, endpointSliceResource, nodeResource, serviceResource } from './resource.ts';
import { RetryPause } from './retry-pause.ts';
import { ServerList } from './server-list.ts';

/** Telling may take this part of the time at most: in a storm of events the data path goes first. */
const SHARE_OF_TIME = 0.2;
/** And is never put off for longer. */
const MAX_DEFER_MS = 100;

export interface KubernetesSourceDeps {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly credentials: Credentials;
  readonly statistics: ApiStatistics;
  readonly random: () => number;
  /**
   * Called when objects or problems differ from the last call, the first time when all lists are complete.
   * Objects that did not change are the same objects, lists that did not change the same lists. Must not throw.
   */
  readonly onChange: (objects: SourceObjects, problems: readonly Problem[]) => void;
  /** The own Node, or undefined while there is none of that name. Called as `onChange` is, before it. */
  readonly onNodeChange: (node: NodeInfo | undefined) => void;
}

export interface KubernetesSourceOptions {
  /** One or more API servers; the next one is used when one fails. */
  readonly servers: readonly URL[];
  /** Of the own Node object. */
  readonly nodeName: string;
  /** Value of the label service.kubernetes.io/service-proxy-name to serve; '' : Services without that label. */
  readonly serviceProxyName: string;
  /** A watch that is silent for so long is taken to be dead. */
  readonly stallTimeoutMs: number;
  /** Of this program, for User-Agent. */
  readonly version: string;
  /** Default: 0.8 s to 30 s. */
  readonly backoff?: BackoffOptions;
}

interface Watched<T extends V1Service | V1EndpointSlice | V1Node> {
  readonly store: ObjectStore<T>;
  readonly reflector: Reflector;
  readonly isSynced: () => boolean;
}

/** Start once, close once or more. */
export class KubernetesSource {
  readonly #deps: KubernetesSourceDeps;
  readonly #options: KubernetesSourceOptions;
  readonly #client: ApiClient;
  readonly #servers: ServerList;
  readonly #services: Watched<V1Service>;
  readonly #endpointSlices: Watched<V1EndpointSlice>;
  readonly #nodes: Watched<V1Node>;
  readonly #stop = new AbortController();
  #running: Promise<unknown> = Promise.resolve();
  #timer: NodeJS.Timeout | undefined;
  /** No telling before this moment. */
  #deferredTo: MonotonicMs = 0;
  #told:
    | { readonly objects: SourceObjects; readonly nodes: readonly V1Node[]; readonly problems: string }
    | undefined;

  constructor(deps: KubernetesSourceDeps, options: KubernetesSourceOptions) {
    this.#deps = deps;
    this.#options = options;
    this.#servers = new ServerList({ random: deps.random }, options.servers);
    this.#client = new ApiClient({ ...deps, servers: this.#servers }, { version: options.version });
    this.#services = this.#watched(serviceResource(options.serviceProxyName));
    this.#endpointSlices = this.#watched(endpointSliceResource(options.serviceProxyName));
    this.#nodes = this.#watched(nodeResource(options.nodeName));
  }

  /** Resolves at once: an API server that is away is waited for. */
  async start(): Promise<void> {
    const all = [this.#services, this.#endpointSlices, this.#nodes];
    this.#running = Promise.all(all.map(({ reflector }) => reflector.run(this.#stop.signal)));
  }

  /** Nothing is told once it has been called; resolves when every request has ended. */
  async close(): Promise<void> {
    this.#stop.abort();
    clearTimeout(this.#timer);
    await this.#client.close();
    await this.#running;
  }

  #watched<T extends V1Service | V1EndpointSlice | V1Node>(resource: Resource<T>): Watched<T> {
    const { clock, logger, random } = this.#deps;
    const store = new ObjectStore(resource);
    const statistics = this.#deps.statistics.of(resource.name);
    const { backoff: limits, stallTimeoutMs } = this.#options;
    const pause = new RetryPause({ backoff: new Backoff({ random }, limits), servers: this.#servers });
    const onChange = (): void => this.#changed();
    const reflector = new Reflector(
      {
        client: this.#client,
        servers: this.#servers,
        clock,
        logger,
        random,
        pause,
        statistics,
        sink: store,
        onChange,
      },
      { resource, stallTimeoutMs },
    );
    return { store, reflector, isSynced: () => statistics.isSynced };
  }

  /** Everything that the sockets have brought by then is told in one go. */
  #changed(): void {
    if (this.#timer !== undefined || this.#stop.signal.aborted) return;
    const waitMs = Math.max(0, this.#deferredTo - this.#deps.clock.now());
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#tell();
    }, waitMs);
  }

  #tell(): void {
    const all = [this.#services, this.#endpointSlices, this.#nodes];
    if (!all.every(({ isSynced }) => isSynced())) return;
    const startedAt = this.#deps.clock.now();
    this.#tellNode();
    this.#tellObjects(all.flatMap(({ store }) => store.problems));
    const endedAt = this.#deps.clock.now();
    this.#deferredTo = endedAt + Math.min(MAX_DEFER_MS, (endedAt - startedAt) * (1 / SHARE_OF_TIME - 1));
  }

  #tellNode(): void {
    const nodes = this.#nodes.store.take();
    if (this.#told?.nodes === nodes) return;
    const [node] = nodes;
    const { nodeName } = this.#options;
    if (node === undefined) {
      this.#deps.logger.warn(
        { node: nodeName },
        'There is no Node of this name, --hostname-override must be as in its Node object: not eligible for load balancers',
      );
    }
    this.#deps.onNodeChange(node === undefined ? undefined : nodeInfoFromNode(node));
  }

  #tellObjects(problems: readonly Problem[]): void {
    const services = this.#services.store.take();
    const endpointSlices = this.#endpointSlices.store.take();
    const before = this.#told?.objects;
    const isSame = before?.services === services && before.endpointSlices === endpointSlices;
    const problemText = problems.map(problemKey).join('\n');
    const isTold = isSame && this.#told?.problems === problemText;
    const objects = isSame ? before : { services, endpointSlices };
    this.#told = { objects, nodes: this.#nodes.store.take(), problems: problemText };
    if (isTold) return;
    const counts = { services: services.length, endpointSlices: endpointSlices.length };
    if (before === undefined) {
      this.#deps.logger.info(counts, 'Everything was listed once');
      this.#warnOfOwnServer(services);
    }
    this.#deps.onChange(objects, problems);
  }

  /** From the first sync on our own requests go through ourselves, if they did not before through another proxy. */
  #warnOfOwnServer(services: readonly V1Service[]): void {
    for (const server of this.#options.servers) {
      const address = server.hostname.replace(/^\[|\]$/g, '');
      const own = services.find(
        ({ spec }) => spec?.clusterIP === address || spec?.clusterIPs?.includes(address),
      );
      if (own === undefined) continue;
      const { namespace, name } = own.metadata ?? {};
      this.#deps.logger.warn(
        { server: server.origin, service: `${namespace}/${name}` },
        'The API server is asked through a Service that this proxy itself provides. Give --master with its own address',
      );
    }
  }
}
