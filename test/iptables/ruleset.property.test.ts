/**
 * Rules of random clusters, as text: sound by themselves, the same whatever the order, safe against whatever a comment
 * says. (That they do with every packet what their objects ask for is intent.test.ts; that an update ends where a first
 * load does is intent-updates.test.ts.)
 */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type DesiredState, buildDesiredState } from '../../src/desired/desired-state.ts';
import type { Portal } from '../../src/desired/portal.ts';
import {
  CHAIN_PREFIX,
  type ChainName,
  type Rule,
  type TableRules,
  renderRuleSpec,
} from '../../src/iptables/rule.ts';
import { buildRuleSet } from '../../src/iptables/ruleset.ts';
import { renderTableText } from '../../src/iptables/table-text.ts';
import { snapshotFromObjects } from '../../src/model/snapshot.ts';
import { parseRule } from '../support/netfilter-rule.ts';
import { makePacket, tracerOf } from '../support/packet-tracer.ts';
import { type ProbeWorld, randomWorld } from '../support/probe-world.ts';
import { holds } from '../support/property.ts';
import { Random } from '../support/random.ts';
import { randomClusterState } from '../support/random-cluster.ts';
import { makeNodeView, proxyPortsOf } from '../support/rule-fixture.ts';

const FAMILIES = ['IPv4', 'IPv6'] as const;
/** The kernel's (XT_EXTENSION_MAXNAMELEN, with the zero at its end). */
const MAX_CHAIN_NAME = 28;

const seeds = fc.integer({ min: 1, max: 2 ** 31 });

function jumpsOf(rules: readonly Rule[]): readonly ChainName[] {
  return rules.flatMap(({ target }) => (target.kind === 'jump' ? [target.chain] : []));
}

function tablesOf({ ruleSets }: ProbeWorld): readonly TableRules[] {
  return FAMILIES.flatMap((family) => [ruleSets[family].nat, ruleSets[family].filter]);
}

describe('the chains of a table', () => {
  test('lead to none that is not there, and never back to where they came from', () => {
    holds(
      seeds,
      (seed) => {
        const world = randomWorld(seed);
        for (const { hooks, chains } of tablesOf(world)) {
          const reached = new Set<string>();
          const visit = (chain: ChainName, way: readonly ChainName[]): void => {
            const rules = chains.get(chain);
            if (rules === undefined) throw new Error(`there is no ${chain}, to which ${way.at(-1)} leads`);
            if (way.includes(chain)) throw new Error([...way, chain].join(' leads to '));
            if (reached.has(chain)) return;
            reached.add(chain);
            for (const next of jumpsOf(rules)) visit(next, [...way, chain]);
          };
          const entries = jumpsOf(hooks.map(({ rule }) => rule));
          for (const chain of [...entries, ...chains.keys()]) visit(chain, []);
          for (const chain of jumpsOf(hooks.map(({ rule }) => rule))) visit(chain, []);
        }
      },
      100,
    );
  });

  test('have names of ours that the kernel takes', () => {
    holds(
      seeds,
      (seed) => {
        const world = randomWorld(seed);
        for (const { chains } of tablesOf(world)) {
          for (const chain of chains.keys()) {
            expect(chain.startsWith(CHAIN_PREFIX)).toBe(true);
            expect(chain.length).toBeLessThanOrEqual(MAX_CHAIN_NAME);
            expect(chain).toMatch(/^[A-Z0-9a-f.:-]+$/);
          }
        }
      },
      100,
    );
  });
});

function textOf(desired: DesiredState, order: Random): string {
  const { proxyPorts, guardedPorts } = proxyPortsOf(desired);
  return FAMILIES.map((family) => {
    const rules = buildRuleSet(family, {
      capture: desired.capture,
      proxyPorts: new Map(order.shuffled([...proxyPorts])),
      guardedPorts: order.shuffled(guardedPorts),
      diversion: { kind: 'redirect' },
    });
    const texts = [rules.nat, rules.filter].map((table) => renderTableText(table, family));
    return JSON.stringify(texts.map(({ hooks, chains }) => [hooks, [...chains]]));
  }).join('\n');
}

