/** Kubeconfigs in directories of their own, and files that are replaced as kubelets and editors do it. */
import { chmod, mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeAll, onTestFinished } from 'vitest';
import { KubeconfigCredentials } from '../../src/sources/kubernetes/credentials.ts';

export interface KubeconfigParts {
  /** https://127.0.0.1:6443 unless told. */
  readonly server?: string;
  readonly cluster?: object;
  /** null: the context names no user. */
  readonly user?: object | null;
}

/** A kubeconfig (JSON is YAML) with one context, `test`, of the cluster `here` and the user `me`. */
export function kubeconfigText({
  server = 'https://127.0.0.1:6443',
  cluster = {},
  user = {},
}: KubeconfigParts = {}): string {
  const who = user === null ? {} : { user: 'me' };
  return JSON.stringify({
    apiVersion: 'v1',
    kind: 'Config',
    'current-context': 'test',
    contexts: [{ name: 'test', context: { cluster: 'here', ...who } }],
    clusters: [{ name: 'here', cluster: { server, ...cluster } }],
    users: user === null ? [] : [{ name: 'me', user }],
  });
}

/** A temporary directory that is gone when the test has finished. */
export class TestDirectory {
  readonly path: string;

  private constructor(path: string) {
    this.path = path;
  }

  static async make(): Promise<TestDirectory> {
    const path = await mkdtemp(join(tmpdir(), 'kup-credentials-'));
    onTestFinished(() => rm(path, { recursive: true, force: true }));
    return new TestDirectory(path);
  }

  at(name: string): string {
    return join(this.path, name);
  }

  /** Creates or replaces it in one moment; gives its path. */
  async write(name: string, text: string): Promise<string> {
    await writeFile(this.at(`${name}.new`), text);
    await rename(this.at(`${name}.new`), this.at(name));
    return this.at(name);
  }

  async writeProgram(name: string, text: string): Promise<string> {
    const path = await this.write(name, text);
    await chmod(path, 0o755);
    return path;
  }

  async writeKubeconfig(parts: KubeconfigParts = {}): Promise<string> {
    return this.write('kubeconfig', kubeconfigText(parts));
  }

  async remove(name: string): Promise<void> {
    await rm(this.at(name));
  }
}

/** The credentials of a kubeconfig that has no exec plugin: nothing may be run. */
export function credentialsOf(path: string): KubeconfigCredentials {
  return new KubeconfigCredentials(
    {
      run: async (command) => Promise.reject(new Error(`nobody expected \`${command}\` to be run`)),
      wallTime: () => {
        throw new Error('nobody expected to be asked for the time');
      },
    },
    { path },
  );
}

/** To be called at the top of a file: no test's own time is spent on loading the library, which is seconds under load. */
export function preloadKubeconfigLibrary(): void {
  beforeAll(async () => {
    await import('@kubernetes/client-node');
  }, 60_000);
}
