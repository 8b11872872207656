/** The engine contract for TCP: what is held, what is counted, and ids. */
import { describe, expect, test } from 'vitest';
import { connectTcp, echo, openTcpBackend, sayName } from '../support/loopback-tcp.ts';
import { dialTo, later } from '../support/recording-policy.ts';
import { waitFor } from '../support/wait.ts';
import { type CreateEngine, EngineFixture, makeBytes, settled } from './engine-fixture.ts';

const MIB = 1_048_576;
/** More than every buffer between two peers together. */
const FLOOD_BYTES = 32 * MIB;
/** The kernel's send and receive buffers of both connections at their largest, plus ours. */
const MAX_IN_FLIGHT_BYTES = 24 * MIB;

export function describeTcpFlowContract(createEngine: CreateEngine): void {
  describe('TCP flow', () => {
    test.each([
      { name: 'client', isFromClient: true },
      { name: 'backend', isFromClient: false },
    ])('a peer that does not read stops the $name, and then gets everything', async ({ isFromClient }) => {
      const fixture = new EngineFixture(createEngine);
      const backend = await openTcpBackend('127.0.0.1', (peer) => peer.hold());
      fixture.policy.decide = () => dialTo(backend);
      const client = await connectTcp(await fixture.listen('TCP'));
      client.hold();
      const server = await backend.peer();
      const [writer, reader] = isFromClient ? [client, server] : [server, client];
      const content = makeBytes(FLOOD_BYTES);

      for (let at = 0; at < FLOOD_BYTES; at += MIB) writer.send(content.subarray(at, at + MIB));
      const [bytes] = [...fixture.engine.sessionBytes()];
      const carried = (): number => {
        const [now] = [...fixture.engine.sessionBytes()];
        return (isFromClient ? now?.bytesIn : now?.bytesOut) ?? 0;
      };
      const inFlight = await settled(carried);
      expect(bytes).toBeDefined();
      expect(inFlight).toBeLessThan(MAX_IN_FLIGHT_BYTES);
      expect(inFlight).toBeGreaterThan(0);
      expect(reader.receivedBytes).toBe(0);
      expect(fixture.engine.totals().flowControlPauses).toBeGreaterThan(0);
      reader.readOn();
      await reader.bytes(FLOOD_BYTES);

      expect(reader.received.equals(content)).toBe(true);
    });

    test('what a client sends before its backend is up stays in the kernel, and then arrives whole', async () => {
      const fixture = new EngineFixture(createEngine);
      fixture.policy.decide = later;
      const backend = await openTcpBackend();
      const client = await connectTcp(await fixture.listen('TCP'));
      const session = await fixture.session();
      const content = makeBytes(FLOOD_BYTES);
      const heldBefore = process.memoryUsage().arrayBuffers;

      for (let at = 0; at < FLOOD_BYTES; at += MIB) client.send(content.subarray(at, at + MIB));
      const accepted = await settled(() => client.acceptedBytes);
      expect(accepted).toBeLessThan(MAX_IN_FLIGHT_BYTES);
      // The pieces above share the memory of `content`: whatever is new was read by the engine.
      expect(process.memoryUsage().arrayBuffers - heldBefore).toBeLessThan(2 * MIB);
      fixture.engine.answer(session, dialTo(backend));
      const server = await backend.peer();
      await server.bytes(FLOOD_BYTES);

      expect(server.received.equals(content)).toBe(true);
    });

    test('a session that fits is never paused', async () => {
      const fixture = new EngineFixture(createEngine);
      const backend = await openTcpBackend('127.0.0.1', echo);
      fixture.policy.decide = () => dialTo(backend);
      const client = await connectTcp(await fixture.listen('TCP'));

      client.send('short');
      await client.text('short');

      expect(fixture.engine.totals().flowControlPauses).toBe(0);
    });

    test('the bytes of a session show while it is open, and no more once it has ended', async () => {
      const fixture = new EngineFixture(createEngine);
      const backend = await openTcpBackend();
      fixture.policy.decide = () => dialTo(backend);
      const client = await connectTcp(await fixture.listen('TCP'));
      const server = await backend.peer();
      client.send('12345');
      await server.text('12345');
      server.send('123');
      await client.text('123');
      const session = await fixture.session();

      expect([...fixture.engine.sessionBytes()]).toEqual([{ session, bytesIn: 5, bytesOut: 3 }]);
      client.reset();
      const closed = await fixture.closed(session);

      expect(closed).toMatchObject({ cause: 'clientReset', bytesIn: 5, bytesOut: 3 });
      expect([...fixture.engine.sessionBytes()]).toEqual([]);
    });

    test('no session id comes twice, and every session closes exactly once', async () => {
      const fixture = new EngineFixture(createEngine);
      const backend = await openTcpBackend('127.0.0.1', sayName('x'));
      fixture.policy.decide = () => dialTo(backend);
      const listener = await fixture.listen('TCP');

      for (let round = 0; round < 5; round += 1) {
        const clients = await Promise.all(Array.from({ length: 40 }, async () => connectTcp(listener)));
        for (const [index, client] of clients.entries()) {
          await client.text('x');
          if (index % 2 === 0) client.reset();
          else client.end();
        }
      }
      await waitFor(() => fixture.policy.all('opened').length === 200 && fixture.policy.open.size === 0, {
        timeoutMs: 10_000,
        what: '200 sessions to end',
      });

      const ids = fixture.policy.all('opened').map(({ session }) => session);
      expect(new Set(ids).size).toBe(200);
      const closed = fixture.policy.all('closed').map(({ session }) => session);
      expect(closed).toHaveLength(200);
      expect(new Set(closed)).toEqual(new Set(ids));
    });
  });
}
