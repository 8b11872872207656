/** The agent's TCP and UDP servers, and what they saw. */
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer as createHttpServer } from 'node:http';
import { createServer, Server, type AddressInfo, type Socket } from 'node:net';
import type {
  Address,
  AgentFunctions,
  ConnectionEnd,
  Params,
  ServerConnection,
  ServerHandle,
  ServerReport,
  TcpMode,
} from './agent-protocol.ts';
import { errnoOf, isReset, OctetSource, unmapAddress } from './agent-socket.ts';

const KEPT = 100;
const HEAD_BYTES = 256;
const TRICKLE_INTERVAL_MS = 1_000;
const OCTETS_CHUNK_BYTES = 65_536;
/** More than a send buffer grows to (`tcp_wmem`), so that each write waits for the client, and others get a turn. */
const FOREVER_CHUNK = Buffer.alloc(8 * 1_048_576, 'f');

/** A connection's record; its socket is let go when it closes. */
interface Connection {
  readonly socket: Socket;
  readonly remote: Address;
  head: string;
  end: ConnectionEnd;
}

/** One server and its counters; `close` stops it taking anything new. */
class ServerRecord {
  readonly name: string;
  port = 0;
  accepted = 0;
  httpRequests = 0;
  datagrams = 0;
  datagramBytes = { received: 0, sent: 0 };
  readonly open = new Set<Connection>();
  readonly latest: Connection[] = [];
  readonly senders: Address[] = [];
  readonly remotes = new Set<string>();
  close: () => void = () => undefined;
  readonly #ended = { fin: 0, reset: 0, local: 0, received: 0, sent: 0 };

  constructor(name: string) {
    this.name = name;
  }

  /** Counts a connection from now to its close. Its `error` is handled here. */
  watch(socket: Socket, options: { readonly withHead: boolean }): void {
    const remote = { address: unmapAddress(socket.remoteAddress), port: socket.remotePort ?? 0 };
    const connection: Connection = { socket, remote, head: '', end: 'open' };
    this.accepted += 1;
    // A connection that was reset while it was queued has no address any more.
    if (remote.address !== '') this.remotes.add(remote.address);
    this.open.add(connection);
    this.latest.push(connection);
    if (this.latest.length > KEPT) this.latest.shift();
    const end = (how: 'fin' | 'reset' | 'local'): void => {
      if (connection.end !== 'open') return;
      connection.end = how;
      this.#ended[how] += 1;
    };
    if (options.withHead) {
      // Unlike `on`, this leaves it to the mode to start the flow.
      socket.prependListener('data', (chunk: Buffer) => {
        const missing = HEAD_BYTES - connection.head.length;
        if (missing > 0) connection.head += chunk.toString('latin1', 0, missing);
      });
    }
    socket.on('error', (error) => {
      if (isReset(errnoOf(error))) end('reset');
    });
    socket.on('end', () => end('fin'));
    socket.on('close', () => {
      end('local');
      this.open.delete(connection);
      this.#ended.received += socket.bytesRead;
      this.#ended.sent += socket.bytesWritten;
    });
  }

  sender(from: Address): void {
    this.datagrams += 1;
    this.remotes.add(from.address);
    this.senders.push(from);
    if (this.senders.length > KEPT) this.senders.shift();
  }

  report(): ServerReport {
    const live = [...this.open].map(({ socket }) => socket);
    const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
    return {
      name: this.name,
      port: this.port,
      accepted: this.accepted,
      open: this.open.size,
      bytesReceived:
        this.#ended.received + this.datagramBytes.received + sum(live.map((socket) => socket.bytesRead)),
      bytesSent: this.#ended.sent + this.datagramBytes.sent + sum(live.map((socket) => socket.bytesWritten)),
      endedByFin: this.#ended.fin,
      endedByReset: this.#ended.reset,
      endedHere: this.#ended.local,
      httpRequests: this.httpRequests,
      datagrams: this.datagrams,
      remotes: [...this.remotes].toSorted(),
      connections: this.latest.map(
        ({ socket, remote, end, head }): ServerConnection => ({
          remote,
          bytesReceived: socket.bytesRead,
          bytesSent: socket.bytesWritten,
          end,
          head,
        }),
      ),
      senders: [...this.senders],
    };
  }
}

export function createServerFunctions(): AgentFunctions<
  'serveTcp' | 'serveUdp' | 'stopServer' | 'serverReport'
> {
  const recordById = new Map<number, ServerRecord>();
  const add = (record: ServerRecord): ServerHandle => {
    const id = recordById.size + 1;
    recordById.set(id, record);
    return { id, port: record.port };
  };
  const find = (id: number): ServerRecord => {
    const record = recordById.get(id);
    if (record === undefined) throw new Error(`no server ${id}`);
    return record;
  };
  return {
    serveTcp: async (params) => add(await openTcpServer(params)),
    serveUdp: async (params) => add(await openUdpServer(params)),
    serverReport: async ({ id }) => find(id).report(),
    stopServer: async ({ id, connections = 'reset' }) => {
      const record = find(id);
      record.close();
      for (const { socket } of record.open) {
        if (connections === 'fin') socket.end();
        if (connections === 'reset') socket.resetAndDestroy();
      }
      return record.report();
    },
  };
}

