/** What every test of the engine contract needs: an engine, its recording policy, and listeners on free ports. */
import { onTestFinished } from 'vitest';
import { type Clock, systemClock } from '../../src/clock.ts';
import type {
  Engine,
  EngineFamily,
  EngineOptions,
  EngineProtocol,
  ListenerId,
  Policy,
  SessionId,
  SocketAddress,
} from '../../src/engine/engine.ts';
import { errnoOf, isProxyError } from '../../src/errors.ts';
import { type EventOf, RecordingPolicy } from '../support/recording-policy.ts';
import { waitFor } from '../support/wait.ts';

export type CreateEngine = (
  deps: { readonly clock: Clock; readonly policy: Policy },
  options: EngineOptions,
) => Engine;

export const LOOPBACK: Readonly<Record<EngineFamily, string>> = { IPv4: '127.0.0.1', IPv6: '::1' };

/** Below the ephemeral ports and the proxy's own range, so that only other tests can be in the way. */
const FIRST_PORT = 10_000;
const PORTS = 10_000;
const OBSERVED_WITHIN_MS = 10_000;

export interface Listening extends SocketAddress {
  readonly id: ListenerId;
}

export class EngineFixture {
  readonly engine: Engine;
  readonly policy = new RecordingPolicy();

  constructor(createEngine: CreateEngine, tweak: Partial<EngineOptions> = {}) {
    const options = {
      tcpIdleTimeoutMs: 0,
      halfCloseTimeoutMs: 3_600_000,
      udpUnrepliedTimeoutMs: 30_000,
      udpRepliedTimeoutMs: 120_000,
      ...tweak,
    };
    this.engine = createEngine({ clock: systemClock, policy: this.policy }, options);
    onTestFinished(async () => {
      await this.engine.shutdown();
      const { violations, open } = this.policy;
      if (violations.length > 0) throw new Error(`the engine broke its contract: ${violations.join('; ')}`);
      if (open.size > 0) throw new Error(`sessions that never closed: ${[...open].join()}`);
    });
  }

  /** Opens a listener on loopback, on a port that is free. */
  async listen(
    protocol: EngineProtocol,
    family: EngineFamily = 'IPv4',
    addresses: readonly string[] = [LOOPBACK[family]],
  ): Promise<Listening> {
    for (;;) {
      const port = FIRST_PORT + Math.floor(Math.random() * PORTS);
      try {
        const id = await this.engine.open({ protocol, family, port, addresses });
        return { id, address: addresses[0] ?? '', port };
      } catch (error) {
        if (!isProxyError(error, 'ERR_LISTENER_OPEN') || errnoOf(error.cause) !== 'EADDRINUSE') throw error;
      }
    }
  }

  /** The nth session that was opened. */
  async session(index = 0): Promise<SessionId> {
    const opened = await waitFor(() => this.policy.all('opened')[index], {
      timeoutMs: OBSERVED_WITHIN_MS,
      what: `session ${index}`,
    });
    return opened.session;
  }

  async closed(session: SessionId): Promise<EventOf<'closed'>> {
    return waitFor(() => this.policy.closedOf(session), {
      timeoutMs: OBSERVED_WITHIN_MS,
      what: `the end of session ${session}, which has ${this.policy.kindsOf(session).join()}`,
    });
  }

  async dialFailed(session: SessionId): Promise<EventOf<'dialFailed'>> {
    return waitFor(() => this.policy.all('dialFailed').find((event) => event.session === session), {
      timeoutMs: OBSERVED_WITHIN_MS,
      what: `a failed dial of session ${session}`,
    });
  }

  async established(session: SessionId): Promise<void> {
    await waitFor(() => this.policy.kindsOf(session).includes('established'), {
      timeoutMs: OBSERVED_WITHIN_MS,
      what: `session ${session} to be established`,
    });
  }
}

/** Bytes in which a piece that is lost, doubled or misplaced shows. */
export function makeBytes(length: number): Buffer {
  const bytes = Buffer.allocUnsafe(length);
  let state = length;
  for (let index = 0; index < length; index += 1) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    bytes[index] = state >>> 16;
  }
  return bytes;
}

/** Resolves with the value once it has stopped changing. */
export async function settled(value: () => number): Promise<number> {
  let last = Number.NaN;
  let unchanged = 0;
  await waitFor(
    () => {
      const now = value();
      unchanged = now === last ? unchanged + 1 : 0;
      last = now;
      return unchanged >= 10;
    },
    { timeoutMs: 20_000, what: 'a number to settle', intervalMs: 50 },
  );
  return last;
}
