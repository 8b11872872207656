/** What becomes of a packet: the rendered rules, walked as the kernel would walk them. */
import { describe, expect, test } from 'vitest';
import { buildRuleSet } from '../../src/iptables/ruleset.ts';
import { makeService, makeSlice } from '../support/objects.ts';
import { type Packet, type PacketTracer, makePacket, tracerOf } from '../support/packet-tracer.ts';
import { desiredFrom, firstLoadOf, proxyPortsOf, ruleSetOf } from '../support/rule-fixture.ts';

const NODE_IP = '192.168.77.2';
/** An external address that the node has itself. */
const LOCAL_EXTERNAL_IP = '192.0.2.8';

/** `web` and `udp` have endpoints, `empty` and `empty-udp` have none. */
const desired = desiredFrom(
  [
    makeService('web', ({ spec }) => {
      spec.clusterIPs = ['10.96.0.10', 'fd00:96::a'];
      spec.externalIPs = ['192.0.2.7'];
      spec.ports = [{ name: 'http', port: 80, nodePort: 30_080 }];
    }),
    makeService('udp', ({ spec }) => {
      spec.clusterIP = '10.96.0.11';
      spec.externalIPs = [LOCAL_EXTERNAL_IP];
      spec.ports = [{ name: 'http', port: 30_080, protocol: 'UDP', nodePort: 30_053 }];
    }),
    makeService('same', ({ spec }) => {
      spec.clusterIP = '10.96.0.12';
      spec.externalIPs = [LOCAL_EXTERNAL_IP];
      spec.ports = [{ name: 'http', port: 30_080 }];
    }),
    makeService('empty', ({ spec }) => {
      spec.clusterIPs = ['10.96.0.20', 'fd00:96::14'];
      spec.externalIPs = ['192.0.2.20'];
      spec.ports = [{ name: 'http', port: 80, nodePort: 30_020 }];
    }),
    makeService('empty-udp', ({ spec }) => {
      spec.clusterIP = '10.96.0.21';
      spec.ports = [{ name: 'dns', port: 53, protocol: 'UDP', nodePort: 30_021 }];
    }),
  ],
  [
    makeSlice('web', ['10.244.1.1']),
    makeSlice('web', ['fd00:244:1::1']),
    makeSlice('udp', ['10.244.1.1'], (slice) => {
      slice.ports = [{ name: 'http', port: 53, protocol: 'UDP' }];
    }),
    makeSlice('same', ['10.244.1.1']),
  ],
);
const ports = proxyPortsOf(desired).proxyPorts;
const tracer = tracerOf(firstLoadOf(ruleSetOf(desired)));
const tracer6 = tracerOf(firstLoadOf(ruleSetOf(desired, 'IPv6')), 6);

function proxyPortOf(servicePort: string, family = 'IPv4'): number {
  const port = [...ports].find(([key]) => key === `${servicePort}/${family}/cluster`)?.[1];
  if (port === undefined) throw new Error(`no listener for ${servicePort}`);
  return port;
}

function outcome(
  hook: Parameters<PacketTracer['trace']>[0],
  packet: Partial<Packet>,
  through = tracer,
): { verdict: string; redirectedTo: number | undefined } {
  const { verdict, redirectedTo } = through.trace(hook, makePacket(packet));
  return { verdict, redirectedTo };
}

const UNTOUCHED = { verdict: 'none', redirectedTo: undefined };

