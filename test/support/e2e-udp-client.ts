/**
 * The client of upstream's conntrack tests, `while true; do nc -u -w 5 -p 12345 …; done`: it never rests, and every
 * socket of it has the same source port, so that to conntrack all it sends is one flow.
 */
import { isFailure, type Target } from './e2e-reach.ts';
import type { Host } from './netns-lab.ts';
import { waitFor } from './wait.ts';

/** How long it waits for an answer before it asks again. */
const ANSWER_MS = 250;
/** After an answer; a flow that is in use all the time need not be in use without a pause. */
const PAUSE_MS = 20;

export class UdpClient implements AsyncDisposable {
  readonly #from: Host;
  readonly #target: Omit<Target, 'protocol'>;
  readonly #localPort: number;
  readonly #asked: Promise<void>;
  #answers: string[] = [];
  #isStopped = false;

  /** Begins at once. The port must be free on the host until the client is disposed of. */
  constructor(
    from: Host,
    { host, port, localPort }: Omit<Target, 'protocol'> & { readonly localPort: number },
  ) {
    this.#from = from;
    this.#target = { host, port };
    this.#localPort = localPort;
    this.#asked = this.#ask();
  }

  /** Waits until who has that name answers; what came before does not count. */
  async isAnsweredBy(name: string, timeoutMs = 8_000): Promise<void> {
    this.#answers = [];
    await waitFor(() => this.#answers.includes(name), { timeoutMs, what: this.#wish(`answered by ${name}`) });
  }

  /** Waits until so many questions in a row were left without an answer, or could not be sent. */
  async isUnanswered(count = 3): Promise<void> {
    this.#answers = [];
    const isSo = (): boolean => this.#answers.length >= count && this.#answers.slice(-count).every(isFailure);
    await waitFor(isSo, { timeoutMs: 8_000, what: this.#wish('left without an answer') });
  }

  /** Ends when the question under way has. Rejects with the client's fault, if it had one. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#isStopped = true;
    await this.#asked;
  }

  async #ask(): Promise<void> {
    const agent = await this.#from.agent();
    const dial = { ...this.#target, localPort: this.#localPort, timeoutMs: ANSWER_MS, pauseMs: PAUSE_MS };
    while (!this.#isStopped) {
      const asked = await agent.udpIdentify({ ...dial, count: 3, sameSocket: false });
      this.#answers.push(...asked.map(({ name, errno }) => name ?? errno ?? 'NO_ANSWER'));
    }
  }

  #wish(what: string): string {
    const { host, port } = this.#target;
    return `UDP port ${this.#localPort} of ${this.#from.name} to be ${what} at ${host} port ${port}`;
  }
}
