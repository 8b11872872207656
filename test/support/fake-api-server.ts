/**
 * A Kubernetes API server for tests, in this process: list and watch of Services, EndpointSlices and Nodes with the
 * semantics of kube-apiserver, over real TCP on loopback, with every fault a test can think of. It is told what may
 * be asked: anything else is refused, and `assertNothingUnexpected` lists it.
 */
import { FakeApiAnswers, type FakeApiBehaviour } from './fake-api-answers.ts';
import { type FakeTls, FakeConnections } from './fake-api-connections.ts';
import { type FaultRule, FaultScript, type ScriptedFault } from './fake-api-fault.ts';
import { type FakeResource, type JsonObject, labelSelection } from './fake-api-objects.ts';
import { FakeApiRecord, type RequestFilter, type WithinOptions } from './fake-api-record.ts';
import type { FakeApiRequest, FakeOperation } from './fake-api-request.ts';
import { FakeStore, type StoreEvent } from './fake-api-store.ts';
import type { FakeWatch } from './fake-api-watch.ts';

export { faults } from './fake-api-fault.ts';
export { statusObject } from './fake-api-objects.ts';

export interface FakeApiOptions extends Partial<FakeApiBehaviour> {
  /** HTTPS; a client certificate is asked for, and is not verified. */
  readonly tls?: FakeTls;
  /** Of the empty store; 100 unless told. */
  readonly resourceVersion?: number;
  /** How many changes a watch can lag behind; 1000 unless told. */
  readonly eventCapacity?: number;
  /** Bookmarks to all watches this often. Never, unless told. */
  readonly bookmarkIntervalMs?: number;
}

export class FakeApiServer implements AsyncDisposable {
  /** May be changed at any time. */
  readonly behaviour: FakeApiBehaviour;
  readonly #store: FakeStore;
  readonly #record = new FakeApiRecord();
  readonly #script = new FaultScript();
  readonly #answers: FakeApiAnswers;
  readonly #connections: FakeConnections;
  readonly #bookmarkIntervalMs: number | undefined;
  #bookmarkTimer: NodeJS.Timeout | undefined;

