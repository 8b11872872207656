/**
 * Upstream's tests of a DaemonSet that is rolled out behind a load balancer while clients go on asking: each node's pod
 * is deleted and goes on serving, the next one starts, becomes ready, and only then the old one ends. Upstream is content
 * with 95 of 100 requests; here none may fail.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { canMakeNamespaces, type Host, type Lab } from '../../support/netns-lab.ts';
import {
  atLoadBalancerIP,
  atNodePort,
  type EndpointAt,
  FAMILIES,
  loadBalancerIP,
  TERMINATING,
  twoNodeService,
} from '../../support/two-nodes-objects.ts';
import { TwoNodes } from '../../support/two-nodes.ts';

const ROLLOUTS = process.env['KUP_TEST_LONG'] === '1' ? 5 : 2;
const TARGET_PORT = 9_376;
const STARTING: EndpointAt['conditions'] = { ready: false, serving: false, terminating: false };
const READY: EndpointAt['conditions'] = { ready: true, serving: true, terminating: false };

/** The pods of the DaemonSet: an endpoint each, and the server of those that run. */
class DaemonSet {
  readonly #publish: (endpoints: readonly EndpointAt[]) => Promise<void>;
  readonly #conditionsByHost = new Map<Host, EndpointAt['conditions']>();
  readonly #serverByHost = new Map<Host, number>();

  constructor(publish: (endpoints: readonly EndpointAt[]) => Promise<void>) {
    this.#publish = publish;
  }

  /** `before`: the pod of the node that makes way; undefined when there is none yet. */
  async roll(host: Host, before?: Host): Promise<void> {
    if (before !== undefined) await this.#set(before, TERMINATING);
    await this.#set(host, STARTING);
    const agent = await host.agent();
    const { id } = await agent.serveTcp({ port: TARGET_PORT, mode: 'identify', name: host.name });
    this.#serverByHost.set(host, id);
    await this.#set(host, READY);
    if (before === undefined) return;
    this.#conditionsByHost.delete(before);
    await this.#show();
    await this.#end(before);
  }

  async end(): Promise<void> {
    for (const host of this.#serverByHost.keys()) await this.#end(host);
  }

  async #end(host: Host): Promise<void> {
    const id = this.#serverByHost.get(host) ?? 0;
    await (await host.agent()).stopServer({ id, connections: 'keep' });
    this.#serverByHost.delete(host);
  }

  async #set(host: Host, conditions: EndpointAt['conditions']): Promise<void> {
    this.#conditionsByHost.set(host, conditions);
    await this.#show();
  }

  async #show(): Promise<void> {
    await this.#publish([...this.#conditionsByHost].map(([host, conditions]) => ({ host, conditions })));
  }
}

describe.skipIf(canMakeNamespaces() !== undefined)('[sig-network] LoadBalancers', () => {
  let nodes: TwoNodes;
  let lab: Lab;

  beforeAll(async () => {
    nodes = await TwoNodes.start();
    ({ lab } = nodes);
  });
  afterAll(async () => {
    await nodes?.[Symbol.asyncDispose]();
  });

  test.for([
    { policy: 'Cluster', number: 10 },
    { policy: 'Local', number: 11 },
  ] as const)(
    'should not have connectivity disruption during rolling update with externalTrafficPolicy=$policy',
    { timeout: 30_000 + ROLLOUTS * 10_000 },
    async ({ policy, number }) => {
      const daemons = new DaemonSet(async (endpoints) =>
        nodes.apply(
          ...twoNodeService({
            name: `rolling-${number}`,
            number,
            type: 'LoadBalancer',
            external: policy,
            targetPort: TARGET_PORT,
            endpoints,
          }),
        ),
      );
      // The load balancer sends IPv4 to one node, IPv6 to the other.
      await nodes.routeOutside(loadBalancerIP(number, 'IPv6'), lab.node2);
      await daemons.roll(lab.pod(1));
      await daemons.roll(lab.podOn2(1));

      const client = await lab.ext.agent();
      const spots = [atLoadBalancerIP(number), atNodePort(number, lab.node), atNodePort(number, lab.node2)];
      const loads = await Promise.all(
        spots
          .flatMap((spot) => FAMILIES.map((family) => spot.at(family)))
          .map(async (target) => client.startConnectLoad({ ...target, concurrency: 2, pauseMs: 10 })),
      );
      for (let rollout = 0; rollout < ROLLOUTS; rollout += 1) {
        const [from, to] = rollout % 2 === 0 ? [1, 2] : [2, 1];
        await daemons.roll(lab.pod(to), lab.pod(from));
        await daemons.roll(lab.podOn2(to), lab.podOn2(from));
      }
      const reports = await Promise.all(loads.map(async ({ id }) => client.stopLoad({ id })));
      await daemons.end();

      for (const report of reports) {
        expect(report).toMatchObject({ failed: 0, failures: [] });
        expect(report.requests).toBeGreaterThan(50);
      }
      const on1 = ['pod1', 'pod2'];
      const on2 = ['node2-pod1', 'node2-pod2'];
      const all = [...on2, ...on1];
      const answered = reports.map(({ byName }) => Object.keys(byName).toSorted());
      expect(answered).toEqual(
        policy === 'Cluster' ? [all, all, all, all, all, all] : [on1, on2, on1, on1, on2, on2],
      );
    },
  );
});