describe('a new connection to a portal is redirected and let in', () => {
  const web = proxyPortOf('default/web:http/TCP');
  const atNode = { isDstLocal: true, dst: NODE_IP };

  test.each<{ name: string; hook: 'prerouting' | 'output'; packet: Partial<Packet>; port: number }>([
    { name: 'clusterIP from a pod', hook: 'prerouting', packet: { dst: '10.96.0.10' }, port: web },
    {
      name: 'clusterIP from the node',
      hook: 'output',
      packet: { dst: '10.96.0.10', src: NODE_IP },
      port: web,
    },
    { name: 'externalIP from a pod', hook: 'prerouting', packet: { dst: '192.0.2.7' }, port: web },
    { name: 'externalIP from the node', hook: 'output', packet: { dst: '192.0.2.7' }, port: web },
    { name: 'NodePort from outside', hook: 'prerouting', packet: { ...atNode, dport: 30_080 }, port: web },
    { name: 'NodePort from the node', hook: 'output', packet: { ...atNode, dport: 30_080 }, port: web },
    {
      name: 'NodePort at loopback',
      hook: 'output',
      packet: { dst: '127.0.0.1', isDstLocal: true, dport: 30_080 },
      port: web,
    },
    {
      name: 'NodePort for UDP',
      hook: 'prerouting',
      packet: { ...atNode, protocol: 'udp', dport: 30_053 },
      port: proxyPortOf('default/udp:http/UDP'),
    },
    {
      name: 'clusterIP for UDP',
      hook: 'prerouting',
      packet: { dst: '10.96.0.11', protocol: 'udp', dport: 30_080 },
      port: proxyPortOf('default/udp:http/UDP'),
    },
    {
      name: 'an externalIP that is local wins over the NodePort of that number',
      hook: 'prerouting',
      packet: { dst: LOCAL_EXTERNAL_IP, isDstLocal: true, dport: 30_080 },
      port: proxyPortOf('default/same:http/TCP'),
    },
  ])('$name', ({ hook, packet, port }) => {
    expect(outcome(hook, packet)).toEqual({ verdict: 'accept', redirectedTo: port });
  });

  test.each(['prerouting', 'output'] as const)('IPv6, at %s', (hook) => {
    expect(outcome(hook, { dst: 'fd00:96::a' }, tracer6)).toEqual({
      verdict: 'accept',
      redirectedTo: proxyPortOf('default/web:http/TCP', 'IPv6'),
    });
  });
});

describe('other traffic is untouched: every built-in chain is left at its end', () => {
  const everyHook = ['prerouting', 'output', 'input', 'forward'] as const;
  const packets: readonly { name: string; packet: Partial<Packet> }[] = [
    { name: 'an address of nobody', packet: { dst: '198.51.100.1' } },
    { name: 'a neighbour in the prefix of a portal', packet: { dst: '10.96.0.99' } },
    { name: 'a portal at another port', packet: { dst: '10.96.0.10', dport: 81 } },
    { name: 'a portal by another protocol', packet: { dst: '10.96.0.10', protocol: 'udp' } },
    { name: 'a ping of a portal', packet: { dst: '10.96.0.10', protocol: 'icmp', dport: 0 } },
    { name: 'a NodePort at an address that is not local', packet: { dst: '198.51.100.1', dport: 30_080 } },
    {
      name: 'a neighbour in the block of a NodePort',
      packet: { dst: NODE_IP, isDstLocal: true, dport: 30_081 },
    },
    { name: 'a NodePort by another protocol', packet: { dst: NODE_IP, isDstLocal: true, dport: 30_053 } },
    { name: 'ssh to the node', packet: { dst: NODE_IP, isDstLocal: true, dport: 22 } },
    { name: 'a pod', packet: { dst: '10.244.1.12', dport: 8080 } },
    {
      name: 'an established connection to a portal, which conntrack translates',
      packet: { dst: '10.96.0.10', ctstate: 'ESTABLISHED', tcpFlags: ['ACK'] },
    },
    {
      name: 'an established connection to a proxy port',
      packet: { dst: '127.0.0.1', isDstLocal: true, dport: 20_001, ctstate: 'ESTABLISHED', isDnat: true },
    },
    { name: 'a connection related to another', packet: { dst: '10.96.0.10', ctstate: 'RELATED' } },
  ];
  test.each(packets.flatMap((each) => everyHook.map((hook) => ({ ...each, hook }))))(
    '$name, at $hook',
    ({ hook, packet }) => {
      expect(outcome(hook, packet)).toEqual(UNTOUCHED);
    },
  );

  test.each(everyHook)('IPv6 neighbours, at %s', (hook) => {
    expect(outcome(hook, { dst: 'fd00:96::b' }, tracer6)).toEqual(UNTOUCHED);
    expect(outcome(hook, { dst: 'fd00:96::a', dport: 81 }, tracer6)).toEqual(UNTOUCHED);
  });
});