async function openTcpServer(params: Params<'serveTcp'>): Promise<ServerRecord> {
  const record = new ServerRecord(params.name);
  const server =
    params.mode === 'http' ? buildHttpServer(record) : buildTcpServer(record, params.mode, params.bytes ?? 0);
  const host = params.address ?? (params.family === 4 ? '0.0.0.0' : '::');
  server.listen({ port: params.port, host, ipv6Only: params.family === 6, backlog: 4_096 });
  await once(server, 'listening');
  record.port = (server.address() as AddressInfo).port;
  // This one leaves open connections alone; an HTTP server's own would end the idle ones.
  record.close = () => void Server.prototype.close.call(server);
  return record;
}

function buildTcpServer(record: ServerRecord, mode: Exclude<TcpMode, 'http'>, bytes: number): Server {
  return createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    record.watch(socket, { withHead: true });
    if (mode === 'send-octets') sendOctets(socket, bytes);
    else serveConnection(socket, mode, record.name);
  });
}

/** One chunk at a time, so that what a client does not read is not kept here. */
function sendOctets(socket: Socket, bytes: number): void {
  const source = new OctetSource(1);
  let left = bytes;
  const send = (): void => {
    if (!socket.writable) return;
    const chunk = source.next(Math.min(OCTETS_CHUNK_BYTES, left));
    left -= chunk.length;
    if (left > 0) socket.write(chunk, send);
    else socket.end(chunk);
  };
  socket.resume();
  send();
}

function serveConnection(socket: Socket, mode: Exclude<TcpMode, 'http' | 'send-octets'>, name: string): void {
  switch (mode) {
    case 'identify':
      socket.write(`${name}\n`);
      socket.on('end', () => socket.end());
      socket.resume();
      return;
    case 'identify-echo':
      socket.write(`${name}\n`);
      socket.pipe(socket);
      return;
    case 'echo':
      socket.pipe(socket);
      return;
    case 'sink-then-echo': {
      const chunks: Buffer[] = [];
      socket.on('data', (chunk: Buffer) => chunks.push(chunk));
      socket.on('end', () => socket.end(Buffer.concat(chunks)));
      return;
    }
    case 'accept-fin':
      socket.resume();
      socket.end();
      return;
    case 'trickle': {
      const timer = setInterval(() => socket.write('.'), TRICKLE_INTERVAL_MS);
      socket.on('close', () => clearInterval(timer));
      socket.on('end', () => socket.destroy());
      socket.resume();
      return;
    }
    case 'accept-reset':
      socket.resetAndDestroy();
      return;
    case 'send-forever': {
      const send = (): void => {
        // After an error or the end there is nobody to write to.
        if (socket.writable) socket.write(FOREVER_CHUNK, send);
      };
      socket.on('end', () => socket.destroy());
      socket.resume();
      send();
      return;
    }
    case 'hold':
      socket.on('end', () => socket.end());
      socket.resume();
  }
}

function buildHttpServer(record: ServerRecord): Server {
  // Longer than any test, so that an idle connection is never closed by the server just as a request comes.
  const server = createHttpServer({ keepAliveTimeout: 600_000, requestTimeout: 0 }, (request, response) => {
    record.httpRequests += 1;
    if (request.url === '/close') response.setHeader('connection', 'close');
    response.setHeader('content-type', 'text/plain');
    request.resume();
    response.end(`${record.name}\n`);
  });
  // An HTTP parser reads from the handle itself, past the listeners for `data`.
  server.on('connection', (socket) => record.watch(socket, { withHead: false }));
  return server;
}

async function openUdpServer(params: Params<'serveUdp'>): Promise<ServerRecord> {
  const record = new ServerRecord(params.name);
  const isIpv4 = params.family === 4 || params.address?.includes(':') === false;
  const socket = createSocket({ type: isIpv4 ? 'udp4' : 'udp6', ipv6Only: params.family === 6 });
  socket.on('message', (message, from) => {
    record.sender({ address: unmapAddress(from.address), port: from.port });
    record.datagramBytes.received += message.length;
    if (params.mode === 'sink') return;
    const reply = params.mode === 'echo' ? message : Buffer.from(params.name);
    record.datagramBytes.sent += reply.length;
    // A reply that cannot be sent is a reply lost: what the client then sees is the result.
    socket.send(reply, from.port, from.address, () => undefined);
  });
  socket.bind({ port: params.port, ...(params.address === undefined ? {} : { address: params.address }) });
  await once(socket, 'listening');
  // From here on an ICMP error about some reply; the socket goes on.
  socket.on('error', () => undefined);
  record.port = socket.address().port;
  let isClosed = false;
  record.close = () => {
    if (!isClosed) socket.close();
    isClosed = true;
  };
  return record;
}
