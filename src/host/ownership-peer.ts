/** A connection to another instance: messages out and in, bounded in size, and the end of it told once. */
import type { Socket } from 'node:net';
import { type OpenPort, type OwnershipMessage, parseMessage, renderMessage } from './ownership-protocol.ts';

/** Far more than forty thousand ports with their names take. */
const MAX_LINE_LENGTH = 8_388_608;

export interface PeerHandlers {
  readonly onMessage: (message: OwnershipMessage) => void;
  /** Once, when the connection has ended in whatever way; also after `close`. */
  readonly onEnd: () => void;
}

export class OwnershipPeer {
  readonly #socket: Socket;
  #rest = '';
  /** What the other instance has open, as far as it has told or can be guessed. */
  ports: readonly OpenPort[] = [];
  /** It waits for us to end, to take the rules then. */
  isStandby = false;
  /** It is about to end, and takes nothing any more. */
  isStopping = false;
  /** The kernel has shown that it writes the rules. */
  isProven = false;
  /** It has said anything at all. */
  hasSpoken = false;

  /** Takes the socket over. What is no message ends the connection. */
  constructor(socket: Socket, { onMessage, onEnd }: PeerHandlers) {
    this.#socket = socket;
    socket.setEncoding('utf8');
    socket.on('error', () => {});
    socket.once('close', onEnd);
    socket.on('data', (text: string) => {
      if (this.#rest.length + text.length > MAX_LINE_LENGTH) this.close();
      const lines = text.split('\n');
      lines[0] = this.#rest + (lines[0] ?? '');
      this.#rest = lines.pop() ?? '';
      for (const line of lines) {
        const message = parseMessage(line);
        if (message === undefined) this.close();
        if (message === undefined || socket.destroyed) return;
        this.hasSpoken = true;
        onMessage(message);
      }
    });
  }

  /** What cannot be sent any more is lost: `onEnd` says so. So is what one who does not read is told for too long. */
  send(message: OwnershipMessage): void {
    if (this.#socket.destroyed || this.#socket.writableLength > MAX_LINE_LENGTH) return;
    this.#socket.write(renderMessage(message));
  }

  close(): void {
    this.#socket.destroy();
  }
}
