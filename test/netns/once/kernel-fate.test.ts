/**
 * The tool that asks a real kernel what its rules do: it tells every outcome apart, knows by which rules it came about,
 * and does not guess.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Fate } from '../../support/fate.ts';
import { KernelFate, disagreements } from '../../support/kernel-fate.ts';
import { canMakeNamespaces, createLab, type Lab } from '../../support/netns-lab.ts';
import type { Probe } from '../../support/probe.ts';

interface Setup {
  readonly family: 'IPv4' | 'IPv6';
  readonly capture: 'REDIRECT' | 'DNAT';
}

const FAMILIES = ['IPv4', 'IPv6'] as const;
const SETUPS: readonly Setup[] = FAMILIES.flatMap((family) =>
  (['REDIRECT', 'DNAT'] as const).map((capture) => ({ family, capture })),
);

/** An address of nobody; `all` and `block` hold it. */
const PORTAL = {
  IPv4: { address: '10.96.0.10', all: '10.96.0.10/32', block: '10.96.0.0/20' },
  IPv6: { address: 'fd00:96::a', all: 'fd00:96::a/128', block: 'fd00:96::/116' },
} as const;
/** On `lo`, for DNAT. */
const PRIVATE = { IPv4: '169.254.77.1', IPv6: 'fd00:aaaa::1' } as const;
const UNREACHABLE = { IPv4: 'icmp-port-unreachable', IPv6: 'icmp6-port-unreachable' } as const;

/** TCP and UDP 80 are captured; 81 is rejected, 82 dropped; a proxy port hears a reset. */
function rulesOf({ family, capture }: Setup): string {
  const { all } = PORTAL[family];
  const target =
    capture === 'REDIRECT'
      ? 'REDIRECT --to-ports 20001'
      : `DNAT --to-destination ${family === 'IPv4' ? PRIVATE.IPv4 : `[${PRIVATE.IPv6}]`}:20001`;
  const match = (protocol: 'tcp' | 'udp', port: number): string =>
    `-d ${all} -p ${protocol} -m ${protocol} --dport ${port}`;
  return `*nat
:PORTALS-1 - [0:0]
-I PREROUTING 1 -m comment --comment "to portals" -j PORTALS-1
-I OUTPUT 1 -m comment --comment "to portals" -j PORTALS-1
-A PORTALS-1 ${match('tcp', 80)} -j ${target}
-A PORTALS-1 ${match('udp', 80)} -j ${target}
COMMIT
*filter
:PORTALS-1 - [0:0]
-I INPUT 1 -p tcp -m conntrack --ctstate DNAT -m tcp --dport 20001 -j ACCEPT
-A INPUT -p tcp -m conntrack --ctstate NEW -m tcp --dport 20001 -j REJECT --reject-with tcp-reset
-I FORWARD 1 -j PORTALS-1
-I OUTPUT 1 -j PORTALS-1
-A PORTALS-1 -d ${all} -m conntrack --ctstate INVALID -j DROP
-A PORTALS-1 ${match('tcp', 81)} -j REJECT --reject-with tcp-reset
-A PORTALS-1 ${match('udp', 81)} -j REJECT --reject-with ${UNREACHABLE[family]}
-A PORTALS-1 ${match('tcp', 82)} -j DROP
COMMIT
`;
}

