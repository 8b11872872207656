/**
 * Who we are to the API server, asked before every request so that what was replaced on disk is used by the next
 * one. A kubeconfig is read by `@kubernetes/client-node`, but for three things that it does not do or not so that
 * a daemon can use it: `tokenFile` (it reads it every 60 s at most, and under another name), exec plugins (no
 * time limit, no KUBERNETES_EXEC_INFO, no renewal after a 401), and the CA of a context without a user.
 */
import { createHash } from 'node:crypto';
import { access, readFile, stat } from 'node:fs/promises';
import { isAbsolute, dirname, join, resolve } from 'node:path';
import type { KubeConfig } from '@kubernetes/client-node';
import { YAMLException, load as loadYaml } from 'js-yaml';
import { errorText } from '../../errors.ts';
import { isJsonMap } from '../objects/field-reader.ts';
import { ApiError } from './api-error.ts';
import { type ExecConfig, ExecCredentials, type RunProgram, execConfigFromUser } from './exec-credentials.ts';
import type { TlsMaterial } from './tls-material.ts';

export interface RequestCredentials {
  readonly headers: Readonly<Record<string, string>>;
  readonly tls: TlsMaterial;
  /** Equal for equal `tls`: a connection may be used again while this stays the same. */
  readonly tlsKey: string;
}

/** Where the API server is and how we show who we are. */
export interface Credentials {
  /** For the next request. Rejects with ERR_API_CREDENTIALS: a file that is missing, a plugin that fails. */
  current(): Promise<RequestCredentials>;
  /** The last ones were refused (401): what was remembered of them is worth nothing. */
  refused(): void;
}

/** The user of a context that names none. */
const NOBODY = '';
const SERVICE_ACCOUNT_DIRECTORY = '/var/run/secrets/kubernetes.io/serviceaccount';

/** The token and CA that the kubelet keeps fresh in every pod (client-go `rest.InClusterConfig`). */
export class ServiceAccountCredentials implements Credentials {
  readonly #directory: string;

  constructor(options: { readonly directory?: string } = {}) {
    this.#directory = options.directory ?? SERVICE_ACCOUNT_DIRECTORY;
  }

