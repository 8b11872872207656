/** Numbered datagrams from one socket to an echo server: whether their order survives. */
import { once } from 'node:events';
import { createSocket } from 'node:dgram';
import { isIPv6 } from 'node:net';
import type { AgentFunctions } from './agent-protocol.ts';
import { settleWithin } from './agent-socket.ts';

const NUMBER_BYTES = 4;
const DEFAULT_WINDOW = 16;

export const udpSequence: AgentFunctions<'udpSequence'>['udpSequence'] = async (params) => {
  const { host, port, localPort: wanted = 0, localAddress, count, window = DEFAULT_WINDOW } = params;
  const socket = createSocket(isIPv6(host) ? 'udp6' : 'udp4');
  const bound = once(socket, 'listening');
  socket.bind({ port: wanted, ...(localAddress === undefined ? {} : { address: localAddress }) });
  await bound;
  const localPort = socket.address().port;
  let sent = 0;
  let received = 0;
  let last = -1;
  let inOrder = true;
  await settleWithin<void>(
    params.timeoutMs,
    () => undefined,
    (finish) => {
      const fill = (): void => {
        while (sent < count && sent - received < window) {
          const datagram = Buffer.alloc(NUMBER_BYTES);
          datagram.writeUInt32BE(sent);
          sent += 1;
          socket.send(datagram, port, host);
        }
      };
      socket.on('error', () => finish());
      socket.on('message', (datagram) => {
        const number = datagram.readUInt32BE();
        if (number <= last) inOrder = false;
        last = number;
        received += 1;
        if (received === count) finish();
        else fill();
      });
      fill();
    },
  );
  socket.close();
  return { sent, received, inOrder, localPort };
};