describe('direct access to a proxy port', () => {
  const tcp = proxyPortOf('default/web:http/TCP');
  const udp = proxyPortOf('default/udp:http/UDP');
  const local = { dst: NODE_IP, isDstLocal: true };

  test.each(['prerouting', 'output', 'input'] as const)('hears a reset to its SYN, at %s', (hook) => {
    expect(outcome(hook, { ...local, dport: tcp })).toEqual({
      verdict: 'tcp-reset',
      redirectedTo: undefined,
    });
  });

  test.each(['prerouting', 'output', 'input'] as const)(
    'hears port unreachable to a datagram, at %s',
    (hook) => {
      const packet = { ...local, protocol: 'udp', dport: udp } as const;
      expect(outcome(hook, packet)).toEqual({ verdict: 'port-unreachable', redirectedTo: undefined });
    },
  );

  test('hears nothing to a stray segment', () => {
    const stray = { ...local, dport: tcp, tcpFlags: ['ACK'] };
    expect(outcome('input', stray).verdict).toBe('drop');
    expect(outcome('input', { ...stray, ctstate: 'INVALID' }).verdict).toBe('drop');
  });

  test('is refused in IPv6 too', () => {
    const port = proxyPortOf('default/web:http/TCP', 'IPv6');
    expect(outcome('input', { dst: 'fd00:77::2', isDstLocal: true, dport: port }, tracer6).verdict).toBe(
      'tcp-reset',
    );
  });

  test('of a listener without a rule yet is refused: the guard stands first', () => {
    const guard = {
      family: 'IPv4',
      protocol: 'TCP',
      port: 25_000,
      servicePortName: 'default/new:http',
    } as const;
    const guarded = tracerOf(
      firstLoadOf(
        buildRuleSet('IPv4', {
          capture: desiredFrom([]).capture,
          proxyPorts: new Map(),
          guardedPorts: [guard],
          diversion: { kind: 'redirect' },
        }),
      ),
    );
    expect(outcome('input', { ...local, dport: 25_000 }, guarded).verdict).toBe('tcp-reset');
  });

  test('by what was redirected is accepted', () => {
    expect(outcome('input', { ...local, dport: tcp, isDnat: true }).verdict).toBe('accept');
    expect(outcome('input', { ...local, dport: udp, protocol: 'udp', isDnat: true }).verdict).toBe('accept');
  });

  test.each([
    { name: 'the other protocol', packet: { dport: tcp, protocol: 'udp' } },
    { name: 'a port of another program in the same block', packet: { dport: tcp + 20 } },
    { name: 'a port below all', packet: { dport: 19_999 } },
    {
      name: 'a port of the same number elsewhere, at FORWARD',
      packet: { dport: tcp, dst: '198.51.100.1' },
      hook: 'forward',
    },
  ] as const)('of $name is not refused', ({ packet, ...rest }) => {
    const hook = 'hook' in rest ? rest.hook : 'input';
    expect(outcome(hook, { ...local, ...packet })).toEqual(UNTOUCHED);
  });
});

describe('a packet that conntrack cannot place', () => {
  const invalid = { ctstate: 'INVALID', tcpFlags: ['ACK'] } as const;

  test.each<{ name: string; hook: 'prerouting' | 'output' | 'forward' | 'input'; packet: Partial<Packet> }>([
    { name: 'a clusterIP, from a pod', hook: 'prerouting', packet: { dst: '10.96.0.10' } },
    { name: 'a clusterIP, from the node', hook: 'output', packet: { dst: '10.96.0.10' } },
    { name: 'an externalIP', hook: 'forward', packet: { dst: '192.0.2.7' } },
    {
      name: 'an externalIP that is local',
      hook: 'input',
      packet: { dst: LOCAL_EXTERNAL_IP, isDstLocal: true, dport: 30_080 },
    },
    { name: 'a NodePort', hook: 'prerouting', packet: { dst: NODE_IP, isDstLocal: true, dport: 30_080 } },
    { name: 'a portal without endpoints', hook: 'forward', packet: { dst: '10.96.0.20' } },
  ])('is dropped on its way to $name', ({ hook, packet }) => {
    expect(outcome(hook, { ...packet, ...invalid })).toEqual({ verdict: 'drop', redirectedTo: undefined });
  });

  test.each<{ name: string; hook: 'prerouting' | 'output' | 'forward' | 'input'; packet: Partial<Packet> }>([
    { name: 'anywhere else', hook: 'prerouting', packet: { dst: '198.51.100.1' } },
    { name: 'anywhere else from the node', hook: 'output', packet: { dst: '198.51.100.1' } },
    { name: 'a neighbour of a portal', hook: 'forward', packet: { dst: '10.96.0.99' } },
    { name: 'a portal at another port', hook: 'forward', packet: { dst: '10.96.0.10', dport: 81 } },
    { name: 'the node', hook: 'input', packet: { dst: NODE_IP, isDstLocal: true, dport: 22 } },
    {
      name: 'a port of the number of a NodePort elsewhere',
      hook: 'forward',
      packet: { dst: '198.51.100.1', dport: 30_080 },
    },
  ])('is untouched on its way to $name', ({ hook, packet }) => {
    expect(outcome(hook, { ...packet, ...invalid })).toEqual(UNTOUCHED);
  });
});

