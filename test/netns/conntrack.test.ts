/**
 * Conntrack decides about a flow once, by its first packet. What it decided before a rule came, or changed, must not
 * last: not for clients that keep one source port, nor for those whose SYN is still unanswered. What goes the right way
 * is let alone.
 */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Family, addressOf, clusterIP, dualStackObjects } from '../support/dual-stack.ts';
import { canMakeNamespaces, createLab, type Host, type Lab } from '../support/netns-lab.ts';
import { manifestText, type ServiceTweak } from '../support/objects.ts';
import { ProxyProcess } from '../support/proxy-process.ts';
import { trackedFlows, type TrackedFlow } from '../support/tracked-flows.ts';
import { waitFor } from '../support/wait.ts';

const FAMILIES: readonly Family[] = ['IPv4', 'IPv6'];
const TARGET_PORT = 5_353;
/** A SYN is sent again 1, 3, 7 and 15 s after the first. */
const CONNECT_TIMEOUT_MS = 20_000;

interface Client {
  readonly from: Host;
  readonly host: string;
  readonly port: number;
  readonly localPort: number;
}

describe.skipIf(canMakeNamespaces() !== undefined)('what conntrack decided before', () => {
  let lab: Lab;
  let proxy: ProxyProcess;

  beforeAll(async () => {
    lab = await createLab({ pods: 3 });
    for (const pod of [lab.pod(1), lab.pod(2)]) {
      const server = await pod.agent();
      await server.serveUdp({ port: TARGET_PORT, mode: 'identify', name: pod.name });
      await server.serveTcp({ port: TARGET_PORT, mode: 'identify', name: pod.name });
    }
    // Another Service, so that conntrack is at work before the others exist.
    const other = { name: 'other', number: 99, ports: portsOf('UDP'), backends: [lab.pod(1)] };
    proxy = await ProxyProcess.start(lab.node, {
      manifests: { 'other.yaml': manifestText(...dualStackObjects(other)) },
    });
    await proxy.captured('default/other:udp', { protocol: 'udp' });
  });

  afterAll(async () => {
    await proxy?.[Symbol.asyncDispose]();
    await lab?.close();
  });

  const portsOf = (protocol: 'TCP' | 'UDP', port = 53, nodePort?: number): readonly PortOf[] => [
    { name: protocol.toLowerCase(), port, targetPort: TARGET_PORT, protocol, ...(nodePort && { nodePort }) },
  ];
  const externalIP = (number: number, family: Family): string =>
    family === 'IPv4' ? `203.0.113.${number}` : `2001:db8:113::${number}`;
  const withExternalIPs =
    (number: number): ServiceTweak =>
    ({ spec }) =>
      void (spec.externalIPs = FAMILIES.map((family) => externalIP(number, family)));
  const write = async (service: Parameters<typeof dualStackObjects>[0]): Promise<void> =>
    proxy.writeManifest(`${service.name}.yaml`, manifestText(...dualStackObjects(service)));

  /** Who answers one datagram from the same source port as ever. */
  const ask = async ({ from, ...dial }: Client): Promise<string | undefined> => {
    const agent = await from.agent();
    const [answer] = await agent.udpIdentify({ ...dial, timeoutMs: 300, count: 1, sameSocket: true });
    return answer?.name;
  };
  const areAnswered = async (clients: readonly Client[], by: string): Promise<void> => {
    await Promise.all(
      clients.map(async (client) =>
        waitFor(async () => (await ask(client)) === by, {
          timeoutMs: 15_000,
          what: `${by} to answer port ${client.localPort} of ${client.from.name} at ${client.host}`,
        }),
      ),
    );
  };

  test('is forgotten of UDP clients that keep their source port: when rules appear, backends change, and proxy ports move', async () => {
    const service = {
      name: 'udp',
      number: 10,
      ports: portsOf('UDP', 53, 30_053),
      tweak: withExternalIPs(10),
    };
    const clients = FAMILIES.flatMap((family, index): readonly Client[] => [
      { from: lab.pod(3), host: clusterIP(10, family), port: 53, localPort: 41_000 + index },
      { from: lab.node, host: clusterIP(10, family), port: 53, localPort: 41_002 + index },
      { from: lab.ext, host: addressOf(lab.node, family), port: 30_053, localPort: 41_004 + index },
      { from: lab.pod(3), host: externalIP(10, family), port: 53, localPort: 41_006 + index },
    ]);
    expect(await Promise.all(clients.map(ask))).toEqual(clients.map(() => undefined));
    await write({ ...service, backends: [lab.pod(1)] });
    await areAnswered(clients, 'pod1');
    await write({ ...service, backends: [lab.pod(2)] });
    await areAnswered(clients, 'pod2');

    const before = await proxy.proxyPort('default/udp:udp', { protocol: 'udp' });
    const { directory } = proxy;
    await proxy.stop();
    await rm(join(directory, 'state'), { recursive: true, force: true });
    proxy = await ProxyProcess.start(lab.node, { directory });
    await areAnswered(clients, 'pod2');
    expect(await proxy.captured('default/udp:udp', { protocol: 'udp' })).not.toBe(before);
    expect(await proxy.metric('kubeproxy_conntrack_reconciler_deleted_entries_total')).toBeGreaterThanOrEqual(
      clients.length,
    );
  });

  test('is forgotten of connections whose SYN went out before the Service existed: the next SYN connects them', async () => {
    const clients = FAMILIES.flatMap((family, index): readonly Client[] => [
      { from: lab.pod(3), host: clusterIP(11, family), port: 81, localPort: 42_000 + index },
      { from: lab.node, host: clusterIP(11, family), port: 81, localPort: 42_002 + index },
      { from: lab.pod(3), host: externalIP(11, family), port: 81, localPort: 42_004 + index },
    ]);
    const connecting = Promise.all(
      clients.map(async ({ from, ...dial }) => {
        const agent = await from.agent();
        return agent.tcpIdentify({ ...dial, count: 1, timeoutMs: CONNECT_TIMEOUT_MS });
      }),
    );
    await waitFor(async () => (await synsSent(81)).length >= clients.length, {
      timeoutMs: 10_000,
      what: 'every SYN to be tracked',
    });
    await write({
      name: 'tcp',
      number: 11,
      ports: portsOf('TCP', 81),
      backends: [lab.pod(1)],
      tweak: withExternalIPs(11),
    });
    for (const [result] of await connecting) expect(result).toMatchObject({ ok: true, name: 'pod1' });
  });

  test('is kept of connections that are established, though new ones are led to another proxy port', async () => {
    const service = { name: 'held', number: 12, ports: portsOf('TCP', 82), backends: [lab.pod(1)] };
    await write(service);
    const before = await proxy.captured('default/held:tcp');
    const client = await lab.pod(3).agent();
    const held = await client.tcpHold({ host: clusterIP(12, 'IPv4'), port: 82, count: 5, named: true });
    const ids = await idsOf('tcp', 82);
    expect(ids).toHaveLength(5);
    const runs = await reconciliations();
    await write({ ...service, ports: portsOf('TCP', 82).map((port) => ({ ...port, name: 'renamed' })) });
    expect(await proxy.captured('default/held:renamed')).not.toBe(before);
    await waitFor(async () => (await reconciliations()) > runs, {
      timeoutMs: 10_000,
      what: 'the flows to be looked through',
    });
    expect(await idsOf('tcp', 82)).toEqual(ids);
    expect(await client.heldStatus(held)).toMatchObject({ open: 5 });
    await client.heldClose({ ...held, how: 'fin' });
  });

  test('is forgotten of those who may not come any more, and kept of those who still may', async () => {
    const [kept, lost] = [lab.pod(3), lab.pod(2)];
    const become = async (...clients: readonly Host[]): Promise<void> =>
      write({
        name: 'fenced',
        number: 13,
        ports: portsOf('UDP', 83, 30_083),
        backends: [lab.pod(1)],
        tweak: (service) => {
          service.spec.type = 'LoadBalancer';
          service.spec.loadBalancerSourceRanges = clients.map(({ ipv4 }) => `${ipv4}/32`);
          service.status = { loadBalancer: { ingress: [{ ip: '203.0.113.13' }] } };
        },
      });
    const clientOf = (from: Host): Client => ({ from, host: '203.0.113.13', port: 83, localPort: 43_000 });
    const flowOf = async ({ ipv4 }: Host): Promise<TrackedFlow | undefined> =>
      (await trackedFlows(lab.node, { protocol: 'udp', port: 83 })).find(({ source }) => source === ipv4);
    await become(kept, lost);
    await areAnswered([clientOf(kept), clientOf(lost)], 'pod1');
    const before = await flowOf(kept);
    expect(before).toBeDefined();
    await become(kept);
    await waitFor(async () => (await flowOf(lost)) === undefined, {
      timeoutMs: 10_000,
      what: 'the flow of the client that is shut out to be gone',
    });
    expect((await flowOf(kept))?.id).toBe(before?.id);
    expect(await ask(clientOf(lost))).toBeUndefined();
    expect(await ask(clientOf(kept))).toBe('pod1');
  });

  test('is kept over a restart of the proxy that keeps its ports', async () => {
    const client = { from: lab.pod(3), host: clusterIP(14, 'IPv4'), port: 84, localPort: 44_000 };
    await write({ name: 'kept', number: 14, ports: portsOf('UDP', 84), backends: [lab.pod(1)] });
    await areAnswered([client], 'pod1');
    const ids = await idsOf('udp', 84);
    const { directory } = proxy;
    await proxy.stop();
    proxy = await ProxyProcess.start(lab.node, { directory });
    await waitFor(async () => (await reconciliations()) > 0, {
      timeoutMs: 10_000,
      what: 'the flows to be looked through',
    });
    expect(await idsOf('udp', 84)).toEqual(ids);
    expect(await ask(client)).toBe('pod1');
  });

  test('reaches a one-way client, to whom nobody ever answers', async () => {
    const server = await lab.pod(1).agent();
    const sink = await server.serveUdp({ port: 8_125, mode: 'sink', name: 'sink' });
    const client = await lab.pod(3).agent();
    const send = async (): Promise<unknown> =>
      client.udpFlood({
        host: clusterIP(15, 'IPv6'),
        port: 85,
        sockets: 1,
        datagrams: 1,
        firstLocalPort: 45_000,
        awaitReplies: false,
      });
    await send();
    expect(await trackedFlows(lab.node, { protocol: 'udp', port: 85 })).toHaveLength(1);
    const ports = [{ name: 'udp', port: 85, targetPort: 8_125, protocol: 'UDP' as const }];
    await write({ name: 'statsd', number: 15, ports, backends: [lab.pod(1)] });
    const hasArrived = async (): Promise<boolean> => {
      await send();
      return (await server.serverReport(sink)).datagrams > 0;
    };
    await waitFor(hasArrived, { timeoutMs: 10_000, what: 'a datagram to arrive' });
  });

  const reconciliations = async (): Promise<number> =>
    proxy.metric('kubeproxy_conntrack_reconciler_sync_duration_seconds_count', { ip_family: 'IPv4' });
  const synsSent = async (port: number): Promise<readonly TrackedFlow[]> =>
    (await trackedFlows(lab.node, { protocol: 'tcp', port })).filter(({ state }) => state === 'SYN_SENT');
  const idsOf = async (protocol: 'tcp' | 'udp', port: number): Promise<readonly string[]> =>
    (await trackedFlows(lab.node, { protocol, port })).map(({ id }) => id).toSorted();
});

interface PortOf {
  readonly name: string;
  readonly port: number;
  readonly targetPort: number;
  readonly protocol: 'TCP' | 'UDP';
  readonly nodePort?: number;
}
