/**
 * Who gets where: packets of pods, of the node and of clients outside, to every kind of portal, under every policy,
 * walked through the rendered rules as the kernel would. In both families and with both ways of diverting.
 */
import { describe, expect, test } from 'vitest';
import type { DesiredState } from '../../src/desired/desired-state.ts';
import type { NodeSettings } from '../../src/desired/node-view.ts';
import { CAPTURE_ADDRESSES } from '../../src/host/capture-address.ts';
import type { Diversion } from '../../src/iptables/portal-rules.ts';
import type { IpFamily } from '../../src/model/address.ts';
import type { Endpoint } from '../../src/model/endpoint.ts';
import type { LocalDetection } from '../../src/model/local-detection.ts';
import type { ServicePort } from '../../src/model/service-port.ts';
import { HERE_AND_ELSEWHERE, ONLY_ELSEWHERE, desiredOf, makeWeb } from '../desired/policy-fixture.ts';
import { type Hook, type Packet, type PacketTracer, makePacket, tracerOf } from '../support/packet-tracer.ts';
import {
  NODE_ADDRESSES,
  type NodeTweak,
  cidrs,
  dnatTo,
  firstLoadOf,
  makeNodeInfo,
  proxyPortsOf,
  ruleSetOf,
} from '../support/rule-fixture.ts';
import { type ServicePortTweak, addresses } from '../support/snapshots.ts';

interface World {
  readonly name: string;
  readonly family: IpFamily;
  readonly diversion: Diversion;
}

const WORLDS: readonly World[] = (['IPv4', 'IPv6'] as const).flatMap((family) => [
  { name: `${family}, redirected`, family, diversion: { kind: 'redirect' } as const },
  { name: `${family}, translated`, family, diversion: dnatTo(family) },
]);

type Sender = 'a pod here' | 'a pod elsewhere' | 'the node' | 'a client outside';
type Place = 'clusterIP' | 'externalIP' | 'loadBalancerIP' | 'NodePort' | 'NodePort at loopback';

const SENDERS: Readonly<Record<Sender, Readonly<Record<IpFamily, string>> & { readonly hook: Hook }>> = {
  'a pod here': { hook: 'prerouting', IPv4: '10.244.1.11', IPv6: 'fd00:244:1::11' },
  'a pod elsewhere': { hook: 'prerouting', IPv4: '10.244.2.11', IPv6: 'fd00:244:2::11' },
  'the node': { hook: 'output', IPv4: '192.168.77.2', IPv6: 'fd00:77::2' },
  'a client outside': { hook: 'prerouting', IPv4: '203.0.113.9', IPv6: '2001:db8:2::9' },
};

const PLACES: Readonly<Record<Place, Readonly<Record<IpFamily, string>> & { readonly dport: number }>> = {
  clusterIP: { IPv4: '10.96.0.10', IPv6: 'fd00:96::a', dport: 80 },
  externalIP: { IPv4: '192.0.2.7', IPv6: '2001:db8::7', dport: 80 },
  loadBalancerIP: { IPv4: '198.51.100.7', IPv6: '2001:db8:1::7', dport: 80 },
  NodePort: { IPv4: '192.168.77.2', IPv6: 'fd00:77::2', dport: 30_080 },
  'NodePort at loopback': { IPv4: '127.0.0.1', IPv6: '::1', dport: 30_080 },
};

/** How the pods of this node are told. */
const BY_RANGE: LocalDetection = { kind: 'nodeCIDR' };
const BY_INTERFACE: LocalDetection = { kind: 'interface', name: 'cni+' };

function isOfNode(address: string): boolean {
  return NODE_ADDRESSES.includes(address);
}

/** The rules of one Service port, and what becomes of packets there. */
class Walked {
  readonly #world: World;
  readonly #desired: DesiredState;
  readonly tracer: PacketTracer;

  constructor(world: World, desired: DesiredState) {
    this.#world = world;
    this.#desired = desired;
    const text = firstLoadOf(ruleSetOf(desired, world.family, world.diversion));
    this.tracer = tracerOf(text, world.family === 'IPv4' ? 4 : 6);
  }

