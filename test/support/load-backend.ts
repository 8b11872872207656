/** The backend of a load process: it answers requests, and when it is killed it tells what it held (`load-protocol.ts`). */
import { closeSync, openSync, readSync } from 'node:fs';
import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';
import { monotonicMs, type CrashLog, type ServeOptions } from './load-protocol.ts';

const BACKLOG = 4_096;
/** State LISTEN in /proc/net/tcp6. */
const LISTEN = '0A';
/** Longer than a line of /proc/net/tcp6, so that each read has a whole one or more, and shorter than three. */
const READ_BYTES = 400;
const MAX_READS = 64;

interface Connection {
  readonly socket: Socket;
  /** Undefined until a request was read. */
  id: string | undefined;
  read: number;
  answered: number;
  answeredMs: number;
}

export class LoadBackend {
  readonly #options: ServeOptions;
  readonly #server: Server;
  readonly #open = new Set<Connection>();

  private constructor(options: ServeOptions) {
    this.#options = options;
    this.#server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => this.#accept(socket));
  }

  static async open(options: ServeOptions): Promise<LoadBackend> {
    const backend = new LoadBackend(options);
    backend.#server.listen({ port: options.port, backlog: BACKLOG });
    await once(backend.#server, 'listening');
    return backend;
  }

  /** In one turn of the event loop, so that nothing is accepted, read or answered between the look and the resets. */
  crash(): CrashLog {
    const atMs = monotonicMs();
    const open = [...this.#open];
    const log = {
      backend: this.#options.name,
      atMs,
      connections: open.flatMap(({ id, read, answered, answeredMs }) =>
        id === undefined ? [] : [{ id, read, answered, answeredMs }],
      ),
      nameless: open.filter(({ id }) => id === undefined).length + countUnaccepted(this.#options.port),
    };
    // Closing resets what the kernel has accepted and nobody has taken.
    this.#server.close();
    for (const { socket } of open) socket.resetAndDestroy();
    return log;
  }

  #accept(socket: Socket): void {
    const connection: Connection = { socket, id: undefined, read: 0, answered: 0, answeredMs: 0 };
    this.#open.add(connection);
    let text = '';
    socket.setEncoding('latin1');
    socket.on('data', (chunk: string) => {
      const lines = (text + chunk).split('\n');
      text = lines.pop() ?? '';
      for (const line of lines) this.#answerLater(connection, line);
    });
    socket.on('end', () => socket.end());
    // Clients that reset are expected; `close` follows.
    socket.on('error', () => undefined);
    socket.on('close', () => this.#open.delete(connection));
  }

  #answerLater(connection: Connection, line: string): void {
    const [id = '', number = '', mode = ''] = line.split(' ');
    connection.id = id;
    connection.read = Number(number);
    setTimeout(() => {
      const { socket } = connection;
      if (!socket.writable) return;
      connection.answered = Number(number);
      connection.answeredMs = monotonicMs();
      const answer = `${this.#options.name} ${id} ${number}\n`;
      if (mode === 'close') socket.end(answer);
      else socket.write(answer);
    }, this.#options.serviceMs);
  }
}

/**
 * Connections that the kernel has accepted for that port and nobody has taken from it yet. Listening sockets come first
 * in the file; what follows is not read, since it costs the kernel a walk of tens of milliseconds through all connections
 * of the machine.
 */
function countUnaccepted(port: number): number {
  const line = new RegExp(
    `:${port.toString(16).toUpperCase().padStart(4, '0')} \\S+ ${LISTEN} [0-9A-F]+:([0-9A-F]+) `,
  );
  const file = openSync('/proc/self/net/tcp6', 'r');
  try {
    const buffer = Buffer.alloc(READ_BYTES);
    let text = '';
    for (let reads = 0; reads < MAX_READS; reads += 1) {
      const bytes = readSync(file, buffer);
      text += buffer.toString('latin1', 0, bytes);
      const backlog = line.exec(text)?.[1];
      if (backlog !== undefined) return Number.parseInt(backlog, 16);
      if (bytes === 0) break;
    }
    throw new Error(`nothing listens on port ${port}`);
  } finally {
    closeSync(file);
  }
}
