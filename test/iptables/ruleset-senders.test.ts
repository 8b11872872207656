/** Rules that look at the sender, at the local address, or at nothing because nobody may come: chain by chain. */
import { describe, expect, test } from 'vitest';
import { type DesiredState, buildDesiredState } from '../../src/desired/desired-state.ts';
import type { NodeSettings } from '../../src/desired/node-view.ts';
import { CHAIN_PREFIX, type ChainName, type TableName, renderRuleSpec } from '../../src/iptables/rule.ts';
import { buildRuleSet } from '../../src/iptables/ruleset.ts';
import type { IpFamily } from '../../src/model/address.ts';
import type { Endpoint } from '../../src/model/endpoint.ts';
import type { LocalDetection } from '../../src/model/local-detection.ts';
import type { ServicePort } from '../../src/model/service-port.ts';
import {
  EVERY_PORTAL,
  HERE_AND_ELSEWHERE,
  ONLY_ELSEWHERE,
  desiredOf,
  makeWeb,
} from '../desired/policy-fixture.ts';
import {
  type NodeTweak,
  cidrs,
  dnatTo,
  makeNodeInfo,
  makeNodeView,
  proxyPortsOf,
  ruleSetOf,
  firstLoadOf,
} from '../support/rule-fixture.ts';
import { makePacket, tracerOf } from '../support/packet-tracer.ts';
import { type ServicePortTweak, addresses, makeServicePort, makeSnapshot } from '../support/snapshots.ts';

const LOCAL: ServicePortTweak = { externalTrafficPolicy: 'Local' };
/** Proxy ports are given out in the order of the listeners: IPv4 first, and first to what comes first. */
const CLUSTER_PORT = 20_001;
const LOCAL_PORT = 20_002;

interface Asked {
  readonly table?: TableName;
  readonly family?: IpFamily;
}

/** The chains of a table by name without prefix, each rule as its text. */
function chainsOf(
  desired: DesiredState,
  { table = 'nat', family = 'IPv4' }: Asked = {},
): Record<string, readonly string[]> {
  const { chains } = ruleSetOf(desired, family)[table];
  return Object.fromEntries(
    [...chains].map(([chain, rules]) => [
      chain.slice(CHAIN_PREFIX.length),
      rules.map((rule) => renderRuleSpec(rule, family)),
    ]),
  );
}

/** Those whose names match. */
function chainsLike(
  pattern: RegExp,
  desired: DesiredState,
  asked: Asked = {},
): readonly (readonly string[])[] {
  return Object.entries(chainsOf(desired, asked))
    .filter(([name]) => pattern.test(name))
    .map(([, rules]) => rules);
}

const BY_SENDER = /^E[0-9a-f]{11}$/;
const BY_RANGE = /^F[0-9a-f]{11}$/;

/** Every rule of a table that decides something, as its text. */
function verdictsOf(desired: DesiredState, asked: Asked & { readonly kinds: readonly string[] }): string[] {
  const { table = 'nat', family = 'IPv4', kinds } = asked;
  return [...ruleSetOf(desired, family)[table].chains.values()]
    .flat()
    .filter(({ target, comment }) => kinds.includes(target.kind) && comment.startsWith('default/'))
    .filter(({ comment }) => !comment.endsWith('is not for stray packets'))
    .map((rule) => renderRuleSpec(rule, family));
}

function settings(tweak: Partial<NodeSettings>, node?: NodeTweak['node']): NodeTweak {
  return { settings: tweak, ...(node === undefined ? {} : { node }) };
}

