/**
 * Exec plugins of a kubeconfig: a program that prints an ExecCredential (client.authentication.k8s.io, client-go
 * `plugin/pkg/client/auth/exec`). Its answer is kept until it expires or is refused.
 */
import { isAbsolute, join } from 'node:path';
import { errorText } from '../../errors.ts';
import { isJsonMap } from '../objects/field-reader.ts';
import { ApiError } from './api-error.ts';
import type { TlsMaterial } from './tls-material.ts';

/** Plugins ask clouds: slow is normal, for ever is not. */
const TIMEOUT_MS = 60_000;
/** A credential that expires within this is not used for another request. */
const MARGIN_MS = 10_000;

export interface ProgramResult {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program without a shell; `env` is added to ours. Rejects when it cannot be run or overruns its time. */
export type RunProgram = (
  command: string,
  args: readonly string[],
  options: { readonly timeoutMs: number; readonly env: Readonly<Record<string, string>> },
) => Promise<ProgramResult>;

export interface ExecConfig {
  readonly apiVersion: string;
  readonly command: string;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
}

export interface PluginCredential {
  readonly token?: string;
  readonly tls: TlsMaterial;
}

/**
 * The `exec` of a kubeconfig user, or undefined. A command with a slash in it is relative to the kubeconfig.
 * Throws when it is there and makes no sense.
 */
export function execConfigFromUser(
  user: Readonly<Record<string, unknown>>,
  place: { readonly server: string; readonly directory: string },
): ExecConfig | undefined {
  const { exec } = user;
  if (exec === undefined || exec === null) return undefined;
  if (!isJsonMap(exec)) throw new Error('exec is no map');
  const { apiVersion, command, args = [], env = [], provideClusterInfo, interactiveMode } = exec;
  if (typeof command !== 'string' || command === '') throw new Error('exec has no command');
  if (typeof apiVersion !== 'string' || !apiVersion.startsWith('client.authentication.k8s.io/')) {
    throw new Error('exec has no apiVersion of client.authentication.k8s.io');
  }
  if (interactiveMode === 'Always')
    throw new Error('exec has interactiveMode Always: nobody is there to answer');
  const cluster = provideClusterInfo === true ? { cluster: { server: place.server } } : {};
  const info = { apiVersion, kind: 'ExecCredential', spec: { interactive: false, ...cluster } };
  const isPath = command.includes('/') && !isAbsolute(command);
  return {
    apiVersion,
    command: isPath ? join(place.directory, command) : command,
    args: (Array.isArray(args) ? args : []).map(scalarText),
    env: { ...environmentFrom(env), KUBERNETES_EXEC_INFO: JSON.stringify(info) },
  };
}

function environmentFrom(env: unknown): Record<string, string> {
  const entries: readonly unknown[] = Array.isArray(env) ? env : [];
  return Object.fromEntries(
    entries.filter(isJsonMap).map(({ name, value }) => [scalarText(name), scalarText(value)]),
  );
}

/** YAML takes an unquoted 1 for a number. */
function scalarText(value: unknown): string {
  return typeof value === 'string'
    ? value
    : value === undefined || value === null
      ? ''
      : JSON.stringify(value);
}

export class ExecCredentials {
  readonly #run: RunProgram;
  readonly #wallTime: () => number;
  readonly #config: ExecConfig;
  #kept: { readonly credential: PluginCredential; readonly expiresAt: number } | undefined;
  /** Three watches that start together ask once. */
  #asking: Promise<PluginCredential> | undefined;

  constructor(deps: { readonly run: RunProgram; readonly wallTime: () => number }, config: ExecConfig) {
    this.#run = deps.run;
    this.#wallTime = deps.wallTime;
    this.#config = config;
  }

  async current(): Promise<PluginCredential> {
    if (this.#kept !== undefined && this.#kept.expiresAt - MARGIN_MS > this.#wallTime()) {
      return this.#kept.credential;
    }
    this.#asking ??= this.#ask().finally(() => {
      this.#asking = undefined;
    });
    return this.#asking;
  }

  forget(): void {
    this.#kept = undefined;
  }

  async #ask(): Promise<PluginCredential> {
    const { command, args, env } = this.#config;
    let result: ProgramResult;
    try {
      result = await this.#run(command, args, { timeoutMs: TIMEOUT_MS, env });
    } catch (error) {
      throw this.#fault('could not be run', error);
    }
    if (result.exitCode !== 0) {
      throw this.#fault(`ended with ${result.exitCode}: ${result.stderr.trim().slice(0, 300)}`);
    }
    try {
      this.#kept = credentialFromOutput(result.stdout, this.#config.apiVersion);
    } catch (error) {
      throw this.#fault(errorText(error));
    }
    return this.#kept.credential;
  }

  #fault(why: string, cause?: unknown): ApiError {
    return new ApiError('ERR_API_CREDENTIALS', `exec plugin ${JSON.stringify(this.#config.command)} ${why}`, {
      cause,
    });
  }
}

/** Throws without quoting the output, which may hold a secret. */
function credentialFromOutput(
  output: string,
  apiVersion: string,
): { readonly credential: PluginCredential; readonly expiresAt: number } {
  let parsed: unknown;
  try {
    parsed = JSON.parse(output);
  } catch {
    throw new Error('printed something else than JSON');
  }
  if (!isJsonMap(parsed) || parsed['kind'] !== 'ExecCredential') throw new Error('printed no ExecCredential');
  if (parsed['apiVersion'] !== apiVersion) {
    throw new Error(`printed apiVersion ${JSON.stringify(parsed['apiVersion'])}, not ${apiVersion}`);
  }
  const status = isJsonMap(parsed['status']) ? parsed['status'] : {};
  const token = textOrUndefined(status['token']);
  const cert = textOrUndefined(status['clientCertificateData']);
  const key = textOrUndefined(status['clientKeyData']);
  if (token === undefined && (cert === undefined || key === undefined)) {
    throw new Error('printed neither a token nor a client certificate with its key');
  }
  const expiry = Date.parse(textOrUndefined(status['expirationTimestamp']) ?? '');
  return {
    credential: {
      ...(token === undefined ? {} : { token }),
      tls: cert === undefined || key === undefined ? {} : { cert, key },
    },
    expiresAt: Number.isNaN(expiry) ? Number.POSITIVE_INFINITY : expiry,
  };
}

function textOrUndefined(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined;
}