describe.skipIf(canMakeNamespaces() !== undefined)('the fate of a packet in a real kernel', () => {
  let lab: Lab;
  let kernel: KernelFate;

  beforeAll(async () => {
    lab = await createLab({ pods: 2, podLinks: 'bridged' });
    await lab.node.run(['ip', 'address', 'add', `${PRIVATE.IPv4}/32`, 'dev', 'lo', 'scope', 'host']);
    await lab.node.run(['ip', 'address', 'add', `${PRIVATE.IPv6}/128`, 'dev', 'lo', 'nodad']);
    kernel = await KernelFate.open(lab);
  });
  afterAll(async () => {
    await kernel?.[Symbol.asyncDispose]();
    await lab?.close();
  });

  async function fatesOf(
    setup: Setup,
    probes: Readonly<Record<string, Probe>>,
  ): Promise<Record<string, Fate>> {
    const answers = await kernel.probe({ [setup.family]: rulesOf(setup) }, Object.values(probes));
    return Object.fromEntries(Object.keys(probes).map((name, index) => [name, answers[index]?.fate as Fate]));
  }

  describe.each(SETUPS)('by $capture, $family', (setup) => {
    const { family, capture } = setup;
    const dst = PORTAL[family].address;

    test('tells all outcomes apart', async () => {
      const [pod, node, ext] = [lab.pod(1), lab.node, lab.ext];
      const nodeIP = family === 'IPv4' ? node.ipv4 : node.ipv6;
      const fates = await fatesOf(setup, {
        'from a pod': { from: pod, dst, dport: 80, protocol: 'tcp' },
        'from outside': { from: ext, dst, dport: 80, protocol: 'tcp' },
        'from the node': { from: node, dst, dport: 80, protocol: 'tcp' },
        'a datagram from a pod': { from: pod, dst, dport: 80, protocol: 'udp' },
        'a datagram from the node': { from: node, dst, dport: 80, protocol: 'udp' },
        'rejected in FORWARD': { from: pod, dst, dport: 81, protocol: 'tcp' },
        'rejected in OUTPUT': { from: node, dst, dport: 81, protocol: 'tcp' },
        'a datagram rejected in FORWARD': { from: ext, dst, dport: 81, protocol: 'udp' },
        'a datagram rejected in OUTPUT': { from: node, dst, dport: 81, protocol: 'udp' },
        'dropped in FORWARD': { from: pod, dst, dport: 82, protocol: 'tcp' },
        'dropped in OUTPUT': { from: node, dst, dport: 82, protocol: 'tcp' },
        'of no connection': { from: pod, dst, dport: 80, protocol: 'tcp', isInvalid: true },
        'straight to a proxy port': { from: ext, dst: nodeIP, dport: 20_001, protocol: 'tcp' },
        'to a closed port of the node': { from: ext, dst: nodeIP, dport: 22, protocol: 'tcp' },
        'to a port of the node, from itself': { from: node, dst: nodeIP, dport: 22, protocol: 'udp' },
        'to another port of the portal': { from: pod, dst, dport: 83, protocol: 'tcp' },
        'to the same by the node': { from: node, dst, dport: 83, protocol: 'udp' },
      });
      const outcomes = Object.fromEntries(
        Object.entries(fates).map(([name, { outcome }]) => [name, outcome]),
      );
      expect(outcomes).toEqual({
        'from a pod': 'delivered to proxy port 20001',
        'from outside': 'delivered to proxy port 20001',
        'from the node': 'delivered to proxy port 20001',
        'a datagram from a pod': 'delivered to proxy port 20001',
        'a datagram from the node': 'delivered to proxy port 20001',
        'rejected in FORWARD': 'tcp-reset',
        'rejected in OUTPUT': 'tcp-reset',
        'a datagram rejected in FORWARD': 'port-unreachable',
        'a datagram rejected in OUTPUT': 'port-unreachable',
        'dropped in FORWARD': 'drop',
        'dropped in OUTPUT': 'drop',
        'of no connection': 'drop',
        'straight to a proxy port': 'tcp-reset',
        'to a closed port of the node': 'none',
        'to a port of the node, from itself': 'none',
        'to another port of the portal': 'none',
        'to the same by the node': 'none',
      });
    });

    test('sees at which address a packet is delivered, and only there', async () => {
      const fates = await fatesOf(setup, {
        pod: { from: lab.pod(1), dst, dport: 80, protocol: 'tcp' },
        ext: { from: lab.ext, dst, dport: 80, protocol: 'udp' },
        node: { from: lab.node, dst, dport: 80, protocol: 'tcp' },
        refused: { from: lab.node, dst, dport: 81, protocol: 'tcp' },
      });
      const key = family === 'IPv4' ? 'ipv4' : 'ipv6';
      const redirected = {
        pod: lab.bridge[key],
        ext: lab.node[key],
        node: family === 'IPv4' ? '127.0.0.1' : '::1',
      };
      const isPrivate = capture === 'DNAT';
      for (const name of ['pod', 'ext', 'node'] as const) {
        const address = isPrivate ? PRIVATE[family] : redirected[name];
        expect({ name, ...fates[name]?.deliveredTo }).toEqual({ name, address, port: 20_001 });
      }
      expect(fates['refused']?.deliveredTo).toBeUndefined();
    });
  });

  test.each(FAMILIES)('names the rules that were met, in their order, %s', async (family) => {
    const probes = [{ from: lab.pod(1), dst: PORTAL[family].address, dport: 81, protocol: 'udp' }] as const;
    const [answer] = await kernel.probe({ [family]: rulesOf({ family, capture: 'DNAT' }) }, probes);
    expect(answer?.fate.path).toEqual([
      'nat -A PREROUTING -m comment --comment "to portals" -j PORTALS-1',
      'filter -A FORWARD -j PORTALS-1',
      `filter -A PORTALS-1 -d ${PORTAL[family].all} -p udp -m udp --dport 81 -j REJECT --reject-with ${UNREACHABLE[family]}`,
    ]);
  });

  test('agrees with the tracer on every match and every way through the chains', async () => {
    const ownIPs = [lab.node.ipv4, lab.node.ipv6, lab.bridge.ipv4, lab.bridge.ipv6, '127.0.0.1', '::1'];
    const sources = ['203.0.113.5', '2001:db8:f::5', '203.0.113.130', '2001:db8:f::8005'];
    const targets = [...FAMILIES.map((family) => PORTAL[family].address), ...ownIPs];
    const from = [lab.node, lab.pod(1), lab.pod(2), lab.ext];
    const probes = [80, 81, 90, 95, 100, 443, 20_002].flatMap((dport) =>
      targets.flatMap((dst) => [
        ...from
          // Nobody outside reaches a loopback address.
          .filter((host) => host === lab.node || !['127.0.0.1', '::1'].includes(dst))
          .flatMap((host): Probe[] => [
            { from: host, dst, dport, protocol: 'tcp' },
            { from: host, dst, dport, protocol: 'udp' },
            { from: host, dst, dport, protocol: 'tcp', isInvalid: true },
          ]),
        ...sources
          .filter((src) => src.includes(':') === dst.includes(':') && !['127.0.0.1', '::1'].includes(dst))
          .map((src): Probe => ({ from: lab.ext, src, dst, dport, protocol: 'tcp' })),
      ]),
    );
    const state = { IPv4: everyMatch('IPv4'), IPv6: everyMatch('IPv6') };
    expect(await disagreements(kernel, state, probes)).toEqual([]);
    const answers = await kernel.probe(state, probes);
    for (const family of FAMILIES) {
      const met = new Set(
        answers
          .filter(({ probe }) => probe.dst.includes(':') === (family === 'IPv6'))
          .flatMap(({ fate }) => fate.path.map((rule) => rule.replace(/^\w+ /, ''))),
      );
      const rules = state[family].split('\n').filter((line) => line.startsWith('-A '));
      expect(rules.filter((rule) => !met.has(rule))).toEqual(rulesNeverMet());
    }
  });

  test('leaves nothing of an earlier state', async () => {
    const probes = FAMILIES.flatMap((family): Probe[] =>
      [80, 81, 82].map((dport) => ({
        from: lab.pod(1),
        dst: PORTAL[family].address,
        dport,
        protocol: 'tcp',
      })),
    );
    await kernel.probe({ IPv4: rulesOf({ family: 'IPv4', capture: 'REDIRECT' }) }, probes);
    const answers = await kernel.probe({ IPv6: '*filter\n:INPUT DROP [0:0]\nCOMMIT\n' }, probes);
    for (const { fate } of answers)
      expect(fate).toEqual({ outcome: 'none', deliveredTo: undefined, path: [] });
    const after = await kernel.probe({}, [{ from: lab.ext, dst: lab.node.ipv6, dport: 22, protocol: 'tcp' }]);
    expect(after[0]?.fate.outcome).toBe('none');
  });

  test('sees a policy drop', async () => {
    const probes = [{ from: lab.ext, dst: lab.node.ipv6, dport: 22, protocol: 'tcp' }] as const;
    const [answer] = await kernel.probe({ IPv6: '*filter\n:INPUT DROP [0:0]\nCOMMIT\n' }, probes);
    expect(answer?.fate).toEqual({ outcome: 'drop', deliveredTo: undefined, path: [] });
  });

  test('sees a packet go on to an address that the node does not have', async () => {
    const rules = '*nat\n-A PREROUTING -p tcp -j DNAT --to-destination 192.168.77.9:20001\nCOMMIT\n';
    const probes = [{ from: lab.pod(1), dst: '10.96.0.10', dport: 80, protocol: 'tcp' }] as const;
    const [answer] = await kernel.probe({ IPv4: rules }, probes);
    expect(answer?.fate).toMatchObject({
      outcome: 'sent on to 192.168.77.9 port 20001',
      deliveredTo: undefined,
    });
  });

  test('says where the tracer is wrong: REDIRECT drops where the interface has no address, DNAT does not', async () => {
    await using bare = await createLab({ pods: 1, podLinks: 'unnumbered' });
    await bare.node.run(['ip', 'address', 'add', `${PRIVATE.IPv4}/32`, 'dev', 'lo', 'scope', 'host']);
    await using bareKernel = await KernelFate.open(bare);
    const probes = [{ from: bare.pod(1), dst: PORTAL.IPv4.address, dport: 80, protocol: 'tcp' }] as const;
    const answersTo = async (capture: Setup['capture']): Promise<readonly string[]> =>
      disagreements(bareKernel, { IPv4: rulesOf({ family: 'IPv4', capture }) }, probes);
    expect(await answersTo('DNAT')).toEqual([]);
    const [difference = ''] = await answersTo('REDIRECT');
    expect(difference).toMatch(
      /^tcp pod1 -> 10\.96\.0\.10:80 .* the tracer says delivered to proxy port 20001, by/,
    );
    expect(difference).toContain('\nthe kernel says drop, by');
  });

  describe('does not guess', () => {
    test('about a probe that never reaches the node, or is lost in its routing', async () => {
      await using impatient = await KernelFate.open(lab, { deadlineMs: 200 });
      const probe = { from: lab.ext, dport: 80, protocol: 'tcp' } as const;
      // Nobody answers for this neighbour.
      const nowhere = impatient.probe({}, [{ ...probe, dst: '192.168.77.200' }]);
      await expect(nowhere).rejects.toThrow(
        'waited 200 ms for the end of tcp ext -> 192.168.77.200:80 from ext (never seen)',
      );
      // The node takes nothing from its own address by an interface.
      const martian = impatient.probe({}, [{ ...probe, dst: lab.node.ipv4, src: lab.node.ipv4 }]);
      await expect(martian).rejects.toThrow('(last seen in raw PREROUTING)');
    });

    test('about rules that the kernel refuses', async () => {
      const rules = '*nat\n-A PREROUTING -j NOWHERE\nCOMMIT\n';
      await expect(kernel.probe({ IPv4: rules }, [])).rejects.toThrow(/iptables-nft-restore.*NOWHERE/s);
    });

    test('about tables that it would not empty again', async () => {
      await expect(kernel.probe({ IPv4: '*mangle\nCOMMIT\n' }, [])).rejects.toThrow('*mangle');
    });

    test('about addresses that it would not find again', async () => {
      const probe = { from: lab.pod(1), dst: 'fd00:96:0::a', dport: 80, protocol: 'tcp' } as const;
      await expect(kernel.probe({}, [probe])).rejects.toThrow('fd00:96:0::a');
      await expect(kernel.probe({}, [{ ...probe, dst: 'fd00:96::a', src: '10.0.0.1' }])).rejects.toThrow(
        '10.0.0.1',
      );
    });
  });
});

