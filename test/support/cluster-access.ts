/**
 * Who a proxy is to a cluster: the ServiceAccount and the ClusterRole of deploy/rbac.yaml, tokens that can be revoked,
 * and the place where a pod finds its own, which is there for one process only.
 */
import { mkdir, mkdtemp, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadAll } from 'js-yaml';
import type { TestContext } from 'vitest';
import { ApiError, type ApiObject } from './cluster-api.ts';
import { type Resource, pathOf } from './cluster-paths.ts';
import type { ControlPlane } from './control-plane.ts';
import { waitFor } from './wait.ts';

const RBAC_FILE = new URL('../../deploy/rbac.yaml', import.meta.url).pathname;
const SERVICE_ACCOUNT_DIRECTORY = '/var/run/secrets/kubernetes.io/serviceaccount';
/** kube-apiserver remembers for 10 s that a token is good. */
const REVOKED_DEADLINE_MS = 50_000;
const GRANTED_DEADLINE_MS = 10_000;

export interface PolicyRule {
  readonly apiGroups: readonly string[];
  readonly resources: readonly string[];
  readonly verbs: readonly string[];
}

/** One verb on one resource, which is written as in an audit log: `endpointslices.discovery.k8s.io`. */
export interface Grant {
  readonly verb: string;
  readonly resource: string;
}

interface RbacDocuments {
  readonly ServiceAccount: ApiObject;
  readonly ClusterRole: ApiObject & { readonly rules: readonly PolicyRule[] };
  readonly ClusterRoleBinding: ApiObject & { readonly subjects: readonly object[] };
}

/** deploy/rbac.yaml: one document of each of the three kinds, and no other. */
async function readRbacDocuments(): Promise<RbacDocuments> {
  const documents = loadAll(await readFile(RBAC_FILE, 'utf8')) as readonly { readonly kind: string }[];
  const kinds = documents.map(({ kind }) => kind);
  if (kinds.toSorted().join() !== 'ClusterRole,ClusterRoleBinding,ServiceAccount') {
    throw new Error(`${RBAC_FILE} has the documents ${kinds.join()}`);
  }
  return Object.fromEntries(
    documents.map((document) => [document.kind, document]),
  ) as unknown as RbacDocuments;
}

/** All that the ClusterRole of deploy/rbac.yaml grants. */
export async function readGrants(): Promise<readonly Grant[]> {
  const { ClusterRole } = await readRbacDocuments();
  return ClusterRole.rules.flatMap(({ apiGroups, resources, verbs }) =>
    apiGroups.flatMap((group) =>
      resources.flatMap((name) =>
        verbs.map((verb) => ({ verb, resource: group === '' ? name : `${name}.${group}` })),
      ),
    ),
  );
}

/** A service account with a role of its own, both made of the documents in deploy/rbac.yaml. */
export class Account {
  readonly name: string;
  readonly namespace: string;
  readonly #plane: ControlPlane;
  readonly #role: ApiObject & { readonly rules: readonly PolicyRule[] };
  #tokens = 0;

  private constructor(plane: ControlPlane, name: string, documents: RbacDocuments) {
    this.#plane = plane;
    this.name = name;
    this.namespace = documents.ServiceAccount.metadata.namespace;
    this.#role = documents.ClusterRole;
  }

  /** Applies the documents as they are, or under another name and with a role that lacks one of its grants. */
  static async create(
    plane: ControlPlane,
    { name, lacking }: { readonly name?: string; readonly lacking?: Grant } = {},
  ): Promise<Account> {
    const documents = await readRbacDocuments();
    const own = name ?? documents.ServiceAccount.metadata.name;
    const account = new Account(plane, own, documents);
    const { namespace } = account;
    await ensureNamespace(plane, namespace);
    const renamed = (object: ApiObject): ApiObject => ({
      ...object,
      metadata: { ...object.metadata, name: name ?? object.metadata.name },
    });
    const roleName = renamed(documents.ClusterRole).metadata.name;
    await create(plane, 'serviceaccounts', renamed(documents.ServiceAccount), namespace);
    await create(plane, 'clusterroles', {
      ...renamed(documents.ClusterRole),
      rules: lacking === undefined ? documents.ClusterRole.rules : rulesWithout(documents, lacking),
    });
    const binding = renamed(documents.ClusterRoleBinding);
    const { roleRef, subjects } = documents.ClusterRoleBinding;
    const further =
      name === undefined
        ? {}
        : {
            roleRef: { ...(roleRef as object), name: roleName },
            subjects: subjects.map((subject) => ({ ...subject, name: own })),
          };
    await create(plane, 'clusterrolebindings', { ...binding, ...further });
    await account.#granted();
    return account;
  }

  /** As the API server calls it. */
  get user(): string {
    return `system:serviceaccount:${this.namespace}:${this.name}`;
  }

  /** Gives back what the role lacks. */
  async grantAll(): Promise<void> {
    await this.#plane.api.patch(pathOf('clusterroles', { name: this.name }), { rules: this.#role.rules });
  }

