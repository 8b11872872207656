/**
 * A whole cluster with the proxy in it: a lab, a control plane, a Node object for the lab's node, pods that answer
 * with their names, and the proxy as an operator would start it there.
 */
import type { V1ServicePort } from '@kubernetes/client-node';
import { clusterAssets, whyNoCluster } from './cluster-assets.ts';
import { ControlPlane, type ControlPlaneOptions } from './control-plane.ts';
import { TOKENS } from './control-plane-files.ts';
import { type Lab, canMakeNamespaces, createLab } from './netns-lab.ts';
import { ProxyProcess } from './proxy-process.ts';
import { waitFor } from './wait.ts';

/** The name of the lab's node as a Node object. */
export const NODE_NAME = 'node1';
/** Where the pods answer. */
export const POD_PORT = 8080;
/** Who answered, or the errno of the failure. */
export type Answer = string;

/** Why there can be no cluster here; undefined when there can. */
export function whyNoClusterTests(): string | undefined {
  return canMakeNamespaces() ?? (clusterAssets() === undefined ? whyNoCluster() : undefined);
}

export interface ClusterOptions extends ControlPlaneOptions {
  /** Pods in the lab; the last one is the client. 4 unless told. */
  readonly pods?: number;
}

export class ClusterUnderTest implements AsyncDisposable {
  readonly lab: Lab;
  readonly plane: ControlPlane;
  readonly #proxies: ProxyProcess[] = [];

  private constructor(lab: Lab, plane: ControlPlane) {
    this.lab = lab;
    this.plane = plane;
  }

  /** Everything but the proxy. The caller closes it. */
  static async start(options: ClusterOptions = {}): Promise<ClusterUnderTest> {
    const lab = await createLab({ pods: options.pods ?? 4 });
    try {
      const plane = await ControlPlane.start(lab, options);
      const cluster = new ClusterUnderTest(lab, plane);
      const { node } = lab;
      await plane.objects.createNode({ name: NODE_NAME, ips: [node.ipv4, node.ipv6] });
      for (const pod of lab.pods.slice(0, -1)) {
        await (await pod.agent()).serveTcp({ port: POD_PORT, mode: 'identify', name: pod.name });
      }
      return cluster;
    } catch (error: unknown) {
      await lab.close();
      throw error;
    }
  }

  /** A proxy on the node; ready when this resolves, unless `awaitReady` is false. Ended with the cluster. */
  async startProxy(
    options: {
      readonly args?: readonly string[];
      readonly awaitReady?: boolean;
      /** What it says who it is; default: an administrator's token. */
      readonly kubeconfig?: string;
    } = {},
  ): Promise<ProxyProcess> {
    const { args = [], awaitReady = true } = options;
    const kubeconfig =
      options.kubeconfig ?? (await this.plane.writeKubeconfig({ credentials: TOKENS.admin }));
    const proxy = await ProxyProcess.start(this.lab.node, {
      manifests: false,
      args: ['--kubeconfig', kubeconfig, '--hostname-override', NODE_NAME, ...args],
      awaitReady,
    });
    this.#proxies.push(proxy);
    return proxy;
  }

  /** A Pod object for each of these pods of the lab, by number from 1; the controllers make endpoints of them. */
  async createPods(app: string, numbers: readonly number[]): Promise<void> {
    for (const number of numbers) {
      const pod = this.lab.pod(number);
      await this.plane.objects.createPod({
        name: `${app}-${pod.name}`,
        labels: { app },
        ips: [pod.ipv4, pod.ipv6],
        nodeName: NODE_NAME,
      });
    }
  }

  /** A Service `name` for the pods labelled `app: name`, and its clusterIP. */
  async createService(
    name: string,
    { ports, nodePort }: { readonly ports?: readonly V1ServicePort[]; readonly nodePort?: number } = {},
  ): Promise<string> {
    const port = { name: 'http', port: 80, targetPort: POD_PORT, protocol: 'TCP' };
    const { spec } = await this.plane.objects.createService({
      name,
      ports: ports ?? [nodePort === undefined ? port : { ...port, nodePort }],
      ...(nodePort === undefined ? {} : { spec: { type: 'NodePort' } }),
    });
    if (spec?.clusterIP === undefined) throw new Error(`Service ${name} has got no clusterIP`);
    return spec.clusterIP;
  }

  /** Fresh connections from the client pod, one after the other: who answered each, or why nobody did. */
  async answers(host: string, { count = 6, port = 80, timeoutMs = 1_000 } = {}): Promise<readonly Answer[]> {
    const client = await this.lab.pod(this.lab.pods.length).agent();
    const results = await client.tcpIdentify({ host, port, count, timeoutMs });
    return results.map(({ ok, name, errno }) => (ok ? (name ?? '') : (errno ?? '')));
  }

  /** Waits until the answers are from exactly these, in any order, and there is no failure. */
  async answeredBy(
    host: string,
    names: readonly string[],
    { timeoutMs = 5_000, port = 80 } = {},
  ): Promise<void> {
    const expected = [...names].sort().join();
    let seen = '';
    const isSo = async (): Promise<boolean> => {
      seen = [...new Set(await this.answers(host, { port, count: 3 * names.length }))].sort().join();
      return seen === expected;
    };
    await waitFor(isSo, { timeoutMs, what: `${host}:${port} to be answered by ${expected}` }).catch(
      (error: unknown) => {
        throw new Error(`${host}:${port} is answered by ${seen}`, { cause: error });
      },
    );
  }

  /** Ends the proxies, the control plane and the lab. */
  async close(): Promise<void> {
    for (const proxy of this.#proxies) await proxy[Symbol.asyncDispose]();
    await this.plane.close();
    await this.lab.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
