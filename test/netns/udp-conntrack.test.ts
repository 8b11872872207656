/**
 * Clients that keep one source port, as DNS forwarders and syslog do. Conntrack decides about a flow once; what it
 * decided before a rule came or a proxy port moved must not last.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Lab, createLab } from '../support/netns-lab.ts';
import { makeService, makeSlice, manifestText } from '../support/objects.ts';
import { ProxyProcess } from '../support/proxy-process.ts';
import { waitFor } from '../support/wait.ts';

describe('a UDP client that keeps its source port', () => {
  let lab: Lab;
  let proxy: ProxyProcess;

  beforeAll(async () => {
    lab = await createLab({ pods: 2 });
    await (await lab.pod(1).agent()).serveUdp({ port: 5353, mode: 'identify', name: 'pod1' });
    // Another Service, so that conntrack is at work before ours exists.
    proxy = await ProxyProcess.start(lab.node, {
      manifests: { 'other.yaml': dns('other', '10.96.0.99') },
      args: ['--iptables-sync-period', '2s'],
    });
    await proxy.captured('default/other:dns', { protocol: 'udp' });
  });

  afterAll(async () => {
    await proxy?.[Symbol.asyncDispose]();
    await lab?.close();
  });

  const dns = (name: string, clusterIP: string, { portName = 'dns', nodePort = 0 } = {}): string =>
    manifestText(
      makeService(name, ({ spec }) => {
        spec.clusterIP = clusterIP;
        spec.ports = [{ name: portName, port: 53, protocol: 'UDP', ...(nodePort === 0 ? {} : { nodePort }) }];
      }),
      makeSlice(name, [lab.pod(1).ipv4], (slice) => {
        slice.ports = [{ name: portName, port: 5353, protocol: 'UDP' }];
      }),
    );

  /** One datagram from the same source port each time: to conntrack it is one flow. */
  const ask = async (
    host: string,
    { from = lab.pod(2), port = 53, localPort = 41_000 } = {},
  ): Promise<boolean> => {
    const client = await from.agent();
    const dial = { host, port, localPort, timeoutMs: 400 };
    const [answer] = await client.udpIdentify({ ...dial, count: 1, sameSocket: true });
    return answer?.name === 'pod1';
  };
  const becomesAnswered = async (host: string, options: Parameters<typeof ask>[1] = {}): Promise<void> => {
    await waitFor(async () => ask(host, options), {
      timeoutMs: 8000,
      what: 'an answer on the old source port',
    });
  };

  test('and sent before the Service existed is answered once it does', async () => {
    expect(await ask('10.96.0.10')).toBe(false);
    await proxy.writeManifest('early.yaml', dns('early', '10.96.0.10'));
    await becomesAnswered('10.96.0.10');
  });

  test('and sent to a NodePort before it existed is answered once it does', async () => {
    const at = { from: lab.ext, port: 30_053, localPort: 42_000 };
    expect(await ask(lab.node.ipv4, at)).toBe(false);
    await proxy.writeManifest('node.yaml', dns('node', '10.96.0.12', { nodePort: 30_053 }));
    await becomesAnswered(lab.node.ipv4, at);
  });

  test('and sent while another program had flushed the rules is answered once they are back', async () => {
    await proxy.writeManifest('flushed.yaml', dns('flushed', '10.96.0.13'));
    await proxy.captured('default/flushed:dns', { protocol: 'udp' });
    await lab.node.run(['iptables', '-t', 'nat', '-F', 'PREROUTING']);
    expect(await ask('10.96.0.13')).toBe(false);
    await becomesAnswered('10.96.0.13');
  });

  test('is found again when the proxy port of the Service moves', async () => {
    await proxy.writeManifest('moving.yaml', dns('moving', '10.96.0.11'));
    const before = await proxy.captured('default/moving:dns', { protocol: 'udp' });
    await becomesAnswered('10.96.0.11');
    await proxy.writeManifest('moving.yaml', dns('moving', '10.96.0.11', { portName: 'renamed' }));
    const after = await proxy.captured('default/moving:renamed', { protocol: 'udp' });
    expect(after).not.toBe(before);
    // Kept in use all the while, as it would be, until the old port has closed.
    const isClosed = async (): Promise<boolean> => {
      await ask('10.96.0.11');
      return !(await proxy.rules()).some((rule) => rule.includes(`--dport ${before} `));
    };
    await waitFor(isClosed, { timeoutMs: 8000, what: 'the old proxy port to close' });
    await becomesAnswered('10.96.0.11');
  });
});