describe('the chain that tells senders apart', () => {
  const FROM_NODE = `-p tcp -m addrtype --src-type LOCAL -m comment --comment "default/web from this node" -j REDIRECT --to-ports ${CLUSTER_PORT}`;
  const FROM_ELSEWHERE = `-p tcp -m comment --comment "default/web from elsewhere" -j REDIRECT --to-ports ${LOCAL_PORT}`;
  const fromPods = (match: string): string =>
    `${match} -p tcp -m comment --comment "default/web from pods" -j REDIRECT --to-ports ${CLUSTER_PORT}`;

  test.each<{ name: string; detection: LocalDetection; pods: readonly string[] }>([
    { name: 'of pods nothing where they cannot be told', detection: { kind: 'none' }, pods: [] },
    {
      name: 'pods by the range of the cluster in this family',
      detection: { kind: 'cidrs', cidrs: cidrs('10.244.0.0/16', 'fd00:244::/48') },
      pods: [fromPods('-s 10.244.0.0/16')],
    },
    {
      name: 'pods by each range of the Node',
      detection: { kind: 'nodeCIDR' },
      pods: [fromPods('-s 10.244.1.0/24'), fromPods('-s 10.244.9.0/24')],
    },
    {
      name: 'pods by their interface',
      detection: { kind: 'interface', name: 'cni0' },
      pods: [fromPods('-i cni0')],
    },
    {
      name: 'pods by how the names of their interfaces begin',
      detection: { kind: 'interface', name: 'cali+' },
      pods: [fromPods('-i cali+')],
    },
  ])('knows $name, then the node, then everybody else', ({ detection, pods }) => {
    const node = settings(
      { localDetection: detection },
      makeNodeInfo({ podCIDRs: cidrs('10.244.1.0/24', '10.244.9.0/24', 'fd00:244:1::/64') }),
    );
    const desired = desiredOf(makeWeb(LOCAL), HERE_AND_ELSEWHERE, node);
    expect(chainsLike(BY_SENDER, desired)).toEqual([[...pods, FROM_NODE, FROM_ELSEWHERE]]);
  });

  test('ends without a word for everybody else where there is no endpoint here', () => {
    const desired = desiredOf(makeWeb(LOCAL), ONLY_ELSEWHERE);
    expect(chainsLike(BY_SENDER, desired)).toEqual([[FROM_NODE]]);
  });

  test('is one for all external portals of a Service port', () => {
    const chains = chainsOf(desiredOf(makeWeb(LOCAL), HERE_AND_ELSEWHERE));
    const [name] = Object.keys(chains).filter((chain) => BY_SENDER.test(chain));
    const jumping = Object.values(chains)
      .flat()
      .filter((rule) => rule.endsWith(`-j ${CHAIN_PREFIX}${name}`));
    expect(jumping).toHaveLength(3);
  });

  test('is another for each Service port', () => {
    const other = makeServicePort(
      { name: 'other' },
      { clusterIPs: addresses('10.96.0.11'), nodePort: 30_081, ...LOCAL },
    );
    const desired = buildDesiredState(
      makeSnapshot([makeWeb(LOCAL), HERE_AND_ELSEWHERE], [other, HERE_AND_ELSEWHERE]),
      makeNodeView(),
    );
    expect(chainsLike(BY_SENDER, desired)).toHaveLength(2);
  });

  test('is another for each portal whose destination must be known', () => {
    const desired = desiredOf(makeWeb({ ...LOCAL, proxyProtocol: 'v2' }), HERE_AND_ELSEWHERE);
    // The load balancer address, the externalIP, and the NodePort at loopback and at the node.
    expect(chainsLike(BY_SENDER, desired)).toHaveLength(4);
  });

  test('is not needed under policy Cluster', () => {
    const node = settings({ localDetection: { kind: 'interface', name: 'cni0' } });
    const desired = desiredOf(makeWeb(), HERE_AND_ELSEWHERE, node);
    expect(chainsLike(BY_SENDER, desired)).toEqual([]);
  });
});

