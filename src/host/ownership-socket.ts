/**
 * The socket that the owner of the rules listens on: a name in the abstract namespace of unix sockets, of which every
 * network namespace has its own. The kernel frees it the moment its process ends, however it ends; there is no file
 * that could be left behind or be missing.
 */
import { type Server, type Socket, connect, createServer } from 'node:net';
import { errnoOf } from '../errors.ts';

export const OWNERSHIP_SOCKET = 'kube-userspace-proxy';

/** Few instances ever meet; nobody else may hold our descriptors here. */
const MAX_CONNECTIONS = 8;

/** Undefined: somebody has the name. Rejects with the system error when it cannot be bound for another reason. */
export async function listenOn(
  name: string,
  onConnection: (socket: Socket) => void,
): Promise<Server | undefined> {
  const { promise, resolve, reject } = Promise.withResolvers<Server | undefined>();
  const server = createServer(onConnection);
  server.maxConnections = MAX_CONNECTIONS;
  server.once('error', (error) => {
    if (errnoOf(error) === 'EADDRINUSE') resolve(undefined);
    else reject(error);
  });
  server.listen({ path: `\0${name}` }, () => {
    // A failed accept later on: the kernel keeps the client queued.
    server.on('error', () => {});
    resolve(server);
  });
  return promise;
}

export type Connected =
  | { readonly kind: 'connected'; readonly socket: Socket }
  /** Nobody listens. */
  | { readonly kind: 'nobody' }
  /** Somebody does, and takes no connection: its queue is full. */
  | { readonly kind: 'busy' };

export async function connectTo(name: string): Promise<Connected> {
  const { promise, resolve } = Promise.withResolvers<Connected>();
  const socket = connect({ path: `\0${name}` });
  socket.once('connect', () => resolve({ kind: 'connected', socket }));
  socket.once('error', (error) => resolve({ kind: errnoOf(error) === 'ECONNREFUSED' ? 'nobody' : 'busy' }));
  return promise;
}

/** Whether an instance that writes rules is there. */
export async function isOwned(name = OWNERSHIP_SOCKET): Promise<boolean> {
  const connected = await connectTo(name);
  if (connected.kind === 'connected') connected.socket.destroy();
  return connected.kind !== 'nobody';
}
