/** One plain GET from inside a namespace: how tests read the proxy's own pages. */
import { get } from 'node:http';
import { text } from 'node:stream/consumers';
import { type AgentFunctions, DEFAULT_TIMEOUT_MS } from './agent-protocol.ts';

export const httpGet: AgentFunctions['httpGet'] = async ({
  host,
  port,
  path,
  timeoutMs = DEFAULT_TIMEOUT_MS,
}) => {
  const { promise, resolve, reject } =
    Promise.withResolvers<Awaited<ReturnType<AgentFunctions['httpGet']>>>();
  const request = get(
    { host, port, path, agent: false, signal: AbortSignal.timeout(timeoutMs) },
    (response) => {
      text(response).then(
        (body) => resolve({ status: response.statusCode ?? 0, headers: response.headers, body }),
        reject,
      );
    },
  );
  request.on('error', reject);
  return promise;
};
