/** How rules are spread over small chains: what shares a chain, what the chains are called, and in which order. */
import { describe, expect, test } from 'vitest';
import {
  type AddressedRule,
  type Dispatch,
  type PortPurpose,
  type PortRule,
  chainNamedBy,
  dispatchByPort,
  dispatchByPrefix,
} from '../../src/iptables/dispatch.ts';
import { CHAIN_PREFIX, type Rule, renderRuleSpec } from '../../src/iptables/rule.ts';
import { parseIpAddress } from '../../src/model/address.ts';
import type { Protocol } from '../../src/model/service-port-name.ts';

function ruleOf(comment: string): Rule {
  return { comment, target: { kind: 'accept' } };
}

function at(text: string): AddressedRule {
  const address = parseIpAddress(text);
  if (address === undefined) throw new Error(`no address: ${text}`);
  return { address, rule: ruleOf(text) };
}

function onPort(protocol: Protocol, port: number): PortRule {
  return { protocol, port, rules: [ruleOf(`${protocol} ${port}`)] };
}

/** By chain without prefix, the comments of its rules. */
function contentOf({ chains }: Dispatch): Record<string, readonly string[]> {
  return Object.fromEntries(
    [...chains].map(([chain, rules]) => [
      chain.slice(CHAIN_PREFIX.length),
      rules.map(({ comment }) => comment),
    ]),
  );
}

function jumpTexts({ jumps }: Dispatch, family: 'IPv4' | 'IPv6' = 'IPv4'): readonly string[] {
  return jumps.map((rule) => renderRuleSpec(rule, family));
}

describe('by prefix', () => {
  test('256 IPv4 addresses share a chain that has their prefix for its name', () => {
    const dispatch = dispatchByPrefix('', [at('10.96.1.0'), at('10.96.0.255'), at('10.96.1.255')]);
    expect(contentOf(dispatch)).toEqual({
      '10.96.0': ['10.96.0.255'],
      '10.96.1': ['10.96.1.0', '10.96.1.255'],
    });
    expect(jumpTexts(dispatch)).toEqual([
      '-d 10.96.0.0/24 -m comment --comment "addresses in 10.96.0.0/24" -j USERSPACE-PROXY-10.96.0',
      '-d 10.96.1.0/24 -m comment --comment "addresses in 10.96.1.0/24" -j USERSPACE-PROXY-10.96.1',
    ]);
  });

  test('256 IPv6 addresses share a chain that has the hash of their prefix for its name', () => {
    const dispatch = dispatchByPrefix('', [at('fd00:96::'), at('fd00:96::ff'), at('fd00:96::100')]);
    expect(Object.values(contentOf(dispatch))).toEqual([['fd00:96::', 'fd00:96::ff'], ['fd00:96::100']]);
    expect(Object.keys(contentOf(dispatch)).every((name) => /^[0-9a-f]{12}$/.test(name))).toBe(true);
    expect(jumpTexts(dispatch, 'IPv6').map((text) => text.split(' -m ')[0])).toEqual([
      '-d fd00:96::/120',
      '-d fd00:96::100/120',
    ]);
  });

  test('sets of one table do not meet, and their names fit', () => {
    const names = (['', 'R', 'X'] as const).flatMap((set) =>
      Object.keys(contentOf(dispatchByPrefix(set, [at('223.255.255.1'), at('fd00::1')]))),
    );
    expect(new Set(names).size).toBe(6);
    expect(names.filter((name) => name.length > 12)).toEqual([]);
  });

  test('of nothing is nothing', () => {
    expect(dispatchByPrefix('', [])).toEqual({ jumps: [], chains: new Map() });
  });
});

describe('by port', () => {
  test('64 ports of a protocol share a chain that has the first one in its name', () => {
    const dispatch = dispatchByPort('NP', [
      onPort('TCP', 30_079),
      onPort('TCP', 30_080),
      onPort('UDP', 30_016),
    ]);
    expect(contentOf(dispatch)).toEqual({
      'NP-T30016': ['TCP 30079'],
      'NP-T30080': ['TCP 30080'],
      'NP-U30016': ['UDP 30016'],
    });
    expect(jumpTexts(dispatch)).toEqual([
      '-p tcp -m comment --comment "ports 30016 to 30079" -m tcp --dport 30016:30079 -j USERSPACE-PROXY-NP-T30016',
      '-p tcp -m comment --comment "ports 30080 to 30143" -m tcp --dport 30080:30143 -j USERSPACE-PROXY-NP-T30080',
      '-p udp -m comment --comment "ports 30016 to 30079" -m udp --dport 30016:30079 -j USERSPACE-PROXY-NP-U30016',
    ]);
  });

  test.each([
    { port: 1, block: '0:63' },
    { port: 65_535, block: '65472:65535' },
  ])('no block goes beyond the ports that there are: $port', ({ port, block }) => {
    expect(jumpTexts(dispatchByPort('G', [onPort('TCP', port)]))[0]).toContain(`--dport ${block} `);
  });

  test('purposes of one table do not meet, and their names fit', () => {
    const purposes: readonly PortPurpose[] = ['NP', 'RNP', 'XNP', 'G', 'H'];
    const names = purposes.flatMap((purpose) =>
      Object.keys(contentOf(dispatchByPort(purpose, [onPort('TCP', 65_535), onPort('UDP', 65_535)]))),
    );
    expect(new Set(names).size).toBe(10);
    expect(names.filter((name) => name.length > 12)).toEqual([]);
  });

  test('rules of one port stay together and in order', () => {
    const rules = [ruleOf('first'), ruleOf('second')];
    const dispatch = dispatchByPort('G', [{ protocol: 'TCP', port: 20_001, rules }, onPort('TCP', 20_000)]);
    expect(Object.values(contentOf(dispatch))).toEqual([['first', 'second', 'TCP 20000']]);
  });
});

describe('a chain that is named by what it is for', () => {
  test('is called the same each time, and otherwise for anything else', () => {
    const keys = Array.from({ length: 5000 }, (_, index) => `default/s${index}/TCP/20001/20002`);
    const names = keys.map((key) => chainNamedBy('E', key));
    expect(names).toEqual(keys.map((key) => chainNamedBy('E', key)));
    expect(new Set(names).size).toBe(keys.length);
    expect(chainNamedBy('F', 'a')).not.toBe(chainNamedBy('E', 'a'));
  });

  test('has a name that iptables takes, and that no prefix of addresses can have', () => {
    const name = chainNamedBy('E', 'x'.repeat(10_000));
    expect(name).toMatch(/^USERSPACE-PROXY-E[0-9a-f]{11}$/);
    expect(name.length).toBeLessThanOrEqual(28);
  });
});
