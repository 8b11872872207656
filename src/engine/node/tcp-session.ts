/**
 * One TCP connection: the client's socket from accept to close, the dials on its behalf, and the relay.
 * Owns both sockets: whatever happens, both are destroyed before `closed` is reported.
 *
 *     deciding ──► dialling ──► relaying ──► closed
 *         ▲            │            (any state ──► closed)
 *         └─ dialFailed┘
 */
import { type Socket, connect } from 'node:net';
import { setImmediate as afterPoll } from 'node:timers/promises';
import type { CloseCause, Decision, SessionId } from '../engine.ts';
import { dialFailureFromErrno, errnoText } from '../errno.ts';
import type { MutableTotals, NodeSession, Reporter } from './reporter.ts';

/** First keep-alive probe after this; libuv then probes each second, ten times: a vanished peer is noticed in 25 s. */
export const KEEP_ALIVE_DELAY_MS = 15_000;

export interface TcpSessionDeps {
  readonly reporter: Reporter;
  readonly totals: MutableTotals;
  /** 0: never. */
  readonly idleTimeoutMs: number;
  /** 0: never. */
  readonly halfCloseTimeoutMs: number;
  /** Called once, after `closed` was reported. */
  readonly onClosed: (session: TcpSession) => void;
}

type State =
  | { readonly kind: 'deciding' }
  | { readonly kind: 'dialling'; readonly backend: Socket; readonly timer: NodeJS.Timeout }
  | { readonly kind: 'relaying'; readonly backend: Socket }
  | { readonly kind: 'closed' };

export class TcpSession implements NodeSession {
  readonly id: SessionId;
  readonly #deps: TcpSessionDeps;
  readonly #client: Socket;
  #state: State = { kind: 'deciding' };

  /** Takes ownership of `client`, which must be paused. Reports nothing by itself before the first `answer` or the client's reset. */
  constructor(client: Socket, deps: TcpSessionDeps) {
    this.id = deps.reporter.nextSessionId();
    this.#deps = deps;
    this.#client = client;
    client.on('error', () => this.#end('clientReset'));
    // A paused socket sees neither data nor reset; one empty read makes it look, and buffers 64 KiB at most.
    client.read(0);
  }

  get bytesIn(): number {
    return this.#state.kind === 'relaying' ? this.#client.bytesRead : 0;
  }

  get bytesOut(): number {
    return this.#state.kind === 'relaying' ? this.#state.backend.bytesRead : 0;
  }

  answer(decision: Decision): void {
    if (this.#state.kind === 'relaying' || this.#state.kind === 'closed') return;
    this.#abandonDial();
    if (decision.kind === 'refuse') this.#end('refused');
    else this.#dial(decision);
  }

  /** Only UDP has an order of use. */
  get lastUsed(): undefined {
    return undefined;
  }

  reset(cause: 'stopped' | 'evicted'): void {
    this.#end(cause);
  }

  #dial({ to, timeoutMs, preamble }: Extract<Decision, { kind: 'dial' }>): void {
    const backend = connect({
      host: to.address,
      port: to.port,
      autoSelectFamily: false,
      allowHalfOpen: true,
      noDelay: true,
      keepAlive: true,
      keepAliveInitialDelay: KEEP_ALIVE_DELAY_MS,
    });
    const timer = setTimeout(() => void this.#dialTimedOut(backend), timeoutMs);
    this.#state = { kind: 'dialling', backend, timer };
    backend.on('error', (error) => this.#backendFailed(backend, errnoText(error)));
    backend.once('connect', () => {
      clearTimeout(timer);
      // Written before the relay begins, hence first; in one write and without delay, as receivers of headers expect.
      if (preamble !== undefined) backend.write(preamble);
      this.#established(backend);
    });
  }

  #backendFailed(backend: Socket, errno: string): void {
    if (this.#state.kind === 'relaying') this.#end('backendReset');
    else if (this.#state.kind === 'dialling' && this.#state.backend === backend) this.#dialFailed(errno);
  }

  /** After a stall the loop runs timers before it looks at sockets: the answer may be there already. */
  async #dialTimedOut(backend: Socket): Promise<void> {
    await afterPoll();
    if (this.#state.kind === 'dialling' && this.#state.backend === backend) this.#dialFailed('ETIMEDOUT');
  }

  #dialFailed(errno: string): void {
    this.#abandonDial();
    const failure = dialFailureFromErrno(errno);
    const decision = this.#deps.reporter.report({ kind: 'dialFailed', session: this.id, failure, errno });
    if (decision !== undefined) this.answer(decision);
  }

  /** Back to deciding; a dial under way is dropped and will report nothing. */
  #abandonDial(): void {
    if (this.#state.kind !== 'dialling') return;
    const { backend, timer } = this.#state;
    this.#state = { kind: 'deciding' };
    clearTimeout(timer);
    backend.destroy();
  }

  #established(backend: Socket): void {
    this.#state = { kind: 'relaying', backend };
    this.#deps.reporter.report({ kind: 'established', session: this.id });
    this.#relay(this.#client, backend);
    this.#relay(backend, this.#client);
    // Every byte of either direction is read from or written to the client's socket, and so renews it.
    if (this.#deps.idleTimeoutMs > 0)
      this.#client.setTimeout(this.#deps.idleTimeoutMs, () => this.#end('idle'));
    const closeWhenBothAreGone = (): void => {
      if (this.#client.closed && backend.closed) this.#end('fin');
    };
    this.#client.once('close', closeWhenBothAreGone);
    backend.once('close', closeWhenBothAreGone);
  }

  /**
   * One direction. `pipe` stops reading while the other side does not drain and passes the end on as FIN;
   * errors are ours to handle.
   */
  #relay(from: Socket, to: Socket): void {
    from.on('pause', () => {
      this.#deps.totals.flowControlPauses += 1;
    });
    from.once('end', () => this.#limitHalfClose(to));
    from.pipe(to);
  }

  /** `to` is the side that has still to end. What is shorter counts where both time-outs are on one socket. */
  #limitHalfClose(to: Socket): void {
    const { idleTimeoutMs, halfCloseTimeoutMs } = this.#deps;
    const isCovered = to === this.#client && idleTimeoutMs > 0 && idleTimeoutMs <= halfCloseTimeoutMs;
    if (halfCloseTimeoutMs === 0 || isCovered) return;
    to.removeAllListeners('timeout');
    to.setTimeout(halfCloseTimeoutMs, () => this.#end('halfClose'));
  }

  /** Every path ends here, once. Anything but an orderly end is a reset for both sides. */
  #end(cause: CloseCause): void {
    const state = this.#state;
    if (state.kind === 'closed') return;
    const { bytesIn, bytesOut } = this;
    this.#abandonDial();
    this.#state = { kind: 'closed' };
    if (cause !== 'fin') {
      resetSocket(this.#client);
      if (state.kind === 'relaying') resetSocket(state.backend);
    }
    this.#deps.reporter.report({ kind: 'closed', session: this.id, cause, bytesIn, bytesOut });
    this.#deps.onClosed(this);
  }
}

/**
 * RST, and the descriptor gone. While a FIN is on its way to the kernel a reset is refused (EINVAL) and the handle
 * would stay open for ever; everything has been delivered by then, so closing loses nothing.
 */
function resetSocket(socket: Socket): void {
  const isShuttingDown = socket.writableEnded && socket.writableLength === 0 && !socket.writableFinished;
  if (isShuttingDown) socket.destroy();
  else socket.resetAndDestroy();
}