  /** Are we a pod that has them? */
  async exist(): Promise<boolean> {
    return access(join(this.#directory, 'token')).then(
      () => true,
      () => false,
    );
  }

  async current(): Promise<RequestCredentials> {
    const ca = await readCredential(join(this.#directory, 'ca.crt'));
    const headers = await bearerFromFile(join(this.#directory, 'token'));
    return requestCredentials(headers, { ca }, `service account ${this.#directory}`);
  }

  refused(): void {}
}

/** Nobody: for a server given by --master that asks for nothing. */
export class AnonymousCredentials implements Credentials {
  async current(): Promise<RequestCredentials> {
    return requestCredentials({}, {}, 'nobody');
  }

  refused(): void {}
}

export interface KubeconfigDeps {
  /** Runs an exec plugin. */
  readonly run: RunProgram;
  /** Milliseconds since the epoch. */
  readonly wallTime: () => number;
}

/** The parts of a kubeconfig that we read ourselves. */
interface LoadedKubeconfig {
  /** The text it was made from. */
  readonly text: string;
  readonly config: KubeConfig;
  readonly server: string;
  /** Nothing is verified only because `server` is http://: counts for no other server. */
  readonly isPlain: boolean;
  readonly tokenFile: string | undefined;
  readonly exec: ExecCredentials | undefined;
}

/** A kubeconfig file, read again before every request: certificates and tokens may stand in it. */
export class KubeconfigCredentials implements Credentials {
  readonly #path: string;
  readonly #deps: KubeconfigDeps;
  #loaded: LoadedKubeconfig | undefined;
  /** The server that was asked for: what is for another one must not be sent there. */
  #server: string | undefined;

  constructor(deps: KubeconfigDeps, options: { readonly path: string }) {
    this.#deps = deps;
    this.#path = resolve(options.path);
  }

  /** Rejects with ERR_API_CREDENTIALS when the file cannot be used. */
  async check(): Promise<void> {
    await this.#load();
  }

  /**
   * The `server` of the current context's cluster. Rejects with ERR_API_CREDENTIALS. Once it was asked for,
   * `current` rejects while the file names another one.
   */
  async server(): Promise<string> {
    this.#server = (await this.#load()).server;
    return this.#server;
  }

  async current(): Promise<RequestCredentials> {
    const { config, exec, isPlain, server, tokenFile } = await this.#load();
    if (this.#server !== undefined && this.#server !== server) {
      throw this.#fault(
        `its server is ${JSON.stringify(server)} now, and was ${this.#server} at the start: restart`,
      );
    }
    const options: { headers: Record<string, string> } & TlsMaterial & { auth?: string } = { headers: {} };
    try {
      await config.applyToHTTPSOptions(options as Parameters<KubeConfig['applyToHTTPSOptions']>[0]);
    } catch (error) {
      throw this.#fault('what it names cannot be used', error);
    }
    const { headers, auth } = options;
    if (auth !== undefined) headers['authorization'] = `Basic ${Buffer.from(auth).toString('base64')}`;
    // client-go: a token file wins over a token.
    if (tokenFile !== undefined) Object.assign(headers, await bearerFromFile(tokenFile));
    const fromPlugin = exec === undefined ? undefined : await exec.current();
    // client-go: any other token wins over the plugin's.
    if (fromPlugin?.token !== undefined && !hasAuthorization(headers))
      headers['authorization'] = `Bearer ${fromPlugin.token}`;
    const { rejectUnauthorized, ...tls } = tlsMaterialFrom(options);
    const verification = isPlain || rejectUnauthorized === undefined ? {} : { rejectUnauthorized };
    return requestCredentials(
      lowerCased(headers),
      { ...tls, ...verification, ...fromPlugin?.tls },
      `kubeconfig ${this.#path}`,
    );
  }

  refused(): void {
    this.#loaded?.exec?.forget();
  }

  async #load(): Promise<LoadedKubeconfig> {
    const text = await readCredential(this.#path);
    if (this.#loaded?.text === text) return this.#loaded;
    // Loading it takes half a second and 60 MB: only for those who use it.
    const { KubeConfig } = await import('@kubernetes/client-node');
    // Somebody else may have been quicker, and its exec plugin is to run once.
    if (this.#loaded?.text === text) return this.#loaded;
    const config = new KubeConfig();
    try {
      config.loadFromString(text, { onInvalidEntry: 'filter' });
      config.makePathsAbsolute(dirname(this.#path));
    } catch (error) {
      throw this.#notYaml(error);
    }
    this.#loaded = { text, config, ...this.#details(config, text) };
    return this.#loaded;
  }

  #details(
    config: KubeConfig,
    text: string,
  ): Pick<LoadedKubeconfig, 'server' | 'isPlain' | 'tokenFile' | 'exec'> {
    const context = config.getContextObject(config.getCurrentContext());
    if (context === null) {
      throw this.#fault(`current-context ${JSON.stringify(config.getCurrentContext() ?? '')} is not in it`);
    }
    const cluster = config.getCurrentCluster();
    if (cluster === null)
      throw this.#fault(`cluster ${JSON.stringify(context.cluster)} is not in it, or has no server`);
    if (cluster.proxyUrl) {
      throw this.#fault(`proxy-url ${JSON.stringify(cluster.proxyUrl)} is not supported`);
    }
    const user = config.getCurrentUser();
    if (user === null && context.user !== undefined && context.user !== '') {
      throw this.#fault(`user ${JSON.stringify(context.user)} is not in it`);
    }
    const own = rawUser(text, context.user);
    const { tokenFile } = own;
    const exec = this.#takeExec(own, cluster.server);
    if (user === null) {
      // Without a user the library leaves the CA out.
      config.users = [...config.users, { name: NOBODY }];
      config.contexts = config.contexts.map((one) => (one === context ? { ...one, user: NOBODY } : one));
    } else {
      // We run it ourselves.
      Object.assign(user, { exec: undefined });
      if (user.certData) Object.assign(user, { certFile: undefined });
      if (user.keyData) Object.assign(user, { keyFile: undefined });
    }
    // client-go: data win over files; the library does it the other way round.
    if (cluster.caData) Object.assign(cluster, { caFile: undefined });
    // The library refuses http:// unless told that nothing is to be verified.
    const isPlain = cluster.server.startsWith('http://') && !cluster.skipTLSVerify;
    if (isPlain) Object.assign(cluster, { skipTLSVerify: true });
    return {
      server: cluster.server,
      isPlain,
      tokenFile: typeof tokenFile === 'string' && tokenFile !== '' ? this.#absolute(tokenFile) : undefined,
      exec,
    };
  }

  #takeExec(user: Readonly<Record<string, unknown>>, server: string): ExecCredentials | undefined {
    let config: ExecConfig | undefined;
    try {
      config = execConfigFromUser(user, { server, directory: dirname(this.#path) });
    } catch (error) {
      throw this.#fault(errorText(error));
    }
    return config === undefined ? undefined : new ExecCredentials(this.#deps, config);
  }

  #absolute(path: string): string {
    return isAbsolute(path) ? path : join(dirname(this.#path), path);
  }

  /** What the parser says quotes the lines around the fault, where tokens and keys may stand: no cause. */
  #notYaml(error: unknown): ApiError {
    if (!(error instanceof YAMLException)) return this.#fault('it is no kubeconfig', error);
    const line = error.mark === undefined ? '' : ` in line ${error.mark.line + 1}`;
    return this.#fault(`it is no kubeconfig: ${error.reason}${line}`);
  }

  #fault(why: string, cause?: unknown): ApiError {
    return new ApiError('ERR_API_CREDENTIALS', `kubeconfig ${this.#path}: ${why}`, { cause });
  }
}

/** `users[name == …].user` as it stands in the file; {} when it is not there. */
function rawUser(text: string, name: string | undefined): Readonly<Record<string, unknown>> {
  if (name === undefined) return {};
  const parsed = loadYaml(text);
  const users: readonly unknown[] =
    isJsonMap(parsed) && Array.isArray(parsed['users']) ? parsed['users'] : [];
  const found = users.find((entry) => isJsonMap(entry) && entry['name'] === name);
  return isJsonMap(found) && isJsonMap(found['user']) ? found['user'] : {};
}

function tlsMaterialFrom(options: TlsMaterial): TlsMaterial {
  const { ca, cert, key, pfx, passphrase, servername, rejectUnauthorized } = options;
  const all = { ca, cert, key, pfx, passphrase, servername, rejectUnauthorized };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
}

/** What a header may hold (RFC 9110, 5.5): what else is sent to nobody is no fault of a server. */
const HEADER_VALUE = /^[\t\x20-\x7e\x80-\xff]*$/;

/** `from`: whose they are, for errors. */
function requestCredentials(
  headers: Readonly<Record<string, string>>,
  tls: TlsMaterial,
  from: string,
): RequestCredentials {
  for (const [name, value] of Object.entries(headers)) {
    if (HEADER_VALUE.test(value)) continue;
    throw new ApiError(
      'ERR_API_CREDENTIALS',
      `${from}: a line break or another character that no header may have would stand in ${name}`,
    );
  }
  const hash = createHash('sha256');
  for (const [name, value] of Object.entries(tls).sort(([a], [b]) => (a < b ? -1 : 1))) {
    hash.update(`${name} ${String(value).length} `).update(String(value));
  }
  return { headers, tls, tlsKey: hash.digest('base64') };
}

function hasAuthorization(headers: Readonly<Record<string, string>>): boolean {
  return Object.keys(headers).some((name) => name.toLowerCase() === 'authorization');
}

function lowerCased(headers: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]));
}

async function bearerFromFile(path: string): Promise<Record<string, string>> {
  const token = (await readCredential(path)).trim();
  if (token === '') throw new ApiError('ERR_API_CREDENTIALS', `token file ${path} is empty`);
  return { authorization: `Bearer ${token}` };
}

async function readCredential(path: string): Promise<string> {
  try {
    // A pipe is read once or never, and would block a thread that the exit waits for.
    if (!(await stat(path)).isFile()) throw new Error('it is no regular file');
    return await readFile(path, 'utf8');
  } catch (error) {
    throw new ApiError('ERR_API_CREDENTIALS', `cannot read ${path}`, { cause: error });
  }
}
