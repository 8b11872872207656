/**
 * What bench/peers.ts runs on: a node whose proxy is measured, two backend pods, a client pod, and an API server
 * without controllers where there is one, so that kube-proxy and our proxy know the Services by the same way.
 *
 *     pod1, pod2   nginx :8080, hold-load :7000, udp-echo :9000; iperf3 :5201 on pod1
 *     pod3         wrk, iperf3, hold-load, udp-load; further addresses, from which flows come
 *     node         one proxy at a time
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { clusterAssets } from '../../test/support/cluster-assets.ts';
import { ScratchDirectory } from '../../test/support/cluster-directory.ts';
import { pathOf } from '../../test/support/cluster-paths.ts';
import { Program } from '../../test/support/cluster-program.ts';
import { ControlPlane } from '../../test/support/control-plane.ts';
import { createLab, type Host, type Lab } from '../../test/support/netns-lab.ts';
import { waitFor } from '../../test/support/wait.ts';
import { NODE_NAME, PROXY_USER } from './bench-cluster.ts';
import { compileProgram } from './compile.ts';
import { forgetFlows } from './node-rules.ts';
import { renderBackendConfig } from './peer-configs.ts';
import { ALL_SERVICES, buildEndpoints, renderManifests, SERVICES } from './traffic-services.ts';

const BACKENDS = [1, 2] as const;
const CLIENT = 3;
/** Flows come from ports that no flow has come from: more addresses, more ports. The first is for warming up. */
const FLOW_SOURCES = [101, 102, 103, 104, 105].map((number) => `10.244.1.${number}`);
const START_DEADLINE_MS = 30_000;

/**
 * With these, connections that are closed are forgotten before ports or the table of flows run out. The same for all
 * who are measured. Tables of flows are the node's alone: nobody else has rules that need them.
 */
const NODE_SYSCTLS = {
  'net.ipv4.ip_local_port_range': '32768 65535',
  'net.ipv4.tcp_tw_reuse': '1',
  'net.netfilter.nf_conntrack_tcp_timeout_time_wait': '5',
  'net.netfilter.nf_conntrack_udp_timeout': '2',
  'net.netfilter.nf_conntrack_udp_timeout_stream': '2',
};
const CLIENT_SYSCTLS = {
  'net.ipv4.ip_local_port_range': '1024 65535',
  'net.ipv4.tcp_tw_reuse': '1',
};

/** Where the Services are written. */
export interface ServiceSource {
  /** Files, for ours: what it needs to read an API server by a kubeconfig is a library of 60 MB, not the data path. */
  readonly manifests: string;
  /** A real API server, for kube-proxy; undefined where there is none. */
  readonly kubeconfig: string | undefined;
}

export class TrafficLab implements AsyncDisposable {
  readonly lab: Lab;
  /** Of files that go with the lab. */
  readonly directory: string;
  readonly source: ServiceSource;
  readonly udpEcho: string;
  readonly udpLoad: string;
  readonly holdLoad: string;
  readonly #resources: AsyncDisposableStack;

  private constructor(
    parts: Pick<TrafficLab, 'lab' | 'directory' | 'source' | 'udpEcho' | 'udpLoad' | 'holdLoad'>,
    resources: AsyncDisposableStack,
  ) {
    this.lab = parts.lab;
    this.directory = parts.directory;
    this.source = parts.source;
    this.udpEcho = parts.udpEcho;
    this.udpLoad = parts.udpLoad;
    this.holdLoad = parts.holdLoad;
    this.#resources = resources;
  }

  /** The caller closes it. A rejection leaves nothing. */
  static async start(options: { readonly hasIperf: boolean }): Promise<TrafficLab> {
    await using resources = new AsyncDisposableStack();
    const [udpEcho, udpLoad, holdLoad] = await Promise.all([
      compileProgram('udp-echo.cc'),
      compileProgram('udp-load.cc'),
      compileProgram('hold-load.cc'),
    ]);
    const scratch = await ScratchDirectory.create();
    resources.defer(async () => scratch.remove());
    const lab = resources.use(await createLab({ pods: 3, podLinks: 'bridged' }));
    const parts = { lab, directory: scratch.path, udpEcho, udpLoad, holdLoad };
    await setUpKernel(lab);
    await startBackends(parts, options);
    const source = await openSource(parts, resources);
    return new TrafficLab({ ...parts, source }, resources.move());
  }

  get node(): Host {
    return this.lab.node;
  }

  get client(): Host {
    return this.lab.pod(CLIENT);
  }

  /** The address of a pod by its number. */
  readonly ipOf = (pod: number): string => this.lab.pod(pod).ipv4;

