/**
 * A program for the network namespace of a Node process that runs there: makes it collect its garbage, and prints its
 * `process.memoryUsage()` as JSON. By the inspector that SIGUSR1 opens in any Node process, so that what is measured was
 * started like any other; it listens on the namespace's loopback from then on.
 */
const INSPECTOR = 'http://127.0.0.1:9229/json/list';
const OPEN_DEADLINE_MS = 15_000;
const ANSWER_DEADLINE_MS = 20_000;

interface Answer {
  readonly id?: number;
  readonly result?: { readonly result?: { readonly value?: unknown } };
}

/** A socket to the inspector, which takes a moment to open after the signal. */
async function inspectorUrl(): Promise<string> {
  const deadline = performance.now() + OPEN_DEADLINE_MS;
  for (;;) {
    const targets = await fetch(INSPECTOR)
      .then(async (response) => response.json() as Promise<readonly { webSocketDebuggerUrl: string }[]>)
      .catch(() => []);
    const [target] = targets;
    if (target !== undefined) return target.webSocketDebuggerUrl;
    if (performance.now() > deadline) throw new Error(`no inspector in ${OPEN_DEADLINE_MS} ms`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function ask(socket: WebSocket, id: number, method: string, params: object): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  const timer = setTimeout(() => reject(new Error(`no answer to ${method}`)), ANSWER_DEADLINE_MS);
  const onMessage = ({ data }: MessageEvent): void => {
    const answer = JSON.parse(String(data)) as Answer;
    if (answer.id === id) resolve(answer);
  };
  socket.addEventListener('message', onMessage);
  socket.send(JSON.stringify({ id, method, params }));
  try {
    return await promise;
  } finally {
    clearTimeout(timer);
    socket.removeEventListener('message', onMessage);
  }
}

const pid = Number(process.argv[2]);
process.kill(pid, 'SIGUSR1');
const socket = new WebSocket(await inspectorUrl());
await new Promise((resolve, reject) => {
  socket.addEventListener('open', resolve);
  socket.addEventListener('error', () => reject(new Error('the inspector refused')));
});
// Twice: what a first collection finalizes, the second one frees.
await ask(socket, 1, 'HeapProfiler.collectGarbage', {});
await ask(socket, 2, 'HeapProfiler.collectGarbage', {});
const { result } = await ask(socket, 3, 'Runtime.evaluate', {
  expression: 'JSON.stringify(process.memoryUsage())',
  returnByValue: true,
});
process.stdout.write(String(result?.result?.value));
socket.close();
