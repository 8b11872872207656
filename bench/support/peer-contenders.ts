/**
 * Who bench/peers.ts measures: our proxy with each of its engines, kube-proxy 1.20.2 in userspace mode, HAProxy and
 * nginx. Each is started anew for every turn, on a node without rules, and leaves it so.
 */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { whyNoCluster } from '../../test/support/cluster-assets.ts';
import { Program } from '../../test/support/cluster-program.ts';
import type { Host } from '../../test/support/netns-lab.ts';
import { NODE_NAME } from './bench-cluster.ts';
import { hasEngineFlag } from './build-proxy.ts';
import { kubeProxyArgv, LENIENT_LIMIT, USERSPACE_OPEN_FILES, whyNoKubeProxy } from './kube-proxy.ts';
import { flushRules } from './node-rules.ts';
import { type Measure, MEASURES } from './peer-figures.ts';
import { planPorts, renderHaproxyConfig, renderNginxConfig, renderRedirects } from './peer-configs.ts';
import type { TrafficLab } from './traffic-lab.ts';
import { ALL_SERVICES } from './traffic-services.ts';

export const CONTENDER_KEYS = [
  'native',
  'node',
  'kube-proxy',
  'haproxy',
  'haproxy-splice',
  'nginx',
  'direct',
] as const;
export type ContenderKey = (typeof CONTENDER_KEYS)[number];

export const LABELS: Readonly<Record<ContenderKey, string>> = {
  native: 'ours, native engine',
  node: 'ours, node engine',
  'kube-proxy': 'kube-proxy userspace (Go)',
  haproxy: 'HAProxy',
  'haproxy-splice': 'HAProxy, splicing forced',
  nginx: 'nginx stream',
  direct: 'no proxy',
};

export interface RunningContender {
  /** Undefined: there is no process. */
  readonly pid: number | undefined;
  /** The end of what it wrote. */
  readonly logTail: () => Promise<string>;
  /** Ends it, and takes its rules and flows away. */
  readonly stop: () => Promise<void>;
}

export interface PeerContender {
  readonly key: ContenderKey;
  /** What it is measured in: what it carries, and can be told by. */
  readonly measures: readonly Measure[];
  /** That it holds at most for a connection that does nothing. */
  readonly descriptorsPerConnection: number;
  /** Why it cannot be measured here. */
  readonly whyNot: () => Promise<string | undefined>;
  /** Resolves when rules lead all Services that it carries to it. */
  readonly start: (bench: TrafficLab) => Promise<RunningContender>;
  /** As it is configured, for the report. */
  readonly configuration: (bench: TrafficLab) => Promise<string>;
}

export interface ContenderOptions {
  /** The program of our proxy. */
  readonly main: string;
  /** How many connections the peers are to be able to hold. */
  readonly connections: number;
}

const RULES_DEADLINE_MS = 30_000;
const END_DEADLINE_MS = 20_000;
/** Debian's package libnginx-mod-stream; a build of one's own may have the module compiled in. */
const STREAM_MODULE = '/usr/lib/nginx/modules/ngx_stream_module.so';

export function listPeerContenders(options: ContenderOptions): readonly PeerContender[] {
  return [
    ours('native', options),
    ours('node', options),
    kubeProxy(),
    haproxy('haproxy', options),
    haproxy('haproxy-splice', options),
    nginx(options),
    direct,
  ];
}

function ours(engine: 'native' | 'node', { main }: ContenderOptions): PeerContender {
  // Asked once: each time it takes a start of the program.
  let answer: Promise<boolean> | undefined;
  const hasEngines = async (): Promise<boolean> => (answer ??= hasEngineFlag(main));
  const argv = async (bench: TrafficLab, state: string): Promise<[string, ...string[]]> => {
    return [
      process.execPath,
      ...(await nodeFlagsOf(main)),
      main,
      `--manifests=${bench.source.manifests}`,
      `--hostname-override=${NODE_NAME}`,
      `--state-dir=${state}`,
      '--drain-timeout=0',
      ...((await hasEngines()) ? [`--engine=${engine}`] : []),
    ];
  };
  return {
    key: engine,
    measures: MEASURES,
    descriptorsPerConnection: 2,
    whyNot: async () =>
      engine === 'native' && !(await hasEngines()) ? 'this build has no --engine' : undefined,
    start: async (bench) => {
      const state = await mkdtemp(join(bench.directory, `${engine}-`));
      return startProgram(bench, { key: engine, argv: await argv(bench, state) });
    },
    configuration: async (bench) => (await argv(bench, 'DIR')).join(' '),
  };
}

/** Those that the program's first line gives to Node: by them it runs wherever it is started by its name. */
async function nodeFlagsOf(main: string): Promise<readonly string[]> {
  const [first = ''] = (await readFile(main, 'utf8')).split('\n', 1);
  return first.split(' ').filter((word) => word.startsWith('--'));
}

