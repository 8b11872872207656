/** Who writes the rules when several instances meet: one, and the others keep what they serve. */
import { once } from 'node:events';
import { Server } from 'node:net';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { renderMessage } from '../../src/host/ownership-protocol.ts';
import { connectTo, listenOn } from '../../src/host/ownership-socket.ts';
import { waitFor } from '../support/wait.ts';
import { FakeNode, type Instance, portOf } from './ownership-fixture.ts';

const DEADLINE_MS = 10_000;

async function becomes(what: string, condition: () => boolean): Promise<void> {
  await waitFor(condition, { timeoutMs: DEADLINE_MS, what, intervalMs: 5 });
}

/** An owner and the newcomer that took over from it. */
async function takenOver(node: FakeNode): Promise<{ old: Instance; heir: Instance }> {
  const old = node.instance({ ports: [portOf(20_001)] });
  expect(await old.sync()).toBe(true);
  const heir = node.instance({ ports: [portOf(20_002)] });
  expect(await heir.sync()).toBe(true);
  await becomes('the predecessor to retire', () => heir.journal.includes('predecessor retired'));
  return { old, heir };
}

describe('an instance alone', () => {
  test('owns the rules, with a generation above the one in the kernel', async () => {
    const node = new FakeNode();
    node.highest = 41;
    const one = node.instance();
    expect(await one.ownership.ensure()).toBe(true);
    expect(one.ownership).toMatchObject({ isOwner: true, generation: 42, changes: 1, peerPorts: [] });
    expect(one.journal).toEqual([]);
  });

  test('owns nothing before it asks, nor while the kernel cannot be read, and does so afterwards', async () => {
    const one = new FakeNode().instance();
    expect(one.ownership.isOwner).toBe(false);
    one.fault = new Error('no iptables');
    await expect(one.ownership.ensure()).rejects.toThrow('no iptables');
    expect(one.ownership.isOwner).toBe(false);
    one.fault = undefined;
    expect(await one.ownership.ensure()).toBe(true);
    expect(one.ownership.generation).toBe(1);
  });
});

describe('somebody else with the name of the socket', () => {
  test.each(['yielded', 'accepted'])(
    'who says %s to everything and keeps it is passed over, and asked over few connections at a time',
    async (type) => {
      const node = new FakeNode();
      let open = 0;
      let most = 0;
      const squatter = await listenOn(node.socketName, (socket) => {
        open += 1;
        most = Math.max(most, open);
        socket.on('close', () => (open -= 1)).on('error', () => {});
        socket.on('data', () =>
          socket.write(`${JSON.stringify({ version: 1, type, generation: 1, ports: [] })}\n`),
        );
      });
      onTestFinished(() => void squatter?.close());
      const one = node.instance({ answerTimeoutMs: 500 });
      onTestFinished(() => one.ownership.close());
      expect(await one.sync()).toBe(true);
      expect(most).toBeLessThanOrEqual(3);
    },
  );

  test('who asks for the rules and hangs up gets them once, not again and again', async () => {
    const node = new FakeNode();
    const one = node.instance();
    onTestFinished(() => one.ownership.close());
    await one.sync();
    const ask = async (): Promise<void> => {
      const connected = await connectTo(node.socketName);
      if (connected.kind !== 'connected') throw new Error(connected.kind);
      const { socket } = connected;
      const answered = once(socket, 'data');
      socket.write(renderMessage({ type: 'takeover' }));
      await answered;
      socket.destroy();
    };
    await ask();
    await becomes('it to own again', () => one.ownership.isOwner);
    for (let times = 0; times < 5; times += 1) await ask();
    expect(one.ownership).toMatchObject({ isOwner: true, changes: 3 });
  });
});

