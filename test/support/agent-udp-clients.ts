/** The agent's UDP clients. */
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { isIPv6 } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { DEFAULT_TIMEOUT_MS } from './agent-protocol.ts';
import type {
  Address,
  AgentFunctions,
  FloodResult,
  Params,
  Target,
  UdpExchangeResult,
  UdpIdentifyResult,
} from './agent-protocol.ts';
import { errnoOf, FailureLog, OctetSource, settleWithin } from './agent-socket.ts';

const MAX_PAYLOAD_BYTES = 65_507;
const MAX_FLOOD_SOCKETS = 20_000;
/**
 * A flood sends so many datagrams at a time, and begins the next burst when all but so many have been answered, or
 * after 20 ms unless told otherwise: a receive buffer of the usual 208 KiB holds some 270 small datagrams, and what does not fit is dropped.
 */
const FLOOD_BURST = 64;
const FLOOD_PAUSE_MS = 20;
const QUESTION = Buffer.from('?');

interface UdpParams extends Target {
  readonly timeoutMs?: number;
  readonly localAddress?: string;
  readonly localPort?: number;
  readonly connected?: boolean;
}

type Reply =
  | { readonly ok: true; readonly message: Buffer; readonly from: Address; readonly elapsedMs: number }
  | { readonly ok: false; readonly errno: string; readonly elapsedMs: number };

export function createUdpClientFunctions(): AgentFunctions<'udpExchange' | 'udpIdentify' | 'udpFlood'> {
  return { udpExchange: exchange, udpIdentify: identify, udpFlood: flood };
}

/** A socket that asks its target one thing after another. */
export class UdpAsker {
  readonly #socket: Socket;
  readonly #params: UdpParams;

  /** For a bound socket; the asker owns it from here. */
  private constructor(socket: Socket, params: UdpParams) {
    this.#socket = socket;
    this.#params = params;
  }

  static async open(params: UdpParams): Promise<UdpAsker> {
    return new UdpAsker(await bindSocket(params), params);
  }

  get localPort(): number {
    return this.#socket.address().port;
  }

  /** Sends one datagram and takes the first that comes back, be it a late answer to an earlier one. */
  async ask(payload: Buffer): Promise<Reply> {
    const socket = this.#socket;
    let forget = (): void => undefined;
    const reply = await settleWithin<Reply>(
      this.#params.timeoutMs,
      (elapsedMs) => ({ ok: false, errno: 'TIMEOUT', elapsedMs }),
      (finish, elapsedMs) => {
        const onMessage = (message: Buffer, { address, port }: Address): void => {
          finish({ ok: true, message, from: { address, port }, elapsedMs: elapsedMs() });
        };
        const onError = (error: Error): void => {
          finish({ ok: false, errno: errnoOf(error), elapsedMs: elapsedMs() });
        };
        socket.on('message', onMessage);
        socket.on('error', onError);
        forget = () => {
          socket.off('message', onMessage);
          socket.off('error', onError);
        };
        sendDatagram(socket, this.#params, payload, (error) => {
          if (error !== null) onError(error);
        });
      },
    );
    forget();
    return reply;
  }

  /** Asks for a name. */
  async identify(): Promise<UdpIdentifyResult> {
    const { localPort } = this;
    const reply = await this.ask(QUESTION);
    if (!reply.ok) return { ...reply, localPort };
    const { message, from, elapsedMs } = reply;
    return { ok: true, name: message.toString(), from, localPort, elapsedMs };
  }

  close(): void {
    this.#socket.close();
  }
}

async function exchange(params: Params<'udpExchange'>): Promise<UdpExchangeResult> {
  const payload = buildPayload(params.payloadBytes, params.seed ?? 1);
  const asker = await UdpAsker.open(params);
  const { localPort } = asker;
  const reply = await asker.ask(payload);
  asker.close();
  if (!reply.ok) return { ...reply, received: 0, identical: false, localPort };
  const { from, elapsedMs, message } = reply;
  const identical = message.equals(payload);
  const result = { ok: identical, received: message.length, identical, from, localPort, elapsedMs };
  return identical ? result : { ...result, errno: 'MISMATCH' };
}

