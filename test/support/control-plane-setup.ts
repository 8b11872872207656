/** What must be there before a control plane can start: certificates, keys, tokens, policies; and kubeconfigs. */
import { writeFile } from 'node:fs/promises';
import type { Credentials } from './cluster-api.ts';
import { AUDIT_POLICY } from './cluster-audit.ts';
import { CertificateAuthority, createTokenKeys, type KeyPair } from './cluster-certificates.ts';
import { ClientTrust } from './cluster-trust.ts';
import { type ControlPlaneFiles, TOKENS } from './control-plane-files.ts';
import { KUBERNETES_CLUSTER_IP, NETWORK } from './control-plane-flags.ts';

export interface Kubeconfig {
  readonly credentials: Credentials;
  /** The first API server's URL unless told. */
  readonly server?: string;
}

export interface Authorities {
  /** Of the API servers' certificates. */
  readonly serverCa: CertificateAuthority;
  /** Of client certificates, trusted from the start. */
  readonly clientCa: CertificateAuthority;
  readonly trust: ClientTrust;
}

/** Certificates, keys, tokens and policies; gives the authorities. */
export async function writeFiles(files: ControlPlaneFiles): Promise<Authorities> {
  const trust = new ClientTrust(files.directory, files.clientCaBundle);
  const keys = createTokenKeys();
  const serverCa = await CertificateAuthority.create(files.directory, 'server-ca');
  const clientCa = await trust.createAuthority('client-ca');
  const server = await serverCa.issueServerCert({
    name: 'kube-apiserver',
    addresses: [...NETWORK.servers, '127.0.0.1', KUBERNETES_CLUSTER_IP],
    dnsNames: ['kubernetes', 'kubernetes.default', 'kubernetes.default.svc', 'localhost'],
  });
  await Promise.all([
    trust.write([clientCa]),
    writeFile(files.serverCert, server.cert),
    writeFile(files.serverKey, server.key),
    writeFile(files.tokenPublicKey, keys.publicKey),
    writeFile(files.tokenPrivateKey, keys.privateKey),
    writeFile(files.tokens, renderTokenFile()),
    writeFile(files.auditPolicy, JSON.stringify(AUDIT_POLICY)),
  ]);
  return { serverCa, clientCa, trust };
}

/** A kubeconfig with everything in it, for a server whose certificate is of that authority (PEM). JSON is YAML. */
export function renderKubeconfig({ credentials, server }: Required<Kubeconfig>, ca: string): string {
  const base64 = (text: string): string => Buffer.from(text).toString('base64');
  const { token, key, cert } = credentials as Partial<KeyPair & { token: string }>;
  const user = {
    ...(token === undefined ? {} : { token }),
    ...(cert === undefined ? {} : { 'client-certificate-data': base64(cert) }),
    ...(key === undefined ? {} : { 'client-key-data': base64(key) }),
  };
  return JSON.stringify({
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name: 'lab', cluster: { server, 'certificate-authority-data': base64(ca) } }],
    users: [{ name: 'user', user }],
    contexts: [{ name: 'lab', context: { cluster: 'lab', user: 'user' } }],
    'current-context': 'lab',
  });
}

function renderTokenFile(): string {
  return Object.values(TOKENS)
    .map(({ token, user, groups }) => `${token},${user},${user},"${groups.join(',')}"\n`)
    .join('');
}