describe('an instance on a node that forbids the socket', () => {
  test('says so, writes all the same, and stands by when the kernel has a newer generation', async () => {
    const node = new FakeNode('x'.repeat(200));
    const one = node.instance();
    expect(await one.sync()).toBe(true);
    expect(one.logger.at('warn').map(({ message }) => message)).toEqual([
      'Instances on this node cannot find each other',
    ]);
    const other = node.instance();
    expect(await other.sync()).toBe(true);
    expect(await one.sync()).toBe(false);
    expect([one.ownership.isOwner, other.ownership.isOwner]).toEqual([false, true]);
  });
});

describe('a newcomer beside an owner', () => {
  test('takes over with a higher generation and knows the ports that are taken', async () => {
    const node = new FakeNode();
    const { old, heir } = await takenOver(node);
    expect(heir.ownership).toMatchObject({ isOwner: true, generation: 2, peerPorts: [portOf(20_001)] });
    expect(old.ownership).toMatchObject({ isOwner: false, changes: 2 });
    expect(old.journal).toEqual(['quiesce', 'retire']);
    expect(await old.sync()).toBe(false);
    expect(node.writer).toBe(heir);
    expect(old.logger.at('warn')).toEqual([]);
    expect(heir.logger.at('warn')).toEqual([]);
  });

  test('is not the owner before the write under way has ended', async () => {
    const node = new FakeNode();
    const old = node.instance();
    await old.sync();
    const write = Promise.withResolvers<void>();
    old.gate = write.promise;
    const heir = node.instance();
    const taking = heir.sync();
    await becomes('the request', () => old.journal.includes('quiesce'));
    expect([old.ownership.isOwner, heir.ownership.isOwner]).toEqual([false, false]);
    write.resolve();
    expect(await taking).toBe(true);
    expect(heir.ownership.isOwner).toBe(true);
  });

  test('lets the old one keep its HTTP servers until rules are written', async () => {
    const node = new FakeNode();
    const old = node.instance();
    await old.sync();
    const heir = node.instance();
    await heir.ownership.ensure();
    expect(old.journal).toEqual(['quiesce']);
    await heir.sync();
    await becomes('the old one to retire', () => old.journal.includes('retire'));
  });

  test('learns when the old one has ended, and that its ports are closed', async () => {
    const { old, heir } = await takenOver(new FakeNode());
    expect(heir.ended).toEqual([]);
    old.ownership.close();
    await becomes('its ports to be gone', () => heir.ownership.peerPorts.length === 0);
    expect(heir.ended).toEqual([portOf(20_001)]);
    expect(heir.ownership.isOwner).toBe(true);
  });

  test('that ends gives the rules back, with a newer generation and the ports it had', async () => {
    const node = new FakeNode();
    const { old, heir } = await takenOver(node);
    await becomes('the ports of the owner', () => old.ownership.peerPorts.length === 1);
    heir.ownership.close();
    await becomes('the old one to own again', () => old.ownership.isOwner);
    expect(old.ownership.generation).toBe(3);
    expect(old.journal).toEqual(['quiesce', 'retire', 'regained']);
    expect(old.ended).toEqual([portOf(20_002)]);
    expect(await old.sync()).toBe(true);
  });

  test('that ends while the old one has no descriptor for the socket gives them back all the same', async () => {
    const { old, heir } = await takenOver(new FakeNode());
    const listen = vi.spyOn(Server.prototype, 'listen').mockImplementationOnce(function (this: Server) {
      const fault = Object.assign(new Error('too many open files'), { code: 'EMFILE' });
      queueMicrotask(() => this.emit('error', fault));
      return this;
    });
    onTestFinished(() => listen.mockRestore());
    heir.ownership.close();
    await becomes('the old one to own again', () => old.ownership.isOwner);
    expect(listen).toHaveBeenCalledTimes(2);
  });

  test('that is told to stop gives the rules back while it still serves', async () => {
    const { old, heir } = await takenOver(new FakeNode());
    heir.ownership.stop();
    await becomes('the old one to own again', () => old.ownership.isOwner);
    expect(await old.sync()).toBe(true);
    expect(old.ownership.peerPorts).toEqual([portOf(20_002)]);
    await becomes('the stopping one to retire', () => heir.journal.includes('retire'));
    heir.ownership.close();
    await becomes('its ports to be gone', () => old.ended.length === 1);
    expect(old.ownership.isOwner).toBe(true);
  });

  test('is not followed by an old one that was told to stop', async () => {
    const node = new FakeNode();
    const { old, heir } = await takenOver(node);
    old.ownership.stop();
    heir.ownership.close();
    const next = node.instance();
    expect(await next.sync()).toBe(true);
    expect(old.ownership.isOwner).toBe(false);
    expect(old.journal).not.toContain('regained');
  });
});

