/** Services and pods of a real API server, as its controllers tell of them, from a client's point of view. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { pathOf } from '../support/cluster-paths.ts';
import type { SliceRequest } from '../support/cluster-slices.ts';
import { ClusterUnderTest, NODE_NAME, POD_PORT, whyNoClusterTests } from '../support/cluster-under-test.ts';
import type { ProxyProcess } from '../support/proxy-process.ts';
import { waitFor } from '../support/wait.ts';

const PROXY_NAME_LABEL = 'service.kubernetes.io/service-proxy-name';

describe.skipIf(whyNoClusterTests() !== undefined)('against a real API server', () => {
  let cluster: ClusterUnderTest;
  let proxy: ProxyProcess;

  beforeAll(async () => {
    cluster = await ClusterUnderTest.start();
    // What an operator gets without asking: rules are written once a second at most.
    proxy = await cluster.startProxy({ args: ['--iptables-min-sync-period', '1s'] });
  });
  afterAll(async () => {
    await cluster?.close();
  });

  const unreachable = async (host: string, port = 80): Promise<void> => {
    const isSo = async (): Promise<boolean> =>
      (await cluster.answers(host, { count: 1, port, timeoutMs: 300 })).every(
        (answer) => !answer.startsWith('pod'),
      );
    await waitFor(isSo, { timeoutMs: 5_000, what: `${host}:${port} to be unreachable` });
  };

  test('a Service of two ready pods is answered by both, at its clusterIP and at its NodePort', async () => {
    await cluster.createPods('web', [1, 2]);
    const ip = await cluster.createService('web', { nodePort: 30_080 });
    await cluster.answeredBy(ip, ['pod1', 'pod2']);
    await cluster.answeredBy(cluster.lab.node.ipv4, ['pod1', 'pod2'], { port: 30_080 });
  });

  test('a pod that is not ready any more gets no connections, and gets them again when it is', async () => {
    await cluster.createPods('ready', [1, 2]);
    const ip = await cluster.createService('ready');
    await cluster.answeredBy(ip, ['pod1', 'pod2']);
    await cluster.plane.objects.setPodReady('ready-pod1', false);
    await cluster.answeredBy(ip, ['pod2']);
    await cluster.plane.objects.setPodReady('ready-pod1', true);
    await cluster.answeredBy(ip, ['pod1', 'pod2']);
  });

  test('a Service is scaled to nothing and refused, and back', async () => {
    await cluster.createPods('scaled', [1, 2]);
    const ip = await cluster.createService('scaled');
    await cluster.answeredBy(ip, ['pod1', 'pod2']);
    for (const number of [1, 2]) await cluster.plane.objects.deletePod(`scaled-pod${number}`);
    await cluster.answeredBy(ip, ['ECONNREFUSED']);
    await cluster.createPods('scaled', [1, 2, 3]);
    await cluster.answeredBy(ip, ['pod1', 'pod2', 'pod3']);
  });

  test('a Service that is deleted is gone, and one made again in its place is served', async () => {
    await cluster.createPods('again', [1]);
    const first = await cluster.createService('again');
    await cluster.answeredBy(first, ['pod1']);
    await cluster.plane.objects.deleteService('again');
    await unreachable(first);
    const hasNoRules = async (): Promise<boolean> =>
      (await proxy.rules()).every((rule) => !rule.includes('"default/again:http"'));
    await waitFor(hasNoRules, { timeoutMs: 5_000, what: 'its rules to be gone' });
    const second = await cluster.createService('again');
    await cluster.answeredBy(second, ['pod1']);
  });

  test('a port that is changed moves, and so does the endpoint it leads to', async () => {
    await cluster.createPods('moving', [1, 2]);
    const other = await cluster.lab.pod(2).agent();
    await other.serveTcp({ port: 9090, mode: 'identify', name: 'pod2-other' });
    const ip = await cluster.createService('moving');
    await cluster.answeredBy(ip, ['pod1', 'pod2']);
    const path = pathOf('services', { namespace: 'default', name: 'moving' });
    const ports = (port: number, targetPort: number): object => ({
      spec: { ports: [{ name: 'http', port, targetPort, protocol: 'TCP' }] },
    });
    await cluster.plane.api.patch(path, ports(81, POD_PORT));
    await cluster.answeredBy(ip, ['pod1', 'pod2'], { port: 81 });
    await unreachable(ip);
    await cluster.plane.objects.deletePod('moving-pod1');
    await cluster.plane.api.patch(path, ports(81, 9090));
    await cluster.answeredBy(ip, ['pod2-other'], { port: 81 });
  });

  test('a Service that is labelled for another proxy is left to it, and taken back without the label', async () => {
    await cluster.createPods('labelled', [1]);
    const ip = await cluster.createService('labelled');
    await cluster.answeredBy(ip, ['pod1']);
    const lists = await proxy.metric('userspace_proxy_api_lists_total');
    const path = pathOf('services', { namespace: 'default', name: 'labelled' });
    await cluster.plane.api.patch(path, { metadata: { labels: { [PROXY_NAME_LABEL]: 'another' } } });
    await unreachable(ip);
    await cluster.plane.api.patch(path, { metadata: { labels: { [PROXY_NAME_LABEL]: null } } });
    await cluster.answeredBy(ip, ['pod1']);
    expect(await proxy.metric('userspace_proxy_api_lists_total')).toBe(lists);
  });

  test('a Service becomes an ExternalName, which nobody serves, and a Service again', async () => {
    await cluster.createPods('external', [1]);
    const ip = await cluster.createService('external');
    await cluster.answeredBy(ip, ['pod1']);
    const path = pathOf('services', { namespace: 'default', name: 'external' });
    const back = await cluster.plane.api.get<{ spec: object }>(path);
    await cluster.plane.api.patch(path, {
      spec: { type: 'ExternalName', externalName: 'example.org', clusterIP: null, clusterIPs: null },
    });
    await unreachable(ip);
    await cluster.plane.api.patch(path, {
      spec: { type: 'ClusterIP', externalName: null, clusterIP: ip, clusterIPs: null },
    });
    expect(back.spec).toMatchObject({ clusterIP: ip });
    await cluster.answeredBy(ip, ['pod1']);
  });

  test('endpoints written by hand are mirrored by the controllers and served', async () => {
    const { spec } = await cluster.plane.objects.createService({ name: 'manual', selector: null });
    await cluster.plane.api.create(pathOf('endpoints', { namespace: 'default' }), {
      apiVersion: 'v1',
      kind: 'Endpoints',
      metadata: { name: 'manual', namespace: 'default' },
      subsets: [{ addresses: [{ ip: cluster.lab.pod(3).ipv4 }], ports: [{ name: 'http', port: POD_PORT }] }],
    });
    await cluster.answeredBy(spec?.clusterIP ?? '', ['pod3']);
  });

  test('load balancers are told when the own Node is about to go, and when it is not', async () => {
    const path = pathOf('nodes', { name: NODE_NAME });
    const healthIs = async (status: number): Promise<void> => {
      await waitFor(async () => (await proxy.health('/healthz')).status === status, {
        timeoutMs: 5_000,
        what: `/healthz to answer ${status}`,
      });
      expect((await proxy.health('/livez')).status).toBe(200);
      expect((await proxy.health('/readyz')).status).toBe(200);
    };
    await healthIs(200);
    const taint = { key: 'ToBeDeletedByClusterAutoscaler', value: '1', effect: 'NoSchedule' };
    await cluster.plane.api.patch(path, { spec: { taints: [taint] } });
    await healthIs(503);
    await cluster.plane.api.patch(path, { spec: { taints: [] } });
    await healthIs(200);
    await cluster.plane.api.delete(path);
    await healthIs(503);
    await cluster.plane.objects.createNode({ name: NODE_NAME, ips: [cluster.lab.node.ipv4] });
    await healthIs(200);
  });

  test('endpoints come and go at once, without waiting for the rules', async () => {
    const { spec } = await cluster.plane.objects.createService({ name: 'quick', selector: null });
    const ip = spec?.clusterIP ?? '';
    const slice = (numbers: readonly number[]): SliceRequest => ({
      name: 'quick-1',
      service: 'quick',
      endpoints: numbers.map((number) => cluster.lab.pod(number).ipv4),
    });
    await cluster.plane.objects.writeSlice(slice([1]));
    await cluster.answeredBy(ip, ['pod1']);
    const sets = [[1, 2], [2], [2, 3], [3], [1, 3], [1]];
    for (const numbers of sets) {
      await cluster.plane.objects.updateSlice(slice(numbers));
      // Five times what is promised.
      await cluster.answeredBy(
        ip,
        numbers.map((number) => `pod${number}`),
        { timeoutMs: 500 },
      );
    }
  });

  test('how long the network took to follow is measured from what the controllers say', async () => {
    const family = { ip_family: 'IPv4' };
    const count = 'kubeproxy_network_programming_duration_seconds_count';
    const sum = 'kubeproxy_network_programming_duration_seconds_sum';
    const before = await proxy.metric(count, family);
    await cluster.createPods('measured', [1, 2]);
    const ip = await cluster.createService('measured');
    await cluster.answeredBy(ip, ['pod1', 'pod2']);
    await cluster.createPods('measured', [3]);
    await cluster.answeredBy(ip, ['pod1', 'pod2', 'pod3']);
    const more = (await proxy.metric(count, family)) - before;
    expect(more).toBeGreaterThan(0);
    // The controllers' times have whole seconds; a clock that was misread would be years away.
    expect(await proxy.metric(sum, family)).toBeLessThan(30 * (before + more));
  });
});
