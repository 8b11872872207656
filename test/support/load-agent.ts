/**
 * The load process: what `load-protocol.ts` says, asked over the IPC channel. It ends, with every socket it has, when
 * that channel does, and by a crash that it was asked for.
 */
import { LoadBackend } from './load-backend.ts';
import { RequestLoad } from './load-client.ts';
import type {
  LoadFunctions,
  LoadMethod,
  LoadOrder,
  LoadParams,
  LoadReply,
  LoadResult,
} from './load-protocol.ts';

let backend: LoadBackend | undefined;

const functions: LoadFunctions = {
  serve: async (options) => {
    backend = await LoadBackend.open(options);
  },
  crash: async () => {
    if (backend === undefined) throw new Error('nothing is served here');
    return backend.crash();
  },
  request: async (options) => new RequestLoad(options).run(),
};

async function dispatch<M extends LoadMethod>(method: M, params: LoadParams<M>): Promise<LoadResult<M>> {
  return functions[method](params);
}

async function answer({ id, method, params }: LoadOrder): Promise<void> {
  const reply = await dispatch(method, params as LoadParams<typeof method>).then(
    (result): LoadReply => ({ id, ok: true, result }),
    (error: unknown): LoadReply => ({ id, ok: false, message: String(error) }),
  );
  process.send?.(reply, undefined, undefined, () => {
    if (method === 'crash') process.kill(process.pid, 'SIGKILL');
  });
}

if (process.send === undefined) throw new Error('the load process needs an IPC channel');
process.on('disconnect', () => process.exit(0));
process.on('message', (message) => void answer(message as LoadOrder));
process.send({ id: 0, ok: true, result: undefined } satisfies LoadReply);
