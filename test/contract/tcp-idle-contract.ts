/** The engine contract for TCP connections that are silent in both directions. */
import { describe, expect, test } from 'vitest';
import { connectTcp, echo, openTcpBackend } from '../support/loopback-tcp.ts';
import { dialTo } from '../support/recording-policy.ts';
import { waitFor } from '../support/wait.ts';
import { type CreateEngine, EngineFixture } from './engine-fixture.ts';

const IDLE_MS = 1000;
/** Longer than the time-out, in steps well below it. */
const BUSY_MS = 1600;
const TICK_MS = 50;

/** Resolves after `BUSY_MS`, in which `speak` was called all the time. */
async function keepSpeaking(speak: () => void): Promise<void> {
  const startedAt = performance.now();
  const tick = setInterval(speak, TICK_MS);
  await waitFor(() => performance.now() - startedAt > BUSY_MS, {
    timeoutMs: 10_000,
    what: 'a while of traffic',
  });
  clearInterval(tick);
}

export function describeTcpIdleContract(createEngine: CreateEngine): void {
  describe('a TCP session with an idle time-out', () => {
    test('ends with idle, and resets both sides, when neither has sent anything for so long', async () => {
      const fixture = new EngineFixture(createEngine, { tcpIdleTimeoutMs: IDLE_MS });
      const backend = await openTcpBackend('127.0.0.1', echo);
      fixture.policy.decide = () => dialTo(backend);
      const client = await connectTcp(await fixture.listen('TCP'));
      const server = await backend.peer();
      client.send('hello');
      await client.bytes(5);
      const session = await fixture.session();

      expect((await fixture.closed(session)).cause).toBe('idle');
      const lifeMs = fixture.policy.timeOf(session, 'closed') - fixture.policy.timeOf(session, 'opened');
      expect(lifeMs).toBeGreaterThanOrEqual(IDLE_MS - 5);
      expect(await client.failed()).toBe('ECONNRESET');
      expect(await server.failed()).toBe('ECONNRESET');
    });

    test.each(['client', 'backend'])('lives on while its %s alone speaks now and then', async (speaker) => {
      const fixture = new EngineFixture(createEngine, { tcpIdleTimeoutMs: IDLE_MS });
      const backend = await openTcpBackend();
      fixture.policy.decide = () => dialTo(backend);
      const client = await connectTcp(await fixture.listen('TCP'));
      const server = await backend.peer();

      await keepSpeaking(() => (speaker === 'client' ? client : server).send('.'));

      expect(fixture.policy.all('closed')).toEqual([]);
      client.end();
      server.end();
      expect((await fixture.closed(await fixture.session())).cause).toBe('fin');
    });

    test.each([
      { ended: 'client', idleMs: 100_000, halfCloseMs: 200, cause: 'halfClose' },
      { ended: 'backend', idleMs: 100_000, halfCloseMs: 200, cause: 'halfClose' },
      { ended: 'client', idleMs: 200, halfCloseMs: 100_000, cause: 'idle' },
      { ended: 'backend', idleMs: 200, halfCloseMs: 100_000, cause: 'idle' },
    ])(
      'half-closed by its $ended it ends by the shorter time-out: $cause',
      async ({ ended, idleMs, halfCloseMs, cause }) => {
        const fixture = new EngineFixture(createEngine, {
          tcpIdleTimeoutMs: idleMs,
          halfCloseTimeoutMs: halfCloseMs,
        });
        const backend = await openTcpBackend();
        fixture.policy.decide = () => dialTo(backend);
        const client = await connectTcp(await fixture.listen('TCP'));
        const server = await backend.peer();

        (ended === 'client' ? client : server).end();

        expect((await fixture.closed(await fixture.session())).cause).toBe(cause);
      },
    );
  });
}
