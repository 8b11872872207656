/**
 * The two programs that operators put behind the PROXY protocol, as they are packaged: nginx with `listen …
 * proxy_protocol` and HAProxy with `bind … accept-proxy`. Each answers every request with whom it takes for the client
 * and where it thinks that this client connected to; a connection without a header they both turn away.
 */
import { execFile } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { ScratchDirectory } from './cluster-directory.ts';
import { Program } from './cluster-program.ts';
import type { Host } from './netns-lab.ts';

const execFileAsync = promisify(execFile);

const ASSETS_SCRIPT = new URL('../../scripts/peer-assets.sh', import.meta.url).pathname;
const START_DEADLINE_MS = 15_000;

export const PEER_KINDS = ['nginx', 'haproxy'] as const;
export type PeerKind = (typeof PEER_KINDS)[number];

export interface PeerPlan {
  readonly kind: PeerKind;
  readonly host: Host;
  /** On the wildcard addresses of both families. */
  readonly port: number;
}

/** Started together, in the foreground. Close them before their lab, which kills them at the latest. */
export class RealPeers implements AsyncDisposable {
  readonly #programs: readonly Program[];
  readonly #directory: ScratchDirectory;

  private constructor(programs: readonly Program[], directory: ScratchDirectory) {
    this.#programs = programs;
    this.#directory = directory;
  }

  /** Resolves when all of them listen. Rejects, leaving nothing, with the log of one that does not. */
  static async start(plans: readonly PeerPlan[]): Promise<RealPeers> {
    const assets = await peerAssets();
    const directory = await ScratchDirectory.create();
    const programs: Program[] = [];
    const peers = new RealPeers(programs, directory);
    try {
      await Promise.all(
        plans.map(async ({ kind, host, port }, index) => {
          const own = join(directory.path, `${kind}-${index}`);
          await mkdir(own);
          const argv = await CONFIGURE[kind](own, port);
          const logPath = join(own, 'log');
          const program = new Program(host, { argv: [join(assets, kind), ...argv], logPath });
          programs.push(program);
          program.start();
          await program.ready('to listen', async () => listens(host, port), START_DEADLINE_MS);
        }),
      );
      return peers;
    } catch (error: unknown) {
      await peers[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** What they have written of themselves, faults included. */
  async logs(): Promise<string> {
    return (await Promise.all(this.#programs.map(async (program) => program.logTail()))).join('');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#programs.map(async (program) => program.end('SIGKILL')));
    await this.#directory.remove();
  }
}

/** The directory of the programs. Rejects with what to do where there is none. */
async function peerAssets(): Promise<string> {
  const { stdout } = await execFileAsync('sh', [ASSETS_SCRIPT]);
  return stdout.trim();
}

async function listens(host: Host, port: number): Promise<boolean> {
  const agent = await host.agent();
  const probes = await Promise.all(
    ['127.0.0.1', '::1'].map(async (address) => agent.tcpProbe({ host: address, port })),
  );
  return probes.every(({ outcome }) => outcome === 'connected');
}

/** Each writes the configuration into a directory of its own and gives the arguments. */
const CONFIGURE: Readonly<Record<PeerKind, (directory: string, port: number) => Promise<readonly string[]>>> =
  {
    nginx: async (directory, port) => {
      const path = join(directory, 'nginx.conf');
      await writeFile(path, renderNginx(directory, port));
      return ['-e', 'stderr', '-p', directory, '-c', path];
    },
    haproxy: async (directory, port) => {
      const path = join(directory, 'haproxy.cfg');
      await writeFile(path, renderHaproxy(port));
      return ['-db', '-f', path];
    },
  };

/** One process, so that whoever kills it kills all of it. It wants a place for every kind of temporary file. */
function renderNginx(directory: string, port: number): string {
  const kinds = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'];
  const answer = (variables: readonly string[]): string =>
    `default_type text/plain; return 200 "${variables.map((name) => `$${name}`).join(' ')}\\n";`;
  const header = ['addr', 'port', 'server_addr', 'server_port'].map((part) => `proxy_protocol_${part}`);
  return `
daemon off;
master_process off;
pid ${directory}/pid;
events { worker_connections 512; }
http {
  access_log off;
  ${kinds.map((kind) => `${kind}_temp_path ${directory}/${kind};`).join('\n  ')}
  server {
    listen 0.0.0.0:${port} proxy_protocol;
    listen [::]:${port} proxy_protocol ipv6only=on;
    set_real_ip_from 0.0.0.0/0;
    set_real_ip_from ::/0;
    real_ip_header proxy_protocol;
    location / { ${answer(header)} }
    location /remote { ${answer(['remote_addr', 'remote_port'])} }
  }
}
`;
}

function renderHaproxy(port: number): string {
  const answer = (fetches: readonly string[]): string =>
    `lf-string "${fetches.map((name) => `%[${name}]`).join(' ')}\\n"`;
  return `
global
  nbthread 1
  maxconn 512
defaults
  mode http
  timeout client 10s
frontend peers
  bind 0.0.0.0:${port} accept-proxy
  bind [::]:${port} v6only accept-proxy
  http-request return status 200 content-type text/plain ${answer(['src', 'src_port'])} if { path /remote }
  http-request return status 200 content-type text/plain ${answer(['src', 'src_port', 'dst', 'dst_port'])}
`;
}