async function identify(params: Params<'udpIdentify'>): Promise<readonly UdpIdentifyResult[]> {
  const results: UdpIdentifyResult[] = [];
  let kept: UdpAsker | undefined;
  for (let index = 0; index < params.count; index += 1) {
    if (index > 0 && params.pauseMs !== undefined) await delay(params.pauseMs);
    const asker = kept ?? (await UdpAsker.open(params));
    results.push(await asker.identify());
    if (params.sameSocket) kept = asker;
    else asker.close();
  }
  kept?.close();
  return results;
}

async function flood(params: Params<'udpFlood'>): Promise<FloodResult> {
  const { sockets: socketCount, datagrams, payloadBytes = 16, timeoutMs = DEFAULT_TIMEOUT_MS } = params;
  const { awaitReplies = true, firstLocalPort = 0, patienceMs = FLOOD_PAUSE_MS } = params;
  if (socketCount > MAX_FLOOD_SOCKETS) {
    throw new RangeError(`at most ${MAX_FLOOD_SOCKETS} sockets, not ${socketCount}`);
  }
  const payload = buildPayload(payloadBytes, 1);
  const failures = new FailureLog();
  const start = performance.now();
  const leftMs = (): number => Math.max(0, timeoutMs - (performance.now() - start));
  const sockets: Socket[] = [];
  const allReceived = Promise.withResolvers<void>();
  let sent = 0;
  let received = 0;
  const countReply = (): void => {
    received += 1;
    if (received >= socketCount * datagrams) allReceived.resolve();
  };
  const send = async (socket: Socket): Promise<void> => {
    const error = await new Promise<Error | null>((resolve) =>
      sendDatagram(socket, params, payload, resolve),
    );
    if (error === null) sent += 1;
    else failures.add(errnoOf(error));
  };
  try {
    while (sockets.length < socketCount && leftMs() > 0) {
      const localPort = firstLocalPort === 0 ? 0 : firstLocalPort + sockets.length;
      const socket = await bindSocket({ ...params, localPort });
      socket.on('message', countReply);
      sockets.push(socket);
    }
    for (let round = 0; round < datagrams; round += 1) {
      for (let first = 0; first < sockets.length && leftMs() > 0; first += FLOOD_BURST) {
        await Promise.all(sockets.slice(first, first + FLOOD_BURST).map(send));
        const pauseEnd = performance.now() + patienceMs;
        const isAhead = (): boolean =>
          awaitReplies && sent - received > FLOOD_BURST && performance.now() < pauseEnd;
        do await delay(1);
        while (isAhead());
      }
    }
    if (awaitReplies) {
      await settleWithin<void>(
        leftMs(),
        () => undefined,
        (finish) => void allReceived.promise.then(finish),
      );
    }
  } finally {
    for (const socket of sockets) socket.close();
  }
  return { sent, received, failures: failures.first, elapsedMs: performance.now() - start };
}

/** A bound socket, connected when that is asked for, whose errors outside a question go nowhere. */
async function bindSocket(params: UdpParams): Promise<Socket> {
  const { host, port, localPort = 0, localAddress, connected = false } = params;
  const socket = createSocket(isIPv6(host) ? 'udp6' : 'udp4');
  const bound = once(socket, 'listening');
  socket.bind({ port: localPort, ...(localAddress === undefined ? {} : { address: localAddress }) });
  await bound;
  socket.on('error', () => undefined);
  if (connected) {
    const linked = once(socket, 'connect');
    socket.connect(port, host);
    await linked;
  }
  return socket;
}

function sendDatagram(
  socket: Socket,
  params: UdpParams,
  payload: Buffer,
  done: (error: Error | null) => void,
): void {
  if (params.connected === true) socket.send(payload, done);
  else socket.send(payload, params.port, params.host, done);
}

function buildPayload(bytes: number, seed: number): Buffer {
  if (bytes > MAX_PAYLOAD_BYTES)
    throw new RangeError(`a datagram has at most ${MAX_PAYLOAD_BYTES} octets, not ${bytes}`);
  return new OctetSource(seed).next(bytes);
}