describe('an owner that is about to end', () => {
  test('gives the rules to whoever comes to stand by', async () => {
    const node = new FakeNode();
    const { old, heir } = await takenOver(node);
    const third = node.instance();
    await third.sync();
    third.ownership.stop();
    await becomes('the second to own', () => heir.ownership.isOwner);
    heir.ownership.close();
    await becomes('the first to own', () => old.ownership.isOwner);
  });
});

describe('three instances', () => {
  test('make one owner, and the next one to own when it ends', async () => {
    const node = new FakeNode();
    const { old, heir } = await takenOver(node);
    const third = node.instance({ ports: [portOf(20_003)] });
    expect(await third.sync()).toBe(true);
    expect(third.ownership.peerPorts).toEqual([portOf(20_002), portOf(20_001)]);
    third.ownership.close();
    await becomes('another owner', () => heir.ownership.isOwner);
    expect(await heir.sync()).toBe(true);
    expect(old.ownership.isOwner).toBe(false);
    heir.ownership.close();
    await becomes('the first to own', () => old.ownership.isOwner);
  });

  test('stay in touch when the one between them ends', async () => {
    const node = new FakeNode();
    const { old, heir } = await takenOver(node);
    const third = node.instance({ ports: [portOf(20_003)] });
    await third.sync();
    heir.ownership.close();
    await becomes('the first to stand by for the third', () =>
      third.ownership.peerPorts.some(({ port }) => port === 20_001),
    );
    expect(third.ownership.isOwner).toBe(true);
    third.ownership.close();
    await becomes('the first to own', () => old.ownership.isOwner);
  });

  test('that start at once end with one owner and no ping-pong', async () => {
    const node = new FakeNode();
    const all = [node.instance(), node.instance(), node.instance()];
    await Promise.all(all.map(async (one) => one.sync()));
    const owners = (): number => all.filter(({ ownership }) => ownership.isOwner).length;
    await becomes('one owner', () => owners() === 1);
    for (let pass = 0; pass < 20; pass += 1) for (const one of all) await one.sync();
    expect(owners()).toBe(1);
    expect(all.reduce((sum, { ownership }) => sum + ownership.changes, 0)).toBeLessThanOrEqual(5);
  });
});

describe('an owner that does not answer', () => {
  const hung = async (node: FakeNode): Promise<{ old: Instance; heir: Instance; wake: () => void }> => {
    const old = node.instance({ ports: [portOf(20_001)] });
    await old.sync();
    const { promise, resolve } = Promise.withResolvers<void>();
    old.gate = promise;
    const heir = node.instance({ answerTimeoutMs: 100, ports: [portOf(20_002)] });
    expect(await heir.sync()).toBe(true);
    return { old, heir, wake: resolve };
  };

  test('is passed over with a warning; the ports that it is remembered to have count as taken', async () => {
    const { heir } = await hung(new FakeNode());
    expect(heir.logger.at('warn').map(({ message }) => message)).toEqual([
      'Another instance owns the rules and does not yield them, taking them over without it',
    ]);
    expect(heir.ownership.peerPorts).toEqual([portOf(20_999)]);
    expect(heir.ownership.generation).toBeGreaterThan(2);
  });

  test('stands by when it wakes, tells its ports, and its socket goes to the new one', async () => {
    const node = new FakeNode();
    const { old, heir, wake } = await hung(node);
    wake();
    await becomes('the ports that it really has', () => heir.ownership.peerPorts[0]?.port === 20_001);
    await becomes('it to retire', () => heir.journal.includes('predecessor retired'));
    expect(await old.sync()).toBe(false);
    const next = node.instance();
    expect(await next.sync()).toBe(true);
    expect(heir.ownership.isOwner).toBe(false);
  });
});

