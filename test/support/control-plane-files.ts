/** The files of a control plane, and the secrets that are in one of them. */
import { join } from 'node:path';

/** The files in a control plane's directory. */
export class ControlPlaneFiles {
  readonly directory: string;
  readonly assets: string;

  constructor(directory: string, assets: string) {
    this.directory = directory;
    this.assets = assets;
  }

  in(name: string): string {
    return join(this.directory, name);
  }

  program(name: 'etcd' | 'kube-apiserver' | 'kube-controller-manager'): string {
    return join(this.assets, name);
  }

  get serverCa(): string {
    return this.in('server-ca.crt');
  }
  get clientCaBundle(): string {
    return this.in('client-ca-bundle.crt');
  }
  get tokens(): string {
    return this.in('tokens.csv');
  }
  get auditPolicy(): string {
    return this.in('audit-policy.json');
  }
  get serverCert(): string {
    return this.in('server.crt');
  }
  get serverKey(): string {
    return this.in('server.key');
  }
  get tokenPublicKey(): string {
    return this.in('service-account.pub');
  }
  get tokenPrivateKey(): string {
    return this.in('service-account.key');
  }
}

/** Static tokens, and who they are. Those of the harness stay valid whatever becomes of client certificates. */
export const TOKENS = {
  admin: { token: 'token-of-the-test', user: 'cluster-test-admin', groups: ['system:masters'] },
  // Each controller has a role of its own, which none of them takes on here.
  controllers: {
    token: 'token-of-the-controllers',
    user: 'system:kube-controller-manager',
    groups: ['system:masters'],
  },
} as const;
