/** A Service with one endpoint that the test moves: who answers tells which change a proxy has seen. */
import type { ClusterObjects } from './cluster-objects.ts';
import type { ClusterUnderTest } from './cluster-under-test.ts';
import type { Host } from './netns-lab.ts';
import { waitFor } from './wait.ts';

export class MovingService {
  readonly name: string;
  readonly clusterIP: string;
  readonly #cluster: ClusterUnderTest;
  #pod = 1;

  private constructor(cluster: ClusterUnderTest, name: string, clusterIP: string) {
    this.#cluster = cluster;
    this.name = name;
    this.clusterIP = clusterIP;
  }

  /** At pod1 to begin with. No controller knows its endpoints, so it moves while there is none, too. */
  static async create(cluster: ClusterUnderTest, name: string): Promise<MovingService> {
    const { spec } = await cluster.plane.objects.createService({ name, selector: null });
    const service = new MovingService(cluster, name, spec?.clusterIP ?? '');
    await cluster.plane.objects.writeSlice(service.#slice());
    return service;
  }

  /** `objects`: through which API server; the first unless told. */
  async move(objects: ClusterObjects = this.#cluster.plane.objects): Promise<void> {
    this.#pod = this.#pod === 1 ? 2 : 1;
    await objects.updateSlice(this.#slice());
  }

  /** Resolves when connections from there lead to where the Service is now. */
  async followed(host: Host, timeoutMs = 10_000): Promise<void> {
    const agent = await host.agent();
    const expected = `pod${this.#pod}`;
    let answers: readonly string[] = [];
    const isSo = async (): Promise<boolean> => {
      const target = { host: this.clusterIP, port: 80, count: 3, timeoutMs: 1_000 };
      const results = await agent.tcpIdentify(target);
      answers = results.map(({ ok, name, errno }) => (ok ? (name ?? '') : (errno ?? '')));
      return answers.every((answer) => answer === expected);
    };
    const what = `${host.name} to find ${this.name} at ${expected}`;
    await waitFor(isSo, { timeoutMs, what }).catch((error: unknown) => {
      throw new Error(`${host.name} finds ${this.name} at ${answers.join()}, not ${expected}`, {
        cause: error,
      });
    });
  }

  #slice(): Parameters<ClusterObjects['writeSlice']>[0] {
    const endpoints = [this.#cluster.lab.pod(this.#pod).ipv4];
    return { name: `${this.name}-moving`, service: this.name, endpoints };
  }
}
