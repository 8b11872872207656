/** The agent's TCP clients that use each connection once. */
import { createHash } from 'node:crypto';
import type {
  AgentFunctions,
  EndResult,
  IdentifyResult,
  Params,
  ProbeOutcome,
  ProbeResult,
  TcpExchangeResult,
} from './agent-protocol.ts';
import {
  errnoOf,
  isReset,
  isUnreachable,
  OctetSource,
  openSocket,
  repeat,
  settleWithin,
  type DialParams,
} from './agent-socket.ts';

const CHUNK_BYTES = 65_536;

export function createTcpClientFunctions(): AgentFunctions<
  'tcpIdentify' | 'tcpExchange' | 'tcpProbe' | 'tcpEnd'
> {
  return {
    tcpIdentify: async (params) => {
      const results: IdentifyResult[] = [];
      await repeat({ count: params.count, concurrency: params.concurrency }, async () => {
        results.push(await identifyOnce(params));
      });
      return results;
    },
    tcpExchange: exchange,
    tcpProbe: probe,
    tcpEnd: waitForEnd,
  };
}

/** One fresh connection to an `identify` server: its name, and then a close in good order from both sides. */
export async function identifyOnce(params: DialParams): Promise<IdentifyResult> {
  const socket = openSocket(params);
  let text = '';
  let namedMs: number | undefined;
  const name = (): { name?: string } =>
    namedMs === undefined ? {} : { name: text.slice(0, text.indexOf('\n')) };
  const fail = (errno: string, elapsedMs: number): IdentifyResult => ({
    ok: false,
    ...name(),
    errno,
    elapsedMs,
  });
  const result = await settleWithin<IdentifyResult>(
    params.timeoutMs,
    (elapsedMs) => fail('TIMEOUT', elapsedMs),
    (finish, elapsedMs) => {
      socket.setEncoding('utf8');
      socket.on('error', (error) => finish(fail(errnoOf(error), elapsedMs())));
      socket.on('data', (chunk: string) => {
        text += chunk;
        if (namedMs !== undefined || !text.includes('\n')) return;
        namedMs = elapsedMs();
        socket.end();
      });
      socket.on('end', () => {
        if (namedMs === undefined) finish(fail('EOF', elapsedMs()));
        else finish({ ok: true, ...name(), elapsedMs: namedMs });
      });
    },
  );
  socket.destroy();
  return result;
}

async function exchange(params: Params<'tcpExchange'>): Promise<TcpExchangeResult> {
  const { bytes, halfClose, seed = 1 } = params;
  const source = new OctetSource(seed);
  const sentHash = createHash('sha256');
  const receivedHash = createHash('sha256');
  const socket = openSocket(params);
  let sent = 0;
  let received = 0;
  const end = (elapsedMs: number, errno?: string): TcpExchangeResult => {
    const identical =
      sent === bytes && received === bytes && sentHash.digest('hex') === receivedHash.digest('hex');
    const fault = errno ?? (identical ? undefined : received < bytes ? 'EOF' : 'MISMATCH');
    const result = { ok: fault === undefined, sent, received, identical, elapsedMs };
    return fault === undefined ? result : { ...result, errno: fault };
  };
  const send = (): void => {
    while (sent < bytes) {
      const chunk = source.next(Math.min(CHUNK_BYTES, bytes - sent));
      sentHash.update(chunk);
      sent += chunk.length;
      if (!socket.write(chunk)) break;
    }
    if (sent < bytes) socket.once('drain', send);
    else if (halfClose || bytes === 0) socket.end();
  };
  let isSettled = false;
  const result = await settleWithin<TcpExchangeResult>(
    params.timeoutMs,
    (elapsedMs) => {
      isSettled = true;
      return end(elapsedMs, 'TIMEOUT');
    },
    (finish, elapsedMs) => {
      const settle = (errno?: string): void => {
        if (isSettled) return;
        isSettled = true;
        finish(end(elapsedMs(), errno));
      };
      socket.on('error', (error) => settle(errnoOf(error)));
      socket.on('connect', send);
      socket.on('data', (chunk: Buffer) => {
        received += chunk.length;
        if (!isSettled) receivedHash.update(chunk);
        if (!halfClose && received >= bytes) socket.end();
      });
      socket.on('end', () => settle());
    },
  );
  // An end in good order has both FINs; after anything else what is left is thrown away.
  if (result.ok) socket.end();
  else socket.destroy();
  return result;
}

async function probe(params: Params<'tcpProbe'>): Promise<ProbeResult> {
  const socket = openSocket(params);
  const result = await settleWithin<ProbeResult>(
    params.timeoutMs,
    (elapsedMs) => ({ outcome: 'timeout', errno: 'TIMEOUT', elapsedMs }),
    (finish, elapsedMs) => {
      socket.on('connect', () => finish({ outcome: 'connected', elapsedMs: elapsedMs() }));
      socket.on('error', (error) => {
        const errno = errnoOf(error);
        finish({ outcome: dialOutcome(errno), errno, elapsedMs: elapsedMs() });
      });
    },
  );
  if (result.outcome === 'connected') socket.end(() => socket.destroy());
  else socket.destroy();
  return result;
}

/** What an error of a connection in the making says; an errno that is none of the network's throws. */
function dialOutcome(errno: string): Exclude<ProbeOutcome, 'connected'> {
  if (errno === 'ECONNREFUSED') return 'refused';
  if (isReset(errno)) return 'reset';
  if (errno === 'ETIMEDOUT') return 'timeout';
  if (isUnreachable(errno)) return 'unreachable';
  throw new Error(`a dial failed on this side: ${errno}`);
}

async function waitForEnd(params: Params<'tcpEnd'>): Promise<EndResult> {
  const { sendBytes = 0 } = params;
  const socket = openSocket(params);
  let isConnected = false;
  let received = 0;
  const build = (outcome: EndResult['outcome'], elapsedMs: number, errno?: string): EndResult => {
    const result = { outcome, connected: isConnected, received, elapsedMs };
    return errno === undefined ? result : { ...result, errno };
  };
  const result = await settleWithin<EndResult>(
    params.timeoutMs,
    (elapsedMs) => build('timeout', elapsedMs, 'TIMEOUT'),
    (finish, elapsedMs) => {
      socket.on('connect', () => {
        isConnected = true;
        const source = new OctetSource(1);
        for (let sent = 0; sent < sendBytes; sent += CHUNK_BYTES) {
          socket.write(source.next(Math.min(CHUNK_BYTES, sendBytes - sent)));
        }
      });
      socket.on('data', (chunk: Buffer) => {
        received += chunk.length;
      });
      socket.on('end', () => finish(build('fin', elapsedMs())));
      socket.on('error', (error) => {
        const errno = errnoOf(error);
        finish(build(dialOutcome(errno), elapsedMs(), errno));
      });
    },
  );
  socket.destroy();
  return result;
}