  /** `cluster`, `local` (its listener), `drop`, `tcp-reset`, or `untouched`. */
  outcome(sender: Sender, place: Place, tweak: Partial<Packet> = {}): string {
    const { family, diversion } = this.#world;
    const { hook } = SENDERS[sender];
    const dst = tweak.dst ?? PLACES[place][family];
    const { verdict, deliveredTo } = this.tracer.trace(
      hook,
      makePacket({
        src: SENDERS[sender][family],
        dst,
        dport: PLACES[place].dport,
        isDstLocal: isOfNode(dst),
        inInterface: sender === 'a pod here' ? 'cni0' : 'eth0',
        ...tweak,
      }),
    );
    if (deliveredTo === undefined) return verdict === 'none' ? 'untouched' : verdict;
    if (verdict !== 'accept') throw new Error(`diverted, and ${verdict} at the proxy port`);
    if (diversion.kind === 'dnat' && deliveredTo.address !== diversion.address)
      throw new Error(`translated to ${deliveredTo.address}`);
    return this.listenerAt(deliveredTo.port);
  }

  /** What of its key comes after the Service port and family. */
  listenerAt(port: number): string {
    const { proxyPorts } = proxyPortsOf(this.#desired);
    const [key] = [...proxyPorts].find(([, own]) => own === port) ?? [];
    if (key === undefined) throw new Error(`nobody listens on ${port}`);
    return key.split('/').slice(4).join('/');
  }
}

interface Made {
  readonly service?: ServicePortTweak;
  readonly endpoints?: readonly Endpoint[];
  readonly settings?: Partial<NodeSettings>;
}

function walk(world: World, { service = {}, endpoints = HERE_AND_ELSEWHERE, settings = {} }: Made): Walked {
  const node: NodeTweak = { settings: { localDetection: BY_RANGE, ...settings }, node: makeNodeInfo() };
  return new Walked(world, desiredOf(makeWeb(service), endpoints, node));
}

const EXTERNAL: readonly Place[] = ['externalIP', 'loadBalancerIP', 'NodePort'];
const EVERYBODY: readonly Sender[] = ['a pod here', 'a pod elsewhere', 'the node', 'a client outside'];

/** For each sender and place, what becomes of the packet. */
function outcomes(walked: Walked, senders: readonly Sender[], places: readonly Place[]): readonly string[] {
  return [...new Set(senders.flatMap((sender) => places.map((place) => walked.outcome(sender, place))))];
}

describe.each(WORLDS)('$name:', (world) => {
  describe('traffic to the clusterIP', () => {
    test.each<{ name: string; made: Made; expected: string }>([
      { name: 'goes to the cluster under policy Cluster', made: {}, expected: 'cluster' },
      {
        name: 'goes to this node under policy Local, whoever sends',
        made: { service: { internalTrafficPolicy: 'Local' } },
        expected: 'local',
      },
      {
        name: 'is dropped under policy Local without an endpoint here, whoever sends',
        made: { service: { internalTrafficPolicy: 'Local' }, endpoints: ONLY_ELSEWHERE },
        expected: 'drop',
      },
      {
        name: 'goes to the cluster whatever the external policy is',
        made: { service: { externalTrafficPolicy: 'Local' }, endpoints: ONLY_ELSEWHERE },
        expected: 'cluster',
      },
      { name: 'is refused without endpoints', made: { endpoints: [] }, expected: 'tcp-reset' },
      {
        name: 'is refused without endpoints under policy Local too',
        made: { service: { internalTrafficPolicy: 'Local' }, endpoints: [] },
        expected: 'tcp-reset',
      },
    ])('$name', ({ made, expected }) => {
      expect(outcomes(walk(world, made), EVERYBODY, ['clusterIP'])).toEqual([expected]);
    });
  });

  describe('external traffic', () => {
    test.each<{ name: string; made: Made; inside: string; outside: string }>([
      { name: 'goes to the cluster under policy Cluster', made: {}, inside: 'cluster', outside: 'cluster' },
      {
        name: 'goes to the cluster whatever the internal policy is',
        made: { service: { internalTrafficPolicy: 'Local' }, endpoints: ONLY_ELSEWHERE },
        inside: 'cluster',
        outside: 'cluster',
      },
      {
        name: 'goes to this node under policy Local, but for this node and its pods',
        made: { service: { externalTrafficPolicy: 'Local' } },
        inside: 'cluster',
        outside: 'local',
      },
      {
        name: 'is dropped under policy Local without an endpoint here, but for this node and its pods',
        made: { service: { externalTrafficPolicy: 'Local' }, endpoints: ONLY_ELSEWHERE },
        inside: 'cluster',
        outside: 'drop',
      },
      {
        name: 'is refused without endpoints',
        made: { endpoints: [] },
        inside: 'tcp-reset',
        outside: 'tcp-reset',
      },
      {
        name: 'is refused without endpoints under policy Local too',
        made: { service: { externalTrafficPolicy: 'Local' }, endpoints: [] },
        inside: 'tcp-reset',
        outside: 'tcp-reset',
      },
    ])('$name', ({ made, inside, outside }) => {
      for (const localDetection of [BY_RANGE, BY_INTERFACE]) {
        const walked = walk(world, { ...made, settings: { localDetection } });
        expect(outcomes(walked, ['a pod here', 'the node'], EXTERNAL)).toEqual([inside]);
        expect(outcomes(walked, ['a pod elsewhere', 'a client outside'], EXTERNAL)).toEqual([outside]);
        expect(outcomes(walked, ['the node'], ['NodePort at loopback'])).toEqual([inside]);
      }
    });

    test('of pods goes as that of everybody else where pods cannot be told, under policy Local', () => {
      const walked = walk(world, {
        service: { externalTrafficPolicy: 'Local' },
        settings: { localDetection: { kind: 'none' } },
      });
      expect(outcomes(walked, ['a pod here', 'a client outside'], EXTERNAL)).toEqual(['local']);
      expect(outcomes(walked, ['the node'], EXTERNAL)).toEqual(['cluster']);
    });

    test('to an address that the node has itself goes the same ways, and is dropped at INPUT', () => {
      const service: ServicePortTweak = {
        externalTrafficPolicy: 'Local',
        loadBalancerIPs: addresses('192.168.77.2', 'fd00:77::2'),
      };
      const dst = PLACES.NodePort[world.family];
      const dport = 80;
      const reachable = walk(world, { service });
      expect(reachable.outcome('a client outside', 'loadBalancerIP', { dst, dport })).toBe('local');
      expect(reachable.outcome('the node', 'loadBalancerIP', { dst, dport })).toBe('cluster');
      const without = walk(world, { service, endpoints: ONLY_ELSEWHERE });
      expect(without.outcome('a client outside', 'loadBalancerIP', { dst, dport })).toBe('drop');
      expect(without.outcome('a pod here', 'loadBalancerIP', { dst, dport })).toBe('cluster');
      const refused = walk(world, { service, endpoints: [] });
      expect(refused.outcome('a client outside', 'loadBalancerIP', { dst, dport })).toBe('tcp-reset');
    });
  });

  describe('source ranges', () => {
    const OF_CLIENTS = { IPv4: cidrs('203.0.113.0/24'), IPv6: cidrs('2001:db8:2::/48') };
    const OF_NODES = { IPv4: cidrs('192.168.0.0/16'), IPv6: cidrs('fd00:77::/64') };

    test('let in whoever is in one, and drop everybody else: pods and the node too', () => {
      const walked = walk(world, { service: { loadBalancerSourceRanges: OF_CLIENTS } });
      expect(outcomes(walked, ['a client outside'], ['loadBalancerIP'])).toEqual(['cluster']);
      const others: readonly Sender[] = ['a pod here', 'a pod elsewhere', 'the node'];
      expect(outcomes(walked, others, ['loadBalancerIP'])).toEqual(['drop']);
    });

    test('say nothing about the clusterIP, externalIPs and NodePorts', () => {
      const walked = walk(world, { service: { loadBalancerSourceRanges: OF_CLIENTS } });
      const others: readonly Place[] = ['clusterIP', 'externalIP', 'NodePort'];
      expect(outcomes(walked, EVERYBODY, others)).toEqual(['cluster']);
    });

    test('hold for an address that is external too', () => {
      const walked = walk(world, {
        service: {
          loadBalancerSourceRanges: OF_CLIENTS,
          loadBalancerIPs: addresses('192.0.2.7', '2001:db8::7'),
        },
      });
      expect(outcomes(walked, ['a client outside'], ['externalIP'])).toEqual(['cluster']);
      expect(outcomes(walked, ['a pod here'], ['externalIP'])).toEqual(['drop']);
    });

    test('that hold the node let it in, also when the address of the load balancer is its source', () => {
      const walked = walk(world, { service: { loadBalancerSourceRanges: OF_NODES } });
      const src = PLACES.loadBalancerIP[world.family];
      expect(walked.outcome('the node', 'loadBalancerIP')).toBe('cluster');
      expect(walked.outcome('the node', 'loadBalancerIP', { src })).toBe('cluster');
      expect(walked.outcome('a client outside', 'loadBalancerIP')).toBe('drop');
    });

    test('that do not hold the node keep it out under either address', () => {
      const walked = walk(world, { service: { loadBalancerSourceRanges: OF_CLIENTS } });
      const src = PLACES.loadBalancerIP[world.family];
      expect(walked.outcome('the node', 'loadBalancerIP')).toBe('drop');
      expect(walked.outcome('the node', 'loadBalancerIP', { src })).toBe('drop');
    });

    test('are asked before policy Local is', () => {
      const service: ServicePortTweak = {
        externalTrafficPolicy: 'Local',
        loadBalancerSourceRanges: OF_CLIENTS,
      };
      const walked = walk(world, { service });
      expect(outcomes(walked, ['a client outside'], ['loadBalancerIP'])).toEqual(['local']);
      expect(outcomes(walked, ['a pod here', 'the node'], ['loadBalancerIP'])).toEqual(['drop']);
      const without = walk(world, { service, endpoints: ONLY_ELSEWHERE });
      expect(outcomes(without, EVERYBODY, ['loadBalancerIP'])).toEqual(['drop']);
    });

    test('of the other family leave this one open', () => {
      const other = world.family === 'IPv4' ? 'IPv6' : 'IPv4';
      const ranges = { IPv4: undefined, IPv6: undefined, [other]: OF_CLIENTS[other] };
      const walked = walk(world, { service: { loadBalancerSourceRanges: ranges } });
      expect(outcomes(walked, EVERYBODY, ['loadBalancerIP'])).toEqual(['cluster']);
    });

    test('that nobody can read let nobody in', () => {
      const walked = walk(world, { service: { loadBalancerSourceRanges: { IPv4: [], IPv6: [] } } });
      expect(outcomes(walked, EVERYBODY, ['loadBalancerIP'])).toEqual(['drop']);
    });

    test('of all addresses let everybody in', () => {
      const everybody = { IPv4: cidrs('0.0.0.0/0'), IPv6: cidrs('::/0') };
      const walked = walk(world, { service: { loadBalancerSourceRanges: everybody } });
      expect(outcomes(walked, EVERYBODY, ['loadBalancerIP'])).toEqual(['cluster']);
    });
  });

  describe('NodePorts', () => {
    const IN_RANGE = cidrs('192.168.0.0/16', 'fd00:77::/64');
    const ELSEWHERE = cidrs('10.0.0.0/8', 'fd00:78::/64');

    test.each<{ name: string; settings: Partial<NodeSettings>; atNode: string; atLoopback: string }>([
      { name: 'on every local address unless told', settings: {}, atNode: 'cluster', atLoopback: 'cluster' },
      {
        name: 'on the local addresses in the ranges alone',
        settings: { nodePortAddresses: IN_RANGE },
        atNode: 'cluster',
        atLoopback: 'untouched',
      },
      {
        name: 'on no address where none is in the ranges',
        settings: { nodePortAddresses: ELSEWHERE },
        atNode: 'untouched',
        atLoopback: 'untouched',
      },
      {
        name: 'on the primary address alone',
        settings: { nodePortAddresses: 'primary' },
        atNode: 'cluster',
        atLoopback: 'untouched',
      },
      {
        name: 'not on loopback where that is switched off',
        settings: { localhostNodePorts: false },
        atNode: 'cluster',
        atLoopback: 'untouched',
      },
    ])('are $name', ({ settings, atNode, atLoopback }) => {
      const walked = walk(world, { settings });
      expect(outcomes(walked, EVERYBODY, ['NodePort'])).toEqual([atNode]);
      expect(outcomes(walked, ['the node'], ['NodePort at loopback'])).toEqual([atLoopback]);
      // Whoever is refused there is refused in the same places.
      const refused = walk(world, { settings, endpoints: [] });
      const expected = (served: string): string => (served === 'cluster' ? 'tcp-reset' : served);
      expect(outcomes(refused, EVERYBODY, ['NodePort'])).toEqual([expected(atNode)]);
      expect(outcomes(refused, ['the node'], ['NodePort at loopback'])).toEqual([expected(atLoopback)]);
    });

    test('leave an address alone that is of another node, also one in the ranges', () => {
      const walked = walk(world, { settings: { nodePortAddresses: IN_RANGE } });
      const dst = world.family === 'IPv4' ? '192.168.77.3' : 'fd00:77::3';
      expect(walked.outcome('a pod here', 'NodePort', { dst })).toBe('untouched');
    });

    test('are not served in their own right where the destination must be known and is not', () => {
      const walked = walk(world, { service: { proxyProtocol: 'v2' } });
      const dst = PLACES.NodePort[world.family];
      const place = dst.includes(':') ? `[${dst}]:30080` : `${dst}:30080`;
      expect(walked.outcome('a client outside', 'NodePort')).toBe(`cluster/${place}`);
      const unknown = world.family === 'IPv4' ? '192.168.78.2' : 'fd00:78::2';
      expect(walked.outcome('a client outside', 'NodePort', { dst: unknown, isDstLocal: true })).toBe(
        'untouched',
      );
    });
  });

  describe('clusterIPs that are not for clients outside', () => {
    const closed = { externalClusterIP: false };

    test('are for this node and its pods, and drop everybody else', () => {
      for (const localDetection of [BY_RANGE, BY_INTERFACE]) {
        const walked = walk(world, { settings: { ...closed, localDetection } });
        expect(outcomes(walked, ['a pod here', 'the node'], ['clusterIP'])).toEqual(['cluster']);
        expect(outcomes(walked, ['a client outside', 'a pod elsewhere'], ['clusterIP'])).toEqual(['drop']);
        expect(outcomes(walked, EVERYBODY, EXTERNAL)).toEqual(['cluster']);
      }
    });

    test('are for everybody where pods cannot be told', () => {
      const walked = walk(world, { settings: { ...closed, localDetection: { kind: 'none' } } });
      expect(outcomes(walked, EVERYBODY, ['clusterIP'])).toEqual(['cluster']);
    });
  });

  describe('health checks', () => {
    const checked: Made = { service: { externalTrafficPolicy: 'Local', healthCheckNodePort: 31_000 } };
    const toCheck = { dst: PLACES.NodePort[world.family], isDstLocal: true, dport: 31_000 };

    test('are let in whatever the firewall’s default is, with endpoints and without', () => {
      for (const endpoints of [HERE_AND_ELSEWHERE, ONLY_ELSEWHERE, []]) {
        const { tracer } = walk(world, { ...checked, endpoints });
        tracer.tables.setPolicy('INPUT', 'DROP');
        const src = SENDERS['a client outside'][world.family];
        expect(tracer.trace('prerouting', makePacket({ src, ...toCheck })).verdict).toBe('accept');
        expect(tracer.trace('prerouting', makePacket({ src, ...toCheck, dport: 31_001 })).verdict).toBe(
          'drop',
        );
        expect(tracer.trace('prerouting', makePacket({ src, ...toCheck, protocol: 'udp' })).verdict).toBe(
          'drop',
        );
      }
    });

    test('are not let in where the Service has none', () => {
      const { tracer } = walk(world, { service: { externalTrafficPolicy: 'Local' } });
      tracer.tables.setPolicy('INPUT', 'DROP');
      const src = SENDERS['a client outside'][world.family];
      expect(tracer.trace('prerouting', makePacket({ src, ...toCheck })).verdict).toBe('drop');
    });

    test('are no concern of packets that only pass through', () => {
      const { tracer } = walk(world, checked);
      const dst = SENDERS['a pod elsewhere'][world.family];
      expect(tracer.trace('forward', makePacket({ dst, dport: 31_000 })).verdict).toBe('none');
    });
  });

  test('each portal whose destination must be known leads to its own listener', () => {
    const walked = walk(world, { service: { proxyProtocol: 'v1', externalTrafficPolicy: 'Local' } });
    for (const place of ['externalIP', 'loadBalancerIP', 'NodePort'] as const) {
      const { dport, [world.family]: address } = PLACES[place];
      const text = address.includes(':') ? `[${address}]:${dport}` : `${address}:${dport}`;
      expect(walked.outcome('a client outside', place)).toBe(`local/${text}`);
      expect(walked.outcome('the node', place)).toBe(`cluster/${text}`);
    }
  });

  test('a packet that conntrack cannot place is dropped on its way to any portal, from whomever', () => {
    const walked = walk(world, { service: { externalTrafficPolicy: 'Local' } });
    const stray = { ctstate: 'INVALID', tcpFlags: ['ACK'] } as const;
    for (const sender of EVERYBODY) {
      for (const place of ['clusterIP', ...EXTERNAL] as const) {
        expect(walked.outcome(sender, place, stray)).toBe('drop');
      }
    }
  });

  test('a connection that exists is left to conntrack', () => {
    const walked = walk(world, { service: { externalTrafficPolicy: 'Local' }, endpoints: ONLY_ELSEWHERE });
    const established = { ctstate: 'ESTABLISHED', tcpFlags: ['ACK'] } as const;
    for (const place of EXTERNAL) {
      expect(walked.outcome('a client outside', place, established)).toBe('untouched');
    }
  });
});

describe('proxy ports on the private address', () => {
  const families = ['IPv4', 'IPv6'] as const;

  test.each(families)('are refused to whoever knocks there directly, in %s', (family) => {
    const walked = walk({ name: '', family, diversion: dnatTo(family) }, {});
    const port = family === 'IPv4' ? 20_001 : 20_002;
    const direct = { dst: CAPTURE_ADDRESSES[family], isDstLocal: true, dport: port };
    expect(walked.tracer.trace('output', makePacket(direct)).verdict).toBe('tcp-reset');
    expect(walked.tracer.trace('prerouting', makePacket(direct)).verdict).toBe('tcp-reset');
    expect(walked.tracer.trace('input', makePacket({ ...direct, tcpFlags: ['ACK'] })).verdict).toBe('drop');
  });

  test.each(families)('leave the same port of another address to whoever has it, in %s', (family) => {
    const walked = walk({ name: '', family, diversion: dnatTo(family) }, {});
    const port = family === 'IPv4' ? 20_001 : 20_002;
    const other = { dst: PLACES.NodePort[family], isDstLocal: true, dport: port };
    expect(walked.tracer.trace('prerouting', makePacket(other)).verdict).toBe('none');
    // Redirected packets come in by any address: there the port is guarded on all.
    const redirected = walk({ name: '', family, diversion: { kind: 'redirect' } }, {});
    expect(redirected.tracer.trace('prerouting', makePacket(other)).verdict).toBe('tcp-reset');
  });
});

test('a NodePort in the same block as another port leaves that one alone', () => {
  const redirectedIPv4: World = { name: '', family: 'IPv4', diversion: { kind: 'redirect' } };
  const local: ServicePort = makeWeb({ externalTrafficPolicy: 'Local', nodePort: 30_081 });
  const walked = new Walked(redirectedIPv4, desiredOf(local, ONLY_ELSEWHERE, { node: makeNodeInfo() }));
  expect(walked.outcome('a client outside', 'NodePort')).toBe('untouched');
  expect(walked.outcome('a client outside', 'NodePort', { dport: 30_081 })).toBe('drop');
});
