/**
 * Whose client certificates a control plane trusts: its authorities and the bundle they are in. kube-apiserver looks
 * at that file once a minute (1.20's `FileRefreshDuration`) or starts with it, and says by its answers which of its
 * bundles is in force: so every authority has a certificate to ask with.
 */
import { rename, writeFile } from 'node:fs/promises';
import type { ApiClient } from './cluster-api.ts';
import { ApiError } from './cluster-api.ts';
import type { ApiServer } from './cluster-api-server.ts';
import { CertificateAuthority, type KeyPair } from './cluster-certificates.ts';
import { waitFor } from './wait.ts';

const RELOAD_DEADLINE_MS = 75_000;

export class ClientTrust {
  readonly #directory: string;
  readonly #bundlePath: string;
  readonly #authorities: CertificateAuthority[] = [];
  readonly #probes = new Map<CertificateAuthority, Promise<KeyPair>>();

  constructor(directory: string, bundlePath: string) {
    this.#directory = directory;
    this.#bundlePath = bundlePath;
  }

  /** Makes an authority that nobody trusts yet. */
  async createAuthority(name: string): Promise<CertificateAuthority> {
    const authority = await CertificateAuthority.create(this.#directory, name);
    this.#authorities.push(authority);
    return authority;
  }

  /** Replaces the bundle, as a whole. Throws when it would be empty, which kube-apiserver takes for a fault. */
  async write(trusted: readonly CertificateAuthority[]): Promise<void> {
    if (trusted.length === 0) throw new RangeError('a bundle needs an authority');
    const part = `${this.#bundlePath}.part`;
    await writeFile(part, trusted.map(({ cert }) => cert).join(''));
    await rename(part, this.#bundlePath);
  }

  /** Resolves when the server takes the certificates of these authorities and of no other. */
  async effective(server: ApiServer, trusted: readonly CertificateAuthority[]): Promise<void> {
    const probes = await Promise.all(
      this.#authorities.map(async (authority) => ({
        client: server.client(await this.#probe(authority)),
        isTrusted: trusted.includes(authority),
      })),
    );
    const isEffective = async (): Promise<boolean> => {
      const answers = await Promise.all(
        probes.map(async ({ client, isTrusted }) => (await isAccepted(client)) === isTrusted),
      );
      return !answers.includes(false);
    };
    try {
      await waitFor(isEffective, {
        timeoutMs: RELOAD_DEADLINE_MS,
        intervalMs: 100,
        what: `${server.url} to trust ${trusted.map(({ name }) => name).join(' and ')} alone`,
      });
    } finally {
      await Promise.all(probes.map(async ({ client }) => client.close()));
    }
  }

  async #probe(authority: CertificateAuthority): Promise<KeyPair> {
    const probe = this.#probes.get(authority) ?? authority.issueClientCert({ user: 'cluster-test-probe' });
    this.#probes.set(authority, probe);
    return probe;
  }
}

async function isAccepted(client: ApiClient): Promise<boolean> {
  try {
    await client.text('/api');
    return true;
  } catch (error: unknown) {
    if (error instanceof ApiError && error.status === 401) return false;
    throw error;
  }
}
