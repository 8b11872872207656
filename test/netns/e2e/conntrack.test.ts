/**
 * Kubernetes' test/e2e/network/conntrack.go, "Conntrack": a UDP client that never rests and keeps its source port finds
 * every new backend, and no INVALID packet ends a healthy connection. Reproduced here with the proxy in network
 * namespaces; every test has the name of the upstream case, once for each IP family. That one backend refuses or falls
 * silent, and that a proxy port moves, is in test/netns/udp-session.test.ts and udp-conntrack.test.ts; INVALID segments
 * of clients are in invalid-segment.test.ts.
 *
 * Of what kpng's userspacelin had to skip for good, three are here: UDP traffic when the server pod cycles (NodePort,
 * ClusterIP) and when initial unready endpoints get ready.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Family } from '../../support/dual-stack.ts';
import { E2eCluster, FAMILIES, NAME_PORT } from '../../support/e2e-cluster.ts';
import { isUp, type Target } from '../../support/e2e-reach.ts';
import { UdpClient } from '../../support/e2e-udp-client.ts';
import { canMakeNamespaces, type Host } from '../../support/netns-lab.ts';
import type { ServiceTweak } from '../../support/objects.ts';
import { SegmentWatch } from '../../support/segment-watch.ts';
import { waitFor } from '../../support/wait.ts';

const DNS = { name: 'udp', port: 80, targetPort: NAME_PORT, protocol: 'UDP' } as const;
const UDP = { protocol: 'UDP' } as const;
/** Where a second server on the same pod has another name. */
const OTHER_PORT = 9_380;
const BOOM_PORT = 9_000;
/** Above every window that TCP can have (2^30), so that conntrack cannot take it for anything else. */
const OUT_OF_WINDOW = 1_500_000_000;

const becomeInternalLocal: ServiceTweak = ({ spec }) => void (spec.internalTrafficPolicy = 'Local');