describe('clusterIPs that are not for clients outside', () => {
  const node = settings({ externalClusterIP: false, localDetection: { kind: 'interface', name: 'cni0' } });

  test('lead to a chain that knows pods and the node, and drop everybody else on the way through', () => {
    const desired = desiredOf(makeWeb(), HERE_AND_ELSEWHERE, node);
    expect(chainsLike(BY_SENDER, desired)).toEqual([
      [
        `-i cni0 -p tcp -m comment --comment "default/web from pods" -j REDIRECT --to-ports ${CLUSTER_PORT}`,
        `-p tcp -m addrtype --src-type LOCAL -m comment --comment "default/web from this node" -j REDIRECT --to-ports ${CLUSTER_PORT}`,
      ],
    ]);
    expect(chainsOf(desired, { table: 'filter' })['R10.96.0']).toEqual([
      '-d 10.96.0.10/32 -p tcp -m comment --comment "default/web is not for clients outside" -m tcp --dport 80 -j DROP',
    ]);
  });

  test('but otherwise lead straight to the proxy port', () => {
    const desired = desiredOf(makeWeb(), HERE_AND_ELSEWHERE);
    expect(chainsOf(desired)['10.96.0']).toEqual([
      `-d 10.96.0.10/32 -p tcp -m comment --comment "default/web" -m tcp --dport 80 -j REDIRECT --to-ports ${CLUSTER_PORT}`,
    ]);
    expect(chainsOf(desired, { table: 'filter' })['R10.96.0']).toBeUndefined();
  });
});

describe('source ranges', () => {
  const ranges = (IPv4?: readonly string[], IPv6?: readonly string[]): ServicePortTweak => ({
    loadBalancerSourceRanges: { IPv4: IPv4 && cidrs(...IPv4), IPv6: IPv6 && cidrs(...IPv6) },
  });
  const from = (source: string, port: number): string =>
    `-s ${source} -p tcp -m comment --comment "default/web loadBalancerSourceRanges" -j REDIRECT --to-ports ${port}`;

  test('lead each to the proxy port, and whoever is in none is dropped', () => {
    const desired = desiredOf(makeWeb(ranges(['203.0.113.0/24', '203.0.114.1/32'])), HERE_AND_ELSEWHERE);
    expect(chainsLike(BY_RANGE, desired)).toEqual([
      [from('203.0.113.0/24', CLUSTER_PORT), from('203.0.114.1/32', CLUSTER_PORT)],
    ]);
    expect(chainsOf(desired, { table: 'filter' })['X198.51.100']).toEqual([
      '-d 198.51.100.7/32 -p tcp -m comment --comment "default/web is only for its loadBalancerSourceRanges" -m tcp --dport 80 -j DROP',
    ]);
  });

  test('of one family leave the other open', () => {
    const desired = desiredOf(makeWeb(ranges(['203.0.113.0/24'])), HERE_AND_ELSEWHERE);
    expect(chainsLike(BY_RANGE, desired, { family: 'IPv6' })).toEqual([]);
    expect(verdictsOf(desired, { table: 'filter', family: 'IPv6', kinds: ['drop', 'reject'] })).toEqual([]);
  });

  test('that hold the node let its load balancer addresses in too', () => {
    const desired = desiredOf(makeWeb(ranges(['192.168.77.0/24'])), HERE_AND_ELSEWHERE);
    expect(chainsLike(BY_RANGE, desired)).toEqual([
      [from('192.168.77.0/24', CLUSTER_PORT), from('198.51.100.7/32', CLUSTER_PORT)],
    ]);
  });

  test('of everybody are a rule for everybody, as iptables prints it', () => {
    const desired = desiredOf(makeWeb(ranges(['203.0.113.0/24', '0.0.0.0/0'])), HERE_AND_ELSEWHERE);
    const [rules] = chainsLike(BY_RANGE, desired);
    expect(rules?.[1]).toBe(
      `-p tcp -m comment --comment "default/web loadBalancerSourceRanges" -j REDIRECT --to-ports ${CLUSTER_PORT}`,
    );
  });

  test('that let nobody in are an empty chain', () => {
    const desired = desiredOf(makeWeb(ranges([])), HERE_AND_ELSEWHERE);
    expect(chainsLike(BY_RANGE, desired)).toEqual([[]]);
    expect(verdictsOf(desired, { table: 'filter', kinds: ['drop'] })).toHaveLength(1);
  });

  test('are a chain for each load balancer address, and none for the other portals', () => {
    const web = makeWeb({
      ...ranges(['203.0.113.0/24']),
      loadBalancerIPs: addresses('198.51.100.7', '198.51.100.8'),
    });
    const desired = desiredOf(web, HERE_AND_ELSEWHERE);
    expect(chainsLike(BY_RANGE, desired)).toHaveLength(2);
    expect(chainsOf(desired)['192.0.2']).toEqual([
      `-d 192.0.2.7/32 -p tcp -m comment --comment "default/web" -m tcp --dport 80 -j REDIRECT --to-ports ${CLUSTER_PORT}`,
    ]);
    expect(chainsOf(desired)['NP-T30080']).toEqual([
      `-p tcp -m comment --comment "default/web" -m tcp --dport 30080 -j REDIRECT --to-ports ${CLUSTER_PORT}`,
    ]);
  });

  test('come before the question where a sender is, under policy Local', () => {
    const chains = chainsOf(
      desiredOf(makeWeb({ ...LOCAL, ...ranges(['203.0.113.0/24']) }), HERE_AND_ELSEWHERE),
    );
    const [bySender] = Object.keys(chains).filter((name) => BY_SENDER.test(name));
    const [fence] = Object.entries(chains).filter(([name]) => BY_RANGE.test(name));
    expect(fence?.[1]).toEqual([
      `-s 203.0.113.0/24 -p tcp -m comment --comment "default/web loadBalancerSourceRanges" -j ${CHAIN_PREFIX}${bySender}`,
    ]);
    expect(chains['198.51.100']).toEqual([
      `-d 198.51.100.7/32 -p tcp -m comment --comment "default/web" -m tcp --dport 80 -j ${CHAIN_PREFIX}${fence?.[0]}`,
    ]);
  });

  test('are no question while there are no endpoints: everybody hears that', () => {
    const desired = desiredOf(makeWeb(ranges(['203.0.113.0/24'])), []);
    expect(chainsLike(BY_RANGE, desired)).toEqual([]);
    expect(chainsOf(desired, { table: 'filter' })['X198.51.100']).toEqual([
      '-d 198.51.100.7/32 -p tcp -m comment --comment "default/web has no endpoints" -m tcp --dport 80 -j REJECT --reject-with tcp-reset',
    ]);
  });
});