  async issueToken(): Promise<BoundToken> {
    this.#tokens += 1;
    const { name, namespace } = this;
    const secret = `${name}-${this.#tokens}`;
    const boundTo = await this.#plane.objects.createSecret(secret, namespace);
    const text = await this.#plane.objects.serviceAccountToken({
      name,
      namespace,
      boundTo: { ...boundTo, apiVersion: 'v1', kind: 'Secret' },
    });
    return new BoundToken(this.#plane, text, pathOf('secrets', { namespace, name: secret }));
  }

  /** The API server's own view of roles is a moment late. The Node is in every role's list, or the Services are. */
  async #granted(): Promise<void> {
    const { text } = await this.issueToken();
    const client = this.#plane.client({ token: text });
    const paths = [pathOf('nodes'), pathOf('services')];
    const isAllowed = async (): Promise<boolean> =>
      (await Promise.allSettled(paths.map(async (path) => client.list(path)))).some(
        ({ status }) => status === 'fulfilled',
      );
    await waitFor(isAllowed, { timeoutMs: GRANTED_DEADLINE_MS, what: `${this.user} to have its role` });
    await client.close();
  }
}

/** A token that ends with the Secret it is bound to. */
export class BoundToken {
  readonly text: string;
  readonly #plane: ControlPlane;
  readonly #secretPath: string;

  constructor(plane: ControlPlane, text: string, secretPath: string) {
    this.#plane = plane;
    this.text = text;
    this.#secretPath = secretPath;
  }

  /** Resolves when the first API server refuses it. */
  async revoke(): Promise<void> {
    await this.#plane.api.delete(this.#secretPath);
    const client = this.#plane.client({ token: this.text });
    const isRefused = async (): Promise<boolean> => {
      try {
        await client.text('/api');
        return false;
      } catch (error: unknown) {
        if (error instanceof ApiError && error.status === 401) return true;
        throw error;
      }
    };
    await waitFor(isRefused, {
      timeoutMs: REVOKED_DEADLINE_MS,
      intervalMs: 100,
      what: 'the token to be refused',
    });
    await client.close();
  }
}

/** Files that are replaced in one moment, in a directory that ends with the test. */
export class ScratchFiles {
  readonly #path: string;

  private constructor(path: string) {
    this.#path = path;
  }

  /** `context`: the test's own, which concurrent tests have to name. */
  static async create({ onTestFinished }: Pick<TestContext, 'onTestFinished'>): Promise<ScratchFiles> {
    const path = await mkdtemp(join(tmpdir(), 'kup-access-'));
    onTestFinished(async () => rm(path, { recursive: true, force: true }));
    return new ScratchFiles(path);
  }

  at(name: string): string {
    return join(this.#path, name);
  }

  /** Gives the path. */
  async write(name: string, text: string, mode = 0o600): Promise<string> {
    await writeFile(this.at(`${name}.part`), text, { mode });
    await rename(this.at(`${name}.part`), this.at(name));
    return this.at(name);
  }
}

/** The files that a kubelet keeps for a pod: links to a directory that is replaced as a whole. */
export class PodFiles implements AsyncDisposable {
  readonly path: string;
  #version = 0;

  private constructor(path: string) {
    this.path = path;
  }

  static async create(files: { readonly token: string; readonly ca: string }): Promise<PodFiles> {
    const pod = new PodFiles(await mkdtemp(join(tmpdir(), 'kup-pod-')));
    await pod.write(files);
    for (const name of ['token', 'ca.crt']) await symlink(`..data/${name}`, join(pod.path, name));
    return pod;
  }

  async write({ token, ca }: { readonly token: string; readonly ca: string }): Promise<void> {
    this.#version += 1;
    const directory = `..${this.#version}`;
    await mkdir(join(this.path, directory));
    await writeFile(join(this.path, directory, 'token'), token, { mode: 0o600 });
    await writeFile(join(this.path, directory, 'ca.crt'), ca);
    await symlink(directory, join(this.path, '..data_tmp'));
    await rename(join(this.path, '..data_tmp'), join(this.path, '..data'));
    await rm(join(this.path, `..${this.#version - 1}`), { recursive: true, force: true });
  }

  /**
   * A command for `ProxyProcess` in which the files are where every pod has them. The mounts are in a mount
   * namespace of that process and end with it; nobody else sees them.
   */
  get within(): readonly string[] {
    const script = `
      mount -t tmpfs tmpfs /var/run
      mkdir -p ${SERVICE_ACCOUNT_DIRECTORY}
      mount --bind "$1" ${SERVICE_ACCOUNT_DIRECTORY}
      shift
      exec "$@"`;
    return ['unshare', '--mount', '--propagation', 'private', 'sh', '-ec', script, 'pod', this.path];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.path, { recursive: true, force: true });
  }
}

function rulesWithout({ ClusterRole }: RbacDocuments, lacking: Grant): readonly PolicyRule[] {
  const [name = '', ...group] = lacking.resource.split('.');
  const isMeant = ({ apiGroups, resources }: PolicyRule): boolean =>
    apiGroups.includes(group.join('.')) && resources.includes(name);
  return ClusterRole.rules.flatMap((rule) =>
    isMeant(rule)
      ? [
          { ...rule, resources: rule.resources.filter((one) => one !== name) },
          { ...rule, resources: [name], verbs: rule.verbs.filter((verb) => verb !== lacking.verb) },
        ].filter(({ resources, verbs }) => resources.length > 0 && verbs.length > 0)
      : [rule],
  );
}

async function create(
  plane: ControlPlane,
  resource: Resource,
  object: ApiObject,
  namespace?: string,
): Promise<void> {
  await plane.api.create(pathOf(resource, namespace === undefined ? {} : { namespace }), object);
}

async function ensureNamespace(plane: ControlPlane, name: string): Promise<void> {
  try {
    await plane.api.get(pathOf('namespaces', { name }));
  } catch (error: unknown) {
    if (!(error instanceof ApiError) || error.status !== 404) throw error;
    await plane.objects.createNamespace(name);
  }
}