  /** Addresses of the client that flows come from; those for warming up are others. */
  flowSources(isWarmUp: boolean): readonly string[] {
    return isWarmUp ? FLOW_SOURCES.slice(0, 1) : FLOW_SOURCES.slice(1);
  }

  async forgetFlows(): Promise<void> {
    await forgetFlows(this.node);
  }

  async close(): Promise<void> {
    await this.#resources.disposeAsync();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

type Parts = Pick<TrafficLab, 'lab' | 'directory' | 'udpEcho' | 'udpLoad' | 'holdLoad'>;

/** What the report says of the kernel's settings. */
export function describeSysctls(): readonly string[] {
  const render = (settings: Readonly<Record<string, string>>): string =>
    Object.entries(settings)
      .map(([name, value]) => `${name}=${value.replace(' ', '-')}`)
      .join(' ');
  return [`node: ${render(NODE_SYSCTLS)}`, `client: ${render(CLIENT_SYSCTLS)}`];
}

async function setUpKernel(lab: Lab): Promise<void> {
  const write = async (host: Host, settings: Readonly<Record<string, string>>): Promise<void> => {
    for (const [name, value] of Object.entries(settings))
      await host.run(['sysctl', '-qw', `${name}=${value}`]);
  };
  await write(lab.node, NODE_SYSCTLS);
  await write(lab.pod(CLIENT), CLIENT_SYSCTLS);
  for (const address of FLOW_SOURCES) await lab.pod(CLIENT).addAddress(`${address}/24`);
}

async function startBackends(
  { lab, directory, udpEcho, holdLoad }: Parts,
  { hasIperf }: { readonly hasIperf: boolean },
): Promise<void> {
  const { http, bulk, idle, echo } = SERVICES;
  for (const number of BACKENDS) {
    const pod = lab.pod(number);
    const own = join(directory, pod.name);
    await mkdir(own);
    const config = join(own, 'nginx.conf');
    await writeFile(config, renderBackendConfig(`${pod.ipv4}:${http.targetPort}`, own));
    start(pod, own, ['nginx', '-p', own, '-c', config]);
    start(pod, own, [holdLoad, 'serve', pod.ipv4, String(idle.targetPort)]);
    start(pod, own, [udpEcho, pod.ipv4, String(echo.targetPort)]);
    if (hasIperf && bulk.backends.includes(number)) {
      start(pod, own, ['iperf3', '-s', '-B', pod.ipv4, '-p', String(bulk.targetPort)]);
    }
    const agent = await pod.agent();
    const answers = async (): Promise<boolean> =>
      (await agent.httpGet({ host: pod.ipv4, port: http.targetPort, path: '/' })).status === 200;
    await waitFor(answers, { timeoutMs: START_DEADLINE_MS, what: `nginx in ${pod.name} to answer` });
  }
}

function start(pod: Host, directory: string, argv: [string, ...string[]]): void {
  const name = argv[0].split('/').at(-1) ?? '';
  new Program(pod, { argv, logPath: join(directory, `${name}.log`) }).start();
}

async function openSource(
  { lab, directory }: Parts,
  resources: AsyncDisposableStack,
): Promise<ServiceSource> {
  const ipOf = (pod: number): string => lab.pod(pod).ipv4;
  const manifests = join(directory, 'manifests');
  await mkdir(manifests);
  await writeFile(join(manifests, 'services.yaml'), renderManifests(ipOf));
  if (clusterAssets() === undefined) return { manifests, kubeconfig: undefined };
  const plane = resources.use(await ControlPlane.start(lab, { controllers: false, dualStack: false }));
  await plane.objects.createNode({ name: NODE_NAME, ips: [lab.node.ipv4] });
  // The API server makes this one itself, a moment after it is ready.
  const hasNamespace = async (): Promise<object> => plane.api.get(pathOf('namespaces', { name: 'default' }));
  await waitFor(hasNamespace, { timeoutMs: START_DEADLINE_MS, what: 'the namespace default' });
  for (const service of ALL_SERVICES) {
    const { name, clusterIp, port, targetPort, protocol, backends } = service;
    await plane.objects.writeSlice({
      name,
      service: name,
      endpoints: backends.map(ipOf),
      ports: [{ name: 'main', port: targetPort, protocol }],
    });
    await plane.api.create(pathOf('endpoints', { namespace: 'default' }), buildEndpoints(service, ipOf));
    await plane.objects.createService({
      name,
      selector: null,
      ports: [{ name: 'main', port, targetPort, protocol }],
      spec: { clusterIP: clusterIp },
    });
  }
  const credentials = await plane.issueClientCert({ user: PROXY_USER });
  return { manifests, kubeconfig: await plane.writeKubeconfig({ credentials }) };
}
