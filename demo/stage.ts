/**
 * What the demo plays on: a lab of network namespaces, a process in each pod, and the real proxy on a copy of
 * demo/manifests, which the story edits.
 */
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { createLab, type Host, type Lab } from '../test/support/netns-lab.ts';
import { type ParsedFamily, sampleValue } from '../test/support/prometheus-text.ts';
import { ProxyProcess } from '../test/support/proxy-process.ts';
import type { Narrator } from './narrator.ts';
import { openScratch } from './scratch.ts';

const MANIFESTS = join(import.meta.dirname, 'manifests');

/** Longer than the demo: the periodic look at the rules would count among the programs that a change starts. */
const FLAGS = ['--iptables-sync-period', '10m'];

/** One chapter of the story; rejects with BrokenPromise when something is not as it should be. */
export type Chapter = (narrator: Narrator, stage: Stage) => Promise<void>;

export type Metrics = ReadonlyMap<string, ParsedFamily>;

export class Stage {
  readonly lab: Lab;
  readonly proxy: ProxyProcess;
  /** By file name, as they are in the repository. */
  readonly manifests: ReadonlyMap<string, string>;
  readonly #pods = new Map<string, ChildProcess>();

  private constructor(lab: Lab, proxy: ProxyProcess, manifests: ReadonlyMap<string, string>) {
    this.lab = lab;
    this.proxy = proxy;
    this.manifests = manifests;
  }

  /** `resources` closes everything that was opened, also after a rejection. */
  static async open(resources: AsyncDisposableStack): Promise<Stage> {
    const scratch = resources.use(await openScratch());
    const lab = resources.use(await createLab());
    const manifests = await readManifests();
    const proxy = resources.use(
      await ProxyProcess.start(lab.node, {
        directory: scratch.directory,
        manifests: Object.fromEntries(manifests),
        args: FLAGS,
      }),
    );
    const stage = new Stage(lab, proxy, manifests);
    await Promise.all(lab.pods.map(async (pod) => stage.startPod(pod)));
    return stage;
  }

  /** Resolves when the pod's servers are open. */
  async startPod(pod: Host): Promise<void> {
    const { NODE_OPTIONS: _ignored, ...env } = process.env;
    const child = pod.spawn([process.execPath, join(import.meta.dirname, 'pod.ts'), pod.name], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env,
    });
    this.#pods.set(pod.name, child);
    if (child.stdout === null) throw new Error(`${pod.name} has no standard output`);
    const ended = once(child, 'exit').then(() => {
      throw new Error(`${pod.name} has ended`);
    });
    await Promise.race([once(createInterface(child.stdout), 'line'), ended]);
    // From here on its end is part of the story.
    ended.catch(() => undefined);
  }

  /** SIGKILL to the pod's process; resolves with its pid when it has ended. */
  async killPod(pod: Host): Promise<number> {
    const child = this.#pods.get(pod.name);
    if (child?.pid === undefined) throw new Error(`${pod.name} does not run`);
    const exited = once(child, 'exit');
    child.kill('SIGKILL');
    await exited;
    return child.pid;
  }

  manifest(file: string): string {
    const text = this.manifests.get(file);
    if (text === undefined) throw new Error(`demo/manifests has no ${file}`);
    return text;
  }

  /** How the proxy was started, as the kernel has it, without the directories. */
  async commandLine(): Promise<string> {
    const words = (await readFile(`/proc/${this.proxy.pid}/cmdline`, 'utf8')).split('\0').filter(Boolean);
    const root = join(import.meta.dirname, '..', '/');
    return words.map((word) => (word === process.execPath ? 'node' : word.replace(root, ''))).join(' ');
  }

  /** Page faults of all programs that the proxy has started and that have ended: a new one adds hundreds. */
  async pageFaultsOfPrograms(): Promise<number> {
    const stat = await readFile(`/proc/${this.proxy.pid}/stat`, 'latin1');
    // Field 11, cminflt. The second field is the program's name in brackets and may hold spaces.
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[8]);
  }
}

async function readManifests(): Promise<ReadonlyMap<string, string>> {
  const names = (await readdir(MANIFESTS)).filter((name) => name.endsWith('.yaml'));
  const read = names.map(async (name) => [name, await readFile(join(MANIFESTS, name), 'utf8')] as const);
  return new Map(await Promise.all(read));
}

/** A Service port of the demo: `web:http` of TCP, unless told. */
export interface ServicePortAt {
  readonly service: string;
  readonly port: string;
  readonly protocol?: 'TCP' | 'UDP';
  readonly family?: 'IPv4' | 'IPv6';
}

/** One of the proxy's series for a Service port, without `userspace_proxy_`; 0 while there is none. */
export function count(
  metrics: Metrics,
  name: string,
  at: ServicePortAt,
  more: Readonly<Record<string, string>> = {},
): number {
  const { service, port, protocol = 'TCP', family = 'IPv4' } = at;
  const labels = { namespace: 'default', service, port, protocol, ip_family: family, ...more };
  return sampleValue(metrics, `userspace_proxy_${name}`, labels) ?? 0;
}