describe('a portal without endpoints', () => {
  const local = { dst: NODE_IP, isDstLocal: true };

  test.each<{
    name: string;
    hook: 'prerouting' | 'output' | 'input' | 'forward';
    packet: Partial<Packet>;
    verdict: string;
  }>([
    { name: 'clusterIP from a pod', hook: 'prerouting', packet: { dst: '10.96.0.20' }, verdict: 'tcp-reset' },
    { name: 'clusterIP from the node', hook: 'output', packet: { dst: '10.96.0.20' }, verdict: 'tcp-reset' },
    {
      name: 'clusterIP for UDP',
      hook: 'forward',
      packet: { dst: '10.96.0.21', dport: 53, protocol: 'udp' },
      verdict: 'port-unreachable',
    },
    { name: 'externalIP from a pod', hook: 'forward', packet: { dst: '192.0.2.20' }, verdict: 'tcp-reset' },
    { name: 'externalIP from the node', hook: 'output', packet: { dst: '192.0.2.20' }, verdict: 'tcp-reset' },
    {
      name: 'externalIP that is local, at INPUT',
      hook: 'input',
      packet: { dst: '192.0.2.20', isDstLocal: true },
      verdict: 'tcp-reset',
    },
    {
      name: 'NodePort from outside',
      hook: 'prerouting',
      packet: { ...local, dport: 30_020 },
      verdict: 'tcp-reset',
    },
    {
      name: 'NodePort from the node',
      hook: 'output',
      packet: { ...local, dport: 30_020 },
      verdict: 'tcp-reset',
    },
    {
      name: 'NodePort for UDP',
      hook: 'input',
      packet: { ...local, dport: 30_021, protocol: 'udp' },
      verdict: 'port-unreachable',
    },
  ])('rejects: $name', ({ hook, packet, verdict }) => {
    expect(outcome(hook, packet)).toEqual({ verdict, redirectedTo: undefined });
  });

  test('rejects in IPv6', () => {
    expect(outcome('forward', { dst: 'fd00:96::14' }, tracer6).verdict).toBe('tcp-reset');
  });

  test('leaves INPUT alone for its clusterIP: a cache on the node may own that address', () => {
    expect(outcome('input', { dst: '10.96.0.20', isDstLocal: true })).toEqual(UNTOUCHED);
    expect(outcome('prerouting', { dst: '10.96.0.20', isDstLocal: true })).toEqual(UNTOUCHED);
  });

  test('leaves other ports and other hosts alone', () => {
    expect(outcome('forward', { dst: '10.96.0.20', dport: 81 })).toEqual(UNTOUCHED);
    expect(outcome('forward', { dst: '198.51.100.1', dport: 30_020 })).toEqual(UNTOUCHED);
    expect(outcome('output', { dst: '198.51.100.1', dport: 30_020 })).toEqual(UNTOUCHED);
  });

  test('leaves connections that exist alone', () => {
    expect(outcome('forward', { dst: '10.96.0.20', ctstate: 'ESTABLISHED', tcpFlags: ['ACK'] })).toEqual(
      UNTOUCHED,
    );
  });
});

test('a tracer that is shown a rule it does not know refuses it', () => {
  for (const spec of [
    '-s 10.0.0.0/8 -m mark --mark 0x1 -j ACCEPT',
    '-p tcp --dport 80 -j ACCEPT',
    '-m set --match-set a dst -j ACCEPT',
    '-p tcp -j DNAT --to-destination 10.0.0.1-10.0.0.9:80',
    '-p tcp -m tcp ! --dport 80 -j ACCEPT',
    '-m comment --comment "a" ACCEPT',
    '-j ACCEPT --now',
  ]) {
    expect(() => tracerOf(`*nat\n-A OUTPUT ${spec}\nCOMMIT\n`)).toThrow('not understood');
  }
  expect(() => tracerOf('*nat\n-A OUTPUT -d 10.96.0.10 -j ACCEPT\nCOMMIT\n')).toThrow('not an IPv4 prefix');
  expect(() => tracerOf('*nat\n-A OUTPUT -j NOWHERE-TO-GO\nCOMMIT\n')).toThrow('not there');
});