function kubeProxy(): PeerContender {
  const argv = async ({ node, source }: TrafficLab): Promise<[string, ...string[]]> =>
    kubeProxyArgv('userspace', { node, kubeconfig: source.kubeconfig ?? '' });
  return {
    key: 'kube-proxy',
    measures: MEASURES,
    // A pipe for each direction, from the moment on that io.Copy waits for the first octet.
    descriptorsPerConnection: 6,
    whyNot: async () => whyNoKubeProxy() ?? whyNoCluster(),
    start: async (bench) => startProgram(bench, { key: 'kube-proxy', argv: await argv(bench) }),
    configuration: async (bench) => {
      const words = await argv(bench);
      const isLenient = basename(words[0]) === LENIENT_LIMIT;
      return [
        words.join(' '),
        ...(isLenient
          ? [
              `# It insists on ${USERSPACE_OPEN_FILES} open files, which may not be had here. A seccomp filter lets its`,
              '# setrlimit succeed without effect (bench/support/programs/lenient-limit.c); else it is unmodified.',
            ]
          : []),
      ].join('\n');
    },
  };
}

function haproxy(key: 'haproxy' | 'haproxy-splice', { connections }: ContenderOptions): PeerContender {
  const ports = planPorts(['TCP']);
  const isForced = key === 'haproxy-splice';
  const render = (bench: TrafficLab): string =>
    renderHaproxyConfig({ ports, ipOf: bench.ipOf, connections }, isForced ? 'forced' : 'auto');
  return {
    key,
    measures: isForced ? ['bulk'] : ['requests', 'connections', 'bulk', 'memory'],
    descriptorsPerConnection: 2,
    whyNot: async () =>
      runs('haproxy', ['-v']) ? undefined : 'haproxy is missing (Debian: apt-get install haproxy)',
    start: async (bench) => {
      const config = await writeConfig(bench, 'haproxy.cfg', render(bench));
      await bench.node.run(['iptables-restore', '--noflush'], { input: renderRedirects(ports) });
      return startProgram(bench, { key, argv: ['haproxy', '-db', '-f', config] });
    },
    configuration: async (bench) => render(bench),
  };
}

function nginx({ connections }: ContenderOptions): PeerContender {
  const ports = planPorts(['TCP', 'UDP']);
  const render = (bench: TrafficLab): string =>
    renderNginxConfig(
      { ports, ipOf: bench.ipOf, connections },
      { streamModule: STREAM_MODULE, pid: join(bench.directory, 'nginx.pid') },
    );
  return {
    key: 'nginx',
    measures: MEASURES,
    descriptorsPerConnection: 2,
    whyNot: async () => {
      if (!runs('nginx', ['-v'])) return 'nginx is missing (Debian: apt-get install nginx-light)';
      return existsSync(STREAM_MODULE)
        ? undefined
        : `there is no ${STREAM_MODULE} (Debian: apt-get install libnginx-mod-stream)`;
    },
    start: async (bench) => {
      const config = await writeConfig(bench, 'nginx.conf', render(bench));
      await bench.node.run(['iptables-restore', '--noflush'], { input: renderRedirects(ports) });
      return startProgram(bench, { key: 'nginx', argv: ['nginx', '-p', bench.directory, '-c', config] });
    },
    configuration: async (bench) => render(bench),
  };
}

/** From the client to the first backend of each Service: what the machine and the load programs can do. */
const direct: PeerContender = {
  key: 'direct',
  measures: MEASURES.filter((measure) => measure !== 'memory' && measure !== 'offered'),
  descriptorsPerConnection: 0,
  whyNot: async () => undefined,
  start: async () => ({ pid: undefined, logTail: async () => '', stop: async () => undefined }),
  configuration: async () => '# the client talks to the first backend itself',
};

interface Start {
  readonly key: ContenderKey;
  readonly argv: readonly [string, ...string[]];
}

async function startProgram(bench: TrafficLab, { key, argv }: Start): Promise<RunningContender> {
  const { node } = bench;
  const program = new Program(node, { argv, logPath: join(bench.directory, `${key}.log`) });
  const stop = async (): Promise<void> => {
    await program.end('SIGTERM', END_DEADLINE_MS).catch(async () => program.end('SIGKILL'));
    await flushRules(node);
  };
  program.start();
  try {
    // Before the rules are there nobody may send anything: its flow would be led past them for as long as it lasts.
    await program.ready('to have its rules', async () => hasRules(node, key), RULES_DEADLINE_MS);
  } catch (error: unknown) {
    await stop();
    throw error;
  }
  return { pid: program.pid, logTail: async () => program.logTail(), stop };
}

async function hasRules(node: Host, key: ContenderKey): Promise<boolean> {
  const saved = await node.run(['iptables-save', '-t', 'nat']);
  return ALL_SERVICES.every(
    ({ clusterIp, protocol }) =>
      saved.includes(` -d ${clusterIp}/32 `) || (key.startsWith('haproxy') && protocol === 'UDP'),
  );
}

async function writeConfig(bench: TrafficLab, name: string, text: string): Promise<string> {
  const path = join(bench.directory, name);
  await writeFile(path, text);
  return path;
}

/** Whether there is such a program. */
export function runs(command: string, args: readonly string[]): boolean {
  return spawnSync(command, args, { stdio: 'ignore', timeout: 10_000 }).error === undefined;
}
