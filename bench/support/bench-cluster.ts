/**
 * What the benchmarks against an API server run on: a lab with two pods that say who they are and a third that asks,
 * and a control plane without controllers, so that nobody but the benchmark writes anything.
 */
import { ControlPlane } from '../../test/support/control-plane.ts';
import { API_PORT, NETWORK } from '../../test/support/control-plane-flags.ts';
import { pathOf } from '../../test/support/cluster-paths.ts';
import { createLab, type Lab } from '../../test/support/netns-lab.ts';
import { Hammer } from './hammer.ts';

export const NODE_NAME = 'n1';
/** Who the proxies are to the API server, which has RBAC rules for that name; and whose requests are counted. */
export const PROXY_USER = 'system:kube-proxy';
export const SERVICE_PORT = 80;
const BACKEND_PORT = 8_080;
const SYN_COUNTER = ['-p', 'tcp', '-s', NETWORK.gateway, '--dport', String(API_PORT), '--syn'];
const DELETIONS_AT_ONCE = 16;

/** In which objects a proxy looks for endpoints. */
export type EndpointsResource = 'endpoints' | 'endpointslices';

export interface BenchService {
  readonly name: string;
  readonly clusterIp: string;
}

export class BenchCluster implements AsyncDisposable {
  readonly lab: Lab;
  readonly plane: ControlPlane;
  readonly hammer: Hammer;
  /** Of the user the proxies are. */
  readonly kubeconfig: string;
  readonly #resources: AsyncDisposableStack;
  #services = 0;
  #made: { readonly name: string; readonly resource: EndpointsResource }[] = [];

  private constructor(
    parts: Pick<BenchCluster, 'lab' | 'plane' | 'hammer' | 'kubeconfig'>,
    resources: AsyncDisposableStack,
  ) {
    this.lab = parts.lab;
    this.plane = parts.plane;
    this.hammer = parts.hammer;
    this.kubeconfig = parts.kubeconfig;
    this.#resources = resources;
  }

  /** The caller closes it. A rejection leaves nothing. */
  static async start(): Promise<BenchCluster> {
    await using resources = new AsyncDisposableStack();
    const lab = resources.use(await createLab({ pods: 3 }));
    const plane = resources.use(await ControlPlane.start(lab, { controllers: false, dualStack: false }));
    await plane.objects.createNode({ name: NODE_NAME, ips: [lab.node.ipv4] });
    await plane.host.run(['iptables', '-w', '5', '-A', 'INPUT', ...SYN_COUNTER]);
    for (const pod of [lab.pod(1), lab.pod(2)]) {
      await (await pod.agent()).serveTcp({ port: BACKEND_PORT, mode: 'identify', name: pod.name });
    }
    const hammer = resources.use(await Hammer.open(lab.pod(3)));
    const credentials = await plane.issueClientCert({ user: PROXY_USER });
    const kubeconfig = await plane.writeKubeconfig({ credentials });
    return new BenchCluster({ lab, plane, hammer, kubeconfig }, resources.move());
  }

  /** A name and a clusterIP that no Service has had. */
  nextService(): BenchService {
    this.#services += 1;
    const number = this.#services;
    const clusterIp = `10.96.${16 + Math.floor(number / 250)}.${1 + (number % 250)}`;
    return { name: `bench-${number}`, clusterIp };
  }

  async createService({ name, clusterIp }: BenchService): Promise<void> {
    await this.plane.objects.createService({
      name,
      selector: null,
      ports: [{ name: 'http', port: SERVICE_PORT, targetPort: BACKEND_PORT, protocol: 'TCP' }],
      spec: { clusterIP: clusterIp },
    });
  }

  /** Makes the object with a Service's endpoints: these pods, by number. */
  async createEndpoints(
    { name }: BenchService,
    pods: readonly number[],
    resource: EndpointsResource,
  ): Promise<void> {
    this.#made.push({ name, resource });
    if (resource === 'endpointslices') {
      await this.plane.objects.writeSlice({ name, service: name, endpoints: this.#ips(pods) });
    } else {
      const path = pathOf('endpoints', { namespace: 'default' });
      await this.plane.api.create(path, buildEndpoints(name, this.#ips(pods)));
    }
  }

  /** Replaces what `createEndpoints` made. */
  async updateEndpoints(
    { name }: BenchService,
    pods: readonly number[],
    resource: EndpointsResource,
  ): Promise<void> {
    if (resource === 'endpointslices') {
      await this.plane.objects.updateSlice({ name, service: name, endpoints: this.#ips(pods) });
    } else {
      const path = pathOf('endpoints', { namespace: 'default', name });
      await this.plane.api.update(path, buildEndpoints(name, this.#ips(pods)));
    }
  }

  /** Deletes Services and their endpoints: all but those told to stay. */
  async deleteServices(except: readonly BenchService[] = []): Promise<void> {
    const stays = new Set(except.map(({ name }) => name));
    const doomed = this.#made.filter(({ name }) => !stays.has(name));
    this.#made = this.#made.filter(({ name }) => stays.has(name));
    const next = doomed.values();
    const work = async (): Promise<void> => {
      for (const { name, resource } of next) {
        await this.plane.objects.deleteService(name);
        // With a Service goes the Endpoints object of its name.
        if (resource === 'endpointslices') {
          await this.plane.api.delete(pathOf(resource, { namespace: 'default', name }));
        }
      }
    };
    await Promise.all(Array.from({ length: DELETIONS_AT_ONCE }, work));
  }

  /** How many TCP connections to the API server were begun on the node so far. */
  async apiConnections(): Promise<number> {
    const listed = await this.plane.host.run(['iptables', '-w', '5', '-nvxL', 'INPUT']);
    const rule = listed.split('\n').find((line) => line.includes(`dpt:${API_PORT}`));
    const packets = rule?.trim().split(/\s+/)[0];
    if (packets === undefined) throw new Error('the rule that counts connections is gone');
    return Number(packets);
  }

  /** How many requests of the proxies the API server has been asked so far. */
  async apiRequests(): Promise<number> {
    return (await this.plane.auditedRequests({ user: PROXY_USER })).length;
  }

  async close(): Promise<void> {
    await this.#resources.disposeAsync();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #ips(pods: readonly number[]): readonly string[] {
    return pods.map((number) => this.lab.pod(number).ipv4);
  }
}

function buildEndpoints(name: string, ips: readonly string[]): object {
  return {
    apiVersion: 'v1',
    kind: 'Endpoints',
    metadata: { name, namespace: 'default' },
    subsets: [
      {
        addresses: ips.map((ip) => ({ ip })),
        ports: [{ name: 'http', port: BACKEND_PORT, protocol: 'TCP' }],
      },
    ],
  };
}
