/** A watch that is open at the fake API server, and what a test can do with it. */
import type { FakeBody } from './fake-api-body.ts';
import { readerTurn } from './fake-api-body.ts';
import { type FakeResource, bookmarkObject, watchedObject } from './fake-api-objects.ts';
import type { FakeApiRequest, Question } from './fake-api-request.ts';
import { type StoreEvent, eventFor } from './fake-api-store.ts';

type WatchQuestion = Extract<Question, { operation: 'watch' }>;

export class FakeWatch {
  readonly resource: FakeResource;
  readonly request: FakeApiRequest;
  /** Resolves when the watch is over, whoever ended it. */
  readonly closed: Promise<void>;
  readonly #question: WatchQuestion;
  readonly #body: FakeBody;
  #isOpen = true;

  constructor(deps: {
    readonly request: FakeApiRequest;
    readonly question: WatchQuestion;
    readonly body: FakeBody;
    readonly closed: Promise<void>;
  }) {
    this.resource = deps.question.path.resource;
    this.request = deps.request;
    this.#question = deps.question;
    this.#body = deps.body;
    this.closed = deps.closed.then(() => {
      this.#isOpen = false;
    });
  }

  get query(): URLSearchParams {
    return this.request.query;
  }

  /** Neither side has ended it. */
  get isOpen(): boolean {
    return this.#isOpen && !this.#body.isEnded;
  }

  /** Any text, as one chunk. Resolves when it is with the kernel, or never will be (the watch is over). */
  async send(text: string | Buffer): Promise<void> {
    await this.#body.write(text);
  }

  /**
   * The text in chunks of these numbers of bytes, and the rest in one; a single number is the size of every chunk.
   * A reader in this process gets each by itself. Bytes, not characters: a character may be cut in two.
   */
  async sendSplit(text: string | Buffer, sizes: number | readonly number[] = 1): Promise<void> {
    let rest = Buffer.from(text);
    for (let index = 0; rest.length > 0; index++) {
      const size = typeof sizes === 'number' ? sizes : (sizes[index] ?? rest.length);
      if (size < 1) throw new RangeError(`a chunk of ${size} bytes`);
      await this.#body.write(rest.subarray(0, size));
      await readerTurn();
      rest = rest.subarray(size);
    }
  }

  /** One event of any type, with the object as it is given: the store knows nothing of it. */
  async event(type: string, object: unknown): Promise<void> {
    await this.send(`${JSON.stringify({ type, object })}\n`);
  }

  /** The first half of an event, without the rest. What is sent next continues the line. */
  async halfLine(): Promise<void> {
    const object = {
      kind: 'Service',
      metadata: { name: 'half', namespace: 'default', resourceVersion: '1' },
    };
    const line = JSON.stringify({ type: 'ADDED', object });
    await this.send(line.slice(0, line.length / 2));
  }

  /** The clean end: what a server does when `timeoutSeconds` have passed. Of a stalled watch, after `resume`. */
  end(): void {
    this.#body.stop('end');
  }

  /** A FIN in the middle of the chunked encoding: what is left of a server that was killed. */
  closeConnection(): void {
    this.#body.stop('close');
  }

  /** A TCP reset, after what was sent before. */
  reset(): void {
    this.#body.stop('reset');
  }

  /** Silence; events are held back until `resume`. A reset, or a connection that is closed, loses them. */
  stall(): void {
    this.#body.hold();
  }

  resume(): void {
    this.#body.resume();
  }

  /** For the server: a change of the store. */
  deliver(change: StoreEvent): void {
    if (change.resource !== this.resource || change.resourceVersion <= this.#question.resourceVersion) return;
    const event = eventFor(this.#question.selects, change);
    if (event === undefined) return;
    void this.event(event.type, watchedObject(this.#question.path, event.object));
  }

  /** For the server. No watch is told of a version before its own. */
  bookmark(resourceVersion: number): void {
    if (resourceVersion < this.#question.resourceVersion) return;
    void this.event('BOOKMARK', bookmarkObject(this.#question.path, resourceVersion));
  }
}
