/** The agent's relays: a socket in the file system, which knows no network namespace, in front of an address in one. */
import { once } from 'node:events';
import { createServer } from 'node:net';
import type { AgentFunctions } from './agent-protocol.ts';
import { openSocket } from './agent-socket.ts';

export const openRelay: AgentFunctions<'openRelay'>['openRelay'] = async ({ path, ...target }) => {
  const server = createServer({ allowHalfOpen: true }, (client) => {
    const upstream = openSocket(target);
    // A refusal or reset shows at the other side as an end without a word: a unix socket has no RST.
    client.on('error', () => upstream.destroy());
    upstream.on('error', () => client.destroy());
    client.pipe(upstream);
    upstream.pipe(client);
  });
  server.listen({ path, backlog: 1_024 });
  await once(server, 'listening');
};