  /** Does not listen yet: `startFakeApiServer` does. */
  constructor(options: FakeApiOptions = {}) {
    this.behaviour = {
      discovery: options.discovery ?? 'v1',
      goneAs: options.goneAs ?? 'event',
      notServedAs: options.notServedAs ?? 'status',
      withholdBookmarks: options.withholdBookmarks ?? false,
      accept: options.accept,
    };
    this.#store = new FakeStore({
      resourceVersion: options.resourceVersion ?? 100,
      capacity: options.eventCapacity ?? 1000,
    });
    this.#bookmarkIntervalMs = options.bookmarkIntervalMs;
    this.#connections = new FakeConnections(options.tls, {
      onRequest: (message, response) => this.#answers.take(message, response),
      onMalformed: (error) => this.#record.unexpected.push(`not HTTP: ${error.message}`),
    });
    this.#answers = new FakeApiAnswers({
      behaviour: this.behaviour,
      store: this.#store,
      record: this.#record,
      script: this.#script,
      connections: this.#connections,
    });
  }

  /** The origin, without a path. */
  get url(): URL {
    return this.#connections.url;
  }

  get port(): number {
    return this.#connections.port;
  }

  /** TCP connections accepted so far. */
  get connectionCount(): number {
    return this.#connections.count;
  }

  get resourceVersion(): number {
    return this.#store.resourceVersion;
  }

  /** What is in the store by now, in the order of the keys; of that labelSelector only, when one is given. */
  objects(resource: FakeResource, selector?: string): readonly JsonObject[] {
    const selects = selector === undefined ? () => true : labelSelection(selector);
    if (selects === undefined) throw new Error(`labelSelector ${selector}`);
    return this.#store
      .all(resource)
      .filter(selects)
      .map(({ json }) => structuredClone(json));
  }

  /** Every request so far, the refused ones too. */
  get requests(): readonly FakeApiRequest[] {
    return this.#record.requests;
  }

  /** What was asked and not foreseen. */
  get unexpected(): readonly string[] {
    return this.#record.unexpected;
  }

  /** Creates or replaces the object, and returns it as it is kept. Also while the server does not listen. */
  put<T extends object>(resource: FakeResource, object: T): T {
    const event = this.#store.put(resource, object);
    this.#deliver(event);
    return structuredClone(event.object.json) as T;
  }

  /** Deletes `namespace/name` (of nodes `name`), which must be there. */
  remove(resource: FakeResource, key: string): void {
    this.#deliver(this.#store.remove(resource, key));
  }

  /** The resource version goes on by that much without any event, as when other resources change. */
  advance(count = 1): void {
    this.#store.advance(count);
  }

  /** What happened so far is forgotten: watches from an older version, and all `continue` tokens, are 410. */
  compact(): void {
    this.#store.compact();
  }

  expireContinueTokens(): void {
    this.#store.expireContinueTokens();
  }

  /**
   * As after a restore of etcd: forgets all changes. A watch from a later version is accepted and hears nothing
   * before the store gets there, as with a real server. Watches that are open stay so.
   */
  setResourceVersion(resourceVersion: number): void {
    this.#store.setResourceVersion(resourceVersion);
  }

  /** A bookmark to all open watches (of that resource), unless bookmarks are withheld. */
  bookmark(resource?: FakeResource): void {
    if (this.behaviour.withholdBookmarks) return;
    for (const watch of this.watches(resource)) watch.bookmark(this.#store.resourceVersion);
  }

  /** Scripts a fault for the next request that fits, or for more of them. Faults are met in the order given. */
  failNext(rule: FaultRule): ScriptedFault {
    return this.#script.add(rule);
  }

  clearFaults(): void {
    this.#script.clear();
  }

  /** The watches that are open, oldest first. */
  watches(resource?: FakeResource): readonly FakeWatch[] {
    return this.#record.watches.filter(
      (watch) => watch.isOpen && watch.resource === (resource ?? watch.resource),
    );
  }

  requestsOf(resource: FakeResource, operation?: FakeOperation): readonly FakeApiRequest[] {
    return this.#record.requestsOf(resource, operation);
  }

  /**
   * The oldest request that fits and that was not yet handed out, as soon as it is there: calls after each other
   * give one request after the other, whether they came before the call or come after it.
   */
  async nextRequest(filter: RequestFilter = {}, options: WithinOptions = {}): Promise<FakeApiRequest> {
    return this.#record.nextRequest(filter, options);
  }

  /** The oldest open watch that was not yet handed out, as soon as it is there. */
  async nextWatch(resource: FakeResource, options: WithinOptions = {}): Promise<FakeWatch> {
    return this.#record.nextWatch(resource, options);
  }

  /** `nextRequest` and `nextWatch` will hand out only what comes from now on. */
  skipSeen(): void {
    this.#record.skip();
  }

  /** Accepts connections and says nothing any more, as a stopped process; `resume` makes up for it. */
  stallAll(): void {
    this.#answers.stallAll();
  }

  /** Also of the watches that were stalled one by one. */
  resume(): void {
    this.#answers.resume();
  }

  /** Another certificate for the TLS connections to come; the server must have been given one at its start. */
  useTls(tls: FakeTls): void {
    this.#connections.useTls(tls);
  }

  /** Listens, again at the same port. Rejects when somebody else has taken it meanwhile. */
  async listen(): Promise<void> {
    await this.#connections.listen();
    if (this.#bookmarkIntervalMs !== undefined) {
      clearInterval(this.#bookmarkTimer);
      this.#bookmarkTimer = setInterval(() => this.bookmark(), this.#bookmarkIntervalMs);
    }
  }

  /**
   * Ends all connections, and refuses new ones from here on. The store stays, and can be changed. Resolves when
   * nothing is left that runs; may be called twice.
   */
  async close(how: 'close' | 'reset' = 'close'): Promise<void> {
    clearInterval(this.#bookmarkTimer);
    await this.#connections.close(how);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** Throws an error that lists what was asked and not foreseen. */
  assertNothingUnexpected(): void {
    this.#record.assertNothingUnexpected();
  }

  #deliver(event: StoreEvent): void {
    for (const watch of this.watches()) watch.deliver(event);
  }
}

/** A server that listens on 127.0.0.1. Whoever starts it closes it. */
export async function startFakeApiServer(options: FakeApiOptions = {}): Promise<FakeApiServer> {
  const server = new FakeApiServer(options);
  await server.listen();
  return server;
}