describe('what is refused', () => {
  const refusals = (servicePort: ServicePort, endpoints: readonly Endpoint[], family: IpFamily = 'IPv4') =>
    verdictsOf(desiredOf(servicePort, endpoints), {
      table: 'filter',
      family,
      kinds: ['drop', 'reject'],
    }).filter((text) => !text.includes(' --sport '));
  const udp = (tweak: ServicePortTweak): ServicePort =>
    makeServicePort({ name: 'web', protocol: 'UDP' }, { ...EVERY_PORTAL, ...tweak });

  test.each<{
    name: string;
    servicePort: ServicePort;
    endpoints: readonly Endpoint[];
    texts: readonly string[];
  }>([
    {
      name: 'is nothing where there are endpoints',
      servicePort: makeWeb(),
      endpoints: ONLY_ELSEWHERE,
      texts: [],
    },
    {
      name: 'without endpoints is refused by a reset to TCP, at every portal',
      servicePort: makeWeb(),
      endpoints: [],
      texts: [
        '-d 10.96.0.10/32 -p tcp -m comment --comment "default/web has no endpoints" -m tcp --dport 80 -j REJECT --reject-with tcp-reset',
        '-d 192.0.2.7/32 -p tcp -m comment --comment "default/web has no endpoints" -m tcp --dport 80 -j REJECT --reject-with tcp-reset',
        '-d 198.51.100.7/32 -p tcp -m comment --comment "default/web has no endpoints" -m tcp --dport 80 -j REJECT --reject-with tcp-reset',
        '-p tcp -m comment --comment "default/web has no endpoints" -m tcp --dport 30080 -j REJECT --reject-with tcp-reset',
      ],
    },
    {
      name: 'without endpoints here, internal traffic being Local, is dropped at the clusterIP',
      servicePort: makeWeb({ internalTrafficPolicy: 'Local' }),
      endpoints: ONLY_ELSEWHERE,
      texts: [
        '-d 10.96.0.10/32 -p tcp -m comment --comment "default/web has no local endpoints" -m tcp --dport 80 -j DROP',
      ],
    },
    {
      name: 'without endpoints here, external traffic being Local, is dropped at every other portal',
      servicePort: makeWeb(LOCAL),
      endpoints: ONLY_ELSEWHERE,
      texts: [
        '-d 192.0.2.7/32 -p tcp -m comment --comment "default/web has no local endpoints" -m tcp --dport 80 -j DROP',
        '-d 198.51.100.7/32 -p tcp -m comment --comment "default/web has no local endpoints" -m tcp --dport 80 -j DROP',
        '-p tcp -m comment --comment "default/web has no local endpoints" -m tcp --dport 30080 -j DROP',
      ],
    },
    {
      name: 'of UDP without endpoints hears that the port is unreachable',
      servicePort: udp({ externalIPs: [], loadBalancerIPs: [], nodePort: 0 }),
      endpoints: [],
      texts: [
        '-d 10.96.0.10/32 -p udp -m comment --comment "default/web has no endpoints" -m udp --dport 80 -j REJECT --reject-with icmp-port-unreachable',
      ],
    },
    {
      name: 'of UDP without endpoints here is dropped like TCP',
      servicePort: udp({ externalIPs: [], loadBalancerIPs: [], ...LOCAL }),
      endpoints: ONLY_ELSEWHERE,
      texts: [
        '-p udp -m comment --comment "default/web has no local endpoints" -m udp --dport 30080 -j DROP',
      ],
    },
  ])('$name', ({ servicePort, endpoints, texts }) => {
    expect(refusals(servicePort, endpoints)).toEqual(texts);
  });

  test('in IPv6 hears it in the ICMP of that family', () => {
    const servicePort = udp({ externalIPs: [], loadBalancerIPs: [], nodePort: 0 });
    expect(refusals(servicePort, [], 'IPv6')).toEqual([
      '-d fd00:96::a/128 -p udp -m comment --comment "default/web has no endpoints" -m udp --dport 80 -j REJECT --reject-with icmp6-port-unreachable',
    ]);
  });

  test.each<{ name: string; missing: 'cluster' | 'local' }>([
    { name: 'of those inside', missing: 'cluster' },
    { name: 'of those outside', missing: 'local' },
  ])('because the listener $name could not be opened is rejected, for everybody', ({ missing }) => {
    const desired = desiredOf(makeWeb(LOCAL), HERE_AND_ELSEWHERE);
    const { proxyPorts } = proxyPortsOf(desired);
    const open = new Map([...proxyPorts].filter(([key]) => !key.endsWith(`IPv4/${missing}`)));
    const { nat, filter } = buildRuleSet('IPv4', {
      capture: desired.capture,
      proxyPorts: open,
      guardedPorts: [],
      diversion: { kind: 'redirect' },
    });
    const rejected = (chain: ChainName): readonly string[] =>
      (filter.chains.get(chain) ?? []).map(({ comment, target }) => `${comment}: ${target.kind}`);
    expect(rejected(`${CHAIN_PREFIX}X192.0.2`)).toEqual(['default/web has no listener: reject']);
    expect(rejected(`${CHAIN_PREFIX}XNP-T30080`)).toEqual(['default/web has no listener: reject']);
    expect(nat.chains.get(`${CHAIN_PREFIX}192.0.2`)).toBeUndefined();
  });
});

