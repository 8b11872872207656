/** The proxies that are measured: ours, and kube-proxy 1.20.2 where its binary is among the control plane's. */
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Host } from '../../test/support/netns-lab.ts';
import { ProxyProcess } from '../../test/support/proxy-process.ts';
import { waitFor } from '../../test/support/wait.ts';
import { type BenchCluster, type EndpointsResource, NODE_NAME } from './bench-cluster.ts';
import { type KubeProxyMode, kubeProxyArgv, kubeProxyPath, whyNoKubeProxy } from './kube-proxy.ts';
import { flushRules } from './node-rules.ts';

const HEALTH_PORT = 10_256;
const START_DEADLINE_MS = 30_000;
const CLEANUP_DEADLINE_MS = 60_000;
const LOG_TAIL_CHARACTERS = 2_000;
const MAIN = join(import.meta.dirname, '../../src/main.ts');

export interface RunningProxy {
  readonly pid: number;
  /** Ends it and removes its files; its rules stay. */
  readonly stop: () => Promise<void>;
}

export interface Contender {
  readonly name: string;
  readonly endpointsResource: EndpointsResource;
  /** Why it cannot be measured here. */
  readonly whyNot: () => Promise<string | undefined>;
  /** Resolves when it says that it is ready. */
  readonly start: (cluster: BenchCluster) => Promise<RunningProxy>;
  /** The command that takes its rules away. */
  readonly cleanupArgv: readonly string[];
}

const ours: Contender = {
  name: 'ours',
  endpointsResource: 'endpointslices',
  whyNot: async () => undefined,
  start: async ({ lab, kubeconfig }) => {
    const proxy = await ProxyProcess.start(lab.node, {
      manifests: false,
      // Then two defaults, which are kube-proxy's too: the helper has others.
      args: [
        `--kubeconfig=${kubeconfig}`,
        `--hostname-override=${NODE_NAME}`,
        '--iptables-min-sync-period=1s',
        '-v=0',
      ],
    });
    const stop = async (): Promise<void> => {
      await proxy.stop();
      await proxy[Symbol.asyncDispose]();
    };
    return { pid: proxy.pid, stop };
  },
  cleanupArgv: [process.execPath, MAIN, '--cleanup'],
};

function kubeProxy(mode: KubeProxyMode): Contender {
  const isUserspace = mode === 'userspace';
  return {
    name: `kube-proxy 1.20 ${mode}`,
    endpointsResource: isUserspace ? 'endpoints' : 'endpointslices',
    whyNot: async () => whyNoKubeProxy(),
    start: async ({ lab, kubeconfig }) =>
      startKubeProxy(lab.node, await kubeProxyArgv(mode, { node: lab.node, kubeconfig })),
    cleanupArgv: [kubeProxyPath(), '--cleanup'],
  };
}

/** All that there are, the first of which is ours. */
export function listContenders(): readonly Contender[] {
  return [ours, kubeProxy('iptables'), kubeProxy('userspace')];
}

/**
 * Takes the rules of a contender that has ended out of the node, by its own command and then by force, with the
 * connections that the kernel remembers. Throws when a chain is left.
 */
export async function cleanNode(node: Host, { cleanupArgv }: Contender): Promise<void> {
  // kube-proxy 1.20's ends with 1 where there is no IPVS.
  await node.exec(cleanupArgv, { timeoutMs: CLEANUP_DEADLINE_MS });
  await flushRules(node);
}

async function startKubeProxy(node: Host, argv: readonly string[]): Promise<RunningProxy> {
  const directory = await mkdtemp(join(tmpdir(), 'kup-bench-'));
  const logPath = join(directory, 'kube-proxy.log');
  const log = openSync(logPath, 'a');
  const child = node.spawn(argv, { stdio: ['ignore', log, log] });
  closeSync(log);
  const exited = once(child, 'exit');
  const isRunning = (): boolean => child.exitCode === null && child.signalCode === null;
  const stop = async (): Promise<void> => {
    if (isRunning()) child.kill('SIGTERM');
    await exited;
    await rm(directory, { recursive: true, force: true });
  };
  try {
    const agent = await node.agent();
    const isHealthy = async (): Promise<boolean> =>
      !isRunning() ||
      (await agent.httpGet({ host: '127.0.0.1', port: HEALTH_PORT, path: '/healthz' })).status === 200;
    await waitFor(isHealthy, { timeoutMs: START_DEADLINE_MS, what: 'kube-proxy to be healthy' });
    if (!isRunning()) {
      const text = await readFile(logPath, 'utf8');
      throw new Error(`kube-proxy has ended:\n${text.slice(-LOG_TAIL_CHARACTERS)}`);
    }
  } catch (error: unknown) {
    await stop();
    throw error;
  }
  return { pid: child.pid ?? 0, stop };
}
