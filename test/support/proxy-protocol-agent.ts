/**
 * A process inside a namespace of the lab that a test process asks over the IPC channel (`proxy-protocol-host.ts`): a
 * client that says which address and port it had, and a server that takes connections with and without a header of the
 * PROXY protocol and says which it got. It ends, with every socket it has, when that channel does.
 *
 * A receiver in earnest may not guess (section 2 of the specification); this one may, because nothing that clients say
 * to it begins as a header does.
 */
import { once } from 'node:events';
import { get } from 'node:http';
import { createServer, type Socket, SocketAddress } from 'node:net';
import { text } from 'node:stream/consumers';
import { type ParsedEnd, parseProxyHeader } from './proxy-protocol-parser.ts';

/** `<address> <port>`, the address as the kernel's tools print it. */
export type EndText = string;

export interface Question {
  readonly host: string;
  readonly port: number;
  /** `/` unless told. */
  readonly path?: string;
  readonly localAddress?: string;
  /** 5,000 unless told. */
  readonly timeoutMs?: number;
}

/** `body`: of an answer 200; else what went wrong. */
export type Answer =
  | { readonly ok: true; readonly local: EndText; readonly body: string }
  | { readonly ok: false; readonly fault: string };

/**
 * What follows a header, if one comes: `http`, a GET that is answered with what was seen, or for `/form` with its first
 * word; `echo`, octets that come back.
 */
export interface ServeOptions {
  readonly port: number;
  readonly mode: 'http' | 'echo';
}

export interface Methods {
  ask: { readonly params: Question; readonly result: Answer };
  serve: { readonly params: ServeOptions; readonly result: null };
  /** By port: what was seen of each connection so far, `v1 <from> <to>`, `v2 …`, `none` or `bad …`, oldest first. */
  seen: { readonly params: { readonly port: number }; readonly result: readonly string[] };
}

export type Method = keyof Methods;
export interface Request {
  readonly id: number;
  readonly method: Method;
  readonly params: Methods[Method]['params'];
}
export interface Reply {
  readonly id: number;
  readonly result?: Methods[Method]['result'];
  readonly error?: string;
}

const seenByPort = new Map<number, string[]>();

const functions: { readonly [M in Method]: (params: Methods[M]['params']) => Promise<Methods[M]['result']> } =
  {
    ask,
    serve: async ({ port, mode }) => {
      const seen: string[] = [];
      seenByPort.set(port, seen);
      const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
        socket.on('error', () => socket.destroy());
        receive(socket, (what) => {
          seen.push(what);
          if (what.startsWith('bad')) socket.destroy();
          else if (mode === 'echo') socket.pipe(socket);
          else answer(socket, what);
        });
      });
      server.listen({ port, host: '::', backlog: 1_024 });
      await once(server, 'listening');
      return null;
    },
    seen: async ({ port }) => seenByPort.get(port) ?? [],
  };

async function ask({ host, port, path = '/', localAddress, timeoutMs = 5_000 }: Question): Promise<Answer> {
  const { promise, resolve } = Promise.withResolvers<Answer>();
  const fail = (error: NodeJS.ErrnoException): void =>
    resolve({ ok: false, fault: error.code ?? error.message });
  const from = localAddress === undefined ? {} : { localAddress };
  const signal = AbortSignal.timeout(timeoutMs);
  const request = get({ host, port, path, agent: false, signal, ...from }, (response) => {
    const local = `${request.socket?.localAddress} ${request.socket?.localPort}`;
    text(response).then((body) => {
      if (response.statusCode === 200) resolve({ ok: true, local, body: body.trim() });
      else resolve({ ok: false, fault: `HTTP ${response.statusCode}` });
    }, fail);
  });
  request.on('error', fail);
  return promise;
}

/** Takes a header off the socket, tells what it was, and leaves what follows to be read; the socket is paused. */
function receive(socket: Socket, then: (seen: string) => void): void {
  let bytes = Buffer.alloc(0);
  const onData = (chunk: Buffer): void => {
    bytes = Buffer.concat([bytes, chunk]);
    const found = readHeader(bytes);
    if (found === undefined) return;
    socket.off('data', onData).pause();
    if (bytes.length > found.length) socket.unshift(bytes.subarray(found.length));
    then(found.seen);
  };
  socket.on('data', onData);
}

/** Undefined: more is needed to tell. */
function readHeader(bytes: Buffer): { readonly seen: string; readonly length: number } | undefined {
  const version = bytes[0] === 0x50 ? 'v1' : bytes[0] === 0x0d ? 'v2' : undefined;
  if (version === undefined) return { seen: 'none', length: 0 };
  const isWhole =
    version === 'v1'
      ? bytes.includes('\r\n') || bytes.length > 107
      : bytes.length >= 16 && bytes.length >= 16 + bytes.readUInt16BE(14);
  if (!isWhole) return undefined;
  try {
    const header = parseProxyHeader(version, bytes);
    const ends = header.kind === 'UNKNOWN' ? 'unknown' : `${endText(header.from)} ${endText(header.to)}`;
    return { seen: `${version} ${ends}`, length: header.length };
  } catch (error: unknown) {
    return { seen: `bad ${String(error)}`, length: 0 };
  }
}

function endText({ address, port }: ParsedEnd): EndText {
  if (address.length === 4) return `${address.join('.')} ${port}`;
  const text = Buffer.from(address)
    .toString('hex')
    .replaceAll(/....(?!$)/g, '$&:');
  return `${new SocketAddress({ address: text, family: 'ipv6' }).address} ${port}`;
}

/** One GET, as strictly as this needs: a second header would be no request. */
function answer(socket: Socket, seen: string): void {
  let request = '';
  socket.setEncoding('latin1').on('data', (chunk: string) => {
    request += chunk;
    if (!request.includes('\r\n\r\n')) return;
    const path = /^GET (\/\S*) HTTP\/1\.1\r\n/.exec(request)?.[1];
    const body = `${path === '/form' ? seen.split(' ')[0] : seen}\n`;
    const status = path === undefined ? '400 Bad Request' : '200 OK';
    socket.end(`HTTP/1.1 ${status}\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n${body}`);
  });
  socket.resume();
}

async function reply({ id, method, params }: Request): Promise<Reply> {
  try {
    // The sender's calls are typed by the same map.
    return { id, result: await functions[method](params as never) };
  } catch (error: unknown) {
    return { id, error: String(error) };
  }
}

if (process.send === undefined) throw new Error('the agent needs an IPC channel');
const send = (message: Reply): void => {
  // A channel that closed meanwhile is the end of this process.
  process.send?.(message, undefined, undefined, () => undefined);
};
process.on('disconnect', () => process.exit(0));
process.on('message', (message) => void reply(message as Request).then(send));
send({ id: 0 });
