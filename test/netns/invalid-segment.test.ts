/**
 * A segment that conntrack calls INVALID is not translated. It reaches whoever has the Service's address, or the
 * node itself, where nobody knows the connection, and the reset that comes back ends it; unless it is dropped.
 */
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { clusterIP, dualStackObjects } from '../support/dual-stack.ts';
import { canMakeNamespaces, createLab, type Host, type Lab } from '../support/netns-lab.ts';
import { manifestText } from '../support/objects.ts';
import { ProxyProcess } from '../support/proxy-process.ts';
import { SegmentWatch } from '../support/segment-watch.ts';
import { waitFor } from '../support/wait.ts';

const ECHO = { name: 'echo', port: 7, targetPort: 8007, nodePort: 30_007 };
const WEB = { name: 'web', number: 10, ports: [ECHO] };
/** Above every window that TCP can have (2^30), so that conntrack cannot take it for anything else. */
const OUT_OF_WINDOW = 1_500_000_000;
const TOTAL = 0x1_0000_0000;

describe.skipIf(canMakeNamespaces() !== undefined)('a forged out-of-window segment', () => {
  let lab: Lab;
  let proxy: ProxyProcess;

  beforeAll(async () => {
    lab = await createLab();
    await (await lab.pod(1).agent()).serveTcp({ port: ECHO.targetPort, mode: 'echo', name: 'pod1' });
    const objects = dualStackObjects({ ...WEB, backends: [lab.pod(1)] });
    proxy = await ProxyProcess.start(lab.node, {
      manifests: { 'web.yaml': manifestText(...objects) },
      // Nobody but this test changes the rules while it runs.
      args: ['--iptables-sync-period=1h'],
    });
    await proxy.captured('default/web:echo');
    // What leaves the node for a clusterIP untranslated finds a router that answers it with a reset.
    await lab.ext.run(['ip', 'address', 'add', `${clusterIP(WEB.number, 'IPv4')}/32`, 'dev', 'lo']);
    for (const port of [ECHO.port, ECHO.nodePort]) {
      const match = ['-p', 'tcp', '--dport', String(port), '-m', 'conntrack', '--ctstate', 'INVALID'];
      await lab.node.run(['iptables', '-t', 'mangle', '-A', 'PREROUTING', ...match]);
    }
  });
  afterAll(async () => {
    await proxy?.[Symbol.asyncDispose]();
    await lab?.close();
  });

  /** How many packets to that port conntrack has called INVALID before any rule of nat or filter. */
  const invalid = async (port: number): Promise<number> => {
    const listed = await lab.node.run(['iptables', '-t', 'mangle', '-nvxL', 'PREROUTING']);
    return Number(new RegExp(`^ *(\\d+) .*dpt:${port} ctstate INVALID`, 'm').exec(listed)?.[1]);
  };

  /** What became of a connection that was healthy when such a segment came in its name. */
  const forge = async (client: Host, target: { host: string; port: number }): Promise<'alive' | 'reset'> => {
    const agent = await client.agent();
    const group = await agent.tcpHold({ ...target, count: 1 });
    onTestFinished(async () => void (await agent.heldClose({ id: group.id, how: 'reset' })));
    const localPort = group.sockets[0]?.local.port ?? 0;
    using watch = await SegmentWatch.open(client, { address: target.host, port: target.port, localPort });
    expect(await agent.heldUse(group)).toMatchObject({ ok: 1 });
    const { seq, ack, payloadBytes } = await watch.data();
    const before = await invalid(target.port);
    await client.forgeSegment({
      src: client.ipv4,
      sport: localPort,
      dst: target.host,
      dport: target.port,
      seq: (ack + OUT_OF_WINDOW) % TOTAL,
      // The octet that the client expects next: the reset that answers takes it for its own, and is believed.
      ack: (seq + payloadBytes) % TOTAL,
      flags: 'PA',
      payloadBytes: 10,
    });
    await waitFor(async () => (await invalid(target.port)) === before + 1, {
      timeoutMs: 5_000,
      what: 'conntrack to call it INVALID',
    });
    const used = await agent.heldUse({ id: group.id, timeoutMs: 2_000 });
    if (used.ok === 1) {
      expect(watch.segments.filter(({ flags }) => flags.includes('R'))).toEqual([]);
      return 'alive';
    }
    return (await agent.heldStatus(group)).endedByReset === 1 ? 'reset' : 'alive';
  };

  const places = [
    { name: 'from a pod to a clusterIP', client: 'pod', host: 'clusterIP', port: ECHO.port },
    { name: 'from a pod to a NodePort', client: 'pod', host: 'node', port: ECHO.nodePort },
    { name: 'from outside to a NodePort', client: 'outside', host: 'node', port: ECHO.nodePort },
  ] as const;
  const at = ({ client, host, port }: (typeof places)[number]): [Host, { host: string; port: number }] => [
    client === 'pod' ? lab.pod(4) : lab.ext,
    { host: host === 'node' ? lab.node.ipv4 : clusterIP(WEB.number, 'IPv4'), port },
  ];

  test.for(places)('$name does not harm the connection it pretends to belong to', async (place) => {
    expect(await forge(...at(place))).toBe('alive');
  });

  test('to what is no portal is none of our business', async () => {
    const dport = 4_444;
    const counter = ['-p', 'tcp', '--dport', String(dport)];
    const isInvalid = ['-m', 'conntrack', '--ctstate', 'INVALID'];
    await lab.node.run(['iptables', '-t', 'mangle', '-A', 'PREROUTING', ...counter, ...isInvalid]);
    await lab.ext.run(['iptables', '-A', 'INPUT', ...counter]);
    const [src, dst] = [lab.pod(4).ipv4, lab.ext.ipv4];
    await lab.pod(4).forgeSegment({ src, sport: 5_555, dst, dport, seq: 1, ack: 1, flags: 'SF' });
    const arrived = async (): Promise<boolean> =>
      / 1 .*dpt:4444/.test(await lab.ext.run(['iptables', '-nvxL', 'INPUT']));
    await waitFor(arrived, { timeoutMs: 5_000, what: 'the segment outside' });
    expect(await invalid(dport)).toBe(1);
  });

  test.for(places)('$name would end it if the INVALID rules were not there', async (place) => {
    const jump = ['-m', 'conntrack', '--ctstate', 'INVALID', '-m', 'comment'];
    const comment = ['--comment', 'would be answered with a reset', '-j', 'USERSPACE-PROXY-INVALID'];
    for (const chain of ['INPUT', 'FORWARD']) {
      const own = `USERSPACE-PROXY-${chain}`;
      await lab.node.run(['iptables', '-D', own, ...jump, ...comment]);
      onTestFinished(
        async () => void (await lab.node.run(['iptables', '-I', own, '1', ...jump, ...comment])),
      );
    }
    expect(await forge(...at(place))).toBe('reset');
  });
});
