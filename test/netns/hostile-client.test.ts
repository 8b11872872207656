/** What a client may legally put on the wire, and no client should be able to break. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Lab, createLab } from '../support/netns-lab.ts';
import { makeService, makeSlice, manifestText } from '../support/objects.ts';
import { sampleValue } from '../support/prometheus-text.ts';
import { ProxyProcess } from '../support/proxy-process.ts';
import { waitFor } from '../support/wait.ts';

const CLUSTER_IP = '10.96.0.53';

describe('a client that sends UDP from port 0', () => {
  let lab: Lab;
  let proxy: ProxyProcess;

  beforeAll(async () => {
    lab = await createLab({ pods: 2 });
    await (await lab.pod(1).agent()).serveUdp({ port: 5353, mode: 'identify', name: 'pod1' });
    const service = makeService('dns', ({ spec }) => {
      spec.clusterIP = CLUSTER_IP;
      spec.ports = [{ name: 'dns', port: 53, protocol: 'UDP' }];
    });
    const slice = makeSlice('dns', [lab.pod(1).ipv4], (one) => {
      one.ports = [{ name: 'dns', port: 5353, protocol: 'UDP' }];
    });
    proxy = await ProxyProcess.start(lab.node, { manifests: { 'dns.yaml': manifestText(service, slice) } });
    await proxy.captured('default/dns:dns', { protocol: 'udp' });
  });

  afterAll(async () => {
    await proxy?.[Symbol.asyncDispose]();
    await lab?.close();
  });

  /** A raw socket: the kernel gives no program port 0. UDP checksum 0 means none (RFC 768). */
  const sendFrom = async (sourcePort: number): Promise<void> => {
    const script = `socket(S, PF_INET, SOCK_RAW, 17) or die; send(S, pack("nnnn", ${sourcePort}, 53, 9, 0) . "x", 0, sockaddr_in(0, inet_aton("${CLUSTER_IP}"))) or die`;
    await lab.pod(2).run(['perl', '-MSocket', '-e', script]);
  };
  const dropped = async (): Promise<number> =>
    sampleValue(await proxy.metrics(), 'userspace_proxy_udp_dropped_total') ?? 0;

  test('is dropped and counted, for nobody could answer it', async () => {
    await sendFrom(0);
    await waitFor(async () => (await dropped()) === 1, {
      timeoutMs: 5000,
      what: 'the datagram to be counted',
    });
    expect(proxy.isRunning).toBe(true);
  });

  test('harms no other client', async () => {
    const client = await lab.pod(2).agent();
    const answers = await client.udpIdentify({ host: CLUSTER_IP, port: 53, count: 3, sameSocket: true });
    expect(answers.map(({ name }) => name)).toEqual(['pod1', 'pod1', 'pod1']);
  });

  test('is told apart from one that sends from any other port', async () => {
    const before = await dropped();
    await sendFrom(12_345);
    const isActive = async (): Promise<boolean> =>
      (sampleValue(await proxy.metrics(), 'userspace_proxy_connections_total', {
        namespace: 'default',
        service: 'dns',
        port: 'dns',
        protocol: 'UDP',
        ip_family: 'IPv4',
      }) ?? 0) >= 2;
    await waitFor(isActive, { timeoutMs: 5000, what: 'its session' });
    expect(await dropped()).toBe(before);
  });
});
