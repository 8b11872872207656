/** Which API server is asked, and when one can be reached again: against real sockets on loopback. */
import { describe, expect, test } from 'vitest';
import { ServerList } from '../../../src/sources/kubernetes/server-list.ts';
import { GateServer } from '../../support/gate-server.ts';
import { connectTcp, openBlackHole } from '../../support/loopback-tcp.ts';
import { waitFor } from '../../support/wait.ts';

const URLS = ['https://a:6443', 'https://b:6443', 'https://c:6443'].map((text) => new URL(text));
const [A, B, C] = URLS as [URL, URL, URL];

function listOf(urls: readonly URL[]): ServerList {
  return new ServerList({ random: () => 0 }, urls);
}

/** Aborted at the end of the block. */
class Stop implements Disposable {
  readonly #controller = new AbortController();

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  [Symbol.dispose](): void {
    this.#controller.abort();
  }
}

describe('the server in use', () => {
  test('is the first one, then after each failure the next one, in a ring', () => {
    const servers = listOf(URLS);
    expect(servers.size).toBe(3);
    const seen = Array.from({ length: 5 }, () => {
      const { current } = servers;
      servers.failed(current);
      return current;
    });
    expect(seen).toEqual([A, B, C, A, B]);
  });

  test('stays when another one failed: what was asked of it before says nothing about now', () => {
    const servers = listOf(URLS);
    servers.failed(A);
    servers.failed(A);
    servers.failed(C);
    expect(servers.current).toBe(B);
  });

  test('stays when it is the only one', () => {
    const servers = listOf([A]);
    servers.failed(A);
    expect(servers.current).toBe(A);
  });

  test('is asked for in vain when there is none', () => {
    expect(() => listOf([]).current).toThrow('no API server');
  });
});

describe('a server can be reached again', () => {
  test('as soon as one takes a connection, which then is the one in use', async () => {
    using stop = new Stop();
    const [first, second] = [await GateServer.make(), await GateServer.make()];
    const servers = listOf([first.url, second.url]);
    let isReachable = false;
    const waiting = servers.whenReachable(stop.signal).then(() => {
      isReachable = true;
    });
    expect(isReachable).toBe(false);
    await second.open();
    await waiting;
    expect(servers.current).toBe(second.url);
  });

  test('not before: a port that refuses is tried on and on', async () => {
    using stop = new Stop();
    const gate = await GateServer.make();
    const servers = listOf([gate.url]);
    let isReachable = false;
    const waiting = servers.whenReachable(stop.signal).then(() => {
      isReachable = true;
    });
    // Two servers of which one tells that the other was tried: it is asked after it.
    const witness = await GateServer.make();
    const both = listOf([gate.url, witness.url]);
    const witnessed = both.whenReachable(stop.signal);
    await witness.open();
    await witnessed;
    expect(both.current).toBe(witness.url);
    expect(isReachable).toBe(false);
    await gate.open();
    await waiting;
  });

  test('and the connection that shows it is closed again', async () => {
    using stop = new Stop();
    const gate = await GateServer.make();
    await gate.open();
    await listOf([gate.url]).whenReachable(stop.signal);
    await waitFor(() => gate.connections === 1 && gate.openConnections === 0, {
      timeoutMs: 5000,
      what: 'the end of the probe',
    });
  });

  test('and all who wait for it share one connection', async () => {
    using stop = new Stop();
    const gate = await GateServer.make();
    await gate.open();
    const servers = listOf([gate.url]);
    await Promise.all(Array.from({ length: 5 }, async () => servers.whenReachable(stop.signal)));
    // Connections are taken in the order in which they were made: after ours nothing is left.
    const ours = await connectTcp({ address: gate.url.hostname, port: Number(gate.url.port) });
    const { port } = ours.address;
    await waitFor(() => gate.peers.includes(port), { timeoutMs: 5000, what: 'the connection of the test' });
    expect(gate.connections).toBe(2);
  });

  test('and is looked for anew the next time', async () => {
    using stop = new Stop();
    const gate = await GateServer.make();
    const servers = listOf([gate.url]);
    for (const count of [1, 2]) {
      await gate.open();
      await servers.whenReachable(stop.signal);
      await waitFor(() => gate.connections === count, { timeoutMs: 5000, what: `probe ${count}` });
      await gate.close();
    }
  });

  test('and the one in use stays so when others take connections as well', async () => {
    using stop = new Stop();
    const gates = [await GateServer.make(), await GateServer.make(), await GateServer.make()];
    for (const gate of gates) await gate.open();
    const servers = listOf(gates.map(({ url }) => url));
    servers.failed(servers.current);
    await servers.whenReachable(stop.signal);
    expect(servers.current).toBe(gates[1]?.url);
  });

  test('and one that says nothing at all keeps nobody from another, wherever it stands', async () => {
    const { address, port } = await openBlackHole();
    const gate = await GateServer.make();
    await gate.open();
    const silent = new URL(`https://${address}:${port}`);
    for (const urls of [
      [silent, gate.url],
      [gate.url, silent],
    ]) {
      using stop = new Stop();
      const servers = listOf(urls);
      await servers.whenReachable(stop.signal);
      expect(servers.current).toBe(gate.url);
    }
  });

  test('or is waited for no longer once the signal is aborted', async () => {
    const gate = await GateServer.make();
    const stop = new AbortController();
    const servers = listOf([gate.url]);
    const waiting = servers.whenReachable(stop.signal);
    stop.abort();
    await expect(waiting).rejects.toThrow('nobody waits');
    await expect(servers.whenReachable(stop.signal)).rejects.toThrow('abort');
    expect(gate.connections).toBe(0);
  });

  test('for the others who wait, when one of them gives up', async () => {
    using stop = new Stop();
    const gate = await GateServer.make();
    await gate.open();
    const impatient = new AbortController();
    const servers = listOf([gate.url]);
    // The one who gives up has begun the probes.
    const givenUp = servers.whenReachable(impatient.signal);
    const waiting = servers.whenReachable(stop.signal);
    impatient.abort();
    await expect(givenUp).rejects.toThrow('nobody waits');
    await waiting;
    await waitFor(() => gate.connections === 1, { timeoutMs: 5000, what: 'the probe' });
  });

  test('but is not looked for any more when nobody waits', async () => {
    using stop = new Stop();
    const [gate, witness] = [await GateServer.make(), await GateServer.make()];
    await gate.open();
    await witness.open();
    const impatient = new AbortController();
    const servers = listOf([gate.url, witness.url]);
    servers.failed(gate.url);
    const waiting = servers.whenReachable(impatient.signal);
    impatient.abort();
    await expect(waiting).rejects.toThrow('nobody waits');
    // By the end of these probes the one that was given up would have been over.
    const others = listOf([witness.url]);
    await others.whenReachable(stop.signal);
    await others.whenReachable(stop.signal);
    expect(gate.connections).toBe(0);
    // And it is by somebody who comes later.
    await servers.whenReachable(stop.signal);
    await waitFor(() => gate.connections === 1, { timeoutMs: 5000, what: 'the probe' });
    expect(servers.current).toBe(witness.url);
  });
});
