/** UDP in trouble and at its edges: refused, unanswered, empty, and in order all the same. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Agent } from '../../support/agent-client.ts';
import type { ServerHandle } from '../../support/agent-protocol.ts';
import { dnsAt, dnsOf, FAMILIES, metricOf, startProxy } from '../../support/fault-service.ts';
import { canMakeNamespaces, createLab, type Lab } from '../../support/netns-lab.ts';
import type { ProxyProcess } from '../../support/proxy-process.ts';
import { waitFor } from '../../support/wait.ts';

const ECHO = { name: 'echo', number: 20, ports: dnsAt(8420) };
const REFUSED = { name: 'refused', number: 21, ports: dnsAt(8421) };
const SINK = { name: 'sink', number: 22, ports: dnsAt(8422) };

describe.skipIf(canMakeNamespaces() !== undefined)('a UDP client', () => {
  let lab: Lab;
  let proxy: ProxyProcess;
  let client: Agent;
  let sink: ServerHandle;

  beforeAll(async () => {
    lab = await createLab({ pods: 3 });
    client = await lab.pod(3).agent();
    const [first, second] = await Promise.all([lab.pod(1).agent(), lab.pod(2).agent()]);
    for (const server of [first, second]) await server.serveUdp({ port: 8420, mode: 'echo', name: 'echo' });
    await second.serveUdp({ port: 8421, mode: 'identify', name: 'pod2' });
    sink = await first.serveUdp({ port: 8422, mode: 'sink', name: 'pod1' });
    const both = [lab.pod(1), lab.pod(2)];
    proxy = await startProxy(
      lab.node,
      [
        { ...ECHO, backends: both },
        { ...REFUSED, backends: both },
        { ...SINK, backends: [lab.pod(1)] },
      ],
      { args: ['--ejection-time', '30s'] },
    );
  });
  afterAll(async () => {
    await proxy?.[Symbol.asyncDispose]();
    await lab?.close();
  });

  test.for(FAMILIES)(
    'gets 1,000 datagrams of one session back in the order it sent them, over %s',
    async (family) => {
      const result = await client.udpSequence({
        ...dnsOf(ECHO.number, family),
        count: 1_000,
        timeoutMs: 15_000,
      });
      expect(result).toMatchObject({ sent: 1_000, received: 1_000, inOrder: true });
    },
  );

  test.for(FAMILIES)('gets its empty datagrams back, over %s', async (family) => {
    const result = await client.udpExchange({ ...dnsOf(ECHO.number, family), payloadBytes: 0 });
    expect(result).toMatchObject({ ok: true, received: 0 });
  });

  test.for(FAMILIES)(
    'whose backend refuses by ICMP is answered by the other from its next datagram on, with one source port, over %s',
    async (family) => {
      // Sources of their own until one gets the backend where nobody listens: in turn, so the first or the second.
      const at = dnsOf(REFUSED.number, family);
      for (const localPort of [41_000, 41_001]) {
        const answers = await client.udpIdentify({
          ...at,
          count: 3,
          sameSocket: true,
          localPort,
          timeoutMs: 500,
        });
        expect(answers.slice(1).map(({ name }) => name)).toEqual(['pod2', 'pod2']);
      }
      const refused = { service: 'refused', ip_family: family, cause: 'backend_refused' };
      const closes = await metricOf(proxy, 'connection_closes_total', refused);
      expect(closes).toBe(1);
      const ejected = { service: 'refused', ip_family: family };
      expect(await metricOf(proxy, 'endpoint_ejections_total', ejected)).toBe(1);
    },
  );

  test.for(FAMILIES)(
    'that is never answered is carried whole and in one session, over %s',
    async (family) => {
      const server = await lab.pod(1).agent();
      const before = await server.serverReport(sink);
      const at = dnsOf(SINK.number, family);
      const sent = await client.udpFlood({
        ...at,
        sockets: 1,
        datagrams: 500,
        payloadBytes: 100,
        firstLocalPort: 42_000,
        awaitReplies: false,
      });
      expect(sent).toMatchObject({ sent: 500, failures: [] });
      const arrived = async (): Promise<boolean> =>
        (await server.serverReport(sink)).datagrams >= before.datagrams + 500;
      await waitFor(arrived, { timeoutMs: 10_000, what: '500 datagrams' });
      const after = await server.serverReport(sink);
      expect(after.bytesReceived - before.bytesReceived).toBe(50_000);
      // All of the latest hundred from one port: one session.
      expect(new Set(after.senders.map(({ port }) => port)).size).toBe(1);
    },
  );
});
