/**
 * Builds the source that the command line asks for: manifests, or an API server with the credentials of a
 * kubeconfig, of the pod, or of nobody.
 */
import type { Config } from './cli/config.ts';
import type { Clock } from './clock.ts';
import { type Problem, ProxyError } from './errors.ts';
import { exec } from './host/exec.ts';
import type { Logger } from './log.ts';
import { hostPortText, parseIpAddress } from './model/address.ts';
import type { NodeInfo } from './model/node.ts';
import type { SourceObjects } from './model/snapshot.ts';
import { nodeNameFromConfig } from './node-settings.ts';
import type { ApiStatistics } from './sources/kubernetes/api-statistics.ts';
import {
  AnonymousCredentials,
  type Credentials,
  KubeconfigCredentials,
  ServiceAccountCredentials,
} from './sources/kubernetes/credentials.ts';
import type { RunProgram } from './sources/kubernetes/exec-credentials.ts';
import { ManifestsSource } from './sources/manifests/manifests-source.ts';

export interface Source {
  /** Resolves when it is under way; what it knows comes by `onChange`. */
  start(): Promise<void>;
  /** Nothing is told once it has been called. Idempotent. */
  close(): Promise<void>;
}

export interface SourceDeps {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly version: string;
  /** Of the process: where a pod finds its API server. */
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** What a Kubernetes source counts. */
  readonly statistics: ApiStatistics;
  /** Undefined: nothing is known yet, for these reasons. */
  readonly onChange: (objects: SourceObjects | undefined, problems: readonly Problem[]) => void;
  readonly onNodeChange: (node: NodeInfo | undefined) => void;
}

/** Rejects with ERR_API_CREDENTIALS when no API server is named anywhere, or the kubeconfig cannot be used. */
export async function createSource(config: Config, deps: SourceDeps): Promise<Source> {
  const nodeName = nodeNameFromConfig(config);
  const { manifests, serviceProxyName } = config;
  if (manifests.length > 0) {
    return new ManifestsSource(deps, { paths: manifests, nodeName, serviceProxyName });
  }
  const { servers, credentials } = await apiAccess(config, deps);
  // Late: the HTTP client is a tenth of what a start costs, and with manifests nobody needs it.
  const { KubernetesSource } = await import('./sources/kubernetes/kubernetes-source.ts');
  const source = new KubernetesSource(
    { ...deps, credentials, random: Math.random },
    {
      servers,
      nodeName,
      serviceProxyName,
      stallTimeoutMs: config.watchStallTimeoutMs,
      version: deps.version,
    },
  );
  deps.logger.info({ servers: servers.map(({ origin }) => origin) }, 'Reading Services from the API server');
  return source;
}

interface ApiAccess {
  readonly servers: readonly URL[];
  readonly credentials: Credentials;
}

async function apiAccess(config: Config, deps: SourceDeps): Promise<ApiAccess> {
  const { masters } = config;
  if (config.kubeconfig !== '') {
    const credentials = new KubeconfigCredentials(
      { run: pluginRunner(deps), wallTime: () => deps.clock.wallTime() },
      { path: config.kubeconfig },
    );
    await credentials.check();
    if (masters.length > 0) return { servers: masters, credentials };
    return { servers: [serverUrl(await credentials.server(), config.kubeconfig)], credentials };
  }
  const pod = new ServiceAccountCredentials();
  if (masters.length > 0) {
    const isPod = await pod.exist();
    if (!isPod)
      deps.logger.info({}, 'No --kubeconfig and no service account: asking the API server as nobody');
    return { servers: masters, credentials: isPod ? pod : new AnonymousCredentials() };
  }
  return { servers: [serverOfPod(deps)], credentials: pod };
}

/** Exec plugins find our environment and theirs. */
function pluginRunner({ environment }: SourceDeps): RunProgram {
  const own = Object.entries(environment).flatMap(([name, value]) =>
    value === undefined ? [] : [[name, value] as const],
  );
  return async (command, args, { timeoutMs, env }) =>
    exec(command, args, { timeoutMs, env: { ...Object.fromEntries(own), ...env } });
}

/** client-go `rest.InClusterConfig`, and the warning that goes with it here. */
function serverOfPod({ environment, logger }: SourceDeps): URL {
  const { KUBERNETES_SERVICE_HOST: host = '', KUBERNETES_SERVICE_PORT: port = '' } = environment;
  const address = parseIpAddress(host);
  const server = URL.parse(
    address === undefined ? `https://${host}:${port}` : `https://${hostPortText(address, Number(port))}`,
  );
  if (host === '' || !/^\d+$/.test(port) || server === null) {
    throw new ProxyError(
      'ERR_API_CREDENTIALS',
      'no source: give --kubeconfig or --master for an API server, or --manifests for files ' +
        `(KUBERNETES_SERVICE_HOST ${JSON.stringify(host)} and KUBERNETES_SERVICE_PORT ${JSON.stringify(port)}: this is no pod)`,
    );
  }
  logger.warn(
    { server: server.origin },
    "Neither --kubeconfig nor --master was given, using the pod's KUBERNETES_SERVICE_HOST. That is normally a clusterIP, " +
      'which this proxy itself provides: at the first start only another Service proxy can lead there, and after a ' +
      "restart nobody does. Give --master with the control plane's own address",
  );
  return server;
}

function serverUrl(text: string, kubeconfig: string): URL {
  const url = URL.parse(text);
  if (url !== null && ['http:', 'https:'].includes(url.protocol) && url.pathname === '/') return url;
  throw new ProxyError(
    'ERR_API_CREDENTIALS',
    `kubeconfig ${kubeconfig}: server ${JSON.stringify(text)} must be http:// or https:// with a host and no path`,
  );
}
