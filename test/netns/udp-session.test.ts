/** How long UDP flows live, how many there may be, and where they go when their endpoint leaves. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { ServerHandle } from '../support/agent-protocol.ts';
import { clusterIP, dualStackObjects } from '../support/dual-stack.ts';
import { canMakeNamespaces, createLab, type Host, type Lab } from '../support/netns-lab.ts';
import { manifestText } from '../support/objects.ts';
import { ProxyProcess } from '../support/proxy-process.ts';
import { waitFor } from '../support/wait.ts';

const UNREPLIED_MS = 400;
const REPLIED_MS = 2_000;
const MAX_SESSIONS = 50;

const NAME = { name: 'name', port: 53, targetPort: 8053, protocol: 'UDP' } as const;
const SINK = { name: 'sink', port: 9, targetPort: 8009, protocol: 'UDP' } as const;
const UDP = { name: 'udp', number: 10, ports: [NAME, SINK] };
const AT = { host: clusterIP(UDP.number, 'IPv4'), timeoutMs: 1_000 };

describe.skipIf(canMakeNamespaces() !== undefined)('a UDP flow', () => {
  let lab: Lab;
  let proxy: ProxyProcess;

  beforeAll(async () => {
    lab = await createLab();
    for (const pod of [lab.pod(1), lab.pod(2)]) {
      const agent = await pod.agent();
      await agent.serveUdp({ port: NAME.targetPort, mode: 'identify', name: pod.name });
      await agent.serveUdp({ port: SINK.targetPort, mode: 'sink', name: pod.name });
    }
    const objects = dualStackObjects({ ...UDP, backends: [lab.pod(1), lab.pod(2)] });
    proxy = await ProxyProcess.start(lab.node, {
      manifests: { 'udp.yaml': manifestText(...objects) },
      args: [
        `--udp-unreplied-timeout=${UNREPLIED_MS}ms`,
        `--udp-timeout=${REPLIED_MS}ms`,
        `--max-udp-sessions=${MAX_SESSIONS}`,
      ],
    });
    await proxy.captured('default/udp:name', { protocol: 'udp' });
  });
  afterAll(async () => {
    await proxy?.[Symbol.asyncDispose]();
    await lab?.close();
  });

  const flows = async (port: string): Promise<number> =>
    proxy.metric('userspace_proxy_connections_active', { port });
  const opened = async (port: string): Promise<number> =>
    proxy.metric('userspace_proxy_connections_total', { port });
  const closed = async (port: string, cause: string): Promise<number> =>
    proxy.metric('userspace_proxy_connection_closes_total', { port, cause });
  const gone = async (port: string): Promise<void> => {
    await waitFor(async () => (await flows(port)) === 0, {
      timeoutMs: 5 * REPLIED_MS,
      what: `the flows of ${port} to be gone`,
    });
  };

  test('without a reply ends long before one that was answered', async () => {
    const client = await lab.pod(4).agent();
    const idle = { name: await closed('name', 'idle'), sink: await closed('sink', 'idle') };
    const flood = { host: AT.host, sockets: 5, datagrams: 1 };
    const before = performance.now();
    await client.udpFlood({ ...flood, port: NAME.port });
    const answered = performance.now();
    await client.udpFlood({ ...flood, port: SINK.port, awaitReplies: false });
    expect([await flows('name'), await flows('sink')]).toEqual([5, 5]);
    const unanswered = performance.now();
    await gone('sink');
    expect(performance.now() - unanswered).toBeLessThan(5 * UNREPLIED_MS);
    const left = await flows('name');
    // On a machine that stood still for so long both are over.
    expect(left === 5 || performance.now() - before >= REPLIED_MS).toBe(true);
    await gone('name');
    expect(performance.now() - answered).toBeGreaterThan(REPLIED_MS - 50);
    expect(await closed('name', 'idle')).toBe(idle.name + 5);
    expect(await closed('sink', 'idle')).toBe(idle.sink + 5);
  });

  test('in use lives on, each datagram renews it', async () => {
    const client = await lab.pod(4).agent();
    const before = await opened('name');
    const count = 9;
    const pauseMs = (1.5 * REPLIED_MS) / count;
    const answers = await client.udpIdentify({ ...AT, port: NAME.port, count, sameSocket: true, pauseMs });
    expect(answers.every(({ ok }) => ok)).toBe(true);
    expect(await opened('name')).toBe(before + 1);
  });

  test('above the cap takes the place of the one that was idle longest', async () => {
    const client = await lab.pod(4).agent();
    await gone('name');
    const evicted = await closed('name', 'evicted');
    const target = { ...AT, port: NAME.port };
    // Ports of our own choice: one that comes twice would be the same flow.
    const flood = async (sockets: number, firstLocalPort: number): Promise<void> => {
      const { sent, received } = await client.udpFlood({ ...target, sockets, datagrams: 1, firstLocalPort });
      expect({ sent, received }).toEqual({ sent: sockets, received: sockets });
    };
    await flood(MAX_SESSIONS, 10_000);
    expect(await closed('name', 'evicted')).toBe(evicted);
    await flood(30, 10_100);
    expect(await flows('name')).toBe(MAX_SESSIONS);
    expect(await closed('name', 'evicted')).toBe(evicted + 30);
  });

  test('that was evicted begins anew with the next datagram of its client', async () => {
    const client = await lab.pod(4).agent();
    const target = { ...AT, port: NAME.port };
    await gone('name');
    const before = await opened('name');
    const asking = client.udpIdentify({ ...target, count: 2, sameSocket: true, pauseMs: 1_000 });
    await waitFor(async () => (await opened('name')) === before + 1, { timeoutMs: 5_000, what: 'its flow' });
    await client.udpFlood({ ...target, sockets: MAX_SESSIONS, datagrams: 1 });
    expect((await asking).map(({ ok }) => ok)).toEqual([true, true]);
    expect(await opened('name')).toBe(before + 1 + MAX_SESSIONS + 1);
  });

  describe('whose endpoint leaves', () => {
    const MOVING = { name: 'moving', port: 54, targetPort: 8054, protocol: 'UDP' } as const;
    const serviceOn = (...backends: Host[]): string =>
      manifestText(...dualStackObjects({ name: 'moving', number: 11, ports: [MOVING], backends }));
    const target = { host: clusterIP(11, 'IPv4'), port: MOVING.port, timeoutMs: 1_000 };
    let servers: readonly ServerHandle[];

    beforeAll(async () => {
      servers = await Promise.all(
        [lab.pod(1), lab.pod(2)].map(async (pod) =>
          (await pod.agent()).serveUdp({ port: MOVING.targetPort, mode: 'identify', name: pod.name }),
        ),
      );
      await proxy.writeManifest('moving.yaml', serviceOn(lab.pod(1)));
      await proxy.captured('default/moving:moving', { protocol: 'udp' });
    });

    test('the slice goes on with another one, from the same socket of the client', async () => {
      const client = await lab.pod(4).agent();
      const load = await client.startUdpLoad({ ...target, concurrency: 4, pauseMs: 5 });
      const answeredBy = async (name: string): Promise<boolean> =>
        ((await client.loadReport(load)).byName[name] ?? 0) >= 20;
      await waitFor(async () => answeredBy('pod1'), { timeoutMs: 5_000, what: 'answers of pod1' });
      await proxy.writeManifest('moving.yaml', serviceOn(lab.pod(2)));
      await waitFor(async () => answeredBy('pod2'), { timeoutMs: 5_000, what: 'answers of pod2' });
      const { failed } = await client.stopLoad(load);
      // A question that is on its way when its flow is cut can lose its answer, one for each socket.
      expect(failed).toBeLessThanOrEqual(4);
    });

    test('by refusing goes on with another one, from the same socket of the client', async () => {
      const [client, pod1] = await Promise.all([lab.pod(4).agent(), lab.pod(1).agent()]);
      await proxy.writeManifest('moving.yaml', serviceOn(lab.pod(1), lab.pod(2)));
      const bothTakeNewFlows = async (): Promise<boolean> => {
        const answers = await client.udpIdentify({ ...target, count: 2, sameSocket: false });
        return new Set(answers.map(({ name }) => name)).size === 2;
      };
      await waitFor(bothTakeNewFlows, { timeoutMs: 5_000, what: 'both endpoints to be in use' });
      const load = await client.startUdpLoad({ ...target, concurrency: 4, pauseMs: 5 });
      const counts = async (): Promise<Readonly<Record<string, number>>> =>
        (await client.loadReport(load)).byName;
      const bothAnswer = async (): Promise<boolean> => {
        const { pod1: one = 0, pod2: two = 0 } = await counts();
        return one >= 20 && two >= 20;
      };
      await waitFor(bothAnswer, { timeoutMs: 10_000, what: 'answers of both' });
      await pod1.stopServer({ id: servers[0]?.id ?? 0 });
      const refused = async (): Promise<boolean> => (await closed('moving', 'backend_refused')) >= 1;
      await waitFor(refused, { timeoutMs: 5_000, what: 'a refusal' });
      const { pod2: before = 0 } = await counts();
      const allOnPod2 = async (): Promise<boolean> => ((await counts())['pod2'] ?? 0) >= before + 200;
      await waitFor(allOnPod2, { timeoutMs: 5_000, what: '200 answers more of pod2' });
      const report = await client.stopLoad(load);
      // The datagram that was refused is lost, and perhaps the few that chose the dead endpoint again.
      expect(report.failed).toBeLessThanOrEqual(8);
    });
  });
});
