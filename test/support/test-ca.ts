/** Certificates for tests over TLS, made by openssl when the file begins and gone when it ends. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll } from 'vitest';
import { CertificateAuthority, type KeyPair } from './cluster-certificates.ts';

export interface TestCertificates {
  /** PEM of the authority. */
  readonly ca: string;
  /** Of that authority, for 127.0.0.1 and ::1. */
  readonly server: KeyPair;
  /** Of that authority, for `kubernetes.example` and no address. */
  readonly namedServer: KeyPair;
  /** Of that authority: the users `alice` and `bob`. */
  readonly alice: KeyPair;
  readonly bob: KeyPair;
  /** PEM of another authority of the same name. */
  readonly otherCa: string;
  /** Of the other authority, for 127.0.0.1. */
  readonly otherServer: KeyPair;
}

/** To be called at the top of a test file; what it gives can be used inside tests. */
export function useTestCertificates(): () => TestCertificates {
  let made: TestCertificates | undefined;
  let directory = '';
  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'kup-test-ca-'));
    made = await makeCertificates(directory);
  }, 60_000);
  afterAll(async () => {
    if (directory !== '') await rm(directory, { recursive: true, force: true });
  });
  return () => {
    if (made === undefined) throw new Error('certificates can be had inside tests only');
    return made;
  };
}

const ON_LOOPBACK = { name: 'kube-apiserver', addresses: ['127.0.0.1', '::1'], dnsNames: [] };

/** One after the other for each authority: its files are no place for two at a time. */
async function makeCertificates(directory: string): Promise<TestCertificates> {
  const own = async (): Promise<Omit<TestCertificates, 'otherCa' | 'otherServer'>> => {
    const authority = await CertificateAuthority.create(await mkdtemp(join(directory, '1-')), 'test-ca');
    return {
      ca: authority.cert,
      server: await authority.issueServerCert(ON_LOOPBACK),
      namedServer: await authority.issueServerCert({
        ...ON_LOOPBACK,
        addresses: [],
        dnsNames: ['kubernetes.example'],
      }),
      alice: await authority.issueClientCert({ user: 'alice' }),
      bob: await authority.issueClientCert({ user: 'bob' }),
    };
  };
  const foreign = async (): Promise<Pick<TestCertificates, 'otherCa' | 'otherServer'>> => {
    const authority = await CertificateAuthority.create(await mkdtemp(join(directory, '2-')), 'test-ca');
    return { otherCa: authority.cert, otherServer: await authority.issueServerCert(ON_LOOPBACK) };
  };
  const [first, second] = await Promise.all([own(), foreign()]);
  return { ...first, ...second };
}