/** In the text below: they stand behind one that takes everything. */
function rulesNeverMet(): readonly string[] {
  return [
    '-A OUTPUT -p udp -m udp --dport 443 -j REDIRECT --to-ports 20009',
    '-A PORTALS-3 -p tcp -j REDIRECT --to-ports 20007',
  ];
}

/** Rules in which every kind of match decides something, in chains that are left in every way there is. */
function everyMatch(family: Setup['family']): string {
  const { all, block } = PORTAL[family];
  const [source, sources, privateTarget] =
    family === 'IPv4'
      ? ['203.0.113.5/32', '203.0.113.0/25', PRIVATE.IPv4]
      : ['2001:db8:f::5/128', '2001:db8:f::/113', `[${PRIVATE.IPv6}]`];
  return `*nat
:PORTALS-1 - [0:0]
:PORTALS-2 - [0:0]
:PORTALS-3 - [0:0]
-A PREROUTING -m comment --comment "to portals" -j PORTALS-1
-A OUTPUT -m comment --comment "to portals" -j PORTALS-1
-A OUTPUT -p udp -m udp --dport 443 -j ACCEPT
-A OUTPUT -p udp -m udp --dport 443 -j REDIRECT --to-ports 20009
-A PORTALS-1 -p tcp -m tcp --dport 100 -j RETURN
-A PORTALS-1 ! -s ${source} -d ${block} -j PORTALS-2
-A PORTALS-1 -s ${sources} -p tcp -m tcp --dport 80:81 -j REDIRECT --to-ports 20001
-A PORTALS-1 -i cni0 -p tcp -m addrtype --dst-type LOCAL -m tcp --dport 80 -j DNAT --to-destination ${privateTarget}:20002
-A PORTALS-1 -i eth+ -p udp -m addrtype --dst-type LOCAL -j DNAT --to-destination ${family === 'IPv4' ? PRIVATE.IPv4 : PRIVATE.IPv6}
-A PORTALS-1 -p tcp -m addrtype --src-type LOCAL --dst-type LOCAL -m tcp --dport 81 -j REDIRECT --to-ports 20003
-A PORTALS-2 -d ${all} -p tcp -m tcp --dport 90:99 -j PORTALS-3
-A PORTALS-2 ! -i cni0 -p tcp -m tcp --dport 90:99 -j REDIRECT --to-ports 20004
-A PORTALS-2 -p udp -m addrtype --src-type LOCAL -j REDIRECT --to-ports 20005
-A PORTALS-3 -i cni+ -p tcp -m tcp --dport 95 -j DNAT --to-destination ${privateTarget}:20006
-A PORTALS-3 -j RETURN
-A PORTALS-3 -p tcp -j REDIRECT --to-ports 20007
COMMIT
*filter
:PORTALS-1 - [0:0]
:PORTALS-2 - [0:0]
-A INPUT -m conntrack --ctstate INVALID,NEW -m comment --comment "new ones" -j PORTALS-1
-A FORWARD -m conntrack --ctstate INVALID,NEW -m comment --comment "new ones" -j PORTALS-1
-A OUTPUT ! -d ${all} -p udp -m udp --dport 95 -j REJECT --reject-with ${UNREACHABLE[family]}
-A OUTPUT -m conntrack --ctstate DNAT -j PORTALS-2
-A PORTALS-1 -m conntrack --ctstate INVALID -j PORTALS-2
-A PORTALS-1 -m conntrack --ctstate DNAT --ctorigdst ${all.replace(/\/.*/, '')} -j ACCEPT
-A PORTALS-1 -p tcp -m conntrack --ctorigdst ${block} -m tcp --dport 100 --tcp-flags FIN,SYN,RST,ACK SYN -j REJECT --reject-with tcp-reset
-A PORTALS-1 -p tcp -m tcp --dport 20001:20003 -j PORTALS-2
-A PORTALS-1 -i lo -p tcp -m tcp --dport 443 -j DROP
-A PORTALS-2 -m conntrack --ctorigdst ${block} -j RETURN
-A PORTALS-2 -p tcp -m conntrack --ctstate INVALID --ctorigdst ${block} -m tcp --dport 80:89 -j DROP
-A PORTALS-2 -s ${sources} -j ACCEPT
-A PORTALS-2 -i eth0 -p tcp -m tcp --tcp-flags SYN,ACK SYN -j REJECT --reject-with tcp-reset
COMMIT
`;
}
