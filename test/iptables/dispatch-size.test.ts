/** Two-level dispatch: how many rules a packet meets on a node with ten thousand Services. */
import { describe, expect, test } from 'vitest';
import type { ChainName, TableRules } from '../../src/iptables/rule.ts';
import { makeService, makeSlice } from '../support/objects.ts';
import { type PacketTracer, makePacket, tracerOf } from '../support/packet-tracer.ts';
import { Random } from '../support/random.ts';
import { OWN_NODE, desiredFrom, firstLoadOf, ruleSetOf } from '../support/rule-fixture.ts';

/** Whoever loads so many rules on a busy machine takes his time. */
const TIMEOUT_MS = 30_000;

const SERVICES = 10_000;
const NODE_PORTS = 2000;
/** What an API server with --service-cluster-ip-range=10.96.0.0/16 gives out: any of the range. */
const CLUSTER_IPS = new Random(1)
  .shuffled(
    Array.from({ length: 65_000 }, (_, index) => `10.96.${Math.floor(index / 254)}.${(index % 254) + 1}`),
  )
  .slice(0, SERVICES);

function build(hasEndpoints = true): { nat: TableRules; filter: TableRules; tracer: PacketTracer } {
  const services = CLUSTER_IPS.map((clusterIP, index) =>
    makeService(`s${index}`, ({ spec }) => {
      spec.clusterIP = clusterIP;
      spec.ports = [{ name: 'http', port: 80, ...(index < NODE_PORTS ? { nodePort: 30_000 + index } : {}) }];
    }),
  );
  const slices = hasEndpoints ? services.map((_, index) => makeSlice(`s${index}`, ['10.244.1.1'])) : [];
  const rules = ruleSetOf(desiredFrom(services, slices));
  return { nat: rules.nat, filter: rules.filter, tracer: tracerOf(firstLoadOf(rules)) };
}

describe(`with ${SERVICES} Services, ${NODE_PORTS} of them with a NodePort`, () => {
  const { nat, filter, tracer } = build();
  const passed = (hook: 'prerouting' | 'output' | 'forward', dst: string, tweak = {}): number => {
    const { rulesPassed } = tracer.trace(hook, makePacket({ dst, ...tweak }));
    return rulesPassed;
  };

  test('a packet to a Service meets a few hundred rules at most, the guard of its proxy port included', () => {
    const random = new Random(2);
    const most = Math.max(
      ...Array.from({ length: 500 }, () => passed('prerouting', random.pick(CLUSTER_IPS))),
    );
    expect(most).toBeLessThan(700);
    expect(most).toBeGreaterThan(2);
  });

  test('a packet to a NodePort meets a few hundred', () => {
    const local = { isDstLocal: true };
    for (const dport of [30_000, 30_999, 30_000 + NODE_PORTS - 1]) {
      expect(passed('prerouting', '192.168.77.2', { ...local, dport })).toBeLessThan(700);
    }
  });

  test('a packet that is none of ours meets one rule for each prefix, and a handful more', () => {
    const prefixes = new Set(CLUSTER_IPS.map((address) => address.slice(0, address.lastIndexOf('.')))).size;
    expect(passed('prerouting', '198.51.100.1')).toBeLessThanOrEqual(prefixes + 10);
    expect(passed('output', '198.51.100.1')).toBeLessThanOrEqual(prefixes + 10);
  });

  test('an established connection meets the jumps of filter and nothing else', () => {
    expect(passed('forward', CLUSTER_IPS[0] ?? '', { ctstate: 'ESTABLISHED' })).toBe(1);
    expect(passed('prerouting', CLUSTER_IPS[0] ?? '', { ctstate: 'ESTABLISHED' })).toBe(1);
  });

  test.each([
    { name: 'nat', table: nat },
    { name: 'filter', table: filter },
  ])('no chain of $name has more than 260 rules, and no second-level chain jumps on', ({ table }) => {
    const firstLevel: readonly ChainName[] = [
      'USERSPACE-PROXY-SERVICES',
      'USERSPACE-PROXY-NODEPORTS',
      'USERSPACE-PROXY-INPUT',
      'USERSPACE-PROXY-FORWARD',
      'USERSPACE-PROXY-INVALID',
      'USERSPACE-PROXY-NO-ENDPT',
      'USERSPACE-PROXY-NO-ENDPT-X',
      'USERSPACE-PROXY-NO-ENDPT-XN',
    ];
    for (const [chain, rules] of table.chains) {
      expect({ chain, isSmall: rules.length <= 260 }).toEqual({ chain, isSmall: true });
      if (firstLevel.includes(chain)) continue;
      const jumps = rules.flatMap(({ target }) => (target.kind === 'jump' ? [target.chain] : []));
      expect(jumps.filter((target) => target !== 'USERSPACE-PROXY-REFUSE')).toEqual([]);
    }
  });
});

test(`with ${SERVICES} Services that all have no endpoints a new packet still meets a few hundred rules at most`, {
  timeout: TIMEOUT_MS,
}, () => {
  const { tracer } = build(false);
  const passed = (dst: string): number => tracer.trace('forward', makePacket({ dst })).rulesPassed;
  expect(passed('198.51.100.1')).toBeLessThan(300);
  expect(passed(CLUSTER_IPS.at(-1) ?? '')).toBeLessThan(700);
});

test('policy Local and source ranges cost a packet few rules, however many Services have them', {
  timeout: TIMEOUT_MS,
}, () => {
  const tracerWith = (isLocal: boolean): PacketTracer => {
    const services = CLUSTER_IPS.slice(0, 1000).map((clusterIP, index) => {
      const service = makeService(`s${index}`, ({ spec }) => {
        spec.clusterIP = clusterIP;
        if (!isLocal) return;
        spec.externalTrafficPolicy = 'Local';
        spec.loadBalancerSourceRanges = ['203.0.0.0/24', '203.0.1.0/24', '203.0.2.0/24'];
      });
      const ip = `198.51.${Math.floor(index / 250)}.${(index % 250) + 1}`;
      service.status = { loadBalancer: { ingress: [{ ip }] } };
      return service;
    });
    const slices = services.map((_, index) =>
      makeSlice(`s${index}`, ['10.244.1.1'], (slice) => {
        for (const endpoint of slice.endpoints ?? []) endpoint.nodeName = OWN_NODE;
      }),
    );
    return tracerOf(firstLoadOf(ruleSetOf(desiredFrom(services, slices))));
  };
  const passed = (tracer: PacketTracer): readonly number[] =>
    [0, 1, 2, 3].map((block) => {
      const packet = makePacket({ src: '203.0.2.9', dst: `198.51.${block}.250` });
      const { deliveredTo, rulesPassed } = tracer.trace('prerouting', packet);
      expect(deliveredTo).toBeDefined();
      return rulesPassed;
    });
  const plain = passed(tracerWith(false));
  const extra = passed(tracerWith(true)).map((count, index) => count - (plain[index] ?? 0));
  // The ranges and the senders, and a guard of twice as many proxy ports: a block of it, and the jumps to its blocks.
  expect(Math.max(...extra)).toBeLessThan(6 + 128 + 20);
});
