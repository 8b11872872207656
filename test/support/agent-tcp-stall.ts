/** The agent's slow readers: connections from which nothing is read until a test says so. */
import { createHash } from 'node:crypto';
import type { Socket } from 'node:net';
import type { AgentFunctions, Params, StallDrain } from './agent-protocol.ts';
import { errnoOf, FailureLog, OctetSource, openSocket, repeat, settleWithin } from './agent-socket.ts';

const DIALS_AT_ONCE = 64;
const CHUNK_BYTES = 65_536;

class StalledGroup {
  readonly #sockets: Socket[] = [];
  readonly failures = new FailureLog();

  get opened(): number {
    return this.#sockets.length;
  }

  async open(params: Params<'tcpStall'>): Promise<void> {
    const { count, concurrency = DIALS_AT_ONCE, timeoutMs } = params;
    await repeat({ count, concurrency }, async () => {
      const socket = openSocket(params);
      const errno = await settleWithin<string | undefined>(
        timeoutMs,
        () => 'TIMEOUT',
        (finish) => {
          // It stays attached: an error while nothing is read must not end the agent.
          socket.on('error', (error) => finish(errnoOf(error)));
          socket.once('connect', () => finish(undefined));
        },
      );
      if (errno === undefined) {
        this.#sockets.push(socket);
      } else {
        socket.destroy();
        this.failures.add(errno);
      }
    });
  }

  async drain({ bytes, timeoutMs }: Params<'stallDrain'>): Promise<StallDrain> {
    const due = digestOfOctets(bytes);
    const failures = new FailureLog();
    let whole = 0;
    let total = 0;
    await Promise.all(
      this.#sockets.map(async (socket) => {
        const end = await readToEnd(socket, timeoutMs);
        total += end.bytes;
        if (end.errno !== undefined) failures.add(end.errno);
        else if (end.bytes < bytes) failures.add('EOF');
        else if (end.digest !== due) failures.add('MISMATCH');
        else whole += 1;
        socket.destroy();
      }),
    );
    return { whole, bytes: total, failures: failures.first };
  }
}

interface ReadEnd {
  readonly bytes: number;
  readonly digest: string;
  readonly errno?: string;
}

async function readToEnd(socket: Socket, timeoutMs: number | undefined): Promise<ReadEnd> {
  const hash = createHash('sha256');
  let bytes = 0;
  socket.on('data', (chunk: Buffer) => {
    hash.update(chunk);
    bytes += chunk.length;
  });
  // One that failed while nobody read says so no more.
  if (socket.errored !== null) return { bytes, digest: '', errno: errnoOf(socket.errored) };
  const errno = await settleWithin<string | undefined>(
    timeoutMs,
    () => 'TIMEOUT',
    (finish) => {
      socket.once('error', (error) => finish(errnoOf(error)));
      socket.once('end', () => finish(undefined));
    },
  );
  socket.removeAllListeners('data');
  const digest = hash.digest('hex');
  return errno === undefined ? { bytes, digest } : { bytes, digest, errno };
}

function digestOfOctets(bytes: number): string {
  const source = new OctetSource(1);
  const hash = createHash('sha256');
  for (let left = bytes; left > 0; left -= CHUNK_BYTES) hash.update(source.next(Math.min(CHUNK_BYTES, left)));
  return hash.digest('hex');
}

export function createStallFunctions(): AgentFunctions<'tcpStall' | 'stallDrain'> {
  const groupById = new Map<number, StalledGroup>();
  return {
    tcpStall: async (params) => {
      const id = groupById.size + 1;
      const group = new StalledGroup();
      groupById.set(id, group);
      await group.open(params);
      return { id, opened: group.opened, failures: group.failures.first };
    },
    stallDrain: async (params) => {
      const group = groupById.get(params.id);
      if (group === undefined) throw new Error(`no stalled connections ${params.id}`);
      return group.drain(params);
    },
  };
}