describe('an owner that the kernel refuses', () => {
  test('stands by with one warning, and comes back when the other one ends', async () => {
    const node = new FakeNode();
    const old = node.instance();
    await old.sync();
    node.highest = 7;
    expect(await old.sync()).toBe(false);
    expect(await old.sync()).toBe(false);
    expect(old.logger.at('warn')).toHaveLength(1);
    expect(old.journal).toEqual(['quiesce', 'retire']);
    // Nobody has the socket for as long as the other one may need to bind it.
    await becomes('it to own again', () => old.ownership.isOwner);
    expect(old.ownership.generation).toBe(8);
  });

  test('stands by for the other one as soon as that has the socket', async () => {
    const node = new FakeNode();
    const old = node.instance({ patienceMs: 60_000, ports: [portOf(20_001)] });
    await old.sync();
    node.highest = 7;
    await old.sync();
    const other = node.instance();
    expect(await other.sync()).toBe(true);
    await becomes('it to stand by', () => other.ownership.peerPorts.length === 1);
    expect(old.ownership.isOwner).toBe(false);
    other.ownership.close();
    await becomes('it to own again', () => old.ownership.isOwner);
  });
});

describe('an owner that was passed over, before the other one has the socket', () => {
  test('leaves it free for a while, instead of taking the rules back', async () => {
    const node = new FakeNode();
    const old = node.instance({ patienceMs: 60_000 });
    await old.sync();
    node.highest = 7;
    await old.sync();
    const bound = async (): Promise<Server | undefined> => listenOn(node.socketName, () => {});
    const server = await waitFor(bound, { timeoutMs: DEADLINE_MS, what: 'the socket to be free' });
    onTestFinished(() => void server.close());
    expect(old.ownership.isOwner).toBe(false);
  });
});

describe('a stranger at the socket', () => {
  test('that asks for the rules and writes none loses them again, and is then refused', async () => {
    const node = new FakeNode();
    const owner = node.instance({ proofTimeoutMs: 50 });
    await owner.sync();
    node.stranger().write('{"version":1,"type":"takeover"}\n{"version":1,"type":"programmed"}\n');
    await becomes('the rules to be yielded', () => !owner.ownership.isOwner);
    await becomes('them to be taken back', () => owner.ownership.isOwner);
    expect(owner.journal).toEqual(['quiesce', 'regained']);
    expect(await owner.sync()).toBe(true);
    const again = node.stranger();
    let heard = '';
    again.setEncoding('utf8').on('data', (text: string) => (heard += text));
    again.write('{"version":1,"type":"takeover"}\n');
    await becomes('a refusal', () => heard.includes('"refused"'));
    expect(owner.ownership.isOwner).toBe(true);
  });

  test.for([
    { name: 'nonsense', text: 'GET / HTTP/1.1\r\n\r\n' },
    { name: 'another version', text: '{"version":2,"type":"takeover"}\n' },
    { name: 'an unknown type', text: '{"version":1,"type":"please"}\n' },
    {
      name: 'a generation that is none',
      text: '{"version":1,"type":"yielded","generation":"9","ports":[]}\n',
    },
    { name: 'null', text: 'null\n' },
    { name: 'a line without end', text: 'x'.repeat(9_000_000) },
  ])('that says $name is shown the door, and changes nothing', async ({ text }) => {
    const node = new FakeNode();
    const owner = node.instance();
    await owner.sync();
    const stranger = node.stranger();
    stranger.write(text);
    await becomes('the end of the connection', () => stranger.destroyed);
    expect(owner.ownership).toMatchObject({ isOwner: true, generation: 1, peerPorts: [] });
  });
});