describe('NodePorts are entered by', () => {
  const entrance = (node: NodeTweak, asked: Asked, chain = 'SERVICES'): readonly string[] =>
    (chainsOf(desiredOf(makeWeb(), HERE_AND_ELSEWHERE, node), asked)[chain] ?? []).filter((rule) =>
      /NodePorts/.test(rule),
    );
  const jump = (match: string): string =>
    `${match}-m addrtype --dst-type LOCAL -m comment --comment "NodePorts: after the addresses" -j ${CHAIN_PREFIX}NODEPORTS`;
  const noLoopback = (range: string): string =>
    `-d ${range} -m comment --comment "no NodePorts on loopback addresses" -j RETURN`;

  test.each<{ name: string; node: NodeTweak; IPv4: readonly string[]; IPv6: readonly string[] }>([
    { name: 'every local address unless told', node: {}, IPv4: [jump('')], IPv6: [jump('')] },
    {
      name: 'the local addresses in each range, and all of a family without',
      node: settings({ nodePortAddresses: cidrs('192.168.0.0/16', '10.0.0.0/8') }),
      IPv4: [jump('-d 192.168.0.0/16 '), jump('-d 10.0.0.0/8 ')],
      IPv6: [jump('')],
    },
    {
      name: 'the primary addresses',
      node: settings({ nodePortAddresses: 'primary' }, makeNodeInfo()),
      IPv4: [jump('-d 192.168.77.2/32 ')],
      IPv6: [jump('-d fd00:77::2/128 ')],
    },
    {
      name: 'nothing where no address is known',
      node: settings(
        { nodePortAddresses: 'primary' },
        makeNodeInfo({ internalIPs: addresses('fd00:77::2') }),
      ),
      IPv4: [],
      IPv6: [jump('-d fd00:77::2/128 ')],
    },
    {
      name: 'every local address but loopback when that is switched off',
      node: settings({ localhostNodePorts: false }),
      IPv4: [noLoopback('127.0.0.0/8'), jump('')],
      IPv6: [noLoopback('::1/128'), jump('')],
    },
    {
      name: 'no loopback address when that is switched off, whatever the ranges say',
      node: settings({
        localhostNodePorts: false,
        nodePortAddresses: cidrs('127.0.0.0/8', '192.168.0.0/16', 'fd00:77::/64'),
      }),
      IPv4: [noLoopback('127.0.0.0/8'), jump('-d 127.0.0.0/8 '), jump('-d 192.168.0.0/16 ')],
      IPv6: [noLoopback('::1/128'), jump('-d fd00:77::/64 ')],
    },
  ])('$name', ({ node, IPv4, IPv6 }) => {
    expect(entrance(node, { family: 'IPv4' })).toEqual(IPv4);
    expect(entrance(node, { family: 'IPv6' })).toEqual(IPv6);
    // Stray packets are those to the same places.
    expect(entrance(node, { family: 'IPv4', table: 'filter' }, 'INVALID')).toEqual(IPv4);
  });

  test('stand after all addresses', () => {
    const rules = chainsOf(desiredOf(makeWeb(), HERE_AND_ELSEWHERE))['SERVICES'] ?? [];
    expect(rules.findIndex((rule) => /NodePorts/.test(rule))).toBe(rules.length - 1);
  });

  test('are a rule for each local address where the destination must be known', () => {
    const desired = desiredOf(makeWeb({ proxyProtocol: 'v2' }), HERE_AND_ELSEWHERE);
    const ports = proxyPortsOf(desired).proxyPorts;
    const rule = (address: string): string => {
      const port = [...ports].find(([key]) => key.endsWith(`${address}:30080`))?.[1];
      return `-d ${address}/32 -p tcp -m comment --comment "default/web" -m tcp --dport 30080 -j REDIRECT --to-ports ${port}`;
    };
    expect(chainsOf(desired)['NP-T30080']).toEqual([rule('127.0.0.1'), rule('192.168.77.2')]);
  });
});

