/** Groups of TCP connections that stay open while a test does something to what carries them. */
import type { Socket } from 'node:net';
import type {
  AgentFunctions,
  ConnectionEnd,
  HeldSocket,
  HeldStatus,
  HeldUse,
  Params,
} from './agent-protocol.ts';
import {
  errnoOf,
  FailureLog,
  isReset,
  openSocket,
  repeat,
  settleWithin,
  unmapAddress,
  type DialParams,
} from './agent-socket.ts';

const DIALS_AT_ONCE = 64;
const LISTED = 100;

/** One established connection. What the peer sends is gathered in lines for whoever waits for one. */
class HeldConnection {
  readonly socket: Socket;
  readonly local: { readonly address: string; readonly port: number };
  end: ConnectionEnd = 'open';
  errno: string | undefined;
  name: string | undefined;
  #text = '';
  #waiter: ((line: string | undefined) => void) | undefined;

  /** Takes over a socket that has connected, before anything was read from it. */
  constructor(socket: Socket) {
    this.socket = socket;
    this.local = { address: unmapAddress(socket.localAddress), port: socket.localPort ?? 0 };
    socket.setEncoding('utf8');
    socket.on('data', (text: string) => {
      this.#text += text;
      this.#deliver();
    });
    socket.on('end', () => {
      this.#ended('fin');
      socket.end();
    });
    socket.on('error', (error) => {
      this.errno ??= errnoOf(error);
      if (isReset(errnoOf(error))) this.#ended('reset');
    });
    socket.on('close', () => this.#ended('local'));
  }

  /** The next line, or undefined when the connection ends first. One reader at a time. */
  async readLine(): Promise<string | undefined> {
    return new Promise((resolve) => {
      this.#waiter = resolve;
      if (this.end === 'open') this.#deliver();
      else resolve(undefined);
    });
  }

  #ended(how: ConnectionEnd): void {
    if (this.end === 'open') this.end = how;
    this.#waiter?.(undefined);
  }

  #deliver(): void {
    const length = this.#text.indexOf('\n');
    if (length < 0 || this.#waiter === undefined) return;
    const line = this.#text.slice(0, length);
    this.#text = this.#text.slice(length + 1);
    const resolve = this.#waiter;
    this.#waiter = undefined;
    resolve(line);
  }
}

class HeldGroup {
  readonly connections: HeldConnection[] = [];
  readonly #failures = new FailureLog();
  #uses = 0;

  async open(params: Params<'tcpHold'>): Promise<void> {
    await repeat({ count: params.count, concurrency: params.concurrency ?? DIALS_AT_ONCE }, async () => {
      const connection = await dial(params);
      if (typeof connection === 'string') {
        this.#failures.add(connection);
        return;
      }
      this.connections.push(connection);
      if (params.named !== true) return;
      const name = await lineWithin(connection, params.timeoutMs);
      if (name.ok) connection.name = name.line;
      else this.#failures.add(name.errno);
    });
  }

  async use(timeoutMs: number | undefined): Promise<HeldUse> {
    this.#uses += 1;
    const use = this.#uses;
    const failures = new FailureLog();
    await Promise.all(
      this.connections.map(async (connection, index) => {
        if (connection.end !== 'open') {
          failures.add('CLOSED');
          return;
        }
        const line = `use ${use} of connection ${index}`;
        connection.socket.write(`${line}\n`);
        const echo = await lineWithin(connection, timeoutMs);
        if (!echo.ok) failures.add(echo.errno);
        else if (echo.line !== line) failures.add('MISMATCH');
      }),
    );
    return { ok: this.connections.length - failures.count, failed: failures.count, failures: failures.first };
  }

  async close(params: Params<'heldClose'>): Promise<void> {
    const closing = this.connections.map(async ({ socket }) => {
      if (socket.closed) return;
      await settleWithin<void>(
        params.timeoutMs,
        () => undefined,
        (finish) => {
          socket.once('close', () => finish());
          if (params.how === 'fin') socket.end();
          else socket.resetAndDestroy();
        },
      );
    });
    await Promise.all(closing);
  }

  status(): HeldStatus {
    const count = (end: ConnectionEnd): number =>
      this.connections.filter((connection) => connection.end === end).length;
    const byName: Record<string, number> = {};
    for (const { name } of this.connections) if (name !== undefined) byName[name] = (byName[name] ?? 0) + 1;
    return {
      opened: this.connections.length,
      open: count('open'),
      endedByFin: count('fin'),
      endedByReset: count('reset'),
      failures: this.#failures.first,
      byName,
      sockets: this.connections.slice(0, LISTED).map(
        ({ local, end, name, errno }): HeldSocket => ({
          local,
          end,
          ...(name === undefined ? {} : { name }),
          ...(errno === undefined ? {} : { errno }),
        }),
      ),
    };
  }
}

export function createHoldFunctions(): AgentFunctions<'tcpHold' | 'heldUse' | 'heldStatus' | 'heldClose'> {
  const groupById = new Map<number, HeldGroup>();
  const find = (id: number): HeldGroup => {
    const group = groupById.get(id);
    if (group === undefined) throw new Error(`no group of connections ${id}`);
    return group;
  };
  return {
    tcpHold: async (params) => {
      const id = groupById.size + 1;
      const group = new HeldGroup();
      groupById.set(id, group);
      await group.open(params);
      return { id, ...group.status() };
    },
    heldUse: async ({ id, timeoutMs }) => find(id).use(timeoutMs),
    heldStatus: async ({ id }) => find(id).status(),
    heldClose: async (params) => {
      const group = find(params.id);
      await group.close(params);
      return group.status();
    },
  };
}

/** An established connection, or the errno of the failure. */
async function dial(params: DialParams): Promise<HeldConnection | string> {
  const socket = openSocket(params);
  const result = await settleWithin<HeldConnection | string>(
    params.timeoutMs,
    () => 'TIMEOUT',
    (finish) => {
      socket.once('error', (error) => finish(errnoOf(error)));
      socket.once('connect', () => finish(new HeldConnection(socket)));
    },
  );
  if (typeof result === 'string') socket.destroy();
  return result;
}

type Line = { readonly ok: true; readonly line: string } | { readonly ok: false; readonly errno: string };

async function lineWithin(connection: HeldConnection, timeoutMs: number | undefined): Promise<Line> {
  return settleWithin<Line>(
    timeoutMs,
    () => ({ ok: false, errno: 'TIMEOUT' }),
    (finish) => {
      void connection.readLine().then((line) => {
        if (line === undefined) finish({ ok: false, errno: connection.errno ?? 'EOF' });
        else finish({ ok: true, line });
      });
    },
  );
}
