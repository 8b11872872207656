/**
 * What runs in each pod of the demo: `node demo/pod.ts NAME`. Writes a line when it serves, and ends only when it is
 * killed.
 *
 *     TCP 8080  HTTP: the pod's name; at /client the address that the pod sees as its client
 *     UDP 7007  sends every datagram back
 *     UDP 7017  answers every datagram with the pod's name
 */
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer } from 'node:http';

/** Of the servers above, as demo/manifests has them. */
const PORTS = { http: 8080, echo: 7007, who: 7017 } as const;

const name = process.argv[2] ?? 'pod';

async function serveHttp(): Promise<void> {
  const server = createServer((request, response) => {
    const client = request.socket.remoteAddress?.replace(/^::ffff:/, '');
    response.setHeader('content-type', 'text/plain');
    response.end(`${request.url === '/client' ? client : name}\n`);
  });
  server.listen({ port: PORTS.http, host: '::', backlog: 4096 });
  await once(server, 'listening');
}

async function serveUdp(port: number, replyTo: (datagram: Buffer) => Buffer): Promise<void> {
  const socket = createSocket('udp6');
  // A reply that cannot be sent is a reply lost.
  socket.on('message', (datagram, from) =>
    socket.send(replyTo(datagram), from.port, from.address, () => undefined),
  );
  socket.bind(port);
  await once(socket, 'listening');
  socket.on('error', () => undefined);
}

await Promise.all([
  serveHttp(),
  serveUdp(PORTS.echo, (datagram) => datagram),
  serveUdp(PORTS.who, () => Buffer.from(`${name}\n`)),
]);
process.stdout.write(`${name} serves\n`);