describe('health checks', () => {
  const checked = (name: string, last: number, port: number): ServicePort =>
    makeServicePort(
      { name },
      {
        clusterIPs: addresses(`10.96.0.${last}`, `fd00:96::${last}`),
        externalTrafficPolicy: 'Local',
        healthCheckNodePort: port,
      },
    );
  const accept = (name: string, port: number): string =>
    `-p tcp -m conntrack --ctstate NEW -m comment --comment "default/${name} health check" -m tcp --dport ${port} -j ACCEPT`;

  test('are let in at INPUT, block by block, in both families, also without endpoints', () => {
    const desired = buildDesiredState(
      makeSnapshot(
        [checked('a', 1, 31_000), []],
        [checked('b', 2, 31_001), []],
        [checked('c', 3, 32_000), []],
      ),
      makeNodeView(),
    );
    for (const family of ['IPv4', 'IPv6'] as const) {
      const chains = chainsOf(desired, { table: 'filter', family });
      expect(chains['H-T30976']).toEqual([accept('a', 31_000), accept('b', 31_001)]);
      expect(chains['H-T32000']).toEqual([accept('c', 32_000)]);
      const jumps = (chains['INPUT'] ?? []).filter((rule) => rule.includes(`${CHAIN_PREFIX}H-`));
      expect(jumps).toHaveLength(2);
      expect((chains['FORWARD'] ?? []).filter((rule) => rule.includes(`${CHAIN_PREFIX}H-`))).toEqual([]);
    }
  });

  test('have no rule in a family that the Service is not of, nor without a port for them', () => {
    const desired = desiredOf(
      makeWeb({ ...LOCAL, healthCheckNodePort: 31_000, clusterIPs: addresses('10.96.0.10') }),
      [],
    );
    expect(chainsLike(/^H-/, desired, { table: 'filter' })).toHaveLength(1);
    expect(chainsLike(/^H-/, desired, { table: 'filter', family: 'IPv6' })).toEqual([]);
    const without = desiredOf(makeWeb(LOCAL), HERE_AND_ELSEWHERE);
    expect(chainsLike(/^H-/, without, { table: 'filter' })).toEqual([]);
  });
});