describe.skipIf(canMakeNamespaces() !== undefined)('Conntrack', { concurrent: true }, () => {
  let cluster: E2eCluster;
  let lastLocalPort = 12_344;

  beforeAll(async () => {
    cluster = await E2eCluster.start({ nodes: 2, pods: 3 });
    for (const pod of [cluster.lab.pod(1), cluster.lab.podOn2(1)])
      await (await pod.agent()).serveUdp({ port: OTHER_PORT, mode: 'identify', name: `${pod.name}-other` });
  });
  afterAll(async () => {
    await cluster?.close();
  });

  const startClient = (from: Host, target: Target): UdpClient => {
    lastLocalPort += 1;
    return new UdpClient(from, { ...target, localPort: lastLocalPort });
  };

  describe.for(FAMILIES)('over %s', { concurrent: true }, (family: Family) => {
    test('should be able to preserve UDP traffic when server pod cycles for a NodePort service', async () => {
      const { lab } = cluster;
      const service = cluster.service('svc-udp');
      const ports = [{ ...DNS, nodePort: service.nodePort() }];
      const [one, two] = [lab.podOn2(1), lab.podOn2(2)];
      await service.write({ ports });
      await using client = startClient(lab.pod(3), service.atNode(lab.node2, family, UDP));
      await client.isUnanswered();
      await service.write({ ports, backends: [one] });
      await client.isAnsweredBy(one.name);
      await service.write({ ports, backends: [one, two] });
      await service.write({ ports, backends: [two] });
      await client.isAnsweredBy(two.name);
    });

    test.for([
      { who: 'a pod', suffix: '' },
      { who: 'the node', suffix: ' and client is hostNetwork' },
    ])(
      'should be able to preserve UDP traffic when server pod cycles for a ClusterIP service$suffix',
      async ({ who }) => {
        const { lab } = cluster;
        const service = cluster.service('svc-udp');
        const [one, two] = [lab.podOn2(1), lab.podOn2(2)];
        await service.write({ ports: [DNS] });
        await using client = startClient(who === 'a pod' ? lab.pod(3) : lab.node, service.at(family, UDP));
        await client.isUnanswered();
        await service.write({ ports: [DNS], backends: [one] });
        await client.isAnsweredBy(one.name);
        await service.write({ ports: [DNS], backends: [one, two] });
        await service.write({ ports: [DNS], backends: [two] });
        await client.isAnsweredBy(two.name);
      },
    );

    test('should be able to preserve UDP traffic when server pod cycles for a ClusterIP service with InternalTrafficPolicy set to Local', async () => {
      const { lab } = cluster;
      const service = cluster.service('svc-udp');
      const [one, elsewhere, three] = [lab.pod(1), lab.podOn2(1), lab.pod(2)];
      const become = async (...backends: Host[]): Promise<void> =>
        service.write({ ports: [DNS], backends, tweak: becomeInternalLocal });
      await become();
      await using client = startClient(lab.pod(3), service.at(family, UDP));
      await client.isUnanswered();
      await become(one);
      await client.isAnsweredBy(one.name);
      await become(one, elsewhere);
      // What is sent now must not be remembered: the only endpoint is not for this client.
      await become(elsewhere);
      await client.isUnanswered();
      await become(elsewhere, three);
      await client.isAnsweredBy(three.name);
    });

    test('should be able to preserve UDP traffic when initial unready endpoints get ready', async () => {
      const { lab } = cluster;
      const service = cluster.service('svc-udp');
      const backend = lab.podOn2(1);
      const become = async (ready: boolean): Promise<void> =>
        service.write({
          ports: [DNS],
          backends: [backend],
          tweakSlice: ({ endpoints = [] }) => {
            for (const endpoint of endpoints)
              endpoint.conditions = { ready, serving: ready, terminating: false };
          },
        });
      await service.write({ ports: [DNS] });
      await using client = startClient(lab.pod(3), service.at(family, UDP));
      await client.isUnanswered();
      await become(false);
      await client.isUnanswered();
      await become(true);
      await client.isAnsweredBy(backend.name);
    });

    test('should be able to cleanup conntrack entries when UDP service target port changes for a NodePort service', async () => {
      const { lab } = cluster;
      const service = cluster.service('svc-udp');
      const backend = lab.podOn2(1);
      const port = { ...DNS, nodePort: service.nodePort() };
      await service.write({ ports: [port], backends: [backend] });
      await using client = startClient(lab.pod(3), service.atNode(lab.node2, family, UDP));
      await client.isAnsweredBy(backend.name);
      await service.write({ ports: [{ ...port, targetPort: OTHER_PORT }], backends: [backend] });
      await client.isAnsweredBy(`${backend.name}-other`);
    });
  });

  test('should drop INVALID conntrack entries [Privileged]', async () => {
    const { lab } = cluster;
    const service = cluster.service('boom-server');
    const [client, server] = [lab.pod(3), lab.podOn2(3)];
    const [dialler, boom] = await Promise.all([client.agent(), server.agent()]);
    const boomServer = await boom.serveTcp({ port: BOOM_PORT, mode: 'identify-echo', name: server.name });
    await service.write({
      ports: [{ name: 'boom', port: BOOM_PORT, targetPort: BOOM_PORT }],
      backends: [server],
    });
    const target = service.at('IPv4', { port: BOOM_PORT });
    await isUp(client, target, [server]);
    const group = await dialler.tcpHold({ ...target, count: 1, named: true });
    // The server's peer is the proxy, as it was the client upstream.
    const { connections } = await boom.serverReport(boomServer);
    const { address, port } = connections.at(-1)?.remote ?? { address: '', port: 0 };
    using watch = await SegmentWatch.open(server, { address, port, localPort: BOOM_PORT });
    expect(await dialler.heldUse(group)).toMatchObject({ ok: 1 });
    const { seq, ack, payloadBytes } = await watch.data();
    const countInvalid = await countInvalidFrom(BOOM_PORT);
    await server.forgeSegment({
      src: server.ipv4,
      sport: BOOM_PORT,
      dst: address,
      dport: port,
      seq: (ack + OUT_OF_WINDOW) % 2 ** 32,
      ack: (seq + payloadBytes) % 2 ** 32,
      flags: 'PA',
      payloadBytes: 10,
    });
    await waitFor(countInvalid, { timeoutMs: 5_000, what: 'conntrack to call the segment INVALID' });
    expect(await dialler.heldUse(group)).toMatchObject({ ok: 1, failed: 0 });
    expect(watch.segments.filter(({ flags }) => flags.includes('R'))).toEqual([]);
    expect((await boom.serverReport(boomServer)).connections.at(-1)).toMatchObject({ end: 'open' });
    await dialler.heldClose({ ...group, how: 'fin' });
  });

  /** From now on, and before any rule of nat or filter: how many such packets from that port reach the first node. */
  const countInvalidFrom = async (port: number): Promise<() => Promise<number>> => {
    const { node } = cluster.lab;
    const match = ['-p', 'tcp', '--sport', String(port), '-m', 'conntrack', '--ctstate', 'INVALID'];
    await node.run(['iptables', '-t', 'mangle', '-A', 'PREROUTING', ...match]);
    return async () => {
      const listed = await node.run(['iptables', '-t', 'mangle', '-nvxL', 'PREROUTING']);
      return Number(new RegExp(`^ *(\\d+) .*spt:${port} ctstate INVALID`, 'm').exec(listed)?.[1]);
    };
  };
});
