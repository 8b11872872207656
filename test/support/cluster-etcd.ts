/** The etcd of a control plane, by its JSON gateway. */
import { Agent, request } from 'undici';
import { Program } from './cluster-program.ts';
import type { ControlPlaneFiles } from './control-plane-files.ts';
import { ETCD_PORT, renderEtcdArgv } from './control-plane-flags.ts';
import type { Host } from './netns-host.ts';

const DEADLINE_MS = 10_000;
const START_DEADLINE_MS = 30_000;

export class Etcd {
  readonly #host: Host;
  readonly #program: Program;
  readonly #socketPath: string;
  readonly #agent: Agent;

  constructor(host: Host, files: ControlPlaneFiles) {
    this.#host = host;
    this.#program = new Program(host, { argv: renderEtcdArgv(files), logPath: files.in('etcd.log') });
    this.#socketPath = files.in('etcd.sock');
    this.#agent = new Agent({ connect: { socketPath: this.#socketPath } });
  }

  /** Resolves when it serves. */
  async start(): Promise<void> {
    this.#program.start();
    const agent = await this.#host.agent();
    await agent.openRelay({ path: this.#socketPath, host: '127.0.0.1', port: ETCD_PORT });
    const serves = async (): Promise<boolean> => (await this.revision()) > 0;
    await this.#program.ready('to serve', serves, START_DEADLINE_MS);
  }

  /** The current revision, which is the newest resourceVersion of all objects. */
  async revision(): Promise<number> {
    const key = Buffer.from('\0').toString('base64');
    const { header } = await this.#post('/v3/kv/range', { key, count_only: true });
    return Number(header.revision);
  }

  /** Forgets everything before the current revision; resolves with it when that is on disk. */
  async compact(): Promise<number> {
    const revision = await this.revision();
    await this.#post('/v3/kv/compaction', { revision: String(revision), physical: true });
    return revision;
  }

  async logTail(): Promise<string> {
    return this.#program.logTail();
  }

  /** Kills it. Idempotent. */
  async close(): Promise<void> {
    await Promise.all([this.#agent.destroy(), this.#program.end('SIGKILL')]);
  }

  async #post(path: string, question: object): Promise<{ readonly header: { readonly revision: string } }> {
    const { statusCode, body } = await request(`http://etcd${path}`, {
      method: 'POST',
      dispatcher: this.#agent,
      body: JSON.stringify(question),
      signal: AbortSignal.timeout(DEADLINE_MS),
    });
    const text = await body.text();
    if (statusCode !== 200) throw new Error(`etcd: POST ${path}: ${statusCode} ${text}`);
    return JSON.parse(text) as { header: { revision: string } };
  }
}
