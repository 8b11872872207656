/**
 * The sessions of an engine without sockets, for tests of the policy. It fails closed: whatever a real engine
 * would never do or be asked throws.
 */
import type {
  CloseCause,
  Decision,
  DialFailure,
  ListenerId,
  Policy,
  SessionBytes,
  SessionId,
  SocketAddress,
} from '../../src/engine/engine.ts';
import { hostPortText } from '../../src/model/address.ts';
import type { SessionControl } from '../../src/proxy/forwarder.ts';
import type { MonotonicMs } from '../../src/clock.ts';
import type { FakeClock } from './fake-clock.ts';

type State = 'deciding' | 'dialling' | 'established';

interface FakeSession {
  state: State;
  /** `10.0.0.1:80` while dialling or established. */
  endpoint: string;
  timeoutMs: number;
  /** What the backend gets first; empty: nothing. */
  preamble: Uint8Array;
  bytesIn: number;
  bytesOut: number;
  lastUsed: MonotonicMs;
}

const FIRST_CLIENT_PORT = 40_000;
const NOTHING = new Uint8Array();

export class FakeSessions implements SessionControl {
  readonly #clock: FakeClock;
  readonly #sessions = new Map<SessionId, FakeSession>();
  readonly closes = new Map<SessionId, CloseCause>();
  policy: Policy | undefined;
  #lastId = 0;

  constructor(clock: FakeClock) {
    this.#clock = clock;
  }

  /** A client connects, or sends its first datagram; from port 40000 + its session id. */
  open(listener: number, client = '192.168.1.1'): SessionId {
    this.#lastId += 1;
    const session = this.#lastId as SessionId;
    this.#sessions.set(session, {
      state: 'deciding',
      endpoint: '',
      timeoutMs: 0,
      preamble: NOTHING,
      bytesIn: 0,
      bytesOut: 0,
      lastUsed: this.#clock.now(),
    });
    const from: SocketAddress = { address: client, port: FIRST_CLIENT_PORT + this.#lastId };
    this.#act(
      session,
      this.#report({ kind: 'opened', listener: listener as ListenerId, session, client: from }),
    );
    return session;
  }

  /** Where the session is dialled to or established; undefined once it has ended. */
  endpointOf(session: SessionId): string | undefined {
    return this.#sessions.get(session)?.endpoint;
  }

  timeoutOf(session: SessionId): number {
    return this.#at(session, 'dialling').timeoutMs;
  }

  /** Of the dial under way. */
  preambleOf(session: SessionId): Uint8Array {
    return this.#at(session, 'dialling').preamble;
  }

  establish(session: SessionId): void {
    this.#at(session, 'dialling').state = 'established';
    this.#report({ kind: 'established', session });
  }

  failDial(session: SessionId, failure: DialFailure, errno = 'ECONNREFUSED'): void {
    this.#at(session, 'dialling').state = 'deciding';
    this.#act(session, this.#report({ kind: 'dialFailed', session, failure, errno }));
  }

  carry(session: SessionId, bytesIn: number, bytesOut: number): void {
    const open = this.#at(session, 'established');
    open.bytesIn += bytesIn;
    open.bytesOut += bytesOut;
  }

  close(session: SessionId, cause: CloseCause = 'fin'): void {
    const open = this.#sessions.get(session);
    if (open === undefined) throw new Error(`session ${session} is not open`);
    this.#sessions.delete(session);
    this.closes.set(session, cause);
    const { bytesIn, bytesOut } = open;
    this.#report({ kind: 'closed', session, cause, bytesIn, bytesOut });
  }

  answer(session: SessionId, decision: Decision): void {
    const open = this.#sessions.get(session);
    if (open === undefined) throw new Error(`answer for session ${session}, which is not open`);
    if (open.state === 'established') throw new Error(`answer for session ${session}, which is established`);
    this.#act(session, decision);
  }

  reset(sessions: Iterable<SessionId>, cause: 'stopped' | 'evicted' = 'stopped'): void {
    for (const session of sessions) this.close(session, cause);
  }

  lastUsed(session: SessionId): MonotonicMs | undefined {
    return this.#sessions.get(session)?.lastUsed;
  }

  /** A datagram of the session goes either way. */
  use(session: SessionId): void {
    this.#at(session, 'established').lastUsed = this.#clock.now();
  }

  *sessionBytes(): Iterable<SessionBytes> {
    for (const [session, { bytesIn, bytesOut }] of this.#sessions) yield { session, bytesIn, bytesOut };
  }

  #at(session: SessionId, state: State): FakeSession {
    const open = this.#sessions.get(session);
    if (open?.state !== state)
      throw new Error(`session ${session} is ${open?.state ?? 'gone'}, not ${state}`);
    return open;
  }

  #act(session: SessionId, decision: Decision | undefined): void {
    const open = this.#sessions.get(session);
    if (open === undefined) throw new Error(`a decision for session ${session}, which is gone`);
    // It waits for its turn.
    if (decision === undefined) return;
    if (decision.kind === 'refuse') {
      this.close(session, 'refused');
      return;
    }
    if (decision.timeoutMs <= 0) throw new Error(`a dial for ${decision.timeoutMs} ms`);
    if (decision.preamble?.length === 0) throw new Error('a preamble of nothing');
    open.state = 'dialling';
    open.endpoint = hostPortText(decision.to.address, decision.to.port);
    open.timeoutMs = decision.timeoutMs;
    open.preamble = decision.preamble ?? NOTHING;
  }

  #report(event: Parameters<Policy['handle']>[0][number]): Decision | undefined {
    if (this.policy === undefined) throw new Error('no policy');
    const decisions = this.policy.handle([event], this.#clock.now());
    if (decisions.length !== 1) throw new Error(`${decisions.length} decisions for one event`);
    const wantsOne = event.kind === 'opened' || event.kind === 'dialFailed';
    if (!wantsOne && decisions[0] !== undefined) throw new Error(`a decision for ${event.kind}`);
    return decisions[0];
  }
}