test('the text is the same in whatever order objects, listeners and proxy ports come', () => {
  holds(
    fc.tuple(seeds, seeds),
    ([seed, order]) => {
      const { services, endpointSlices } = randomClusterState(new Random(seed));
      const random = new Random(order);
      const [one, other] = [
        { services, endpointSlices },
        { services: random.shuffled(services), endpointSlices: random.shuffled(endpointSlices) },
      ].map((objects) => textOf(buildDesiredState(snapshotFromObjects(objects), makeNodeView()), random));
      expect(other).toBe(one);
    },
    150,
  );
});

describe('a comment, whatever it says,', () => {
  const character = fc.oneof(
    fc.constantFrom(
      '"',
      "'",
      '\\',
      '\n',
      '\r',
      '\0',
      '\t',
      '\u2028',
      '\u{1F984}',
      ' -j ACCEPT',
      'COMMIT',
      '#',
    ),
    fc.string({ unit: 'binary', minLength: 1, maxLength: 3 }),
  );
  const comments = fc.array(character, { maxLength: 300 }).map((parts) => parts.join(''));

  test('is one word of one line, no longer than the kernel takes, and the rule does what it did', () => {
    holds(comments, (comment) => {
      const rule: Rule = {
        destination: '10.96.0.10/32',
        protocol: 'TCP',
        destinationPort: 80,
        comment,
        target: { kind: 'drop' },
      };
      const spec = renderRuleSpec(rule, 'IPv4');
      // Printable ASCII and nothing else: no line ends, and bytes are characters.
      expect(spec).toMatch(/^[ -~]*$/);
      const parsed = parseRule(spec, { table: 'filter', chain: `${CHAIN_PREFIX}X`, family: 4 });
      expect(parsed.verdict).toEqual({ kind: 'drop' });
      expect(parsed.comment?.length ?? 0).toBeLessThanOrEqual(255);
      expect(parsed.comment).toHaveLength(Math.min(255, comment.length));
      const packet = makePacket({ dst: '10.96.0.10', dport: 80 });
      expect([parsed.matches(packet), parsed.matches({ ...packet, dport: 81 })]).toEqual([true, false]);
    });
  });
});

/** `to <port>`, each that its target may mean for somebody who comes from outside or from a pod. */
function allowedFates({ target }: Portal, portByListener: ReadonlyMap<string, number>): readonly string[] {
  const to = (listener: string | undefined): string =>
    listener === undefined ? 'drop' : `to ${portByListener.get(listener)}`;
  switch (target.kind) {
    case 'listener':
      return [to(target.listener)];
    case 'split':
      return [to(target.inside), to(target.outside)];
    case 'drop':
      return ['drop'];
    case 'reject':
      return ['tcp-reset', 'port-unreachable'];
  }
}

test('every portal elsewhere than on the node is diverted, rejected or dropped: one of them, as its target says', () => {
  holds(
    seeds,
    (seed) => {
      const world = randomWorld(seed);
      for (const family of FAMILIES) {
        const tracer = tracerOf(world.rules[family], family === 'IPv4' ? 4 : 6);
        for (const portal of world.desired.capture.portals) {
          const { kind, address, port, protocol } = portal;
          if (kind === 'nodePort' || portal.family !== family || world.localAddresses.includes(address))
            continue;
          const src = family === 'IPv4' ? '192.168.77.9' : 'fd00:77::9';
          const packet = makePacket({
            src,
            dst: address,
            dport: port,
            protocol: protocol === 'TCP' ? 'tcp' : 'udp',
            inInterface: 'eth0',
          });
          const { verdict, deliveredTo } = tracer.trace('prerouting', packet);
          const fate = deliveredTo === undefined ? verdict : `to ${deliveredTo.port}`;
          const isFenced = kind === 'loadBalancerIP' && portal.allowedSources !== undefined;
          const allowed = [...allowedFates(portal, world.portByListener), ...(isFenced ? ['drop'] : [])];
          expect(allowed).toContain(fate);
        }
      }
    },
    100,
  );
});
