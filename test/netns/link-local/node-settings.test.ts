/**
 * What a careful administrator forbids on a node is not needed: loopback addresses that leave `lo` (`route_localnet`),
 * and packets that come in by another interface than the one by which they would be answered.
 */
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { CAPTURE_ADDRESSES } from '../../../src/host/capture-address.ts';
import { IP_FAMILIES } from '../../../src/model/address.ts';
import {
  clusterIP,
  dualStackObjects,
  nodeAddressesOf,
  openVantage,
  VANTAGES,
} from '../../support/dual-stack.ts';
import { canMakeNamespaces, createLab, type Host, type Lab } from '../../support/netns-lab.ts';
import { manifestText } from '../../support/objects.ts';
import { ProxyProcess } from '../../support/proxy-process.ts';
import { waitFor } from '../../support/wait.ts';

const HTTP = { name: 'http', port: 80, targetPort: 8080, nodePort: 30_080 };
const DNS = { name: 'dns', port: 53, targetPort: 8053, nodePort: 30_053, protocol: 'UDP' } as const;
const WEB = { name: 'web', number: 10, ports: [HTTP, DNS] };
const LOOPBACK = { IPv4: ['127.0.0.1', '127.1.2.3'], IPv6: ['::1'] } as const;

describe.skipIf(canMakeNamespaces() !== undefined)('on a strict node', () => {
  let lab: Lab;
  let proxy: ProxyProcess;

  beforeAll(async () => {
    lab = await createLab();
    const server = await lab.pod(1).agent();
    await server.serveTcp({ port: HTTP.targetPort, mode: 'identify', name: 'pod1' });
    await server.serveUdp({ port: DNS.targetPort, mode: 'identify', name: 'pod1' });
    await setFilter('1');
    // What the kernel's own filter is for IPv4, firewalls do for both families.
    for (const iptables of ['iptables', 'ip6tables']) {
      for (const protocol of ['tcp', 'udp']) {
        const match = ['-p', protocol, '-m', 'rpfilter', '--invert', '-j', 'DROP'];
        await lab.node.run([iptables, '-w', '5', '-t', 'raw', '-A', 'PREROUTING', ...match]);
      }
    }
    const objects = dualStackObjects({ ...WEB, backends: [lab.pod(1)] });
    proxy = await ProxyProcess.start(lab.node, { manifests: { 'web.yaml': manifestText(...objects) } });
    for (const family of IP_FAMILIES) await proxy.captured('default/web:dns', { protocol: 'udp', family });
  });
  afterAll(async () => {
    await proxy?.[Symbol.asyncDispose]();
    await lab?.close();
  });

  /** Of the filters of `all` and of the interface the laxer one counts, and 2 is laxer than 1. */
  const setFilter = async (value: '0' | '1'): Promise<void> => {
    const script = `for file in /proc/sys/net/ipv4/conf/*/rp_filter; do echo ${value} >$file; done`;
    await lab.node.run(['sh', '-ec', script]);
  };
  const settings = async (name: string): Promise<readonly string[]> => {
    const text = await lab.node.run(['sh', '-c', `cat /proc/sys/net/ipv4/conf/*/${name}`]);
    return [...new Set(text.trim().split('\n'))];
  };
  const expectAnswers = async (
    from: Host,
    { host, port, dnsPort }: { readonly host: string; readonly port: number; readonly dnsPort: number },
  ): Promise<void> => {
    const client = await from.agent();
    const [tcp] = await client.tcpIdentify({ host, port, count: 1, timeoutMs: 2_000 });
    const what = { from: from.name, host };
    expect({ ...what, name: tcp?.name, errno: tcp?.errno }).toEqual({ ...what, name: 'pod1' });
    // From a socket that takes whatever comes, so that it can tell whom the answer is from.
    const dial = { host, port: dnsPort, count: 1, sameSocket: true, timeoutMs: 2_000 };
    const [udp] = await client.udpIdentify(dial);
    expect({ ...what, name: udp?.name, from: udp?.from }).toEqual({
      ...what,
      name: 'pod1',
      from: { address: host, port: dnsPort },
    });
  };

  test.for(IP_FAMILIES)(
    'NodePorts are found on loopback addresses of %s, and on all others, without route_localnet',
    async (family) => {
      const ports = { port: HTTP.nodePort, dnsPort: DNS.nodePort };
      for (const host of [...LOOPBACK[family], ...nodeAddressesOf(lab, family)])
        await expectAnswers(lab.node, { host, ...ports });
      expect(await settings('route_localnet')).toEqual(['0']);
    },
  );

  test.for(VANTAGES)(
    'a Service is answered from $from over $family by its $by, also datagrams, in its own name',
    async (vantage) => {
      const from = { 'a pod': lab.pod(4), 'the node': lab.node, outside: lab.ext }[vantage.from];
      const { host, port } = await openVantage(lab, vantage, { ...WEB, ...HTTP });
      const dnsPort = vantage.by === 'clusterIP' ? DNS.port : DNS.nodePort;
      await expectAnswers(from, { host, port, dnsPort });
      expect(await settings('rp_filter')).toEqual(['1']);
    },
  );

  test.for(IP_FAMILIES)('a pod reaches itself, and the outside a clusterIP, over %s', async (family) => {
    const target = { host: clusterIP(WEB.number, family), port: HTTP.port, dnsPort: DNS.port };
    await expectAnswers(lab.pod(1), target);
    await expectAnswers(lab.ext, target);
  });

  test('the filters do drop what comes in by the wrong interface', async () => {
    // Pod 4 pretends to be somebody outside; the same packet from outside is none of this test's business.
    const src = '192.168.77.200';
    const counted = ['-s', src, '-p', 'tcp', '--dport', String(HTTP.nodePort)];
    await lab.node.run(['iptables', '-w', '5', '-I', 'INPUT', '1', ...counted]);
    onTestFinished(async () => void (await lab.node.run(['iptables', '-w', '5', '-D', 'INPUT', ...counted])));
    await lab.node.run(['iptables', '-w', '5', '-t', 'raw', '-I', 'PREROUTING', '1', ...counted]);
    const segment = {
      src,
      sport: 5_555,
      dst: lab.node.ipv4,
      dport: HTTP.nodePort,
      seq: 1,
      ack: 0,
      flags: 'S',
    };
    await lab.pod(4).forgeSegment(segment);
    const seen = async (...chain: readonly string[]): Promise<number> => {
      const listed = await lab.node.run(['iptables', '-w', '5', '-nvxL', ...chain]);
      return Number(/^ *(\d+) .*192\.168\.77\.200/m.exec(listed)?.[1]);
    };
    await waitFor(async () => (await seen('PREROUTING', '-t', 'raw')) === 1, {
      timeoutMs: 5_000,
      what: 'the segment to come in',
    });
    expect(await seen('INPUT')).toBe(0);
  });

  test.for(IP_FAMILIES)(
    'another program has the same port on another address of %s, and neither hinders the other',
    async (family) => {
      const ports = {
        port: await proxy.proxyPort('default/web:http', { family }),
        dnsPort: await proxy.proxyPort('default/web:dns', { protocol: 'udp', family }),
      };
      const [address] = nodeAddressesOf(lab, family);
      const node = await lab.node.agent();
      const servers = [
        await node.serveTcp({ port: ports.port, mode: 'identify', name: 'other', address }),
        await node.serveUdp({ port: ports.dnsPort, mode: 'identify', name: 'other', address }),
      ];
      onTestFinished(async () => void (await Promise.all(servers.map(async (one) => node.stopServer(one)))));
      for (const from of [lab.node, lab.ext, lab.pod(4)]) {
        const client = await from.agent();
        const tcp = await client.tcpIdentify({ host: address, port: ports.port, count: 1 });
        const udp = await client.udpIdentify({
          host: address,
          port: ports.dnsPort,
          count: 1,
          sameSocket: true,
        });
        expect([from.name, tcp[0]?.name, udp[0]?.name]).toEqual([from.name, 'other', 'other']);
        const own = { host: CAPTURE_ADDRESSES[family], port: ports.port };
        expect((await client.tcpProbe({ ...own, timeoutMs: 2_000 })).outcome).toBe('refused');
      }
      const target = { host: clusterIP(WEB.number, family), port: HTTP.port, dnsPort: DNS.port };
      await expectAnswers(lab.pod(4), target);
    },
  );
});
