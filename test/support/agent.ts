/**
 * The agent: a process inside a namespace of the lab that opens servers and connections there for a test process,
 * which asks over the IPC channel (`agent-protocol.ts`). It ends, with every socket it has, when that channel does.
 */
import { flushCompileCache } from 'node:module';
import { createLoadFunctions } from './agent-load.ts';
import type {
  AgentFunctions,
  AgentMethod,
  AgentReply,
  AgentRequest,
  Params,
  Result,
} from './agent-protocol.ts';
import { httpGet } from './agent-http-get.ts';
import { openRelay } from './agent-relay.ts';
import { createServerFunctions } from './agent-servers.ts';
import { createHoldFunctions } from './agent-tcp-hold.ts';
import { createStallFunctions } from './agent-tcp-stall.ts';
import { createTcpClientFunctions } from './agent-tcp-clients.ts';
import { createUdpClientFunctions } from './agent-udp-clients.ts';
import { udpSequence } from './agent-udp-sequence.ts';

const functions: AgentFunctions = {
  ...createServerFunctions(),
  ...createTcpClientFunctions(),
  ...createHoldFunctions(),
  ...createStallFunctions(),
  ...createLoadFunctions(),
  ...createUdpClientFunctions(),
  udpSequence,
  httpGet,
  openRelay,
};

function isMethod(name: string): name is AgentMethod {
  return Object.hasOwn(functions, name);
}

async function dispatch<M extends AgentMethod>(method: M, params: Params<M>): Promise<Result<M>> {
  return functions[method](params);
}

async function answer(request: AgentRequest): Promise<AgentReply> {
  const { id, method, params } = request;
  try {
    if (!isMethod(method)) throw new Error(`no method ${JSON.stringify(method)}`);
    // The sender's calls are typed by the same map.
    return { id, ok: true, result: await dispatch(method, params as Params<typeof method>) };
  } catch (error: unknown) {
    const { message, code }: NodeJS.ErrnoException =
      error instanceof Error ? error : new Error(String(error));
    return { id, ok: false, message, ...(code === undefined ? {} : { code }) };
  }
}

function send(reply: AgentReply): void {
  // A channel that closed meanwhile is the end of this process.
  process.send?.(reply, undefined, undefined, () => undefined);
}

if (process.send === undefined) throw new Error('the agent needs an IPC channel');
process.on('disconnect', () => process.exit(0));
process.on('message', (message) => void answer(message as AgentRequest).then(send));
send({ id: 0, ok: true, result: undefined });
// Node does it at a good end, which no agent comes to; without a cache (NODE_COMPILE_CACHE) it does nothing.
flushCompileCache();
