/** A cluster's certificate authorities and what they issue, made by openssl: EC keys, valid from now on for two days. */
import { execFile } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

const execFileAsync = promisify(execFile);

/** A private key and what belongs to it, both as PEM. */
export interface KeyPair {
  readonly key: string;
  readonly cert: string;
}

/** Whom a client certificate names. */
export interface Subject {
  /** Its common name, Kubernetes' user. */
  readonly user: string;
  /** Its organisations, Kubernetes' groups; none unless told. */
  readonly groups?: readonly string[];
}

export interface ServerNames {
  readonly name: string;
  readonly addresses: readonly string[];
  readonly dnsNames: readonly string[];
}

/** The machine's own configuration of openssl has extensions of its own, so it is not read. */
const CONFIG = '[req]\ndistinguished_name = dn\n[dn]\n';

export class CertificateAuthority {
  readonly name: string;
  /** The authority's own certificate, PEM. */
  readonly cert: string;
  readonly #directory: string;
  #issued = 0;

  private constructor(name: string, directory: string, cert: string) {
    this.name = name;
    this.#directory = directory;
    this.cert = cert;
  }

  /** Makes an authority of that common name with its files in `directory`, where no other has its name. */
  static async create(directory: string, name: string): Promise<CertificateAuthority> {
    const extensions = ['basicConstraints=critical,CA:TRUE', 'keyUsage=critical,keyCertSign,cRLSign'];
    const { cert } = await request({ directory, file: name, subject: `/CN=${escape(name)}`, extensions });
    return new CertificateAuthority(name, directory, cert);
  }

  async issueServerCert({ name, addresses, dnsNames }: ServerNames): Promise<KeyPair> {
    const names = [...dnsNames.map((dns) => `DNS:${dns}`), ...addresses.map((address) => `IP:${address}`)];
    return this.#issue(`/CN=${escape(name)}`, [
      'extendedKeyUsage=serverAuth',
      `subjectAltName=${names.join(',')}`,
    ]);
  }

  async issueClientCert({ user, groups = [] }: Subject): Promise<KeyPair> {
    const subject = `${groups.map((group) => `/O=${escape(group)}`).join('')}/CN=${escape(user)}`;
    return this.#issue(subject, ['extendedKeyUsage=clientAuth']);
  }

  async #issue(subject: string, extensions: readonly string[]): Promise<KeyPair> {
    this.#issued += 1;
    return request({
      directory: this.#directory,
      file: `${this.name}-${this.#issued}`,
      subject,
      extensions: ['basicConstraints=critical,CA:FALSE', 'keyUsage=critical,digitalSignature', ...extensions],
      issuer: this.name,
    });
  }
}

/** The key pair that signs service account tokens: private key and public key. */
export function createTokenKeys(): { readonly privateKey: string; readonly publicKey: string } {
  return generateKeyPairSync('ec', {
    namedCurve: 'P-256',
    privateKeyEncoding: { type: 'sec1', format: 'pem' },
    publicKeyEncoding: { type: 'spki', format: 'pem' },
  });
}

interface CertificateRequest {
  readonly directory: string;
  /** Name of the files to make, without `.key` and `.crt`. */
  readonly file: string;
  readonly subject: string;
  readonly extensions: readonly string[];
  /** The files of who signs; the certificate signs itself unless told. */
  readonly issuer?: string;
}

async function request(options: CertificateRequest): Promise<KeyPair> {
  const { directory, file, subject, extensions, issuer } = options;
  const path = join(directory, file);
  const config = join(directory, 'openssl.cnf');
  await writeFile(config, CONFIG);
  const signing =
    issuer === undefined
      ? []
      : ['-CA', join(directory, `${issuer}.crt`), '-CAkey', join(directory, `${issuer}.key`)];
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-noenc', '-keyout', `${path}.key`];
  const added = extensions.flatMap((extension) => ['-addext', extension]);
  const args = ['-config', config, '-utf8', '-days', '2', '-subj', subject, ...added, ...signing, ...key];
  await execFileAsync('openssl', ['req', '-x509', ...args, '-out', `${path}.crt`], { timeout: 10_000 });
  const [privateKey, cert] = await Promise.all([
    readFile(`${path}.key`, 'utf8'),
    readFile(`${path}.crt`, 'utf8'),
  ]);
  return { key: privateKey, cert };
}

/** A value in `-subj`, where `/` ends it and `+` begins a second one. */
function escape(value: string): string {
  return value.replaceAll(/[\\/+=]/g, String.raw`\$&`);
}