test('every diverting rule of a way that translates leads to the private address', () => {
  const desired = desiredOf(makeWeb(LOCAL), HERE_AND_ELSEWHERE);
  for (const family of ['IPv4', 'IPv6'] as const) {
    const diversion = dnatTo(family);
    const targets = [...ruleSetOf(desired, family, diversion).nat.chains.values()]
      .flat()
      .map(({ target }) => target)
      .filter(({ kind }) => kind !== 'jump');
    expect(new Set(targets.map((target) => JSON.stringify({ ...target, port: 0 })))).toEqual(
      new Set([JSON.stringify({ ...diversion, port: 0 })]),
    );
  }
});

test('what a UDP proxy port sends in no flow is dropped, and what others send by that port is not', () => {
  const desired = desiredOf(makeServicePort({ name: 'web', protocol: 'UDP' }), HERE_AND_ELSEWHERE);
  const tracer = tracerOf(firstLoadOf(ruleSetOf(desired)));
  const reply = {
    src: '192.168.77.2',
    dst: '192.168.77.9',
    dport: 40_000,
    sport: 20_001,
    protocol: 'udp',
  } as const;
  expect(tracer.trace('output', makePacket(reply)).verdict).toBe('drop');
  expect(tracer.trace('output', makePacket({ ...reply, ctstate: 'ESTABLISHED' })).verdict).toBe('none');
  expect(tracer.trace('output', makePacket({ ...reply, sport: 20_002 })).verdict).toBe('none');
  expect(tracer.trace('forward', makePacket({ ...reply, src: '10.244.1.11' })).verdict).toBe('none');
});
