/**
 * The body of one answer of the fake API server: ordered, can be held back, and can be made to stop or to trickle.
 */
import type { ServerResponse } from 'node:http';
import { setImmediate as turn } from 'node:timers/promises';
import type { CutEnd } from './fake-api-fault.ts';

type Step =
  | { readonly kind: 'bytes'; readonly bytes: Buffer; readonly done: () => void }
  | { readonly kind: 'stop'; readonly how: CutEnd };

export interface BodyShape {
  readonly cut?: { readonly afterBytes: number; readonly how: CutEnd };
  readonly drip?: { readonly bytes: number; readonly everyMs: number };
}

export interface BodyDeps {
  readonly response: ServerResponse;
  /** Sends a TCP reset, whatever is on top of TCP. */
  readonly reset: () => void;
}

export class FakeBody {
  readonly #deps: BodyDeps;
  readonly #drip: BodyShape['drip'];
  #cut: BodyShape['cut'];
  #steps: Step[] = [];
  #isHeld = false;
  #isOver = false;
  #isEnded = false;
  #isWorking = false;
  #dripTimer: NodeJS.Timeout | undefined;
  #doneInFlight: () => void = () => {};

  /** Sends the head at once. */
  constructor(deps: BodyDeps, shape: BodyShape, headers: Readonly<Record<string, string>>) {
    this.#deps = deps;
    this.#cut = shape.cut;
    this.#drip = shape.drip;
    const { response } = deps;
    response.on('error', () => {});
    response.once('close', () => this.#release());
    response.writeHead(200, headers);
    response.flushHeaders();
    if (shape.cut?.afterBytes === 0) this.#stopHere(shape.cut.how);
  }

  /** The server has ended it, in whatever way. One that has only fallen silent is not ended. */
  get isEnded(): boolean {
    return this.#isEnded;
  }

  /** Resolves when the bytes are with the kernel, or never will be. */
  async write(data: string | Buffer): Promise<void> {
    const bytes = typeof data === 'string' ? Buffer.from(data) : data;
    const { promise, resolve } = Promise.withResolvers<void>();
    if (this.#isOver) resolve();
    else if (this.#cut !== undefined && bytes.length >= this.#cut.afterBytes) {
      const { afterBytes, how } = this.#cut;
      this.#push({ kind: 'bytes', bytes: bytes.subarray(0, afterBytes), done: resolve });
      this.#stopHere(how);
    } else {
      if (this.#cut !== undefined)
        this.#cut = { ...this.#cut, afterBytes: this.#cut.afterBytes - bytes.length };
      this.#push({ kind: 'bytes', bytes, done: resolve });
    }
    return promise;
  }

  /** The end in order, of its own accord: a body that has fallen silent stays so. */
  finish(): void {
    if (!this.#isOver) this.stop('end');
  }

  /**
   * After what was written before. A body that was to be cut further on is cut here. A connection that breaks
   * takes with it what is held back, as that of a process that is killed; an end in order waits for `resume`.
   */
  stop(how: CutEnd): void {
    if (this.#isEnded) return;
    if (this.#isHeld && (how === 'reset' || how === 'close')) {
      this.#drop();
      this.#isHeld = false;
    }
    this.#stopHere(this.#isOver ? how : (this.#cut?.how ?? how));
  }

  /** Holds back everything from now on, until `resume`. */
  hold(): void {
    this.#isHeld = true;
  }

  resume(): void {
    this.#isHeld = false;
    this.#work();
  }

  #stopHere(how: CutEnd): void {
    this.#isOver = true;
    this.#isEnded = how !== 'stall';
    this.#push({ kind: 'stop', how });
  }

  #push(step: Step): void {
    this.#steps.push(step);
    this.#work();
  }

  /** One step at a time; the end of a step calls this again. */
  #work(): void {
    if (this.#isWorking || this.#isHeld) return;
    const step = this.#steps.shift();
    if (step === undefined) return;
    this.#isWorking = true;
    if (step.kind === 'stop') void this.#stopped(step.how);
    else this.#send(step);
  }

  #send({ bytes, done }: Extract<Step, { kind: 'bytes' }>): void {
    const { response } = this.#deps;
    const drip = this.#drip;
    if (response.destroyed || response.writableEnded) {
      done();
      this.#release();
    } else if (drip !== undefined && bytes.length > drip.bytes) {
      this.#steps.unshift({ kind: 'bytes', bytes: bytes.subarray(drip.bytes), done });
      response.write(bytes.subarray(0, drip.bytes));
      this.#dripTimer = setTimeout(() => this.#stepEnded(), drip.everyMs);
    } else {
      this.#doneInFlight = done;
      const sent = (): void => {
        done();
        this.#stepEnded();
      };
      if (bytes.length === 0) sent();
      else response.write(bytes, sent);
    }
  }

  #stepEnded(): void {
    this.#isWorking = false;
    this.#work();
  }

  async #stopped(how: CutEnd): Promise<void> {
    const { response, reset } = this.#deps;
    switch (how) {
      case 'end':
        response.end();
        return;
      case 'stall':
        this.#stepEnded();
        return;
      case 'reset':
        await readerTurn();
        reset();
        return;
      case 'close':
        await readerTurn();
        response.socket?.end();
        return;
      default:
        how satisfies never;
    }
  }

  /** Nobody is left waiting for bytes that nobody will get. */
  #release(): void {
    clearTimeout(this.#dripTimer);
    this.#isOver = true;
    this.#isEnded = true;
    this.#doneInFlight();
    this.#drop();
  }

  #drop(): void {
    for (const step of this.#steps) if (step.kind === 'bytes') step.done();
    this.#steps = [];
  }
}

/**
 * Two turns of the loop contain one whole phase of polling: a reader in this process has then read what the kernel
 * had for it. Without that, pieces would reach it joined, and what precedes a reset could be lost.
 */
export async function readerTurn(): Promise<void> {
  await turn();
  await turn();
}
